"""Overlaps worked out by hand, the course's examples, and properties that hold for all boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from plumbline.common.overlap import areas, giou, iou
from plumbline.tasks import boxes

SQUARES = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [0, 0, 2, 1], [5, 5, 6, 6], [1, 1, 1, 3]], dtype=float)


def test_iou_by_hand():
    assert iou(SQUARES[:1], SQUARES)[0].tolist() == pytest.approx([1, 1 / 3, 1 / 2, 0, 0])


def test_boxes_without_an_area_overlap_nothing():
    assert iou(SQUARES[4:], SQUARES[4:]).tolist() == [[0.0]]


def test_giou_by_hand():
    """Around the first and the second is 3 x 2, all covered; around the first and the fourth 6 x 6, of which 5 are."""
    assert giou(SQUARES[:1], SQUARES)[0, :4].tolist() == pytest.approx([1, 1 / 3, 1 / 2, -31 / 36])


@pytest.mark.parametrize(
    ("overlap", "word"),
    [(1.0, "best"), (0.9, "best"), (0.89, "good"), (0.7, "good"), (0.5, "satisfactory"), (0.49, "poor")],
)
def test_the_courses_bands(overlap, word):
    assert boxes.band(overlap) == word


def test_the_courses_example_of_suppression():
    """Four detections of one car, 0.9, 0.8, 0.75 and 0.7: the surest stays. A car elsewhere stays as well."""
    car = np.array([[10, 10, 50, 30], [12, 10, 52, 30], [8, 11, 48, 31], [10, 13, 50, 33], [100, 10, 140, 30]], float)
    scores = np.array([0.8, 0.9, 0.7, 0.75, 0.6])
    kept = boxes.nms(car, scores, 0.5)
    assert scores[kept].tolist() == [0.9, 0.6]
    assert kept.tolist() == [1, 4]


def test_classes_do_not_suppress_each_other_and_the_best_are_kept():
    same = np.tile([[0.0, 0, 1, 1]], (4, 1))
    scores, classes = np.array([0.5, 0.9, 0.7, 0.6]), np.array([0, 0, 1, 1])
    assert boxes.nms_per_class(same, scores, classes, 0.5, most=10).tolist() == [1, 2]
    assert boxes.nms_per_class(same, scores, classes, 0.5, most=1).tolist() == [1]
    assert boxes.nms_per_class(same[:0], scores[:0], classes[:0], 0.5, most=10).tolist() == []


def test_soft_suppression_lowers_by_the_overlap():
    """The second overlaps the first by 1/3, the third none."""
    three = SQUARES[[0, 1, 3]]
    lowered = boxes.soft_nms(three, np.array([0.9, 0.8, 0.7]), sigma=0.5)
    assert lowered.tolist() == pytest.approx([0.9, 0.8 * np.exp(-(1 / 9) / 0.5), 0.7])
    apart = boxes.soft_nms_per_class(three, np.array([0.9, 0.8, 0.7]), np.array([0, 1, 0]))
    assert apart.tolist() == pytest.approx([0.9, 0.8, 0.7])


corners = arrays(np.int64, (5, 4), elements=st.integers(0, 12))


@given(corners)
def test_overlaps_are_symmetric_and_bounded(values):
    some = np.concatenate([np.minimum(values[:, :2], values[:, 2:]), np.maximum(values[:, :2], values[:, 2:])], 1) * 1.0
    overlap, general = iou(some, some), giou(some, some)
    assert (overlap == overlap.T).all()
    assert ((overlap >= 0) & (overlap <= 1)).all()
    assert ((general <= overlap + 1e-12) & (general >= -1)).all()
    filled = areas(some) > 0
    assert np.diag(overlap)[filled].tolist() == pytest.approx([1.0] * int(filled.sum()))


@given(corners, st.floats(0, 1), st.randoms(use_true_random=False))
def test_what_is_kept_does_not_overlap_and_what_goes_overlaps_a_better_one(values, most, random):
    some = np.concatenate([np.minimum(values[:, :2], values[:, 2:]), np.maximum(values[:, :2], values[:, 2:])], 1) * 1.0
    scores = np.array([random.random() for _ in some])
    kept = boxes.nms(some, scores, most)
    overlap = iou(some, some)
    assert all(overlap[a, b] <= most for a in kept for b in kept if a != b)
    for one in set(range(len(some))) - set(kept.tolist()):
        assert any(overlap[one, better] > most and scores[better] >= scores[one] for better in kept)


def test_anchors_find_the_sizes_that_boxes_come_in():
    random = np.random.default_rng(0)
    sizes = np.repeat([[10, 20], [50, 40]], 40, axis=0) + random.normal(0, 0.5, (80, 2))
    found = boxes.anchors(sizes, 2, seed=0)
    assert found == pytest.approx(np.array([[10, 20], [50, 40]]), abs=1)
    assert boxes.size_iou(sizes, found).max(axis=1).mean() > 0.9


def test_fewer_sizes_than_anchors_are_the_anchors():
    assert boxes.anchors(np.array([[4.0, 4], [2, 2], [4, 4]]), 5, seed=0).tolist() == [[2, 2], [4, 4]]
