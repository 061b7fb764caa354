import hashlib
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from plumbline.common.errors import UserError
from plumbline.common.parallel import in_order, in_order_by_processes
from plumbline.imaging.collection import list_images
from plumbline.imaging.decode import DecodeError
from plumbline.imaging.layouts.yolo import box_pixels, parse_box
from plumbline.imaging.pictures import source_of
from plumbline.imaging.reading import iter_rgb, load_rgb
from plumbline.imaging.settings import ArrayParams, DataParams, YoloParams


def draw(path: Path, colour=(200, 30, 30), size=(40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def data(tmp_path):
    for label in ("cat", "dog"):
        for number in range(2):
            draw(tmp_path / "data" / label / f"{number}.png")
    return DataParams(root=tmp_path / "data")


def listed(params) -> dict[str, str]:
    images = list_images(params).images
    return dict(zip(images["path"], images["label"], strict=True))


def refused(params) -> dict[str, tuple[str, str]]:
    return {one.path: (one.kind, one.reason) for one in list_images(params).refused}


def write_metadata(params, text: str) -> None:
    (params.root / "metadata.csv").write_text(text, encoding="utf-8")


def lay(root: Path, *names: str) -> DataParams:
    for name in names:
        draw(root / name)
    return DataParams(root=root)


# ------------------------------------------------------------------------------------------------ a folder per class


HASHES = ["0123456789abcdef" * 2, "fedcba9876543210" * 2, "00000000000000001111111111111111"]


def test_copies_that_roboflow_augmented_are_of_one_photograph(tmp_path, capsys):
    a, b, c = (f"_jpg.rf.{one}.jpg" for one in HASHES)
    params = lay(tmp_path, f"cat/x{a}", f"cat/x{b}", f"dog/x{c}", "dog/own.jpg")
    photos = list_images(params).images.set_index("path")["photo"]
    assert photos.to_dict() == {
        f"cat/x{a}": "cat/x_jpg",
        f"cat/x{b}": "cat/x_jpg",
        f"dog/x{c}": "dog/x_jpg",
        "dog/own.jpg": None,
    }
    assert "3 pictures are copies that Roboflow made of 2 photographs" in capsys.readouterr().err
    write_metadata(params, f"path,photo\ncat/x{a},roll 7\n")
    photos = list_images(params).images.set_index("path")["photo"]
    assert photos[[f"cat/x{a}", f"cat/x{b}"]].tolist() == ["roll 7", "cat/x_jpg"]


def test_roboflows_names_alone_tie_nothing(tmp_path, capsys):
    params = lay(tmp_path, *(f"cat/{one[:4]}_jpg.rf.{one}.jpg" for one in HASHES))
    assert "photo" not in list_images(params).images
    assert capsys.readouterr().err == ""


def test_boxes_of_copies_that_roboflow_augmented_are_of_one_photograph(yolo):
    for one in HASHES[:2]:
        draw(yolo.root / f"q_jpg.rf.{one}.jpg")
        (yolo.root / f"q_jpg.rf.{one}.txt").write_text("0 0.5 0.5 1 1\n")
    assert list_images(yolo).images["photo"].tolist() == ["p1", "p1", "q_jpg", "q_jpg"]


@pytest.mark.parametrize("name", ["labels.csv", "labels.txt", "train_labels.csv", "Annotations.xlsx", "train.csv"])
def test_a_table_of_labels_by_another_name_is_mentioned(data, capsys, name):
    (data.root / name).write_text("file,label\ncat/0.png,dog\n")
    assert len(list_images(data).images) == 4
    assert f"{name} is not read: put what it says of pictures into metadata.csv" in capsys.readouterr().err
    list_images(data.model_copy(update={"layout": "folders"}))
    assert f"{name} is not read" in capsys.readouterr().err


def test_the_table_that_is_read_and_notes_are_not_mentioned(data, tmp_path, capsys):
    (data.root / "labels.csv").write_text("path,label\ncat/0.png,cat\n")
    (data.root / "cat" / "labels.csv").write_text("x")
    for name in ("camera.csv", "train.txt", "~$labels.xlsx"):
        (data.root / name).write_text("x")
    list_images(data.model_copy(update={"metadata": "labels.csv"}))
    np.save(tmp_path / "images.npy", np.zeros((2, 20, 20, 3), np.uint8))
    (tmp_path / "labels.csv").write_text("0\n1\n")
    assert len(list_images(DataParams(root=tmp_path, layout="arrays")).images) == 2
    assert capsys.readouterr().err == ""


def test_a_folder_is_a_class_however_deep_its_pictures_lie(data):
    draw(data.root / "cat" / "gate" / "monday" / "x.JPG")
    assert listed(data) == {
        "cat/0.png": "cat",
        "cat/1.png": "cat",
        "cat/gate/monday/x.JPG": "cat",
        "dog/0.png": "dog",
        "dog/1.png": "dog",
    }


def test_hidden_files_and_system_litter_are_nobodys_pictures(data):
    for name in (".DS_Store", "Thumbs.db", ".hidden.png"):
        (data.root / "cat" / name).write_bytes(b"x")
    (data.root / ".gitignore").write_text("*")
    found = list_images(data)
    assert len(found.images) == 4
    assert found.refused == []


def test_litter_is_nobodys_wherever_it_lies(data):
    for folder in ("__MACOSX", "cat/@eaDir", "cat/deep/__MACOSX/cat", "dog/.thumbnails", "$RECYCLE.BIN"):
        draw(data.root / folder / "0.png")
    (data.root / "cat" / "Thumbs.db").write_bytes(b"x")
    found = list_images(data)
    assert (len(found.images), found.refused) == (4, [])


def test_pictures_of_other_formats_at_the_top_are_named_and_notes_are_not(data):
    (data.root / "README.txt").write_text("x")
    (data.root / "scan.TIFF").write_bytes(b"II*\0")
    assert refused(data)["scan.TIFF"][0] == "unreadable"
    assert set(refused(data)) == {"scan.TIFF"}


@pytest.mark.parametrize("name", ["a\\b", "con", "cat:dog", "x" * 200, "w\u202eh", "~", "what?"])
def test_a_folder_that_can_be_no_class_is_refused_by_name(data, name):
    draw(data.root / name / "0.png")
    found = [(kind, reason) for path, (kind, reason) in refused(data).items() if path.endswith("0.png")]
    assert [kind for kind, _ in found] == ["label"]
    assert len(listed(data)) == 4


@pytest.mark.parametrize("label", ["../outside", "N/A", ".unsure", "cat;../x", "nul"])
def test_a_label_of_the_metadata_is_checked_as_a_folders(data, label):
    write_metadata(data, f"path,label\ncat/0.png,{label}\n")
    assert refused(data)["cat/0.png"][0] == "label"
    assert len(listed(data)) == 3


def test_several_labels_have_one_form(tmp_path):
    for number in range(5):
        draw(tmp_path / "photos" / f"{number}.png")
    params = DataParams(root=tmp_path)
    labels = ["cat; dog", "dog;cat", "cat;", ";cat;cat", "cat ;dog"]
    write_metadata(params, "path,label\n" + "".join(f"photos/{n}.png,{label}\n" for n, label in enumerate(labels)))
    assert list(listed(params).values()) == ["cat;dog", "cat;dog", "cat", "cat", "cat;dog"]
    write_metadata(params, "path,label\nphotos/0.png,;\nphotos/1.png,cat\n")
    assert listed(params)["photos/0.png"] == "photos"


def test_a_folders_label_in_another_unicode_form_is_the_metadatas(tmp_path):
    draw(tmp_path / "cafe\u0301" / "0.png")
    draw(tmp_path / "bar" / "0.png")
    params = DataParams(root=tmp_path)
    write_metadata(params, "path,label\nbar/0.png,caf\u00e9\n")
    assert set(listed(params).values()) == {"caf\u00e9"}


def test_other_files_in_a_class_folder_are_named(data):
    (data.root / "cat" / "notes.txt").write_text("x")
    draw(data.root / "dog" / "old.gif")
    found = refused(data)
    assert found["cat/notes.txt"][0] == found["dog/old.gif"][0] == "unreadable"
    assert "(.gif)" in found["dog/old.gif"][1]


def test_a_loose_picture_needs_a_label(data):
    draw(data.root / "loose.png")
    assert refused(data)["loose.png"][0] == "label"
    write_metadata(data, "path,label\nloose.png,dog\n")
    assert listed(data)["loose.png"] == "dog"


def test_an_empty_class_folder_is_named(data):
    (data.root / "horse").mkdir()
    assert refused(data) == {"horse/": ("empty", "holds no pictures")}


def test_a_folder_that_is_split_already_is_no_set_of_classes(tmp_path):
    for part in ("train", "valid", "test"):
        draw(tmp_path / part / "cat" / "0.png")
    with pytest.raises(UserError, match=r"is split already .*data\.published_split.*plumbline audit"):
        list_images(DataParams(root=tmp_path))


@pytest.mark.parametrize(
    "make", [lambda root: None, lambda root: root.mkdir(), lambda root: (root / "a").mkdir(parents=True)]
)
def test_missing_or_empty_data_is_one_sentence_with_the_way_out(tmp_path, make):
    root = tmp_path / "data"
    make(root)
    params = DataParams(root=root)
    if (root / "a").exists():
        assert refused(params) == {"a/": ("empty", "holds no pictures")}
        shutil.rmtree(root / "a")
        (root / "README").write_text("hello")
    with pytest.raises(UserError, match="dvc pull"):
        list_images(params)


# ------------------------------------------------------------------------------------------------------------- names


def test_names_that_cannot_be_written_everywhere_are_refused_escaped(data):
    picture = (data.root / "cat" / "0.png").read_bytes()
    for name in (b"a\nb.png", b"caf\xe9.png", b"tab\there.png"):
        Path(os.fsdecode(os.fsencode(data.root / "cat") + b"/" + name)).write_bytes(picture)
    found = refused(data)
    assert set(found) == {"cat/a\\nb.png", "cat/caf\\udce9.png", "cat/tab\\there.png"}
    assert {kind for kind, _ in found.values()} == {"name"}
    assert len(listed(data)) == 4


def test_a_folder_with_an_unwritable_name_takes_its_files_along(data):
    folder = Path(os.fsdecode(os.fsencode(data.root) + b"/\xff"))
    folder.mkdir()
    shutil.copy(data.root / "cat" / "0.png", folder / "x.png")
    assert refused(data) == {"\\udcff": ("name", "its name is not UTF-8: rename it")}


def test_files_that_differ_only_in_case_are_both_refused_each_naming_the_other(data):
    draw(data.root / "cat" / "A.png")
    draw(data.root / "cat" / "a.PNG")
    found = refused(data)
    assert set(found) == {"cat/A.png", "cat/a.PNG"}
    assert "cat/a.PNG" in found["cat/A.png"][1]
    assert len(listed(data)) == 4


def test_folders_that_differ_only_in_case_or_unicode_form_are_refused_with_all_they_hold(data):
    draw(data.root / "Cat" / "9.png")
    draw(data.root / "caf\u00e9" / "x.png")
    draw(data.root / "cafe\u0301" / "y.png")
    assert set(listed(data)) == {"dog/0.png", "dog/1.png"}
    assert {kind for kind, _ in refused(data).values()} == {"name"}


NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name[:1] != b"."
)


@settings(max_examples=60, deadline=None)
@given(names=st.lists(NAMES, max_size=6, unique=True))
def test_whatever_the_names_nothing_is_lost_and_every_path_can_be_written(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("names")
    picture = draw(root / "cat" / "plain one.png").read_bytes()
    for name in names:
        Path(os.fsdecode(os.fsencode(root / "cat") + b"/" + name + b".png")).write_bytes(picture)
    found = list_images(DataParams(root=root))
    paths = [*found.images["path"], *(one.path for one in found.refused)]
    assert len(paths) == len(os.listdir(root / "cat"))
    for path in paths:
        path.encode("utf-8")
        assert len(path.splitlines()) == 1


# ----------------------------------------------------------------------------------------------------- links, rights


def test_links_out_of_the_folder_are_refused_and_followed_on_request(data, tmp_path):
    outside = draw(tmp_path / "elsewhere" / "x.png")
    (data.root / "cat" / "out.png").symlink_to(outside)
    (data.root / "cat" / "in.png").symlink_to(data.root / "cat" / "0.png")
    (data.root / "cat" / "dead.png").symlink_to("nowhere.png")
    (data.root / "cat" / "loop.png").symlink_to("loop.png")
    (data.root / "bird").symlink_to(tmp_path / "elsewhere")
    found = refused(data)
    assert set(found) == {"cat/out.png", "cat/dead.png", "cat/loop.png", "bird"}
    assert "out of the folder" in found["cat/out.png"][1]
    with pytest.raises(UserError, match="out of the folder"):
        load_rgb(data, "cat/out.png")
    followed = data.model_copy(update={"follow_symlinks": True})
    assert {"cat/out.png", "cat/in.png", "bird/x.png"} <= set(listed(followed))
    assert load_rgb(followed, "cat/out.png").shape == (30, 40, 3)


def test_a_link_to_its_own_parent_does_not_walk_for_ever(data):
    (data.root / "cat" / "up").symlink_to(data.root)
    assert len(listed(data)) == 4


def test_a_path_of_the_manifest_cannot_leave_the_root(data, tmp_path):
    draw(tmp_path / "secret.png")
    with pytest.raises(UserError, match="out of the folder"):
        load_rgb(data, "../secret.png")


def test_a_named_pipe_does_not_block(data):
    os.mkfifo(data.root / "cat" / "pipe.png")
    with pytest.raises(UserError, match="is not a plain file"):
        load_rgb(data, "cat/pipe.png")


def test_no_permission_is_a_reason(data, monkeypatch):
    # The tests may run as root, whom no permission stops.
    def forbidden(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("plumbline.imaging.files.os.open", forbidden)
    with pytest.raises(UserError, match=r"cat/0\.png can't be read: Permission denied"):
        load_rgb(data, "cat/0.png")


def test_a_file_beyond_the_limit_is_not_read(data):
    small = data.model_copy(update={"max_bytes": 10})
    with pytest.raises(UserError, match=r"data\.max_bytes"):
        load_rgb(small, "cat/0.png")


# ---------------------------------------------------------------------------------------------------------- metadata


def test_metadata_columns_come_along_as_text_blank_as_none(data):
    write_metadata(data, "path,photo,site,height_m\ncat/0.png,p1,gate 1,007\n./dog/1.png, ,gate 2,\n")
    images = list_images(data).images.set_index("path")
    assert list(images.columns) == ["label", "photo", "site", "height_m"]
    assert images.loc["cat/0.png"].tolist() == ["cat", "p1", "gate 1", "007"]
    assert images.loc["dog/1.png"].tolist() == ["dog", None, "gate 2", None]
    assert images.loc["cat/1.png"].tolist() == ["cat", None, None, None]


def test_a_byte_order_mark_from_a_spreadsheet_is_no_part_of_the_first_name(data):
    (data.root / "metadata.csv").write_bytes("\ufeffpath,photo\r\ncat/0.png,pâ\r\n".encode())
    assert list_images(data).images.set_index("path").loc["cat/0.png", "photo"] == "pâ"


def test_a_label_in_the_metadata_wins_over_a_folder_that_is_no_class(tmp_path):
    for number in range(3):
        draw(tmp_path / "photos" / f"{number}.png")
    params = DataParams(root=tmp_path)
    write_metadata(params, "path,label\nphotos/0.png,helmet\nphotos/1.png,helmet;vest\nphotos/2.png,vest\n")
    assert list(listed(params).values()) == ["helmet", "helmet;vest", "vest"]


@pytest.mark.parametrize(("rule", "label"), [("quarantine", None), ("metadata", "dog"), ("folder", "cat")])
def test_folder_and_metadata_that_disagree_are_settled_by_rule(data, rule, label):
    write_metadata(data, "path,label\ncat/0.png,dog\ncat/1.png,cat\n")
    params = data.model_copy(update={"label_conflict": rule})
    assert listed(params).get("cat/0.png") == label
    conflict = refused(params).get("cat/0.png")
    assert (conflict is None) == (label is not None)
    if conflict:
        assert conflict[0] == "label"
        assert "lies under cat but metadata.csv says dog" in conflict[1]


@pytest.mark.parametrize(
    ("labelled", "label", "unlabelled"),
    [(1, None, "cat"), (3, "helmet", None)],
    ids=["a class, and one row that contradicts it", "no class, and one picture that was forgotten"],
)
def test_a_folder_is_a_class_where_the_metadata_leaves_most_of_its_pictures_to_it(
    tmp_path, labelled, label, unlabelled
):
    params = lay(tmp_path, *(f"cat/{number}.png" for number in range(4)), "dog/4.png")
    write_metadata(params, "path,label\n" + "".join(f"cat/{number}.png,helmet\n" for number in range(labelled)))
    found = listed(params)
    assert (found.get("cat/0.png"), found.get("cat/3.png"), found["dog/4.png"]) == (label, unlabelled, "dog")
    assert set(refused(params)) == {name for name in ("cat/0.png", "cat/3.png") if name not in found}


def test_several_labels_do_not_contradict_the_folder_that_is_one_of_them(data):
    write_metadata(data, "path,label\ncat/0.png,cat;dog\ndog/0.png,dog\n")
    assert listed(data)["cat/0.png"] == "cat;dog"
    assert refused(data) == {}


def test_a_metadata_row_without_a_file_is_named_and_one_of_a_refused_file_is_not(data):
    (data.root / "cat" / "notes.txt").write_text("x")
    write_metadata(data, "path,label\ncat/gone.png,cat\ncat/notes.txt,cat\n../cat/0.png,cat\ncat/0.png#3,cat\n")
    missing = {path for path, (kind, _) in refused(data).items() if kind == "missing"}
    assert missing == {"cat/gone.png", "../cat/0.png", "cat/0.png#3"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("file,label\na,b\n", "no column `path`"),
        ("path,photo\ncat/0.png,1\ncat/0.png,2\n", "two rows for cat/0.png"),
        ("path,photo\ncat/0.png\n", "row 2: 1 values under 2"),
        ("path,width\ncat/0.png,3\n", "column 'width'"),
        ("path,a,a\ncat/0.png,3,4\n", "column name twice"),
        ('path,a\n"cat/0.png,3\n', "no CSV file"),
    ],
)
def test_a_metadata_file_that_is_no_table_is_one_sentence(data, text, message):
    write_metadata(data, text)
    with pytest.raises(UserError, match=r"metadata\.csv") as error:
        list_images(data)
    assert message in str(error.value)


def test_metadata_in_another_encoding_is_one_sentence(data):
    (data.root / "metadata.csv").write_bytes("path,photo\ncat/0.png,ü\n".encode("latin-1"))
    with pytest.raises(UserError, match="no CSV file in UTF-8"):
        list_images(data)


# ------------------------------------------------------------------------------------------------------------ arrays


@pytest.fixture
def arrays(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 20, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    (tmp_path / "labels.csv").write_text("Label\n" + "0\n1\n" * 6)
    return DataParams(root=tmp_path), pixels


def test_helmnet_arrays_are_rows_in_their_order_with_mapped_labels(arrays):
    params, _ = arrays
    found = listed(params)
    assert list(found) == [f"images.npy#{number}" for number in range(12)]
    assert list(found.values()) == ["without_helmet", "with_helmet"] * 6


def test_channels_are_turned_round_for_bgr_and_left_for_rgb(arrays):
    params, pixels = arrays
    assert np.array_equal(load_rgb(params, "images.npy#3"), pixels[3, ..., ::-1])
    rgb = params.model_copy(update={"arrays": ArrayParams(channels="rgb")})
    assert np.array_equal(load_rgb(rgb, "images.npy#3"), pixels[3])


@pytest.mark.parametrize(
    "text", ["0\n1\n" * 6, "label,photo\n" + "0,p\n1,q\n" * 6, "0.0\n1.0\n" * 6, "photo,Label\n" + "p,0\nq,1\n" * 6]
)
def test_labels_with_and_without_header_and_with_further_columns(arrays, text):
    params, _ = arrays
    (params.root / "labels.csv").write_text(text)
    images = list_images(params).images
    assert images["label"].tolist() == ["without_helmet", "with_helmet"] * 6
    if "photo" in text:
        assert images["photo"].tolist() == ["p", "q"] * 6


TWELVE = [0, 1] * 6


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"{value:.18e}\n" for value in TWELVE),
        "# label\n" + "".join(f"{value}\n" for value in TWELVE),
        "0\n" + "".join(f"{value}\n" for value in TWELVE),
        ",0\n" + "".join(f"{row},{value}\n" for row, value in enumerate(TWELVE)),
        "".join(f"{row},{value}\n" for row, value in enumerate(TWELVE)),
        ",label\n" + "".join(f"{row},{value}.0\n" for row, value in enumerate(TWELVE)),
        "class\n" + "".join(f"{['without_helmet', 'with_helmet'][value]}\n" for value in TWELVE),
        "".join(f"{['without_helmet', 'with_helmet'][value]}\n" for value in TWELVE),
        "nr;Class\n" + "".join(f"a{row};{value}\n" for row, value in enumerate(TWELVE)),
        "target\n" + "".join(f"{bool(value)}\n" for value in TWELVE),
        "label\n" + "".join(f'"{value}"\r\n' for value in TWELVE),
        "label,class\n" + "".join(f"{value},x\n" for value in TWELVE),
    ],
)
def test_labels_as_numpy_and_pandas_write_them(arrays, text):
    params, _ = arrays
    (params.root / "labels.csv").write_text(text)
    assert list_images(params).images["label"].tolist() == ["without_helmet", "with_helmet"] * 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0\n" * 20, "20 labels but images.npy 12"),
        ("1,0\n0,1\n" * 6, "one column of class numbers"),
        ("cat\n" * 12, None),
    ],
)
def test_labels_that_fit_nothing_are_said(arrays, text, said):
    params, _ = arrays
    (params.root / "labels.csv").write_text(text)
    if said is None:
        assert {kind for kind, _ in refused(params).values()} == {"label"}
        return
    with pytest.raises(UserError, match=said):
        list_images(params)


