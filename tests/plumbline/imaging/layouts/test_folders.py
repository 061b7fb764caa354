"""A folder per class: what is a picture of which class, and what is refused."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from plumbline.imaging.layouts import folders
from plumbline.imaging.pictures import Refused
from plumbline.imaging.settings import DataParams


@pytest.fixture
def params(tmp_path):
    for name in ("cat/1.png", "cat/deep/2.png", "dog/3.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 10, 3), 50, np.uint8)).save(path)
    return DataParams(root=tmp_path)


def test_the_folder_at_the_top_is_the_label_however_deep_a_picture_lies(params):
    found = folders.list_pictures(params)
    labels = {row["path"]: row["label"] for row in found.rows}
    assert labels == {"cat/1.png": "cat", "cat/deep/2.png": "cat", "dog/3.png": "dog"}
    assert found.refused == []


def test_other_files_and_empty_classes_are_refused_by_name(params):
    (params.root / "cat" / "film.mp4").touch()
    (params.root / "scan.tiff").touch()
    (params.root / "README.txt").touch()
    (params.root / "bird").mkdir()
    found = folders.list_pictures(params)
    assert {(one.path, one.kind) for one in found.refused} == {
        ("cat/film.mp4", "unreadable"),
        ("scan.tiff", "unreadable"),
        ("bird/", "empty"),
    }


def test_a_picture_is_named_by_its_bytes(params):
    (picture,) = folders.read(params, "cat/1.png", ["cat/1.png"])
    data = (params.root / "cat/1.png").read_bytes()
    assert (picture.id, picture.bytes, picture.format) == (hashlib.sha256(data).hexdigest(), len(data), "PNG")
    assert folders.states(params, "cat/1.png", ["cat/1.png"]) == [picture.id]


def test_a_file_that_is_no_picture_is_refused(params):
    (params.root / "cat" / "4.png").write_bytes(b"GIF89a")
    (one,) = folders.read(params, "cat/4.png", ["cat/4.png"])
    assert isinstance(one, Refused)
    assert folders.states(params, "cat/none.png", ["cat/none.png"]) == ["can't be read: No such file or directory"]
