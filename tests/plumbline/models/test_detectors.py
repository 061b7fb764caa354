"""Every architecture of detectors: the right answers give the boxes back, and training finds the way there."""

import numpy as np
import pandas as pd
import pytest

from plumbline.common.errors import UserError
from plumbline.evidence.detection_scores import average_precision, match, scenes_of
from plumbline.models import detecting
from plumbline.models.detecting import detections_table, reported
from plumbline.models.detector import Detector, Problem, Suppression, design, detector_names
from plumbline.models.detector_training import Scenes, detect, examples, fit
from plumbline.models.detectors import se_resnet50_two_head
from plumbline.models.fitting import make_deterministic
from plumbline.models.records import WeightsRecord
from plumbline.models.scene_maps import MapsRecord, compute_maps, cut_at
from plumbline.models.scene_views import Jitter

SIDE = 64
ANCHORS = np.array([[0.25, 0.25], [0.4, 0.5]])
BOXES = np.array([[0.1, 0.2, 0.4, 0.5], [0.55, 0.3, 0.95, 0.9], [0.15, 0.6, 0.4, 0.85]])
LABELS = np.array([0, 1, 0])
ON_MAPS = ("frozen_mobilenet", "sliding_window")
NO_WEIGHTS = WeightsRecord(backbone="m", requested="random", origin="random", file=None, sha256=None)


def problem(architecture, strides=(8, 16, 32)):
    shape = (8, 8, 32) if architecture in ON_MAPS else (SIDE, SIDE, 3)
    return Problem(shape, SIDE, 2, strides, ANCHORS)


def planned(architecture, **settings):
    return design(Detector(architecture=architecture, maps="m", **settings), problem(architecture))


def test_all_architectures_are_tested_here():
    assert detector_names() == ["frozen_mobilenet", "se_resnet50_two_head", "sliding_window", "yolo_grid"]


@pytest.mark.parametrize("quality", ["iou", "centreness", "none"])
def test_fcos_decodes_what_it_is_taught(quality):
    plan = planned("frozen_mobilenet", quality=quality)
    targets = plan.targets(BOXES, LABELS)
    centres, strides = plan.places
    positive = targets[:, :2].max(axis=1) > 0
    away = np.concatenate([centres - targets[:, 2:4] * SIDE, targets[:, 4:6] * SIDE - centres], axis=1)
    logs = np.log(np.where(positive[:, None], away / strides[:, None], 1.0))
    answers = np.concatenate([np.where(targets[:, :2] > 0, 9.0, -9.0), logs, 9 * np.ones((len(logs), 1))], axis=1)
    width = 7 if quality == "centreness" else 6
    boxes, scores = (np.asarray(one)[0] for one in plan.decoded(answers[None, :, :width].astype(np.float32)))
    found = reported(boxes, scores, Suppression(least_score=0.5))
    assert found.boxes[np.argsort(found.boxes[:, 0])] == pytest.approx(BOXES[np.argsort(BOXES[:, 0])], abs=1e-5)
    assert sorted(found.classes) == [0, 0, 1]


def test_fcos_teaches_the_smaller_of_two_and_a_box_without_a_middle():
    plan = planned("frozen_mobilenet")
    nested = plan.targets(np.array([[0.3, 0.3, 0.7, 0.7], [0.4, 0.4, 0.6, 0.6]]), np.array([0, 1]))
    assert nested[nested[:, 1] > 0][0, 2:6] == pytest.approx([0.4, 0.4, 0.6, 0.6])
    pixel = plan.targets(np.array([[0.5, 0.5, 0.5 + 1 / SIDE, 0.5 + 1 / SIDE]]), np.array([1]))
    assert (pixel[:, 1] > 0).sum() == 1
    assert plan.targets(np.zeros((0, 4)), np.zeros(0, int)).sum() == 0


def test_yolo_decodes_what_it_is_taught():
    plan = planned("yolo_grid")
    targets = plan.targets(BOXES, LABELS)
    inside = np.clip(targets[:, 1:3], 1e-6, 1 - 1e-6)
    answers = np.concatenate(
        [20 * targets[:, :1] - 10, np.log(inside / (1 - inside)), targets[:, 3:5], 20 * targets[:, 5:]], axis=1
    )
    boxes, scores = (np.asarray(one)[0] for one in plan.decoded(answers[None].astype(np.float32)))
    found = reported(boxes, scores, Suppression(least_score=0.5))
    assert found.boxes[np.argsort(found.boxes[:, 0])] == pytest.approx(BOXES[np.argsort(BOXES[:, 0])], abs=1e-5)
    assert sorted(found.classes) == [0, 0, 1]