def test_class_names_come_from_the_parameter_and_a_label_beyond_them_is_refused(arrays):
    params, _ = arrays
    (params.root / "labels.csv").write_text("0\n1\n" * 5 + "0\n2\n")
    params = params.model_copy(update={"arrays": ArrayParams.model_validate({"classes": {0: "bare", 1: "hat"}})})
    assert set(listed(params).values()) == {"bare", "hat"}
    assert refused(params)["images.npy#11"][0] == "label"


def test_metadata_may_name_rows_of_an_array(arrays):
    params, _ = arrays
    write_metadata(params, "path,site\nimages.npy#2,north\nimages.npy#99,south\n")
    assert list_images(params).images.set_index("path").loc["images.npy#2", "site"] == "north"
    assert refused(params)["images.npy#99"][0] == "missing"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "labels.csv").write_text("0\n1\n"), "2 labels but images.npy 12"),
        (lambda root: (root / "labels.csv").unlink(), "labels.csv is missing"),
        (lambda root: (root / "labels.csv").write_text("a,b\n0,1\n"), "no column `label`"),
        (lambda root: np.save(root / "images.npy", np.zeros((12, 20, 20))), "holds float64"),
        (lambda root: np.save(root / "images.npy", np.zeros((12, 20), np.uint8)), "not uint8 pictures"),
        (lambda root: np.save(root / "images.npy", np.array([{}] * 12), allow_pickle=True), "no plain NumPy array"),
        (lambda root: (root / "images.npy").write_bytes((root / "images.npy").read_bytes()[:900]), "no plain NumPy"),
        (lambda root: (root / "images.npy").write_bytes(b""), "no plain NumPy"),
    ],
)
def test_arrays_that_cannot_be_used_are_one_sentence(arrays, spoil, message):
    params, _ = arrays
    spoil(params.root)
    with pytest.raises(UserError) as error:
        list_images(params)
    assert message in str(error.value)


