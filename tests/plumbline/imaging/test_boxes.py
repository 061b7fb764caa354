"""Boxes in shares of the upright photograph: clipped, turned, or refused by name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from plumbline.imaging.boxes import (
    BACKGROUND,
    COLUMNS,
    box_classes,
    box_table,
    boxes_by_class,
    label_of,
    settle_boxes,
    turned,
)
from plumbline.imaging.pictures import Marked


def box(*edges, path="a.jpg", number=0, label="helmet", size=None):
    return Marked(path, number, label, *map(float, edges), size)


def settled(*boxes, size=(200, 100), stored=None):
    return settle_boxes(boxes, {"a.jpg": size}, lambda path: stored)


def reasons(found):
    return {one.path: one.reason for one in found.refused}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_turns_with_its_picture(orientation):
    stored = Image.new("RGB", (40, 20))
    stored.paste((255, 0, 0), (4, 2, 12, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.info["exif"] = exif.tobytes()
    stored.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(stored))[..., 0] > 0
    rows, columns = np.nonzero(upright)
    high, wide = upright.shape
    wanted = (columns.min() / wide, rows.min() / high, (columns.max() + 1) / wide, (rows.max() + 1) / high)
    assert turned((4 / 40, 2 / 20, 12 / 40, 8 / 20), orientation) == pytest.approx(wanted)


def test_pixels_become_shares_of_the_picture_they_were_drawn_on():
    inside = box(20, 10, 60, 50, size=(200, 100))
    assert settled(inside).boxes == [box(0.1, 0.1, 0.3, 0.5)]
    assert settled(box(20, 10, 60, 50, size=(0, 0))).boxes == [box(0.1, 0.1, 0.3, 0.5)], "no size: that of the picture"
    halved = settled(box(10, 5, 30, 25, size=(100, 50)), stored=((200, 100), 1))
    assert (halved.boxes, halved.resized) == ([box(0.1, 0.1, 0.3, 0.5)], 1)
    # Drawn on the picture as it is stored, lying; upright it stands.
    lying = settled(box(10, 40, 50, 120, size=(100, 200)), stored=((100, 200), 6))
    assert lying.boxes[0].left == pytest.approx(1 - 120 / 200)
    assert (lying.boxes[0].top, lying.boxes[0].bottom) == pytest.approx((0.1, 0.5))


def test_boxes_of_another_picture_take_the_photograph_with_them():
    found = settled(box(20, 10, 60, 50, size=(640, 640)), stored=((200, 100), 1))
    assert found.boxes == []
    assert found.lost == {"a.jpg"}
    assert "has 200 x 100 pixels, but its boxes were drawn on 640 x 640" in reasons(found)["a.jpg"]


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        ((0.5, 0.1, 0.5, 0.3), "has no area"),
        ((0.6, 0.1, 0.5, 0.3), "has no area"),
        ((0.5, 0.1, 1.2, 0.3), "reaches outside the photograph by 20% of it"),
        ((-0.2, 0.1, 0.5, 0.3), "reaches outside"),
        ((0.5, float("nan"), 0.6, 0.3), "an edge that is no number"),
        ((0.5, 0.5, 0.501, 0.6), "less than a pixel of this 200 x 100 photograph"),
    ],
)
def test_a_box_that_can_not_be_is_named_and_the_others_stay(edges, said):
    good = box(0.1, 0.1, 0.2, 0.2, number=1)
    found = settled(box(*edges), good)
    assert found.boxes == [good]
    assert said in reasons(found)["a.jpg#0"]
    assert found.lost == set()
    alone = settled(box(*edges))
    assert alone.lost == {"a.jpg"}
    assert "one box, which can't be used" in reasons(alone)["a.jpg"]


def test_rounding_is_clipped_and_a_box_of_one_pixel_is_a_box():
    found = settled(box(-0.004, 0.5, 0.1, 1.009), box(0.5, 0.5, 0.505, 0.51, number=1))
    assert found.boxes == [box(0, 0.5, 0.1, 1), box(0.5, 0.5, 0.505, 0.51, number=1)]
    assert found.refused == []


def test_the_same_box_twice_is_one_and_under_two_classes_none():
    twice = settled(box(0.1, 0.1, 0.2, 0.2), box(0.1, 0.1, 0.2, 0.2, number=1))
    assert twice.boxes == [box(0.1, 0.1, 0.2, 0.2)]
    assert "is there twice, as box 1 of its photograph" in reasons(twice)["a.jpg#1"]
    either = settled(
        box(0.1, 0.1, 0.2, 0.2), box(0.1, 0.1, 0.2, 0.2, number=1, label="head"), box(0.5, 0.5, 0.6, 0.6, number=2)
    )
    assert [one.number for one in either.boxes] == [2]
    assert "is there as head and as helmet" in reasons(either)["a.jpg#1"]
    assert "is there as helmet and as head" in reasons(either)["a.jpg#0"]


def test_boxes_of_photographs_that_were_refused_are_left_out():
    assert settle_boxes([box(0.1, 0.1, 0.2, 0.2)], {}, lambda path: None).boxes == []


SHARE = st.floats(-0.5, 1.5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SHARE, SHARE, SHARE, SHARE, st.sampled_from(["helmet", "head"])), max_size=12))
def test_whatever_the_edges_every_box_is_used_or_named(drawn):
    boxes = [box(*edges, number=n, label=label) for n, (*edges, label) in enumerate(drawn)]
    found = settled(*boxes)
    table = box_table(found.boxes)
    assert table["left"].between(0, 1).all()
    assert (table["right"] > table["left"]).all()
    assert (table["bottom"] > table["top"]).all()
    named = {one.path for one in found.refused}
    assert {one.name for one in boxes} == {one.name for one in found.boxes} | (named - {"a.jpg"})
    assert ("a.jpg" in named) == bool(boxes and not found.boxes) == ("a.jpg" in found.lost)


def test_the_table_is_the_contracts():
    table = box_table([box(0.1, 0.2, 0.3, 0.4), box(0, 0, 1, 1, label="head")])
    assert tuple(table.columns) == COLUMNS == ("path", "label", "left", "top", "right", "bottom")
    assert set(table.dtypes[2:].astype(str)) == {"float64"}
    assert tuple(box_table([]).columns) == COLUMNS
    assert boxes_by_class(table) == "1 helmet, 1 head"


def test_a_photographs_label_is_its_classes():
    assert label_of(["helmet", "head", "helmet"]) == "head;helmet"
    assert label_of([]) == BACKGROUND
    assert box_classes("head;helmet") == ("head", "helmet")
    assert box_classes(BACKGROUND) == ()