def test_yolo_gives_boxes_of_one_cell_an_anchor_each():
    plan = planned("yolo_grid")
    same = np.array([[0.4, 0.4, 0.6, 0.6], [0.41, 0.41, 0.61, 0.61], [0.42, 0.42, 0.6, 0.6]])
    assert plan.targets(same, np.array([0, 1, 1]))[:, 0].sum() == 2, "two anchors, so the third is left out"


def test_the_two_heads_are_taught_the_largest_box():
    targets = planned("se_resnet50_two_head", width=0.1).targets(BOXES, LABELS)
    assert targets.tolist() == [pytest.approx([0, 1, *BOXES[1], 1])]
    assert planned("se_resnet50_two_head").targets(np.zeros((0, 4)), np.zeros(0, int)).sum() == 0


@pytest.mark.slow
def test_the_two_heads_stand_on_a_resnet50():
    """A convolution, 16 blocks of three and 4 shortcuts before the box head's own: 49 + 4 + 1, each block added."""
    network = planned("se_resnet50_two_head", width=0.125).network(None)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert (kinds.count("Conv2D"), kinds.count("Add"), kinds.count("Multiply")) == (54, 16, 16)
    assert network(np.zeros((1, SIDE, SIDE, 3), np.float32)).shape == (1, 1, 2 + 4)


def test_windows_are_taught_what_they_show():
    plan = planned("sliding_window")
    box = plan.windows[10:11]
    targets = plan.targets(box, np.array([1]))
    assert targets[10].tolist() == [0, 0, 1]
    assert set(targets.sum(axis=1)) == {0.0, 1.0}
    assert plan.targets(np.array([[0.0, 0.0, 0.02, 0.02]]), np.array([0]))[:, 1].sum() == 1, "too small for any window"


def drawn(count, random):
    """Photographs of red squares (class 0) and blue ones (class 1) on grey, with their boxes."""
    photographs, boxes, labels = [], [], []
    for _ in range(count):
        made = random.integers(90, 130, (SIDE, SIDE, 3)).astype(np.uint8)
        own, kinds = [], []
        for corner in ((4, 4), (36, 34)):
            left, top = np.add(corner, random.integers(0, 4, 2))
            side, kind = int(random.integers(16, 22)), int(random.integers(0, 2))
            made[top : top + side, left : left + side] = [(220, 20, 20), (20, 20, 220)][kind]
            own.append([left, top, left + side, top + side])
            kinds.append(kind)
        photographs.append(made)
        boxes.append(np.array(own) / SIDE)
        labels.append(np.array(kinds))
    return photographs, boxes, labels


SETTINGS = {
    "frozen_mobilenet": {"channels": 16, "tower": 1, "epochs": 45, "tuned_rate": 0.3, "learning_rate": 0.01},
    "sliding_window": {"channels": 16, "epochs": 25, "tuned_rate": 0.3, "learning_rate": 0.01},
    "yolo_grid": {"width": 0.25, "anchors": 1, "epochs": 30, "learning_rate": 0.01},
    "se_resnet50_two_head": {"width": 0.125, "epochs": 30, "learning_rate": 0.003},
}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", SETTINGS)
def test_squares_are_found_by_their_colour(architecture, monkeypatch):
    """Of the two heads' one object a picture only its box is asked for: in these, both are as good.

    They learn on five blocks of ResNet50's sixteen, a repeated one among them: TensorFlow takes a minute for the whole.
    """
    monkeypatch.setattr(se_resnet50_two_head, "BLOCKS", (2, 1, 1, 1))
    photographs, boxes, labels = drawn(24, np.random.default_rng(1))
    kept = "block_5_add" if architecture in ON_MAPS else None
    record = MapsRecord(
        name="m", network="mobilenet_v2" if kept else "pixels", kept=kept, strides=(8, 16, 32), image_size=SIDE,
        views=1, jitter=Jitter(scale=(0.9, 1.1), hue=0), weights=NO_WEIGHTS, seed=0, code="",
    )  # fmt: skip
    make_deterministic(0)
    parts = cut_at(record, None)
    rows = list(compute_maps(photographs, map(str, range(24)), record, parts))
    maps, affines = np.stack([row.maps for row in rows]), np.stack([row.affines for row in rows])
    if architecture == "se_resnet50_two_head":
        boxes, labels = [one[:1] for one in boxes], [one[:1] for one in labels]
    scenes = Scenes(maps, affines, boxes, labels, SIDE, np.arange(24))
    detector = Detector(
        architecture=architecture, maps="m", batch_size=6, average=0.9, mosaic=0.2, **SETTINGS[architecture]
    )
    plan = design(detector, Problem(maps.shape[2:], SIDE, 2, record.strides, np.array([[0.3, 0.3]])))
    network = plan.network(parts.upper)
    history = fit(
        network, parts.upper, plan, detector, scenes.some(np.arange(20)), scenes.some(np.arange(20, 24)), 2, 0
    )
    assert {"epoch", "loss", "val_loss", *plan.metrics()} <= set(history)
    assert history["loss"].iloc[-3:].mean() < 0.5 * history["loss"].iloc[0]
    paths = [f"{number}.png" for number in range(24)]
    table = detections_table(paths, detect(network, plan, detector, scenes), affines[:, 0], ["red", "blue"])
    truth = pd.DataFrame(
        [(path, ["red", "blue"][kind], *box) for path, own, kinds in zip(paths, boxes, labels, strict=True)
         for kind, box in zip(kinds, own, strict=True)],
        columns=["path", "label", *detecting.SIDES],
    )  # fmt: skip
    sizes = pd.DataFrame({"path": paths, "width": SIDE, "height": SIDE})
    found = [average_precision(match(list(scenes_of(sizes, truth, table, of))))[0] for of in ("red", "blue")]
    least = {"frozen_mobilenet": 0.4, "yolo_grid": 0.5, "sliding_window": 0.4, "se_resnet50_two_head": 0.3}
    assert np.mean(found) > least[architecture]