# -------------------------------------------------------------------------------------------------------------- YOLO


@pytest.fixture
def yolo(tmp_path):
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[20:60, 40:80] = 255
    Image.fromarray(picture).save(tmp_path / "p1.png")
    (tmp_path / "p1.txt").write_text("0 0.3 0.4 0.2 0.4\n\n1 0.9 0.9 0.4 0.4\n")
    (tmp_path / "obj.names").write_text("helmet\nhead\n")
    return DataParams(root=tmp_path)


def test_each_box_is_a_crop_grouped_by_its_photograph(yolo):
    images = list_images(yolo).images
    assert images["path"].tolist() == ["p1.png#0", "p1.png#2"]
    assert images["label"].tolist() == ["helmet", "head"]
    assert images["photo"].tolist() == ["p1", "p1"]
    white = load_rgb(yolo, "p1.png#0")
    assert white.shape == (40, 40, 3)
    assert white.min() == 255
    assert load_rgb(yolo, "p1.png#2").shape == (30, 60, 3)  # clipped to the picture


def test_classes_can_be_renamed(yolo):
    named = yolo.model_copy(update={"yolo": YoloParams(classes={"head": "without_helmet"})})
    assert list_images(named).images["label"].tolist() == ["helmet", "without_helmet"]


def test_a_class_may_hold_what_only_python_takes_for_the_end_of_a_line(yolo):
    (yolo.root / "obj.names").write_text("hard\x85hat\r\nhead\r\n", newline="")
    renamed = yolo.model_copy(update={"yolo": YoloParams(classes={"hard\x85hat": "helmet"})})
    assert list_images(renamed).images["label"].tolist() == ["helmet", "head"]


