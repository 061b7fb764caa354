"""Boxes in .txt files, before any photograph is looked at: what is such a set, and what becomes of every line."""

import pytest
from labelled import BOX, lay

from plumbline.imaging.layouts.box_texts import has_box_texts, read_box_texts

NAMES = "helmet\nhead\n"


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"obj.names": NAMES, "a.jpg": None}, True),
        ({"a.jpg": None, "a.txt": BOX}, True),
        ({"images/a.jpg": None, "labels/a.txt": BOX}, True),
        ({"data.yaml": "names: [helmet]\nnc: 1\n", "a.jpg": None}, True),
        ({"a.jpg": None, "a.txt": "a caption\n", "notes.yaml": "names: [Ann]\n"}, False),
        ({"a.jpg": None, "b.txt": BOX}, False),
    ],
)
def test_a_set_is_of_this_kind_where_classes_are_named_or_boxes_lie_with_a_picture(tmp_path, files, wanted):
    assert has_box_texts(lay(tmp_path, files), list(files)) is wanted


def test_every_line_is_a_box_or_a_fault_of_its_photograph(tmp_path):
    text = BOX + "\n1 0.1 0.1 0.1 0.1\n2 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1\n0 0.5 0.5 0 0.1\n"
    files = {"obj.names": NAMES, "a.jpg": None, "a.txt": text, "b.jpg": None}
    found = read_box_texts(lay(tmp_path, files), list(files))
    assert [(box.number, box.label) for box in found.boxes["a.jpg"]] == [(0, "helmet"), (2, "head")]
    assert found.boxes["b.jpg"] == []
    assert found.faults == {"a.jpg": 3}
    assert [one.path for one in found.refused] == ["a.jpg#3", "a.jpg#4", "a.jpg#5"]
    assert found.classes == {"helmet", "head"}
    assert found.sides == {}


def test_a_text_that_is_none_takes_its_photograph_along(tmp_path):
    files = {"obj.names": NAMES, "a.jpg": None, "a.txt": "version https://git-lfs.github.com/spec/v1\n", "b.jpg": None}
    found = read_box_texts(lay(tmp_path, files), list(files))
    assert found.spoilt == {"a.jpg"}
    assert "a.txt is a Git LFS pointer" in found.refused[0].reason
