"""The gate of detectors: what passes, what fails for good, and what only lacks test groups."""

import pytest

from plumbline.commands.summary import of_detectors
from plumbline.evidence.context import ContextEvidence
from plumbline.evidence.detection import DetectionEvidence, DetectorEvidence
from plumbline.evidence.detection_figures import Alarms, DetectionFigures
from plumbline.evidence.detection_rules import DetectionGate, decide
from plumbline.evidence.records import Costs, Figure
from plumbline.evidence.systems import ClassifierFound, SystemsEvidence, SystemsParams
from plumbline.models.detector import DetectorRecord
from plumbline.models.records import Cost

RECORD = DetectorRecord(
    detector="one", architecture="yolo_grid", maps="pixels", image_size=64, shape=(64, 64, 3), strides=(8,),
    classes=("head", "helmet"), settings={}, anchors=(), seed=0, photographs=10, boxes=20, parameters=1000,
    trainable_parameters=1000, epochs_run=2, weights="from scratch",
)  # fmt: skip


def evidence(map50=(0.8, 0.7, 0.9), recall=(0.8, 0.6, 0.9), false=5, latency=20.0, violation="head"):
    found = None if map50 is None else Figure(value=map50[0], low=map50[1], high=map50[2])
    figures = DetectionFigures(photographs=50, groups=50, map=found, map50=found, map75=found, classes={})
    alarms = Alarms(
        threshold=0.3, caught=8, missed=2, false=false, photographs=50, false_alarms=false / 50, cost=0.1,
        recall=None if recall is None else Figure(value=recall[0], low=recall[1], high=recall[2]),
    )  # fmt: skip
    entry = DetectorEvidence(
        record=RECORD,
        cost=Cost(latency_ms=latency),
        splits={"validation": figures, "test": figures},
        mean_iou={"validation": 0.7, "test": 0.7},
        alarms={"validation": alarms, "test": alarms} if violation else {},
    )
    return DetectionEvidence(
        classes=("head", "helmet"), violation_class=violation, costs=Costs(missed_violation=10, false_alarm=1),
        detectors={"one": entry}, missing=(), best="one",
    )  # fmt: skip


def alone(found, classifier=None, why_not=None):
    """The detector's own system, where the classifier was switched off or missing."""
    said = ClassifierFound(wanted=classifier, why_not=why_not)
    return SystemsEvidence(
        classifier=said, why_not=why_not, params=SystemsParams(), judged={}, margins={}, same_false_alarms={},
        detector=found.best, system="detector",
    )  # fmt: skip


STILL = Figure(value=0.9, low=0.8, high=0.95)


def looks(still=STILL):
    """What the probe says of the detector."""
    of = {"context blurred": still, "boxes blurred": still}
    return ContextEvidence(detector="one", thresholds={}, found={"as it is": STILL, **of}, still=of, shown=())


def decided(found, groups, leaks, gate, context=None, **of_systems):
    return decide(found, alone(found, **of_systems), context or looks(), groups, leaks, gate)


def test_a_detector_that_reads_the_surroundings_is_rejected():
    blind = looks(Figure(value=0.3, low=0.2, high=0.45))
    assert decided(evidence(), 10, 0, DetectionGate(), blind).reason.endswith("It fails on: context.")
    assert decided(evidence(), 10, 0, DetectionGate(), looks(None)).verdict == "HOLD", "not measured"


def test_a_missing_second_stage_holds_what_would_pass():
    missing = decided(evidence(), 10, 0, DetectionGate(), classifier="champion", why_not="there is none")
    assert missing.verdict == "HOLD"
    assert missing.rules[-1].reason == "not measured, so not judged: there is none"
    assert decided(evidence(), 10, 0, DetectionGate(second_stage=False), why_not="there is none").verdict == "PROMOTE"


def test_the_better_system_is_the_one_that_is_judged():
    found, both = evidence(), evidence(map50=(0.95, 0.9, 0.99), latency=300.0)
    said = ClassifierFound(wanted="champion", model="plumbline", version=3, digest="d")
    better = alone(found).model_copy(
        update={"classifier": said, "judged": both.detectors, "system": "detector+classifier"}
    )
    decision = decide(found, better, looks(), 10, 0, DetectionGate())
    assert (decision.verdict, decision.system) == ("REJECT", "detector+classifier")
    assert decision.reason.startswith("one with plumbline version 3 judging each head has the highest mAP50")
    assert decision.reason.endswith("It fails on: latency in ms.")
    assert decision.rules[-1].reason.startswith("one has mAP50 0.800 alone and 0.950 with plumbline version 3")


def test_the_summary_shows_the_one_chosen_and_what_is_not_met():
    found = evidence(map50=(0.4, 0.3, 0.5))
    lines = of_detectors(found, alone(found), decided(found, 10, 0, DetectionGate())).splitlines()
    assert lines[1].split() == ["*", "one", "0.400", "0.400"]
    assert lines[2] == "REJECT: one (* the one chosen)"
    assert lines[3].startswith("  failed: mAP at IoU 0.5")
    assert lines[4].startswith("  not applicable: second stage")
    assert len(lines) == 5


def test_a_good_detector_is_promoted():
    decision = decided(evidence(), 10, 0, DetectionGate())
    assert (decision.verdict, decision.candidate, decision.threshold) == ("PROMOTE", "one", 0.3)
    assert decision.reason == "one is the only detector. It passes every rule."
    assert len(decision.rules) == 10
    assert not decision.rules[-1].applies, "no classifier is wanted"


@pytest.mark.parametrize(
    ("changes", "leaks", "fails"),
    [
        ({"map50": (0.4, 0.3, 0.5)}, 0, "mAP at IoU 0.5"),
        ({"recall": (0.4, 0.2, 0.5)}, 0, "recall of head"),
        ({"false": 60}, 0, "false alarms a photograph"),
        ({"latency": 400.0}, 0, "latency in ms"),
        ({}, 1, "leakage"),
    ],
)
def test_what_fails_for_good_is_rejected(changes, leaks, fails):
    decision = decided(evidence(**changes), 10, leaks, DetectionGate())
    assert decision.verdict == "REJECT"
    assert decision.reason.endswith(f"It fails on: {fails}.")


def test_too_few_groups_hold_and_it_is_said_how_many_more():
    decision = decided(evidence(map50=(0.6, 0.45, 0.7)), 10, 0, DetectionGate())
    assert decision.verdict == "HOLD"
    assert decision.more_test_groups > 0
    assert f"About {decision.more_test_groups} more test groups" in decision.reason


def test_what_was_not_measured_holds_unless_that_is_allowed():
    without = evidence(recall=None, latency=None)
    assert decided(without, 0, 0, DetectionGate()).verdict == "HOLD"
    assert "Not judged" in decided(without, 0, 0, DetectionGate()).reason
    assert decided(without, 0, 0, DetectionGate(unjudged="allow")).verdict == "PROMOTE"
    assert decided(evidence(map50=None), 0, 0, DetectionGate()).verdict == "HOLD"


def test_rules_that_are_off_are_not_asked():
    off = DetectionGate(
        map50_floor=None, recall_floor=None, false_alarm_ceiling=None, minimum_test_groups=None,
        maximum_parameters=None, maximum_latency_ms=None, allowed_weights=None, leakage=False,
        second_stage=False, context_floor=None,
    )  # fmt: skip
    assert decided(evidence(), 10, 5, off).rules == ()
    assert [rule.name for rule in decided(evidence(violation=None), 0, 0, DetectionGate()).rules][:2] == [
        "mAP at IoU 0.5",
        "test groups",
    ]