def test_two_lists_of_the_classes_have_one_order(yolo):
    (yolo.root / "classes.txt").write_text("helmet\nhead\n")
    assert len(list_images(yolo).images) == 2
    (yolo.root / "classes.txt").write_text("head\nhelmet\n")
    with pytest.raises(UserError, match=r"obj\.names and .*classes\.txt have the same classes in another order"):
        list_images(yolo)


@pytest.mark.parametrize(
    ("names", "fits"),
    [
        ("[helmet, head]", True),
        ("{0: helmet, 1: head}", True),
        ("[helmet, head, vest]", True),
        ("[head, helmet]", False),
        ("{1: helmet, 0: head}", False),
        ("[person, helmet, head]", False),
        ("[no, yes]", True),
        ("[]", True),
        ("{a: b, c: [d]}", True),
        ("7", True),
        ("[", True),
    ],
)
@pytest.mark.parametrize("name", ["data.yaml", "helmets.YML"])
def test_a_data_yaml_numbers_the_classes_alike(yolo, name, names, fits):
    (yolo.root / name).write_text(f"train: images\nnc: 2\nnames: {names}\n")
    if fits:
        assert len(list_images(yolo).images) == 2
    else:
        with pytest.raises(UserError, match=rf"obj\.names and .*{name} have the same classes in another order"):
            list_images(yolo)


