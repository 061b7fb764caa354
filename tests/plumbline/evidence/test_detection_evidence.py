"""Figures of detectors: intervals, alarms and their threshold, pictures with the worst first, and the page."""

import re

import numpy as np
import pandas as pd
import pytest

from plumbline.evidence import context, detection, detection_figures
from plumbline.evidence.detection import DetectionParams, Trained
from plumbline.evidence.detection_price import DetectionPrice
from plumbline.evidence.detection_rules import DetectionGate, compare_with_champion, decide
from plumbline.evidence.detection_scores import match, scenes_of
from plumbline.evidence.intervals import draw_groups, group_codes
from plumbline.evidence.records import Costs
from plumbline.evidence.systems import (
    ClassifierFound,
    SystemsParams,
    best_margin,
    compare_systems,
    heads_of,
    judged_heads,
)
from plumbline.models.detector import DetectorRecord
from plumbline.models.records import Cost
from plumbline.pages.detection import Judgement, render

SIDES = ["left", "top", "right", "bottom"]
RECORD = {
    "detector": "first", "architecture": "yolo_grid", "maps": "pixels", "image_size": 64, "shape": (64, 64, 3),
    "strides": (8,), "classes": ("head", "helmet"), "settings": {}, "anchors": (), "seed": 0, "photographs": 10,
    "boxes": 20, "parameters": 10, "trainable_parameters": 5, "epochs_run": 2, "weights": "from scratch",
}  # fmt: skip
HISTORY = pd.DataFrame({"epoch": [1, 2], "loss": [1.0, 0.5], "val_loss": [1.1, 0.9]})


def at(x):
    return [x, 0.1, x + 0.2, 0.4]


@pytest.fixture
def data():
    """Twenty photographs, ten a split, each with a head on the left and a helmet on the right; one more is empty.

    Heads are found in all but photographs 0 and 10, with a score of 0.8; a false head scores 0.4 in 1 and 11.
    """
    photographs, boxes, found = [], [], []
    for number in range(20):
        split = "validation" if number < 10 else "test"
        path = f"{number:02}.jpg"
        photographs.append((path, 200, 100, f"group {number // 2}", split))
        boxes += [(path, "head", *at(0.1)), (path, "helmet", *at(0.6))]
        found.append((path, split, "helmet", 0.9, *at(0.6)))
        if number % 10:
            found.append((path, split, "head", 0.8, *at(0.12)))
        if number % 10 == 1:
            found.append((path, split, "head", 0.4, *at(0.75)))
    photographs.append(("20.jpg", 200, 100, "group 10", "test"))
    return (
        pd.DataFrame(photographs, columns=["path", "width", "height", "group", "split"]),
        pd.DataFrame(boxes, columns=["path", "label", *SIDES]),
        pd.DataFrame(found, columns=["path", "split", "label", "score", *SIDES]),
    )


def trained(detections, name="first"):
    record = DetectorRecord(**{**RECORD, "detector": name})
    return Trained(record, detections, HISTORY, Cost(seconds=1.0, peak_megabytes=10, latency_ms=2.0))


def test_figures_have_intervals_around_them(data):
    photographs, boxes, found = data
    made = detection_figures.figures(photographs, boxes, found, ["head", "helmet"], 200, 0)
    assert (made.photographs, made.groups) == (21, 11)
    head, helmet = made.classes["head"], made.classes["helmet"]
    assert helmet.ap.value == pytest.approx(1.0)
    assert helmet.ap.low < 0.95
    # 18 of 20 heads, all of them before the first false one: precision 1 up to recall 0.9.
    assert head.ap50.value == pytest.approx(91 / 101)
    assert head.ap50.low < 0.8 < head.ap50.value < head.ap50.high
    assert head.ap.value < head.ap50.value, "their boxes are off by a tenth of their width: IoU 0.82"
    assert head.ap75.value == pytest.approx(91 / 101)
    assert made.map50.value == pytest.approx((1 + 91 / 101) / 2)
    assert head.recall_at["0.1"].value == pytest.approx(0.9)
    assert (
        head.by_size == {"small": None, "medium": pytest.approx(head.ap.value), "large": None} or head.by_size["small"]
    )


