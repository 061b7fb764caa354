"""Batches in their several forms, and what of them is new."""

import json

import numpy as np
import pytest
from PIL import Image

from drawn import hue_shifted, scene, with_helmet
from flows.batch import IntakeParams, metadata_rows, new_pictures, place, read_folder, read_label_studio
from plumbline.common.errors import UserError
from plumbline.imaging.collection import DataParams
from plumbline.imaging.manifest import COMPUTED, IngestParams


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


def test_a_filled_labels_csv_is_taken_back(tmp_path):
    for number in (1, 2):
        draw(tmp_path / f"{number}.png", number)
    (tmp_path / "labels.csv").write_text("path,label,site\n1.png,without_helmet,gate\n2.png,,gate\n")
    batch = read(tmp_path)
    assert list(zip(batch.table["path"], batch.table["label"], strict=True)) == [("1.png", "without_helmet")]
    assert [one.path for one in batch.refused] == ["2.png"]


def test_a_batch_without_any_usable_picture_says_so(tmp_path):
    (tmp_path / "with_helmet").mkdir()
    (tmp_path / "with_helmet" / "b.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no picture that can be used; the first: with_helmet/b\.jpg is empty"):
        read(tmp_path)


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
    rows = metadata_rows(table, COMPUTED)
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
    assert [row["label"] for row in metadata_rows(table, COMPUTED)] == ["helmet;vest"]


@pytest.mark.parametrize(("text", "message"), [("{", "is not valid JSON"), ('{"a": 1}', "is no list of tasks")])
def test_what_is_no_export_is_one_sentence(tmp_path, text, message):
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_label_studio(tmp_path / "export.json", tmp_path, tmp_path)