def test_a_data_yaml_above_the_names_counts_and_one_beside_others_does_not(yolo):
    (yolo.root / "part").mkdir()
    (yolo.root / "part" / "data.yaml").write_text("names: [head, helmet]\n")
    assert len(list_images(yolo).images) == 2
    (yolo.root / "obj.names").rename(yolo.root / "part" / "obj.names")
    (yolo.root / "part" / "data.yaml").rename(yolo.root / "data.yaml")
    with pytest.raises(UserError, match="in another order"):
        list_images(yolo)


POINTS = {2: " 0.3 0.4 0.31 0.41 0.3 0.42", 3: " 0.3 0.4 2 0.31 0.41 1 0 0 0"}


@pytest.mark.parametrize("values", [2, 3])
def test_behind_a_box_keypoints_are_passed_over_where_it_is_said(yolo, values):
    (yolo.root / "p1.txt").write_text(f"0 0.3 0.4 0.2 0.4{POINTS[values]}\n1 0.3 0.4 0.2 0.4\n0 .1 .1 .3 .1 .1 .3\n")
    for nothing in ("", "[]", "null"):
        (yolo.root / "data.yaml").write_text(f"kpt_shape: {nothing}\n")
        assert "p1.png#1" in listed(yolo)
    (yolo.root / "data.yaml").write_text(f"names: [helmet, head]\nkpt_shape: [3, {values}] # x, y\n")
    with pytest.raises(UserError, match=rf"data\.yaml says .*set data\.yolo\.keypoints: \[3, {values}\]"):
        list_images(yolo)
    pose = yolo.model_copy(update={"yolo": YoloParams.model_validate({"keypoints": [3, values]})})
    assert list(listed(pose)) == ["p1.png#0", "p1.png#1"]
    assert load_rgb(pose, "p1.png#0").shape == (40, 40, 3)
    assert load_rgb(pose, "p1.png#0").min() == 255
    assert "nor those and 3 keypoints" in refused(pose)["p1.png#2"][1]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 0.3 0.4 0.2 0.4" + " 0.3 0.4 2" * 17, "set data.yolo.keypoints: [17, 3]"),
        ("0 0.3 0.4 0.2 0.4" + " 0.3 0.4 2.0" * 2, "set data.yolo.keypoints: [2, 3] if it is the latter"),
        ("0 0.3 0.4 0.2 0.4" + " 0.3 0.4 0" * 4, "a polygon or a box with keypoints"),
    ],
)
def test_keypoints_that_nobody_spoke_of_are_no_polygon(line, says):
    with pytest.raises(DecodeError) as error:
        parse_box(line)
    assert says in error.value.reason


