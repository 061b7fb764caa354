"""Boxes are where the pixels are: in the letterbox, in drawn views, in mosaics, and back on the photograph."""

import numpy as np
import pytest

from plumbline.imaging.decode import resize
from plumbline.models import scene_views
from plumbline.models.scene_views import Example, Jitter

PLAIN = Jitter(brightness=0, contrast=0, saturation=0, hue=0)
BOX = np.array([[0.25, 0.5, 0.5, 0.75]])


def photograph(height=120, width=200):
    """Black, with a white rectangle at BOX."""
    made = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = (BOX[0] * [width, height, width, height]).astype(int)
    made[top:bottom, left:right] = 255
    return made


def bright(canvas):
    """Where a canvas is white, as a box in pixels."""
    rows, columns = np.nonzero(canvas[..., 0] > 190)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize(("height", "width"), [(120, 200), (200, 120), (97, 97), (30, 400)])
def test_view_0_is_the_letterbox_that_serves(height, width):
    canvases, affines = scene_views.views_of(photograph(height, width), "id", 96, 0, PLAIN)
    np.testing.assert_array_equal(canvases[0], resize(photograph(height, width), (96, 96), "letterbox"))
    assert scene_views.to_canvas(BOX, affines[0])[0] * 96 == pytest.approx(bright(canvases[0]), abs=1.2)


def test_boxes_move_with_the_pixels_of_every_view():
    canvases, affines = scene_views.views_of(photograph(), "id", 128, 12, PLAIN)
    mirrored = 0
    for canvas, affine in zip(canvases, affines, strict=True):
        boxes, labels = scene_views.visible(scene_views.to_canvas(BOX, affine), np.array([3]), (0, 0, 1, 1), 128)
        mirrored += affine[0] < 0
        if len(boxes):
            assert boxes[0] * 128 == pytest.approx(bright(canvas), abs=1.5)
            assert labels.tolist() == [3]
    assert 0 < mirrored < 12


def test_a_view_depends_on_the_pictures_id_and_its_number():
    first, places = scene_views.views_of(photograph(), "one", 64, 3, Jitter())
    again, _ = scene_views.views_of(photograph(), "one", 64, 5, Jitter())
    other, elsewhere = scene_views.views_of(photograph(), "two", 64, 3, Jitter())
    np.testing.assert_array_equal(first, again[:4])
    assert not np.array_equal(places[1:], elsewhere[1:])
    assert len({tuple(one) for one in places}) == 4
    assert not np.array_equal(first[1], other[1])


def test_boxes_find_back_to_the_photograph():
    _, affines = scene_views.views_of(photograph(), "id", 64, 6, PLAIN)
    for affine in affines:
        there = scene_views.to_canvas(BOX, affine)
        assert scene_views.to_photograph(there, affine) == pytest.approx(BOX)
    outside = scene_views.to_canvas(np.array([[-0.5, 0.2, 0.5, 1.5]]), affines[0])
    assert scene_views.to_photograph(outside, affines[0])[0] == pytest.approx([0, 0.2, 0.5, 1])


def test_boxes_mostly_out_of_sight_are_no_objects():
    boxes = np.array([[-0.8, 0, 0.2, 1], [-0.5, 0, 0.5, 1], [0.1, 0.1, 0.101, 0.2]])
    seen, labels = scene_views.visible(boxes, np.array([0, 1, 2]), (0, 0, 1, 1), 100)
    assert seen.tolist() == [[0, 0, 0.5, 1]]
    assert labels.tolist() == [1]


def test_a_mosaic_has_the_maps_and_the_boxes_of_four():
    """Maps are 1, 2, 3, 4 in the box of each of four, 0 elsewhere: so they are in the mosaic's boxes."""
    four = []
    for number in (1, 2, 3, 4):
        maps = np.zeros((16, 16, 1), np.float16)
        maps[2:13, 2:13] = number
        four.append(Example(maps, np.array([[2, 2, 13, 13]]) / 16, np.array([number])))
    for seed in range(20):
        made = scene_views.mosaic(four, 16, np.random.default_rng(seed))
        assert made.maps.shape == (16, 16, 1)
        covered = np.zeros((16, 16), bool)
        for box, label in zip((made.boxes * 16).round().astype(int), made.labels, strict=True):
            left, top, right, bottom = box
            assert (made.maps[top:bottom, left:right, 0] == label).all()
            covered[top:bottom, left:right] = True
        little = made.maps[..., 0][~covered]
        assert (little == 0).mean() > 0.5, "what has no box is background, or too little of one"


def test_jitter_that_runs_backwards_is_refused():
    with pytest.raises(ValueError, match="the least and the most"):
        Jitter(scale=(2.0, 0.5))