def test_a_class_without_a_box_has_no_figure(data):
    photographs, boxes, found = data
    made = detection_figures.figures(photographs, boxes[boxes["label"] == "head"], found, ["head", "helmet"], 100, 0)
    assert made.classes["helmet"].ap is None
    assert made.map50.value == made.classes["head"].ap50.value
    empty = detection_figures.figures(photographs, boxes.iloc[:0], found.iloc[:0], ["head", "helmet"], 100, 0)
    assert empty.map is None


def test_the_alarms_threshold_is_the_cheapest(data):
    """Where a missed head is dear the threshold lies below the heads' scores; false ones at 0.4 stay below it."""
    photographs, boxes, found = data
    matches = match(list(scenes_of(photographs, boxes, found, "head")))
    costs = Costs(missed_violation=10, false_alarm=1)
    threshold = detection_figures.alarm_threshold(matches, costs)
    assert 0.4 < threshold <= 0.8
    codes = group_codes(photographs["group"])
    draws = draw_groups(int(codes.max()) + 1, 100, 0)[:, codes]
    raised = detection_figures.alarms(matches, threshold, costs, codes, draws)
    assert (raised.caught, raised.missed, raised.false) == (18, 2, 0)
    assert raised.recall.value == pytest.approx(0.9)
    assert raised.cost == pytest.approx(20 / 21)
    low = detection_figures.alarms(matches, 0.1, costs, codes, draws)
    assert (low.false, low.false_alarms) == (2, pytest.approx(2 / 21))


def test_the_best_is_chosen_on_validation(data):
    photographs, boxes, found = data
    better_on_test = found[(found["split"] == "test") | (found["label"] == "head")]
    detectors = {"first": trained(better_on_test), "second": trained(found, "second")}
    made = detection.evaluate(detectors, ["third"], photographs, boxes, DetectionParams(resamples=100))
    assert made.best == "second"
    assert made.missing == ("third",)
    assert made.detectors["second"].alarms["test"].caught == 9
    assert made.detectors["second"].mean_iou["test"] == pytest.approx((1 + 0.18 / 0.22) / 2)
    without = detection.evaluate(
        detectors, [], photographs, boxes, DetectionParams(resamples=100, violation_class="cap")
    )
    assert without.violation_class is None
    assert without.detectors["first"].alarms == {}


def test_photographs_with_most_mistakes_come_first(data):
    photographs, boxes, found = data
    judged = detection.worst_first(photographs, boxes, found, {"head": 0.3, "helmet": 0.5})
    assert {one.path for one in judged[:4]} == {"00.jpg", "01.jpg", "10.jpg", "11.jpg"}
    assert sorted(one.what for one in judged[0].drawn) == ["missed", "right"]
    assert sorted(one.what for one in judged[1].drawn) == ["right", "right", "wrong"]
    right = next(one for one in judged[1].drawn if one.what == "right" and one.label == "head")
    assert right.overlap == pytest.approx(0.18 / 0.22)
    assert right.box == pytest.approx(at(0.12))
    assert [one.mistakes for one in judged[4:]] == [0] * 17
    assert judged[-1].drawn == (), "nothing there, nothing found"