@pytest.mark.parametrize("line", ["0 0 0 1 0 1 1 0 1 0 0", "0 .1 .1 .9 .1 .9 .9 .5 .95 .1 .9"])
def test_a_polygon_of_as_many_values_stays_one(line):
    assert parse_box(line)[1][2] > 0.7


def test_boxes_of_a_picture_that_is_not_read_name_it(yolo):
    (yolo.root / "p2.gif").write_bytes(b"GIF89a")
    (yolo.root / "p2.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (one,) = list_images(yolo).refused
    assert (one.path, one.kind) == ("p2.txt", "box")
    assert "boxes of p2.gif, which is not read: convert it" in one.reason


def test_a_set_without_one_box_is_one_sentence(tmp_path):
    draw(tmp_path / "p1.png")
    (tmp_path / "obj.names").write_text("head\n")
    with pytest.raises(UserError, match="not one box"):
        list_images(DataParams(root=tmp_path))


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("0.0 0.5 0.5 0.2 0.4", (0.5, 0.5, 0.2, 0.4)),
        ("0 1.0004 0.5 0.2 1.0004", (1.0, 0.5, 0.2, 1.0)),
        ("0 -0.0003 0.5 0.2 0.4", (0.0, 0.5, 0.2, 0.4)),
        ("0 0.1 0.1 0.3 0.1 0.3 0.5 0.1 0.5", (0.2, 0.3, 0.2, 0.4)),
        ("0 0.1 0.1 0.3 0.1 0.2 0.5", (0.2, 0.3, 0.2, 0.4)),
        ("0 0.1 0.1 1.0002 0.1 0.2 0.5", (0.55, 0.3, 0.9, 0.4)),
        ("0 5e-1 5.0E-01 .2 0.4", (0.5, 0.5, 0.2, 0.4)),
    ],
)
def test_boxes_as_people_and_tools_write_them(line, box):
    number, found = parse_box(line)
    assert number == 0
    assert found == pytest.approx(box)


