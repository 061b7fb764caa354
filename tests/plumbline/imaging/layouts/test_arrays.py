"""HelmNet's arrays: which class a cell stands for, which line is a header, which row is which picture."""

import hashlib

import numpy as np
import pytest

from plumbline.common.errors import UserError
from plumbline.imaging.collection import list_images
from plumbline.imaging.layouts import arrays
from plumbline.imaging.settings import DataParams

CLASSES = {"0": "bare", "1": "helmet"}


@pytest.mark.parametrize("text", ["1", "1.0", "1.000e+00", "True", " 1 ", "helmet"])
def test_ways_to_write_the_class_listed_as_1(text):
    assert arrays.class_of(text, CLASSES) == "helmet"


@pytest.mark.parametrize("text", ["2", "0.5", "", "nan", "Helmet"])
def test_what_is_no_class(text):
    assert arrays.class_of(text, CLASSES) is None


@pytest.mark.parametrize(
    ("text", "header", "rows"),
    [
        ("0\n1\n1\n", ["label"], [["0"], ["1"], ["1"]]),
        ("label\n0\n1\n1\n", ["label"], [["0"], ["1"], ["1"]]),
        ("# label\n0\n1\n1\n", ["label"], [["0"], ["1"], ["1"]]),
        (",0\n0,0\n1,1\n2,1\n", ["label"], [["0"], ["1"], ["1"]]),
        ("0,0\n1,1\n2,1\n", ["label"], [["0"], ["1"], ["1"]]),
        ("photo;class\np;0\nq;1\nq;1\n", ["photo", "label"], [["p", "0"], ["q", "1"], ["q", "1"]]),
    ],
    ids=["numbers", "header", "savetxt", "Series with header", "Series", "table"],
)
def test_a_labels_file_as_others_write_it(text, header, rows, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    assert arrays.read_labels(path, 3, CLASSES) == (header, rows)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_a_labels_file_in_any_unicode_with_any_separator(mark, encoding, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(f"label{mark}photo\r\n0{mark}Übung\r\n1{mark}тест\r\n".encode(encoding))
    assert arrays.read_labels(path, 2, CLASSES) == (["label", "photo"], [["0", "Übung"], ["1", "тест"]])
    path.write_bytes("0\n1\n".encode(encoding))
    assert arrays.read_labels(path, 2, CLASSES) == (["label"], [["0"], ["1"]])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("label,label\n0,1\n", "no column `label` but label, label"),
        ("photo,label\np,0,7\n", r"row 2: 3 values under 2 column names"),
        ("0,1\n1,0\n", "one column of class numbers is read"),
        ('"0\n', "is no CSV file"),
    ],
)
def test_a_labels_file_that_is_none_is_one_sentence(text, says, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        arrays.read_labels(path, 1, CLASSES)


@pytest.fixture
def params(tmp_path):
    pixels = np.zeros((3, 4, 5, 3), np.uint8)
    pixels[:, ..., 0] = [[[10]], [[20]], [[30]]]
    np.save(tmp_path / "images.npy", pixels)
    (tmp_path / "labels.csv").write_text("photo,label\np,0\nq,1\n,7\n")
    return DataParams.model_validate({"root": tmp_path, "arrays": {"classes": CLASSES, "channels": "bgr"}})


def test_rows_are_pictures_and_one_of_no_class_is_refused(params):
    found = arrays.list_pictures(params)
    assert found.rows == [
        {"path": "images.npy#0", "label": "bare", "photo": "p"},
        {"path": "images.npy#1", "label": "helmet", "photo": "q"},
    ]
    (refused,) = found.refused
    assert (refused.path, refused.kind) == ("images.npy#2", "label")


def test_channels_are_put_in_order_and_the_id_is_of_the_stored_bytes(params):
    (picture,) = arrays.read(params, "images.npy", ["images.npy#1"])
    stored = np.load(params.root / "images.npy")[1]
    assert np.asarray(picture.image)[0, 0].tolist() == [0, 0, 20]
    assert picture.id == hashlib.sha256(stored.tobytes()).hexdigest()
    assert arrays.states(params, "images.npy", ["images.npy#1", "images.npy#9"]) == [
        picture.id,
        "images.npy holds only 3 pictures",
    ]


@pytest.mark.parametrize("array", [np.zeros((2, 4, 4)), np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 1), np.uint8)])
def test_an_array_of_something_else_is_refused(array, params):
    np.save(params.root / "images.npy", array)
    with pytest.raises(UserError, match="not uint8 pictures"):
        arrays.open_array(params)


def test_a_pickled_array_is_not_opened(params):
    np.save(params.root / "images.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(UserError, match="is no plain NumPy array"):
        arrays.open_array(params)
    (params.root / "images.npy").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"is no plain NumPy array \(a pickle, or no array at all\)"):
        arrays.open_array(params)


def test_arrays_beside_class_folders_are_not_silently_taken_instead_of_them(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((2, 4, 4, 3), np.uint8))
    (tmp_path / "labels.csv").write_text("0\n1\n")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("x")
    params = DataParams(root=tmp_path)
    assert len(list_images(params).images) == 2
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"images\.npy and pictures in cat/ as well.*data\.layout to arrays or folders"):
        list_images(params)
    assert len(list_images(params.model_copy(update={"layout": "arrays"})).images) == 2


@pytest.mark.parametrize("name", ["Labels.csv", "labels.txt", "labels.npy"])
def test_labels_by_another_name_are_named(tmp_path, name):
    np.save(tmp_path / "images.npy", np.zeros((2, 4, 4, 3), np.uint8))
    (tmp_path / name).write_text("0\n1\n")
    with pytest.raises(UserError, match=rf"labels\.csv is missing \({name} lies there: save it as labels\.csv"):
        list_images(DataParams(root=tmp_path))