@pytest.mark.parametrize("violation", ["head", None])
def test_the_page_shows_boxes_and_asks_for_nothing_else(data, violation):
    photographs, boxes, found = data
    detectors = {"first": trained(found), "<b>": trained(found.iloc[:0], "<b>")}
    evidence = detection.evaluate(
        detectors, ["third"], photographs, boxes, DetectionParams(resamples=100, violation_class=violation)
    )
    missing = ClassifierFound(wanted="champion", why_not="there is <none>")
    systems = compare_systems(
        evidence, detectors, {}, {}, missing, missing.why_not, photographs, boxes, SystemsParams(), DetectionParams()
    )
    test = photographs[photographs["split"] == "test"]
    under = {"as it is": found, "context blurred": found, "boxes blurred": found.iloc[:0]}
    probed = context.measure("first", test, boxes, under, {"head": 0.5, "helmet": 0.5}, ["10.jpg"], 100, 0)
    decision = decide(evidence, systems, probed, 5, 0, DetectionGate())
    price = DetectionPrice(price=None, sentence="too few groups")
    heat = {"10.jpg": np.eye(8, dtype=np.float32)}
    judgement = Judgement(systems, probed, price, decision, "refused", "Promoted by force", found, heat)
    page = render(evidence, judgement, detectors, photographs, boxes, lambda path: np.full((100, 200, 3), 90, np.uint8))
    assert "first alone finds boxes best" in page
    assert "PROMOTED BY FORCE" in page
    assert page.count("Grad-CAM of 10.jpg") == 1
    assert "it still finds 100% (" in page
    assert "too few groups" in page
    assert "<strong>not measured</strong>: there is &lt;none&gt;" in page
    assert "third" in page
    assert "<b>" not in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert page.count('class="scene"') == 11
    assert page.count('<g class="missed">') == 1
    assert page.count('<g class="wrong">') == 0, "0.4 is below both the alarm's threshold and the one with the best F1"
    assert ("False alarms a photograph" in page) == (violation is not None)


def test_a_challenger_that_finds_less_is_worse_than_the_champion(data):
    photographs, boxes, found = data
    photographs, found = photographs[photographs["split"] == "test"], found.assign(alarm=found["score"] > 0.5)
    fewer = found[(found["label"] == "helmet") | (found["path"] == "11.jpg")]

    def compared(old, new):
        classes, params = ["head", "helmet"], DetectionParams(resamples=500)
        return compare_with_champion(photographs, boxes, old, new, classes, "head", params, 0.05)

    same = compared(found, found)
    assert same.passed
    assert [rule.value for rule in same.rules] == [0, 0]
    worse = compared(found, fewer)
    assert [rule.passed for rule in worse.rules] == [False, False]
    assert worse.rules[1].value == pytest.approx(-80 / 11), "eight heads of ten each on eleven photographs"
    assert compared(fewer, found).passed


def test_one_box_stays_around_each_head_and_the_classifier_says_which_class():
    table = pd.DataFrame(
        [("a", "test", "head", 0.5, *at(0.1)), ("a", "test", "helmet", 0.6, *at(0.11)),
         ("a", "test", "head", 0.04, *at(0.7)), ("b", "test", "head", 0.3, *at(0.1))],
        columns=["path", "split", "label", "score", *SIDES],
    )  # fmt: skip
    heads = heads_of(table, SystemsParams())
    assert heads[["path", "score", "left"]].to_numpy().tolist() == [["a", 0.6, 0.11], ["b", 0.3, 0.1]]
    made = judged_heads(heads, np.array([[0.9, 0.1], [0.2, 0.8]]), ["head", "helmet"])
    assert list(made) == list(table)
    assert made["score"].tolist() == pytest.approx([0.54, 0.06, 0.06, 0.24])
    assert len(judged_heads(heads_of(table.iloc[:0], SystemsParams()), np.zeros((0, 2)), ["head", "helmet"])) == 0


def test_the_margin_of_crops_is_chosen_on_validation(data):
    photographs, boxes, found = data
    worse = found[(found["split"] == "test") | (found["label"] == "helmet")]
    assert best_margin({0.0: worse, 0.5: found}, photographs, boxes, ["head", "helmet"]) == 0.5
    assert best_margin({0.0: found, 0.5: found}, photographs, boxes, ["head", "helmet"]) == 0.0