@pytest.mark.parametrize("line", ["0.5 0.5 0.5 0.1 0.1", "0 0.5 0.5 0.1 0.1 0.98", "0 0.1 0.1 0.3 0.1 0.1 0.3 0.2"])
def test_what_only_looks_like_a_box_is_refused(line):
    with pytest.raises(DecodeError):
        parse_box(line)


def test_a_polygon_among_boxes_is_cut_out_as_the_box_around_it(yolo):
    (yolo.root / "p1.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.25 0.25 0.75 0.25 0.5 0.75\n")
    assert list(listed(yolo)) == ["p1.png#0", "p1.png#1"]
    assert np.array_equal(load_rgb(yolo, "p1.png#1"), load_rgb(yolo, "p1.png#0"))


def test_the_same_line_twice_is_one_box(yolo):
    (yolo.root / "p1.txt").write_text("0 0.5 0.5 0.5 0.5\n\n0 0.50 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n")
    assert list(listed(yolo)) == ["p1.png#0", "p1.png#3"]


def test_a_box_file_in_capitals_counts(yolo):
    (yolo.root / "p1.txt").rename(yolo.root / "p1.TXT")
    assert set(listed(yolo)) == {"p1.png#0", "p1.png#2"}
    assert load_rgb(yolo, "p1.png#0").ndim == 3


def test_photographs_of_the_same_name_in_two_folders_are_two(yolo):
    for folder in ("vidA", "vidB"):
        draw(yolo.root / folder / "im0.jpg")
        (yolo.root / folder / "im0.txt").write_text("1 0.5 0.5 1 1\n")
    photos = list_images(yolo).images.set_index("path")["photo"]
    assert photos["vidA/im0.jpg#0"] == "vidA/im0"
    assert photos["vidB/im0.jpg#0"] == "vidB/im0"


def test_a_class_name_that_would_be_two_is_refused(yolo):
    (yolo.root / "obj.names").write_text("helmet;vest\nhead\n")
    with pytest.raises(UserError, match=r"obj\.names has a class 'helmet;vest'"):
        list_images(yolo)


def test_subfolders_are_told_apart_and_share_the_names_file(yolo):
    for part in ("train", "valid"):
        draw(yolo.root / part / "q.jpg")
        (yolo.root / part / "q.txt").write_text("1 0.5 0.5 1 1\n")
    images = list_images(yolo).images.set_index("path")
    assert images.loc["train/q.jpg#0", "subset"] == "train"
    assert images.loc["valid/q.jpg#0", "photo"] == images.loc["train/q.jpg#0", "photo"] == "q"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.1", "has 4 values"),
        ("helmet 0.5 0.5 0.1 0.1", "is not five numbers"),
        ("0.5 0.5 0.2 0.2 0", "begins with 0.5, which is no class's number"),
        ("1e300 0.5 0.5 0.2 0.2", "begins with 1e300, which is no class's number"),
        ("0,0.5,0.5,0.2,0.2", "part them by spaces"),
        ("0 0.5 0.5 nan 0.1", "outside the picture"),
        ("0 1.5 0.5 0.1 0.1", "outside the picture"),
        ("0 0.5 0.5 0 0.1", "outside the picture"),
        ("-1 0.5 0.5 0.1 0.1", "outside the picture"),
        ("7 0.5 0.5 0.1 0.1", "class 7 is beyond the 2"),
    ],
)
def test_a_broken_line_is_refused_and_the_others_go_on(yolo, line, reason):
    (yolo.root / "p1.txt").write_text(f"0 0.3 0.4 0.2 0.4\n{line}\n")
    assert list(listed(yolo)) == ["p1.png#0"]
    kind, said = refused(yolo)["p1.png#1"]
    assert kind == "box"
    assert said.startswith("line 2 of p1.txt: ")
    assert reason in said


