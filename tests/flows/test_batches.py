"""Batches in their several forms, and what of them is new."""

import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from drawn import hue_shifted, scene, with_helmet
from flows import label_studio
from flows.batch import IntakeParams, class_folders, metadata_rows, new_pictures, place, read_folder
from flows.classes import ANY, parse_same_as, settle_classes
from flows.intake import batch_name, check_placed, place_pictures
from flows.label_studio import read_label_studio
from plumbline.common.errors import UserError
from plumbline.imaging.manifest import IngestParams
from plumbline.imaging.pictures import RESERVED
from plumbline.imaging.settings import DataParams


def draw(path, seed, size=(64, 48), **save):
    """A smooth random picture: survives re-encoding, unlike noise."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, **save)


def read(root, refused=None):
    return read_folder(root, DataParams(), IngestParams(), refused)


def test_a_folder_is_read_as_ingest_reads_it(tmp_path):
    draw(tmp_path / "with_helmet" / "a.png", 1)
    (tmp_path / "with_helmet" / "b.jpg").write_bytes(b"no picture")
    batch = read(tmp_path)
    assert list(batch.table["label"]) == ["with_helmet"]
    assert [one.path for one in batch.refused] == ["with_helmet/b.jpg"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train/cat/a.png", "test/cat/b.png"], "is split already"),
        (["Annotations/a.xml", "JPEGImages/a.png"], "a Pascal VOC set"),
        (["obj.names", "a.png"], "holds yolo"),
    ],
)
def test_a_batch_that_is_something_else_is_called_by_its_name(tmp_path, names, said):
    for number, name in enumerate(names):
        if name.endswith(".png"):
            draw(tmp_path / name, number)
        else:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("<annotation><filename>a.png</filename></annotation>")
    with pytest.raises(UserError, match=said):
        read(tmp_path)


def test_a_filled_labels_csv_is_taken_back(tmp_path):
    for number in (1, 2):
        draw(tmp_path / f"{number}.png", number)
    (tmp_path / "labels.csv").write_text("path,label,site\n1.png,without_helmet,gate\n2.png,,gate\n")
    batch = read(tmp_path)
    assert list(zip(batch.table["path"], batch.table["label"], strict=True)) == [("1.png", "without_helmet")]
    assert [one.path for one in batch.refused] == ["2.png"]


@pytest.mark.parametrize("name", ["labels.csv", "Labels.CSV", "METADATA.csv"])
def test_a_table_in_another_case_is_the_batchs(tmp_path, name):
    draw(tmp_path / "1.png", 1)
    (tmp_path / name).write_text("path,label\n1.png,with_helmet\n")
    assert list(read(tmp_path).table["label"]) == ["with_helmet"]
    (tmp_path / "labels.csv").write_text("path,label\n")
    (tmp_path / "metadata.csv").write_text("path,label\n")
    with pytest.raises(UserError, match=r"has both metadata\.csv and labels\.csv"):
        read(tmp_path)


@pytest.mark.parametrize("time", ["31.03.2026", "1774958700", "2026:01:02 10:11:12"])
def test_a_time_that_validate_would_stop_at_is_not_taken_in(tmp_path, time):
    draw(tmp_path / "with_helmet" / "1.png", 1)
    draw(tmp_path / "with_helmet" / "2.png", 2)
    rows = f"with_helmet/1.png,2026-03-31T14:05:00Z\nwith_helmet/2.png,{time}\n"
    (tmp_path / "metadata.csv").write_text("path,captured_at\n" + rows)
    with pytest.raises(UserError, match=f"{time} of with_helmet/2.png.*nothing was taken in: write it as 2026"):
        read(tmp_path)


def test_a_batch_without_any_usable_picture_says_so(tmp_path):
    (tmp_path / "with_helmet").mkdir()
    (tmp_path / "with_helmet" / "b.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no picture that can be used; the first: with_helmet/b\.jpg is empty"):
        read(tmp_path)


@pytest.mark.slow
def test_copies_of_known_pictures_and_inside_the_batch_are_found(tmp_path):
    draw(tmp_path / "known" / "with_helmet" / "k.png", 1)
    draw(tmp_path / "new" / "with_helmet" / "same_bytes.png", 1)
    draw(tmp_path / "new" / "with_helmet" / "encoded_again.jpg", 1, quality=90)
    draw(tmp_path / "new" / "without_helmet" / "scaled.png", 1, size=(128, 96))
    draw(tmp_path / "new" / "with_helmet" / "other.png", 2)
    draw(tmp_path / "new" / "with_helmet" / "other_twice.png", 2)
    batch = read(tmp_path / "new")
    known = read(tmp_path / "known")
    new, copies = new_pictures(batch, known.table, IntakeParams(), known.thumbnails)
    assert list(new["path"]) == ["with_helmet/other.png"]
    reasons = {one.path: one.reason for one in copies}
    assert reasons["with_helmet/same_bytes.png"] == "is a copy of with_helmet/k.png"
    assert reasons["with_helmet/encoded_again.jpg"] == "is a copy of with_helmet/k.png"
    assert reasons["with_helmet/other_twice.png"] == "is a copy of with_helmet/other.png"
    assert "labelled without_helmet, not with_helmet" in reasons["without_helmet/scaled.png"]


def test_colour_is_looked_at_before_a_picture_is_called_a_copy(tmp_path):
    def put(path, image):
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)

    put(tmp_path / "known" / "red" / "k.png", with_helmet(scene(1), (220, 30, 30)))
    put(tmp_path / "known" / "red" / "flat.png", Image.new("RGB", (64, 64), (200, 30, 30)))
    put(tmp_path / "known" / "red" / "hue.png", scene(2))
    put(tmp_path / "new" / "blue" / "helmet.png", with_helmet(scene(1), (30, 60, 220)))
    put(tmp_path / "new" / "blue" / "flat.png", Image.new("RGB", (64, 64), (30, 60, 200)))
    put(tmp_path / "new" / "blue" / "hue.png", hue_shifted(scene(2), 128))
    put(tmp_path / "new" / "red" / "small.png", with_helmet(scene(1), (220, 30, 30)).resize((160, 120)))
    known = read(tmp_path / "known")
    new, copies = new_pictures(read(tmp_path / "new"), known.table, IntakeParams(copy_distance=16), known.thumbnails)
    assert sorted(new["path"]) == ["blue/flat.png", "blue/helmet.png", "blue/hue.png"]
    assert [one.twin for one in copies] == ["red/k.png"]


def test_new_files_get_a_name_that_nothing_else_can_have(tmp_path):
    draw(tmp_path / "with_helmet" / "Foto 1 (ä).png", 1)
    row = read(tmp_path).table.iloc[0]
    assert place(row) == f"with_helmet/Foto_1-{row['id'][:8]}.png"


def task(number, image, *labels, cancelled=False, **data):
    result = [{"type": "choices", "value": {"choices": [label]}} for label in labels]
    annotations = [{"was_cancelled": cancelled, "result": [part]} for part in result]
    return {"id": number, "data": {"image": image, **data}, "annotations": annotations}


@pytest.fixture
def export(tmp_path):
    def write(tasks):
        for number in range(1, 6):
            draw(tmp_path / "media" / "3" / f"ab{number}-p.png", number)
        (tmp_path / "export.json").write_text(json.dumps(tasks))
        (tmp_path / "batch").mkdir()
        refused = read_label_studio(tmp_path / "export.json", tmp_path / "media", tmp_path / "batch")
        return refused, tmp_path / "batch"

    return write


def test_a_label_studio_export_becomes_a_batch(export):
    refused, folder = export(
        [
            task(1, "/data/upload/3/ab1-p.png", "with_helmet", site="gate 2"),
            task(2, "/data/local-files/?d=3/ab2-p.png", "without_helmet", "without_helmet"),
            task(3, "/data/upload/3/ab3-p.png", "with_helmet", "without_helmet"),
            task(4, "/data/upload/3/ab4-p.png"),
            task(5, "/data/upload/3/ab5-p.png", "with_helmet", cancelled=True),
            task(6, "/data/upload/3/nothing.png", "with_helmet"),
            task(7, "/data/local-files/?d=../../../etc/passwd", "with_helmet"),
        ]
    )
    assert {one.path: one.reason.split(":")[0] for one in refused} == {
        "task 3": "has annotations that disagree",
        "task 4": "has no label",
        "task 5": "has no label",
        "task 6": f"names /data/upload/3/nothing.png, which is not in {folder.parent / 'media'}",
        "task 7": f"names /data/local-files/?d=../../../etc/passwd, which is not in {folder.parent / 'media'}",
    }
    table = read(folder).table
    assert sorted(table["label"]) == ["with_helmet", "without_helmet"]
    rows = metadata_rows(table, RESERVED)
    assert [row["site"] for row in rows] == ["gate 2"]


def test_json_min_and_several_choices(export):
    refused, folder = export(
        [
            {"id": 1, "image": "/data/upload/3/ab1-p.png", "choice": "with_helmet", "annotator": 1, "lead_time": 2.0},
            {"id": 2, "picture": "3/ab2-p.png", "choice": {"choices": ["vest", "helmet"]}},
        ]
    )
    assert refused == []
    table = read(folder).table
    assert sorted(table["label"]) == ["helmet;vest", "with_helmet"]
    assert [row["label"] for row in metadata_rows(table, RESERVED)] == ["helmet;vest"]


def choice(number, image, *choices, tag="choice", **data):
    """A task whose one annotation has all these choices."""
    result = [{"from_name": tag, "type": "choices", "value": {"choices": list(choices)}}]
    return {"id": number, "data": {"image": image, **data}, "annotations": [{"result": result}]}


def labels_of(folder):
    import pandas as pd

    table = pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False)
    return dict(zip(table["path"], table["label"], strict=True))


P1, P2, P3, P4 = (f"/data/upload/3/ab{number}-p.png" for number in range(1, 5))


@pytest.mark.parametrize(
    "label",
    ["../outside", "/tmp/outside", "N/A", "w/o helmet", ".unsure", "a\\b", "x" * 300, "a\nb", True, ["a", ["b"]]],
)
def test_a_choice_is_no_path(export, label):
    refused, folder = export([choice(7, P1, label), choice(8, P2, "with_helmet")])
    assert [one.path for one in refused] == ["task 7"]
    assert list(labels_of(folder).values()) == ["with_helmet"]


def test_choices_of_other_kinds_are_read_or_refused_with_the_tasks_number(export):
    refused, folder = export([choice(1, P1, 3), choice(2, P2, None), choice(3, P3, ""), choice(4, P4, "b", "a", "b")])
    assert list(labels_of(folder).values()) == ["3", "a;b"]
    assert {one.path: one.reason[:12] for one in refused} == {"task 2": "has no label", "task 3": "has no label"}


def test_data_fields_never_take_the_place_of_what_ingest_says_itself(export):
    fields = {
        "width": 640,
        "_id": "x9",
        "path": "/srv/1.png",
        "Label": "old",
        "format": "png",
        "site": "gate",
        "subset": "a",
    }
    refused, folder = export([choice(1, P1, "cat", **fields), choice(2, P2, "dog", **{"weird\nname": 1, "": "x"})])
    assert refused == []
    batch = read(folder)
    assert batch.refused == []
    assert sorted(batch.table["label"]) == ["cat", "dog"]
    row = batch.table.iloc[0]
    assert (row["site"], row["task_width"], row["task_id"], row["task_path"]) == ("gate", "640", "x9", "/srv/1.png")
    assert row["width"] == 64


def test_json_min_where_annotators_disagree_takes_neither(export):
    rows = [{"id": 5, "image": P1, "choice": label, "annotator": n} for n, label in enumerate(["cat", "dog"])]
    same = [{"id": 6, "image": P2, "choice": label, "annotator": n} for n, label in enumerate(["a; b", "b;a"])]
    refused, folder = export([*rows, *same])
    assert [(one.path, one.reason) for one in refused] == [("task 5", "has annotations that disagree: cat and dog")]
    assert labels_of(folder) == {"ab2-p.png": "a;b"}


@pytest.mark.parametrize(
    "answer", ["with_helmet", ["with_helmet"], {"choices": ["with_helmet"]}], ids=["text", "list", "choices"]
)
def test_json_min_with_a_tag_of_another_name(export, answer):
    record = {"image": P1, "site": "gate", "id": 1, "helmet_state": answer, "annotator": 2, "lead_time": 1.0}
    refused, folder = export([record])
    assert refused == []
    assert labels_of(folder) == {"ab1-p.png": "with_helmet"}
    assert list(read(folder).table["site"]) == ["gate"]


def test_several_tags_of_choices_are_not_mixed(export, tmp_path):
    tasks = [choice(1, P1, "with_helmet", tag="helmet_state"), choice(2, P2, "without_helmet", tag="helmet_state")]
    tasks[0]["annotations"][0]["result"] += choice(0, P1, "rain", tag="weather")["annotations"][0]["result"]
    with pytest.raises(
        UserError, match=r"choices of several names \(helmet_state, weather\).*--label-tag helmet_state"
    ):
        export(tasks)
    shutil.rmtree(tmp_path / "batch")
    (tmp_path / "batch").mkdir()
    assert read_label_studio(tmp_path / "export.json", tmp_path / "media", tmp_path / "batch", "helmet_state") == []
    assert sorted(labels_of(tmp_path / "batch").values()) == ["with_helmet", "without_helmet"]
    assert "rain" in (tmp_path / "batch" / "metadata.csv").read_text()


def test_choices_for_boxes_are_not_the_pictures_label(export):
    task_ = choice(1, P1, "with_helmet")
    task_["annotations"][0]["result"][0]["value"] |= {"x": 1, "y": 1, "width": 5, "height": 5}
    refused, _ = export([task_, choice(2, P2, "with_helmet")])
    assert "choices for boxes" in refused[0].reason


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("a+0.jpg", "/data/local-files/?d=a+0.jpg"),
        ("a 0.jpg", "/data/local-files/?d=a+0.jpg"),
        ("a+0.jpg", "/data/local-files/?d=a%2B0.jpg"),
        ("50%.jpg", "/data/local-files/?d=50%.jpg"),
        ("a#1.jpg", "/data/upload/3/a#1.jpg"),
        ("a?b.jpg", "a?b.jpg"),
        ("a%20b.jpg", "a%20b.jpg"),
        ("\u00fcber.jpg", "/data/upload/3/u\u0308ber.jpg"),
        ("u\u0308ber.jpg", "/data/local-files/?d=%C3%BCber.jpg"),
        ("a&b.jpg", "/data/local-files/?d=a%26b.jpg"),
        ("\u00e4.jpg", "http://server:8080/data/upload/3/%C3%A4.jpg"),
        ("win.jpg", "C:\\photos\\win.jpg"),
        (".hidden.jpg", ".hidden.jpg"),
        ("no_suffix", "no_suffix"),
        ("new\nline.jpg", "new%0Aline.jpg"),
    ],
)
def test_pictures_are_found_however_their_names_are_written(export, tmp_path, file, source):
    draw(tmp_path / "media" / file, 11, format="JPEG")
    refused, folder = export([choice(1, source, "with_helmet")])
    assert refused == []
    batch = read(folder)
    assert (len(batch.table), batch.refused) == (1, [])


def test_a_file_that_two_tasks_may_mean_is_neithers(export, tmp_path):
    draw(tmp_path / "media" / "x.png", 9)
    draw(tmp_path / "media" / "y.png", 10)
    draw(tmp_path / "media" / "C" / "z.png", 11)
    sources = ["A/x.png", "/data/local-files/?d=B/x.png", "A/y.png", "/data/local-files/?d=A/y.png", "C/z.png"]
    refused, folder = export([choice(n, source, "with_helmet") for n, source in enumerate(sources)])
    assert [one.path for one in refused] == ["task 0", "task 1"]
    assert "the only file of that name is A/x.png's as well: lay the files out" in refused[1].reason
    assert sorted(labels_of(folder)) == ["2-y.png", "y.png", "z.png"]


def test_names_that_clash_are_all_kept(export, tmp_path):
    names = ["x/a.jpg", "y/A.jpg", "z/2-a.jpg", "w/a.jpg"]
    for number, name in enumerate(names):
        draw(tmp_path / "media" / name, 30 + number)
    refused, folder = export([choice(n, name, "with_helmet") for n, name in enumerate(names)])
    assert refused == []
    assert len(read(folder).table) == 4


@pytest.mark.parametrize(
    "source",
    [
        *(
            "file:///etc/hostname",
            "local:///etc/hostname.png",
            "simplecache::file:///etc/x.png",
            "data:image/png;base64,AAAA",
        ),
        *("zip://a.png::file:///tmp/x.zip", "../../etc/passwd", "ssh://host/x.png", "a\0b.png", "memory://x.png"),
    ],
)
def test_only_pictures_of_the_folder_and_of_known_stores_are_fetched(export, source):
    refused, _ = export([choice(1, source, "with_helmet"), choice(2, P2, "with_helmet")])
    assert [one.path for one in refused] == ["task 1"]


@pytest.fixture
def web(tmp_path):
    """A web server for the folder `web`; /503.png and the like answer with that status."""

    class Handler(SimpleHTTPRequestHandler):
        def send_head(self):
            if (status := self.path[1:4]).isdigit():
                return self.send_error(int(status))
            return super().send_head()

        def log_message(self, *_):
            pass

    draw(tmp_path / "web" / "a1.png", 1)
    draw(tmp_path / "web" / "a[1].png", 2)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "web")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["a[1].png", "a%5B1%5D.png", "a[1].png?token=x"])
def test_an_address_is_no_pattern(export, tmp_path, web, name):
    refused, folder = export([choice(1, f"{web}/{name}", "with_helmet")])
    assert refused == []
    (picture,) = folder.glob("*.png")
    assert picture.read_bytes() == (tmp_path / "web" / "a[1].png").read_bytes()


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_picture_that_a_server_does_not_have_is_refused(export, web, status):
    refused, folder = export([choice(1, f"{web}/{status}.png", "with_helmet"), choice(2, P2, "with_helmet")])
    assert [one.path for one in refused] == ["task 1"]
    assert len(labels_of(folder)) == 1


@pytest.mark.parametrize("status", [500, 503, 429, "dead"])
def test_a_server_that_fails_loses_no_picture(export, web, status):
    address = "http://127.0.0.1:9/a.png?x=1" if status == "dead" else f"{web}/{status}.png"
    with pytest.raises(UserError, match="nothing was taken in, try again later"):
        export([choice(1, address, "with_helmet"), choice(2, P2, "with_helmet")])


@pytest.mark.parametrize(
    ("task_", "says"),
    [
        ({"id": 1, "data": {"image": P1}, "predictions": [{"result": []}]}, "has no label: it was skipped, only predi"),
        ({"id": 1, "image": P1, "choice": "with_helmet", "was_cancelled": True}, "has no label"),
        (choice(1, " ", "with_helmet"), "names no picture"),
        ({"id": 1, "data": {"b": "b.png", "a": "a.png"}, "annotations": []}, "in a, b: call the one that is labelled"),
        (choice(1, "/data/upload/3/0123abcd-x.png", "with_helmet"), "give the folder with its file as --images"),
    ],
)
def test_why_a_task_says_nothing_of_a_picture(export, task_, says):
    refused, _ = export([task_, choice(2, P2, "with_helmet")])
    assert len(refused) == 1
    assert says in refused[0].reason


def test_an_export_with_a_byte_order_mark_is_read(tmp_path):
    draw(tmp_path / "a.png", 1)
    (tmp_path / "out").mkdir()
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "export.json").write_bytes(
            json.dumps([choice(1, "a.png", "caf\u00e9")], ensure_ascii=False).encode(encoding)
        )
        assert read_label_studio(tmp_path / "export.json", tmp_path, tmp_path / "out") == []
        assert list(labels_of(tmp_path / "out").values()) == ["caf\u00e9"]


@pytest.mark.parametrize(
    "broken",
    [
        {"id": 1, "data": {"image": P1}, "annotations": None},
        {"id": 1, "data": {"image": P1}, "annotations": [3]},
        {"id": 1, "data": {"image": P1}, "annotations": [{"result": [{"type": "choices"}]}]},
        {"id": 1, "data": {"image": P1}, "annotations": [{"result": {"a": 1}}]},
        {"id": 1, "data": [], "annotations": []},
        {"id": {"a": "b\nc"}, "data": {"image": [P1]}},
        {**choice(1, P1, "with_helmet"), "data": {"image": P1, "site": "gate \ud800"}},
        {**choice(1, P1, "with_helmet"), "data": {"image": P1, "note": "x" * 200_000}},
    ],
)
def test_a_malformed_task_is_refused_by_number_not_a_traceback(export, broken):
    refused, folder = export([broken, choice(2, P2, "with_helmet")])
    assert len(refused) == 1
    assert len(labels_of(folder)) == 1


def test_two_pictures_of_one_batch_that_disagree_both_stay_out(tmp_path):
    draw(tmp_path / "known" / "cat" / "k.png", 50)
    draw(tmp_path / "new" / "cat" / "a.png", 1)
    draw(tmp_path / "new" / "dog" / "b.png", 1, size=(128, 96))
    draw(tmp_path / "new" / "dog" / "c.png", 2)
    known = read(tmp_path / "known")
    new, copies = new_pictures(read(tmp_path / "new"), known.table, IntakeParams(), known.thumbnails)
    assert list(new["path"]) == ["dog/c.png"]
    assert {one.path for one in copies} == {"cat/a.png", "dog/b.png"}


# ------------------------------------------------------------------------------------------- classes that data/ knows

KNOWN = ["with_helmet", "without_helmet"]


def batch_of(tmp_path, *labels):
    for number in range(len(labels)):
        draw(tmp_path / "b" / f"{number}.png", number)
    rows = "".join(f"{number}.png,{label}\n" for number, label in enumerate(labels))
    (tmp_path / "b" / "labels.csv").write_text("path,label\n" + rows)
    return read(tmp_path / "b")


@pytest.mark.parametrize(
    ("label", "offered"),
    [
        ("With_Helmet", "--as With_Helmet=with_helmet"),
        ("with helmet", "--as 'with helmet=with_helmet'"),
        ("with-helmet", "--as with-helmet=with_helmet"),
        ("withhelmet", "--as withhelmet=with_helmet"),
        ("with_helmt", "--new-class with_helmt"),
        ("vest", "--new-class vest"),
        ("-vest", "--new-class=-vest"),
        ("vest;with_helmet", "--new-class vest"),
    ],
)
def test_a_class_that_data_does_not_have_is_asked_about(tmp_path, label, offered):
    with pytest.raises(UserError) as error:
        settle_classes(batch_of(tmp_path, label, "with_helmet"), KNOWN, {}, [])
    assert offered in str(error.value)
    assert "nothing was taken in" in str(error.value)


def test_a_folder_around_known_classes_is_no_new_class(tmp_path):
    for number, label in enumerate(["with_helmet", "without_helmet"]):
        draw(tmp_path / "photos" / label / f"{number}.png", number)
    with pytest.raises(UserError, match=r"photos .* is a folder around with_helmet, without_helmet: move what photos/"):
        settle_classes(read(tmp_path), KNOWN, {}, [])


@pytest.mark.parametrize("given", ["With_Helmet=with_helmet", "with_helmet"])
def test_as_takes_it_for_the_known_class(tmp_path, given):
    settled = settle_classes(batch_of(tmp_path, "With_Helmet", "without_helmet"), KNOWN, parse_same_as([given]), [])
    assert list(settled.table["label"]) == KNOWN


@pytest.mark.parametrize("new", [["vest"], [ANY]])
def test_a_new_class_is_taken_where_it_was_said(tmp_path, new):
    settled = settle_classes(batch_of(tmp_path, "vest", "with_helmet"), KNOWN, {}, new)
    assert list(settled.table["label"]) == ["vest", "with_helmet"]


@pytest.mark.parametrize(
    ("labels", "same_as", "new"),
    [
        (["With_Helmet"], {}, ["With_Helmet"]),
        (["With_Helmet"], {}, [ANY]),
        (["Vest", "vest"], {}, [ANY]),
        (["vest"], {"vest": "jacket"}, []),
        (["vest"], {"west": "with_helmet"}, []),
        (["with_helmet;without_helmet"], {}, []),
    ],
)
def test_what_would_make_two_classes_of_one_or_one_label_several_is_refused(tmp_path, labels, same_as, new):
    with pytest.raises(UserError):
        settle_classes(batch_of(tmp_path, *labels), KNOWN, same_as, new)


def test_several_labels_are_taken_where_data_has_them_or_it_was_said(tmp_path):
    batch = batch_of(tmp_path, "with_helmet;without_helmet")
    assert len(settle_classes(batch, [*KNOWN, "with_helmet;without_helmet"], {}, []).table) == 1
    assert len(settle_classes(batch, KNOWN, {}, ["with_helmet;without_helmet"]).table) == 1


# --------------------------------------------------------------------------------------------------- where they are put


@pytest.mark.parametrize("label", ["../outside", "/tmp/x", "a/b", ".hidden", "con"])
def test_no_label_leads_out_of_data(tmp_path, label):
    draw(tmp_path / "b" / "cat" / "a.png", 1)
    table = read(tmp_path / "b").table.assign(label=label)
    with pytest.raises(UserError, match="its label"):
        place_pictures(tmp_path / "b", table, tmp_path / "data", {})
    assert not (tmp_path / "data").exists()


def test_a_class_goes_on_in_the_folder_it_has(tmp_path):
    """data/ has `Cafe` + accent decomposed; the batch's composed `café` must not become a twin beside it."""
    draw(tmp_path / "b" / "caf\u00e9" / "a.png", 1)
    draw(tmp_path / "data" / "Cafe\u0301" / "k.png", 2)
    folders = class_folders(tmp_path / "data")
    batch = read(tmp_path / "b")
    place_pictures(batch.root, batch.table, tmp_path / "data", folders)
    assert len(list((tmp_path / "data" / "Cafe\u0301").iterdir())) == 2
    assert [row["label"] for row in metadata_rows(batch.table, RESERVED, folders)] == ["caf\u00e9"]