def test_examples_are_drawn_from_the_seed_and_rare_classes_more_often():
    maps = np.arange(10 * 2 * 4 * 4).reshape(10, 2, 4, 4, 1)
    boxes, labels = [np.array([[0.1, 0.1, 0.9, 0.9]])] * 10, [np.array([int(row == 0)]) for row in range(10)]
    affines = np.tile([1.0, 0, 1, 0], (10, 2, 1))
    scenes = Scenes(maps, affines, boxes, labels, 64, np.arange(10))
    detector = Detector(architecture="yolo_grid", maps="m", mosaic=0.5)
    first, again, later = (list(examples(scenes, detector, 2, 7, epoch)) for epoch in (0, 0, 1))
    assert all(np.array_equal(one.maps, two.maps) for one, two in zip(first, again, strict=True))
    assert not all(np.array_equal(one.maps, two.maps) for one, two in zip(first, later, strict=True))
    assert scenes.chances(2, rare=True) == pytest.approx(np.array([3, *[1] * 9]) / 12)
    assert scenes.chances(2, rare=False) == pytest.approx(np.full(10, 0.1))


def test_a_detector_on_the_wrong_maps_is_refused():
    for architecture in detector_names():
        other = "yolo_grid" if architecture in ON_MAPS else "frozen_mobilenet"
        with pytest.raises(UserError, match="maps"):
            design(Detector(architecture=architecture, maps="m"), problem(other))


@pytest.mark.slow
def test_a_layer_that_is_not_there_or_too_late_is_refused():
    def record(kept):
        return MapsRecord(
            name="m", network="mobilenet_v2", kept=kept, strides=(8, 16, 32), image_size=SIDE, views=0,
            jitter=Jitter(), weights=NO_WEIGHTS, seed=0, code="",
        )  # fmt: skip

    with pytest.raises(UserError, match="has no layer 'block_99'"):
        cut_at(record("block_99"), None)
    with pytest.raises(UserError, match="name an earlier one"):
        cut_at(record("block_12_add"), None)


def test_a_photograph_without_boxes_reports_nothing():
    found = reported(np.zeros((5, 4)), np.zeros((5, 2)), Suppression())
    assert len(found.scores) == 0
    table = detections_table(["a.jpg"], [found], np.array([[1.0, 0, 1, 0]]), ["head", "helmet"])
    assert list(table) == ["path", "label", "score", "left", "top", "right", "bottom"]
    assert len(table) == 0


def test_soft_suppression_keeps_neighbours_with_lower_scores():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.9], [0.5, 0.5, 1, 1]])
    scores = np.array([[0.9], [0.8], [0.3]])
    hard = reported(boxes, scores, Suppression())
    soft = reported(boxes, scores, Suppression(kind="soft"))
    assert hard.scores.tolist() == [0.9, 0.3]
    assert len(soft.scores) == 3
    assert soft.scores.max() == 0.9
    lowered = 0.8 * np.exp(-(0.9**2) / 0.5) * np.exp(-((0.2 / 0.95) ** 2) / 0.5)
    assert soft.scores[soft.boxes[:, 3] == 0.9][0] == pytest.approx(lowered)