def test_boxes_without_pictures_are_named_and_a_picture_without_boxes_is_background(yolo):
    draw(yolo.root / "unlabelled.jpg")
    draw(yolo.root / "nobody.jpg")
    (yolo.root / "nobody.txt").write_text("")
    (yolo.root / "orphan.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (yolo.root / "train.txt").write_text("data/p1.png\n")
    (yolo.root / "p1.txt").write_bytes(b"\xff\xfe")
    found = {path: kind for path, (kind, _) in refused(yolo).items()}
    assert found == {"orphan.txt": "box", "p1.txt": "box"}


def test_a_metadata_row_of_a_photograph_serves_all_its_boxes(yolo):
    write_metadata(yolo, "path,site,photo\np1.png,north,series 4\n")
    images = list_images(yolo).images
    assert images["site"].tolist() == ["north", "north"]
    assert images["photo"].tolist() == ["series 4", "series 4"]


@pytest.mark.parametrize("names", ["# classes\nhelmet\nhead\n", "helmet\nhead\nhelmet\n"])
def test_a_line_of_the_names_that_is_no_class_of_its_own_is_refused(yolo, names):
    (yolo.root / "obj.names").write_text(names)
    with pytest.raises(UserError, match=r"obj\.names has the line '(# classes|helmet)', a comment or a class that is"):
        list_images(yolo)


def test_a_pointer_in_place_of_a_text_is_called_so(yolo):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    (yolo.root / "p1.txt").write_text(pointer)
    assert refused(yolo)["p1.txt"] == ("box", "is a Git LFS pointer (run `git lfs pull`)")
    (yolo.root / "obj.names").write_text(pointer)
    with pytest.raises(UserError, match=r"obj\.names is a Git LFS pointer"):
        list_images(yolo)


def test_what_programs_write_for_a_missing_label_is_no_class(tmp_path):
    params = lay(tmp_path, *(f"{number}.png" for number in range(5)), "cat/5.png")
    rows = ["NaN", "#N/A", "<NA>", "none", "cat"]
    write_metadata(params, "path,label\n" + "".join(f"{k}.png,{v}\n" for k, v in enumerate(rows)) + "cat/5.png,nan\n")
    assert listed(params) == {"3.png": "none", "4.png": "cat", "cat/5.png": "cat"}
    assert {kind for kind, _ in refused(params).values()} == {"label"}


def test_names_without_a_class_are_one_sentence(yolo):
    (yolo.root / "obj.names").write_text("\n")
    with pytest.raises(UserError, match=r"obj\.names"):
        list_images(yolo)


@pytest.mark.slow
@given(st.text(max_size=40))
def test_any_line_is_a_box_inside_the_picture_or_refused(line):
    try:
        _, box = parse_box(line)
        left, top, right, bottom = box_pixels(box, (640, 480))
    except DecodeError:
        return
    assert 0 <= left < right <= 640
    assert 0 <= top < bottom <= 480


SHARE = st.floats(0, 1)


@given(x=SHARE, y=SHARE, width=SHARE, height=SHARE)
def test_any_box_is_clipped_to_the_picture_or_refused(x, y, width, height):
    try:
        left, top, right, bottom = box_pixels((x, y, width, height), (64, 48))
    except DecodeError:
        return
    assert 0 <= left < right <= 64
    assert 0 <= top < bottom <= 48


# ------------------------------------------------------------------------------------------------------------ loading


def test_pictures_come_in_the_order_asked_for_whatever_finishes_first(yolo, tmp_path):
    for number in range(30):
        draw(tmp_path / f"n{number}.png", colour=(number, 0, 0), size=(20 + 37 * (number % 3), 20))
        (tmp_path / f"n{number}.txt").write_text("0 0.5 0.5 1 1\n")
    order = np.random.default_rng(0).permutation(30)
    got = [rgb[0, 0, 0] for rgb in iter_rgb(yolo, [f"n{number}.png#0" for number in order])]
    assert got == order.tolist()


def test_iter_rgb_gives_the_size_asked_for_and_agrees_with_load_rgb(data, arrays):
    assert [rgb.shape for rgb in iter_rgb(data, listed(data), (16, 24))] == [(16, 24, 3)] * 4
    params, pixels = arrays
    whole = np.stack(list(iter_rgb(params, [f"images.npy#{number}" for number in range(12)])))
    assert np.array_equal(whole, pixels[..., ::-1])


def test_a_picture_that_is_gone_is_named(data):
    (data.root / "cat" / "1.png").unlink()
    with pytest.raises(UserError, match=r"cat/1\.png can't be read: No such file.*dvc repro"):
        list(iter_rgb(data, ["cat/0.png", "cat/1.png"]))


def test_a_picture_with_other_bytes_than_its_id_says_is_named(data, arrays):
    own = hashlib.sha256((data.root / "cat" / "0.png").read_bytes()).hexdigest()
    params, pixels = arrays
    row = hashlib.sha256(pixels[1].tobytes()).hexdigest()
    for root, path, right in ((data, "cat/0.png", own), (params, "images.npy#1", row)):
        for size in (None, (8, 8)):
            assert len(list(iter_rgb(root, [path], size, [right]))) == 1
            with pytest.raises(UserError, match=rf"{path} holds other bytes: it has changed since ingest"):
                list(iter_rgb(root, [path], size, ["0" * 64]))


def test_work_ahead_is_bounded():
    started = []
    results = in_order(lambda item: started.append(item) or item, range(1000), ahead=2)
    assert next(results) == 0
    assert len(started) <= 2 * (os.cpu_count() or 1)
    results.close()


def test_an_error_in_a_worker_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda item: 1 // item, [2, 1, 0, 3]))


def test_processes_give_the_same_in_the_same_order():
    assert list(in_order_by_processes(abs, range(-50, 0))) == list(range(50, 0, -1))


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_dying_process_is_one_sentence():
    with pytest.raises(UserError, match="a process that read pictures died"):
        list(in_order_by_processes(die, [3]))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("a#1.jpg", "a#1.jpg"),
        ("p.jpg#12", "p.jpg"),
        ("images.npy#0", "images.npy"),
        ("x.jpg#y", "x.jpg#y"),
    ],
)
def test_the_file_that_a_path_lies_in(path, source):
    assert source_of(path) == source