def test_what_ingest_would_not_find_again_is_refused(tmp_path):
    draw(tmp_path / "b" / "cat" / "a.png", 1)
    batch = read(tmp_path / "b")
    place_pictures(batch.root, batch.table, tmp_path / "data", {})
    check_placed(batch.table, tmp_path / "data", {}, DataParams())
    (tmp_path / "data" / "metadata.csv").write_text(f"path,label\n{place(batch.table.iloc[0])},dog\ncat/x.png,cat\n")
    with pytest.raises(UserError, match="would be read back as nothing"):
        check_placed(batch.table, tmp_path / "data", {}, DataParams())


def test_a_batch_is_called_by_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert batch_name("export 7.json") == "export 7.json"
    assert batch_name(".") == tmp_path.name
    assert "\n" not in batch_name("a\nb")


@pytest.mark.parametrize(("text", "message"), [("{", "is not valid JSON"), ('{"a": 1}', "is no list of tasks")])
def test_what_is_no_export_is_one_sentence(tmp_path, text, message):
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_label_studio(tmp_path / "export.json", tmp_path, tmp_path)


def test_a_download_that_never_ends_is_refused_before_the_disk_is_full(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setattr(label_studio, "MOST_BYTES", 3_000_000)
    with fsspec.open("memory://endless.png", "wb") as remote:
        remote.write(bytes(9_000_000))
    with pytest.raises(label_studio._Unusable, match=r"endless\.png, which has more than 3,000,000 bytes"):
        label_studio._download("memory://endless.png", tmp_path / "x")
    assert (tmp_path / "x").stat().st_size <= 3_000_000 + label_studio.BLOCK
