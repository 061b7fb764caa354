"""Average precision equals COCO's own (pycocotools) on random and hand-made photographs."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.evidence import detection_scores as scores
from plumbline.evidence.detection_scores import Scene

NONE = np.zeros((0, 4))


def scene(boxes, detections=(), given=()):
    """A photograph from lists of (left, top, right, bottom)."""
    return Scene(
        np.array(boxes, float).reshape(-1, 4), np.array(detections, float).reshape(-1, 4), np.array(given, float)
    )


def coco(photographs):
    """What pycocotools says: precision averaged over recalls by IoU threshold, for all sizes and each one (T, 4)."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def box(values):
        left, top, right, bottom = map(float, values)
        return [left, top, right - left, bottom - top]

    truth, found = [], []
    for number, one in enumerate(photographs):
        of = {"image_id": number + 1, "category_id": 1}
        for values in one.boxes:
            _, _, width, height = box(values)
            truth.append({**of, "id": len(truth) + 1, "bbox": box(values), "area": width * height, "iscrowd": 0})
        found += [{**of, "bbox": box(v), "score": float(s)} for v, s in zip(one.detections, one.scores, strict=True)]
    if not found:  # pycocotools can't load an empty list; one outside all photographs that count changes nothing
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "images": [{"id": number + 1} for number in range(len(photographs))],
            "annotations": truth,
            "categories": [{"id": 1}],
            "info": {},
        }
        data.createIndex()
        judged = COCOeval(data, data.loadRes(found), "bbox")
        judged.params.maxDets = [1, 10, 100]
        judged.evaluate()
        judged.accumulate()
    return judged.eval["precision"][:, :, 0, :, 2].mean(axis=1)


def ours(photographs):
    columns = [scores.average_precision(scores.match(photographs, size=size)) for size in scores.SIZES]
    return np.nan_to_num(np.stack(columns, axis=1), nan=-1)  # pycocotools' -1: there is nothing to find


sides = st.tuples(st.integers(0, 120), st.integers(0, 120), st.integers(1, 130), st.integers(1, 130))
box = sides.map(lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3]))


@st.composite
def photographs(draw):
    """A few photographs; detections are boxes moved by a few pixels, or anywhere, with scores that often tie."""
    made = []
    for _ in range(draw(st.integers(1, 4))):
        boxes = draw(st.lists(box, max_size=5))
        moved = [tuple(np.add(one, draw(st.tuples(*[st.integers(0, 6)] * 2)) * 2).tolist()) for one in boxes]
        detections = draw(st.lists(st.sampled_from(moved) | box if moved else box, max_size=8))
        given = draw(st.lists(st.integers(1, 9), min_size=len(detections), max_size=len(detections)))
        made.append(scene(boxes, detections, np.array(given) / 10))
    return made


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(photographs())
def test_average_precision_is_cocos(made):
    theirs = coco(made)
    if theirs is not None:
        assert ours(made) == pytest.approx(theirs, abs=1e-6)


HAND_MADE = {
    "nothing to find": [scene([], [(0, 0, 9, 9)], [0.5])],
    "nothing found": [scene([(0, 0, 9, 9)]), scene([], [(0, 0, 9, 9)], [0.9])],
    "one box found twice": [scene([(0, 0, 40, 40)], [(0, 0, 40, 40), (1, 0, 41, 40)], [0.8, 0.9])],
    "a tie": [scene([(0, 0, 40, 40)], [(0, 0, 40, 40), (80, 80, 99, 99)], [0.5, 0.5]), scene([(0, 0, 9, 9)])],
    "two boxes overlap it equally": [scene([(0, 0, 4, 4), (4, 0, 8, 4)], [(2, 0, 6, 4), (0, 0, 4, 4)], [0.9, 0.8])],
    "sizes at the border": [
        scene([(0, 0, 32, 32), (50, 50, 146, 146)], [(0, 0, 32, 32), (50, 50, 146, 146)], [0.9, 0.8]),
    ],
    "boxes of one pixel": [scene([(3, 3, 4, 4)], [(3, 3, 4, 4), (3, 3, 5, 4)], [0.6, 0.7])],
    "a hundred and fifty of them": [
        scene([(0, 0, 9, 9)], [(x, 0, x + 9, 9) for x in range(149, -1, -1)], np.linspace(0.9, 0.1, 150))
    ],
    "exactly half": [scene([(0, 0, 10, 10)], [(0, 0, 10, 5)], [0.9])],
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_hand_made_photographs_score_as_cocos(name):
    assert ours(HAND_MADE[name]) == pytest.approx(coco(HAND_MADE[name]), abs=1e-6)


def test_average_precision_by_hand():
    """Right, wrong, right, of two boxes: precision 1 up to recall 0.5, then 2/3 up to 1."""
    made = [
        scene([(0, 0, 9, 9)], [(0, 0, 9, 9), (50, 0, 59, 9)], [0.9, 0.8]),
        scene([(0, 0, 9, 9)], [(0, 0, 9, 9)], [0.7]),
    ]
    matches = scores.match(made)
    assert scores.average_precision(matches)[0] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    precision, recall, given = scores.curve(matches)
    assert precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert recall.tolist() == [0.5, 0.5, 1]
    assert given.tolist() == [0.9, 0.8, 0.7]


def test_a_photograph_drawn_twice_counts_twice():
    made = [
        scene([(0, 0, 9, 9)], [(0, 0, 9, 9), (50, 0, 59, 9)], [0.9, 0.8]),
        scene([(0, 0, 9, 9)], [(0, 0, 9, 9)], [0.7]),
        scene([(0, 0, 9, 9)]),
    ]
    twice = scores.average_precision(scores.match(made), np.array([1.0, 2, 0]))
    assert twice == pytest.approx(scores.average_precision(scores.match([made[0], made[1], made[1]])))


def test_recall_at_a_number_of_false_alarms():
    made = [
        scene([(0, 0, 9, 9)], [(0, 0, 9, 9), (50, 0, 59, 9)], [0.9, 0.8]),
        scene([(0, 0, 9, 9)], [(0, 0, 9, 9), (50, 0, 59, 9)], [0.8, 0.1]),
        scene([(0, 0, 9, 9)]),
        scene([]),
    ]
    matches = scores.match(made)
    assert scores.recall_at(matches, 0) == pytest.approx(1 / 3), "at 0.8 a right and a wrong one come together"
    assert scores.recall_at(matches, 0.25) == pytest.approx(2 / 3)
    assert scores.recall_at(matches, 5) == pytest.approx(2 / 3)
    assert np.isnan(scores.recall_at(scores.match([scene([])]), 1))


def test_mean_iou_is_of_what_was_found():
    made = [scene([(0, 0, 10, 10)], [(0, 0, 10, 8), (50, 0, 59, 9)], [0.9, 0.8])]
    assert scores.mean_iou(made, scores.match(made), 0.5) == pytest.approx(0.8)
    assert np.isnan(scores.mean_iou(made, scores.match(made), 0.95))
