"""The verdict: what counts as drift, what is only watched, what can't be said; shares, accuracy, anomalies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from monitoring.accuracy import (
    calibrated,
    checked_later,
    estimate_accuracy,
    estimate_recall,
    expected_accuracy,
    uncalibrated,
)
from monitoring.anomaly import nearness, reconstruction_errors
from monitoring.judge import DESCRIPTORS, EMBEDDINGS, SAID, judge, permutations_needed, run_tests, too_few
from monitoring.looks import ON_EMBEDDINGS
from monitoring.observations import Observations
from monitoring.reference import Reference
from monitoring.settings import DriftParams
from monitoring.shares import confusion, estimate_shares, redraw, solve
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.several_labels import SEVERAL_LABELS

PARAMS = DriftParams(permutations=4999, horizon=10)
CLASSES = ["with_helmet", "without_helmet"]


def sample(seed: int, images: int = 100, violations: float = 0.5, moved: float = 0.0, frames: int = 1) -> Observations:
    """Images whose embedding knows the class; `moved` shifts brightness and one direction of the embedding."""
    random = np.random.default_rng(seed)
    groups = np.arange(images) // frames
    labels = (random.random(groups.max() + 1) < violations)[groups].astype(int)
    embeddings = random.normal(size=(images, 16)) + 4.0 * labels[:, None] * np.eye(16)[0]
    embeddings[:, 1] += moved
    p = 1 / (1 + np.exp(-2 * (embeddings[:, 0] - 2)))
    measures = pd.DataFrame({"brightness": random.normal(0.5 + 0.1 * moved, 0.1, images), "aspect": np.ones(images)})
    return Observations(measures, np.stack([1 - p, p], axis=1), embeddings, groups)


def reference(images: int = 100) -> Reference:
    known = sample(0, images)
    labels = known.predicted.copy()
    labels[:3] = 1 - labels[:3]
    return Reference(
        known,
        labels,
        [f"{k}.jpg" for k in range(images)],
        ["JPEG"] * images,
        [],
        CLASSES,
        CLASSES[1],
        0.5,
        1.0,
        ONE_LABEL,
        {},
    )


def judged(window: Observations, **params):
    return judge(reference(), window, ["JPEG"] * len(window), PARAMS.model_copy(update=params))


@pytest.mark.slow
def test_of_several_labels_neither_shares_nor_accuracy_are_estimated():
    several, window = replace(reference(), task=SEVERAL_LABELS), sample(1)
    found = judge(several, window, ["JPEG"] * len(window), PARAMS)
    assert found.verdict in ("OK", "WATCH")
    assert (found.accuracy, found.average_confidence, found.recall, found.shares) == (None, None, None, [])
    one = judged(window)
    assert one.accuracy is not None
    assert one.shares


@pytest.mark.slow
def test_the_same_again_is_ok():
    verdicts = [judged(sample(seed)).verdict for seed in range(1, 9)]
    assert "DRIFT" not in verdicts
    assert verdicts.count("OK") >= 6


def test_a_shift_is_drift_with_its_reason_and_figures():
    found = judged(sample(1, moved=1.5))
    assert found.verdict == "DRIFT"
    assert any(reason.startswith("brighter (brightness 16") or "brightness" in reason for reason in found.reasons)
    assert found.tests[0].adjusted <= PARAMS.alpha / PARAMS.horizon
    assert [test.name for test in found.tests if test.name == "aspect"] == [], "what never varies is no test"


@pytest.mark.slow
def test_descriptors_that_tell_nothing_cost_embeddings_no_power():
    """Each family has its share of the level, whatever is in the others."""
    assert sum((EMBEDDINGS, DESCRIPTORS, SAID)) == pytest.approx(1.0)

    def on_embeddings(columns):
        known, window = reference(), sample(5)
        window.embeddings[:, 1] += 0.5
        random = np.random.default_rng(1)
        for one in (known.observations, window):
            for number in range(columns):
                one.measures[f"noise {number}"] = random.normal(size=len(one))
        tests, _, _ = run_tests(known, window, ["JPEG"] * len(window), PARAMS)
        return {test.name: (test.p, test.adjusted) for test in tests if test.name in ON_EMBEDDINGS}

    few, many = on_embeddings(0), on_embeddings(20)
    assert few == many
    assert min(adjusted for _, adjusted in few.values()) >= min(p for p, _ in few.values()) / EMBEDDINGS


def test_too_few_permutations_for_drift_are_told():
    needed = permutations_needed(PARAMS)
    assert needed == 999, "horizon 10, alpha 0.05, a fifth of the level"
    (note,) = judged(sample(1), permutations=needed - 1).notes
    assert note.startswith("drift.permutations is 998: with fewer than 999")
    assert judged(sample(1), permutations=needed).notes == []


def test_only_the_share_of_a_class_moved():
    found = judged(sample(1, images=150, violations=0.2))
    assert found.verdict == "WATCH"
    assert found.reasons[0].startswith("more with_helmet than usual")


def test_a_hint_is_watched_and_says_why_it_is_no_more():
    found = judged(sample(1, moved=0.75), horizon=10_000)
    assert found.verdict == "WATCH"
    assert found.reasons[-1].startswith("perhaps ")
    assert "DRIFT is said from 0.0000" in found.reasons[-1]


@pytest.mark.parametrize(
    ("window", "words"),
    [
        (sample(1, images=30), "30 new images, drift.minimum_images asks for 50."),
        (sample(1, images=100, frames=10), "only 10 independent photographs or videos"),
    ],
)
def test_too_little_is_not_judged(window, words):
    found = judged(window)
    assert found.verdict == "NOT ENOUGH IMAGES"
    assert words in found.reasons[0]


def test_a_thin_reference_judges_nobody():
    why = too_few(reference(15), sample(1), PARAMS)
    assert why is not None
    assert "only 15 independent groups of images that it did not train on" in why


def test_a_large_window_is_tested_on_whole_groups():
    found = judged(sample(1, images=600, frames=3, moved=1.5), most_images=150)
    assert found.verdict == "DRIFT"
    assert found.notes == ["The tests rest on 150 of the 600 images, whole groups drawn at random."]


def test_three_classes_have_a_score_each():
    random = np.random.default_rng(0)

    def of(seed):
        p = np.random.default_rng(seed).dirichlet([0.3] * 3, 90)
        return Observations(
            pd.DataFrame({"noise": random.normal(size=90)}), p, random.normal(size=(90, 8)), np.arange(90)
        )

    known = of(0)
    three = Reference(known, known.predicted, [""] * 90, ["JPEG"] * 90, [], list("abc"), None, None, 1.0, ONE_LABEL, {})
    found = judge(three, of(1), ["JPEG"] * 90, PARAMS)
    names = {test.name for test in found.tests}
    assert {"score of a", "score of b", "score of c", "confidence", "noise"} <= names
    assert found.recall is None
    assert [share["class"] for share in found.shares] == list("abc")


def test_shares_are_estimated_through_the_confusion_matrix():
    told = np.array([[0.9, 0.2], [0.1, 0.8]])
    np.testing.assert_allclose(solve(told, told @ [0.3, 0.7]), [0.3, 0.7], atol=1e-6)
    np.testing.assert_allclose(solve(told, np.array([1.0, 0.0])), [1, 0], atol=1e-6)
    np.testing.assert_allclose(
        confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 3), [[0.5, 0, 0], [0.5, 1, 0], [0, 0, 1]]
    )


def test_the_interval_of_a_share_covers():
    random = np.random.default_rng(0)
    inside = 0
    for seed in range(25):
        labels = (random.random(150) < 0.5).astype(np.int64)
        truth = (random.random(100) < 0.7).astype(np.int64)

        def told(of):
            return np.where(random.random(len(of)) < 0.9, of, 1 - of)

        found = estimate_shares(labels, told(labels), np.arange(150), told(truth), np.arange(100), 2, seed)
        inside += found["low"][1] <= 0.7 <= found["high"][1]
    assert inside >= 20


def test_groups_are_redrawn_whole():
    groups = np.array([3, 1, 3, 1, 2])
    for rows in redraw(groups, np.random.default_rng(0), 20):
        counts = np.bincount(groups[rows], minlength=4)
        assert counts[1] % 2 == counts[3] % 2 == 0
        assert (np.bincount(rows, minlength=5)[[0, 2]] == counts[3] // 2).all()


def test_accuracy_follows_confidence_and_a_reference_without_errors_promises_no_perfection():
    confidence, right = np.full(50, 0.95), np.ones(50, bool)
    assert expected_accuracy(confidence, right, confidence) == pytest.approx(50.5 / 51)
    assert expected_accuracy(confidence, right, confidence - 0.2) == pytest.approx(50.5 / 51 - 0.2)
    found = estimate_accuracy(confidence, right, np.arange(50), np.linspace(0.5, 1, 40), np.arange(40))
    assert 0.6 < found.low < found.value < found.high < 0.95


def test_expected_accuracy_rests_on_what_the_network_gave_whatever_the_temperature():
    random = np.random.default_rng(0)
    raw = random.dirichlet([1, 1, 1], 20)
    np.testing.assert_allclose(uncalibrated(calibrated(raw, 0.6), 0.6), raw)
    plain, window, few = reference(), sample(3), PARAMS.model_copy(update={"permutations": 99})
    known, other = (
        replace(one, probabilities=calibrated(one.probabilities, 2.0)) for one in (plain.observations, window)
    )
    ours = judge(plain, window, ["JPEG"] * len(window), few)
    theirs = judge(replace(plain, observations=known, temperature=2.0), other, ["JPEG"] * len(window), few)
    assert ours.accuracy.value == pytest.approx(theirs.accuracy.value)
    assert ours.average_confidence > theirs.average_confidence + 0.02


def test_recall_is_what_raises_the_alarm():
    p = np.array([0.9, 0.9, 0.2, 0.0])
    assert estimate_recall(p, p >= 0.5, np.arange(4)).value == pytest.approx(0.9)


def test_a_promise_is_checked_against_labels_that_came():
    found = checked_later(np.array([0.9, 0.7]), np.array([True, False]))
    assert (found["promised"], found["right"], found["images"]) == (pytest.approx(0.8), 0.5, 2)
    assert found["low"] < 0.5 < found["high"]


def test_calibration_keeps_the_class_and_moves_the_confidence():
    np.testing.assert_allclose(calibrated(np.array([[0.2, 0.8]]), 2.0), [[1 / 3, 2 / 3]])


def test_the_autoencoder_does_not_favour_the_reference_it_was_fitted_to():
    random = np.random.default_rng(0)
    ours, theirs = random.normal(size=(2, 120, 40))
    error, window = reconstruction_errors(ours, np.arange(120), theirs, np.arange(120))
    assert abs(np.median(error) - np.median(window)) < 0.25
    _, odd = reconstruction_errors(ours, np.arange(120), theirs * 3, np.arange(120))
    assert np.median(odd) > 2 * np.median(error)


def test_an_image_is_near_to_its_like_but_not_by_its_own_group():
    known = np.eye(4)[[0, 0, 0, 1, 1, 1]]
    groups = np.array([0, 0, 0, 1, 1, 1])
    assert nearness(known, known, groups, groups).distances == pytest.approx(np.ones(6))
    found = nearness(np.array([[1.0, 0, 0, 0], [0, 0, 1, 0]]), known, None, groups)
    assert found.distances == pytest.approx([0, 1])
    assert found.nearest[0] in (0, 1, 2)


def called(place: int, images: int = 100) -> Observations:
    """Images that the champion calls all alike."""
    one = sample(1, images, violations=float(place))
    return replace(one, probabilities=np.tile(np.eye(2)[place] * 0.98 + 0.01, (images, 1)))


def test_a_window_whose_scores_can_t_be_tested_is_never_ok():
    known = reference()
    known = replace(known, observations=called(0), labels=np.zeros(100, int))
    found = judge(known, called(1), ["JPEG"] * 100, PARAMS.model_copy(update={"alpha": 1e-9}))
    assert found.verdict == "WATCH"
    assert "confidence" not in {test.name for test in found.tests}
    why = "its scores are not tested: the champion calls every image without_helmet, and none of the reference so"
    assert found.reasons[0] == why


def test_images_of_a_class_that_the_reference_lacks_are_said_not_to_be_tested():
    known = replace(reference(), observations=called(0), labels=np.zeros(100, int))
    mixed = replace(
        called(0), probabilities=np.concatenate([called(0).probabilities[:90], called(1).probabilities[:10]])
    )
    found = judge(known, mixed, ["JPEG"] * 100, PARAMS)
    assert found.tests
    assert found.notes[0].startswith(
        "The tests of its scores say nothing of 10 of the window's 100 images: the champion calls them wi"
    )


def test_a_window_without_a_violation_to_expect_has_no_recall_and_says_so():
    nobody = np.full(100, 1e-4)
    assert estimate_recall(nobody, nobody >= 0.5, np.arange(100)) is None
    window = replace(called(0), probabilities=np.stack([1 - nobody, nobody], axis=1))
    found = judged(window)
    assert found.recall is None
    assert found.notes == ["Recall of without_helmet: no figure, since fewer than one image of it is expected here."]
