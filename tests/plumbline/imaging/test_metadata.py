"""metadata.csv is read as people write it, and each row finds its picture where there is no doubt which."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from PIL import Image

from plumbline.common.errors import UserError
from plumbline.imaging.collection import DataParams, list_images
from plumbline.imaging.metadata import Metadata, find_table, match, parse_table, said


def parse(text: str | bytes) -> Metadata:
    content = text if isinstance(text, bytes) else text.encode()
    return parse_table(content, "metadata.csv", ("path", "label", "width"))


def rows_of(text: str | bytes) -> dict[str, dict[str, str | None]]:
    return parse(text).rows


def fits(rows: list[str], names: list[str], **how) -> dict[str, str]:
    """Picture -> row, for rows that all say something else."""
    return match(Metadata({row: {"video": str(k)} for k, row in enumerate(rows)}), names, **how).of


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_separators_are_told_by_the_header(mark):
    text = mark.join(["path", "label", "video"]) + "\n" + mark.join(["a.jpg", "cat", "v1"]) + "\n"
    assert rows_of(text) == {"a.jpg": {"label": "cat", "video": "v1"}}
    word = {";": "semicolons", "\t": "tabs", "|": "bars"}.get(mark)
    assert list(parse(text).notes) == ([f"metadata.csv is separated by {word}"] if word else [])


def test_several_labels_in_a_cell_do_not_make_a_semicolon_the_separator():
    assert rows_of("path,label\na.jpg,cat;dog\n") == {"a.jpg": {"label": "cat;dog"}}
    assert rows_of('path;label\na.jpg;"cat;dog"\n') == {"a.jpg": {"label": "cat;dog"}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_what_spreadsheets_write(encoding):
    text = 'sep=;\r\npath;photo;;\r\n;;;\r\n" a.jpg ";pâ;;\r\n\r\n ; ;;\r\n'
    assert rows_of(text.encode(encoding)) == {"a.jpg": {"photo": "pâ"}}
    assert rows_of("path,тест\nб.jpg,в\n".encode(encoding)) == {"б.jpg": {"тест": "в"}}
    assert rows_of("path,photo\na.jpg,pâ\n".encode(encoding)) == {"a.jpg": {"photo": "pâ"}}


@pytest.mark.parametrize("first", ["", "Unnamed: 0"])
def test_the_row_numbers_of_pandas_are_no_column(first):
    assert rows_of(f"{first},path,photo\n0,a.jpg,p\n1,b.jpg,q\n") == {"a.jpg": {"photo": "p"}, "b.jpg": {"photo": "q"}}
    assert "Unnamed: 0" in rows_of("Unnamed: 0,path\n7,a.jpg\n")["a.jpg"], "other numbers may mean something"


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("path,Label", ["label"]),
        (" PATH ,LABEL,Captured At", ["label", "captured_at"]),
        ("File Name,Video-ID,capturedAt", ["video", "captured_at"]),
        ("file_name,person id,PHOTO", ["person", "photo"]),
        ("path,video,video_id", ["video", "video_id"]),
        ("path,Helmet Colour", ["Helmet Colour"]),
    ],
)
def test_other_spellings_of_known_columns_are_known_and_said(header, columns):
    table = parse(f"{header}\na.jpg,{','.join('x' * len(columns))}\n")
    assert list(table.rows["a.jpg"]) == columns
    renamed = [own.strip() for own in header.split(",") if own.strip() not in ["path", *columns]]
    assert [name for name in renamed if not any(f"`{name}` is read as" in note for note in table.notes)] == []


def test_what_may_be_a_known_column_is_named_and_not_taken():
    table = parse("path,class,timestamp\na.jpg,cat,2026\n")
    assert table.rows["a.jpg"] == {"class": "cat", "timestamp": "2026"}
    assert [note for note in table.notes if "no column `label`, but `class`" in note]
    assert [note for note in table.notes if "no column `captured_at`, but `timestamp`" in note]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" , ,\n\n", "no column `path`"),
        ("file;label\na;b\n", "no column `path` but file, label: rename `file` if"),
        ("path,photo\na,1\n./a,2\n", "two rows for a that differ"),
        ("path,photo\na\n", "row 2: 1 values under 2"),
        ("path,photo\n\na,1,2\n", "row 3: 3 values under 2"),
        ("path,Video,VIDEO\na,1,2\n", "columns Video and VIDEO, and only one can be `video`"),
        ("path,width\na,3\n", "column 'width'"),
        ("path,,photo\na,1,2\n", "without a name"),
        ('path,a\n"a,3\n', "no CSV file"),
        ("path,a\na,ü\n".encode("latin-1"), "no CSV file in UTF-8"),
        (b"PK\x03\x04rest", "spreadsheet"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "Git LFS pointer"),
        ("\ufeff\n<!DOCTYPE html><html></html>", "web page, XML or JSON"),
        ('[{"path": "a.jpg"}]', "web page, XML or JSON"),
    ],
)
def test_what_is_no_table_is_one_sentence(text, message):
    with pytest.raises(UserError, match=r"^metadata\.csv") as found:
        parse(text)
    assert message in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "row",
    [
        "cam1/Bild ä.jpg",
        "./cam1//Bild ä.jpg",
        "cam1\\Bild ä.jpg",
        ".\\cam1\\Bild ä.jpg",
        "CAM1/BILD Ä.JPG",
        unicodedata.normalize("NFD", "cam1/Bild ä.jpg"),
        "GATE/cam1/Bild ä.jpg",
        "gate\\cam1\\bild ä.jpg",
        "incoming/GATE/cam1/Bild ä.jpg",
        "/srv/incoming/GATE/cam1/Bild ä.jpg",
        "C:\\Users\\eva\\GATE\\cam1\\Bild ä.jpg",
        "somewhere/else/cam1/Bild ä.jpg",
        "Bild ä.jpg",
        "GATE/Bild ä.jpg",
    ],
)
def test_one_picture_under_many_names(row):
    table = Metadata({row: {"video": "v"}})
    found = match(table, ["cam1/Bild ä.jpg", "cam2/other.jpg"], own=["GATE"])
    assert found.of == {"cam1/Bild ä.jpg": row}
    assert found.unmatched == {}
    assert bool(said("metadata.csv", table, found)) == (row != "cam1/Bild ä.jpg"), "a guess is said"


def test_what_fits_two_pictures_or_whose_picture_two_rows_fit_is_not_guessed():
    assert fits(["a.jpg"], ["x/a.jpg", "y/a.jpg"]) == {}
    assert fits(["A.JPG"], ["a.jpg", "a.JPG"]) == {}
    assert fits(["p/a.jpg", "q/a.jpg"], ["a.jpg"]) == {}
    assert fits(["../a.jpg", "..\\a.jpg", "b.jpg", "a.jpg.jpg"], ["a.jpg"]) == {}
    found = match(Metadata({"a.jpg": {"video": "1"}}), ["x/a.jpg", "y/a.jpg"])
    assert found.unmatched == {"a.jpg": "it fits x/a.jpg and y/a.jpg alike"}


def test_the_closer_way_to_write_a_path_wins_and_the_other_row_is_said():
    table = Metadata({"A.jpg": {"video": "1"}, "a.jpg": {"video": "2"}, "GATE/a.jpg": {"video": "2"}})
    found = match(table, ["a.jpg"], own=["GATE"])
    assert found.of == {"a.jpg": "a.jpg"}
    assert list(found.unmatched) == ["A.jpg"], "what says the same is no loss"
    assert said("m.csv", table, found)[-1].startswith("1 of 3 rows of m.csv match no picture (the first: A.jpg:")


def test_a_table_of_all_sites_serves_each_with_its_own_rows():
    rows = [f"{site}/{k}.jpg" for site in ("GATE", "YARD", "DOCK") for k in range(3)]
    found = fits(rows, [f"{k}.jpg" for k in range(3)], own=["YARD"], others=["GATE", "DOCK"])
    assert found == {f"{k}.jpg": f"YARD/{k}.jpg" for k in range(3)}
    assert fits(rows[:3], [f"{k}.jpg" for k in range(3)], own=["YARD"], others=["GATE", "DOCK"]) == {}


def test_rows_without_a_path_are_counted_and_named_by_their_line():
    table = parse("path,video\na.jpg,v1\n,v2\n")
    found = match(table, ["a.jpg"])
    assert list(found.unmatched) == ["(row 3, without a path)"]


def test_the_table_is_found_in_another_case_and_named_in_another_format():
    assert find_table(["a.jpg", "metadata.csv", "Metadata.CSV"], "metadata.csv") == ("metadata.csv", [])
    assert find_table(["Metadata.CSV"], "metadata.csv")[0] == "Metadata.CSV"
    assert find_table(["Metadata.CSV", "METADATA.csv"], "metadata.csv")[0] is None
    name, notes = find_table(["a.jpg", "metadata.xlsx", "metadata.tsv"], "metadata.csv")
    assert name is None
    assert notes == [
        "metadata.tsv is not read: save it as CSV, as metadata.csv",
        "metadata.xlsx is not read: save it as CSV, as metadata.csv",
    ]


def test_a_lock_of_a_spreadsheet_is_no_table():
    assert find_table(["~$metadata.xlsx", "~$metadata.csv", "._metadata.csv"], "metadata.csv") == (None, [])


@pytest.mark.parametrize("time", ["31.03.2026", "2026:01:02 10:00:00", "1774958700", "2026-13-45", "2026-03-31T24:00"])
def test_a_time_that_is_none_is_said_wherever_a_table_is_read(time):
    table = parse(f"path,captured_at\na.jpg,2026-03-31T14:05:00Z\nb.jpg,{time}\nc.jpg,\n")
    (line,) = said("metadata.csv", table, match(table, ["a.jpg", "b.jpg", "c.jpg"]))
    assert f"1 of 3 rows of metadata.csv have a captured_at that is no time in ISO 8601 (the first: {time} of" in line


@pytest.mark.parametrize("name", ["meta_data.csv", "metadata (1).csv", "Metadata - Copy.CSV", "metadata.csv.txt"])
def test_a_table_that_is_called_nearly_so_is_mentioned(name):
    found, notes = find_table(["a.jpg", name], "metadata.csv")
    assert found is None
    assert notes == [f"{name} is not read: save it as CSV, as metadata.csv"]
    assert find_table(["metadata_of_the_camera.txt", "labels.csv", "data.csv"], "metadata.csv") == (None, [])


@pytest.mark.parametrize(
    "written",
    ["\u202aC:\\data\\cat\\a b.jpg", "'cat/a b.jpg'", "\ufeffcat/a b.jpg", "cat/a%20b.jpg", "cat/a\u200e b.jpg"],
)
def test_a_path_is_known_through_marks_quotes_and_escapes(written):
    assert match(Metadata({written: {"photo": "p"}}), ["cat/a b.jpg", "dog/b.jpg"]).of == {"cat/a b.jpg": written}


def test_a_name_that_holds_a_percent_is_itself_first():
    found = match(Metadata({"a%20b.jpg": {"photo": "p"}}), ["a b.jpg", "a%20b.jpg"])
    assert found.of == {"a%20b.jpg": "a%20b.jpg"}


def test_a_second_mark_spaces_before_quotes_and_the_end_of_a_dos_file():
    content = '\ufeff\ufeffpath, photo\na.jpg, "p, 1"\n\x1a'.encode()
    assert parse_table(content, "metadata.csv", ()).rows == {"a.jpg": {"photo": "p, 1"}}


def test_a_header_without_rows_is_said():
    assert "has a header and not one row" in parse_table(b"path,photo\n", "metadata.csv", ()).notes[0]


def test_a_path_with_a_line_break_stays_on_one_line():
    table = Metadata({"a\nb.jpg": {}})
    (line,) = said("metadata.csv", table, match(table, ["c.jpg"]))
    assert "a\\nb.jpg" in line
    assert "\n" not in line


def test_ingest_takes_such_a_table_and_says_what_it_did(tmp_path, capsys):
    for name in ("cat/0.png", "cat/1.png", "dog/2.png"):
        path = tmp_path / "photographs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path)
    root = tmp_path / "photographs"
    (root / "Metadata.csv").write_text(
        "Path;Label;Video\nphotographs\\CAT\\0.PNG;cat;v1\ncat\\1.png;;v1\n;;\ndog\\gone.png;dog;v2\n"
    )
    found = list_images(DataParams(root=root))
    assert found.images["video"].tolist() == ["v1", "v1", None]
    assert [(one.path, one.kind) for one in found.refused] == [("dog\\gone.png", "missing")]
    told = capsys.readouterr().err
    for words in (
        "Metadata.csv is read as metadata.csv",
        "separated by semicolons",
        "`Label` is read as `label`",
        "2 of 3 rows of metadata.csv write their path in another way",
        "1 of 3 rows of metadata.csv match no",
    ):
        assert words in told
