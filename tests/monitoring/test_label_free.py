"""Rivals of the expected accuracy: each is right where what it assumes holds, or its figures would say nothing."""

import numpy as np
import pytest

from benchmarks.label_free import (
    density_ratios,
    importance_weighted,
    shrunk_difference,
    thresholded_confidence,
    transport_costs,
    transported_confidence,
    weighted_difference,
)


def drawn(random, images, surest=0.5):
    """Calibrated probabilities (N, 2) and labels; confidence from `surest` to 1."""
    confidence = random.uniform(surest, 1, images)
    predicted = random.integers(0, 2, images)
    labels = np.where(random.random(images) < confidence, predicted, 1 - predicted)
    p = np.where(predicted == 1, confidence, 1 - confidence)
    return np.stack([1 - p, p], axis=1), labels, predicted == labels


def test_of_the_reference_itself_each_tells_its_accuracy():
    known, labels, right = drawn(np.random.default_rng(0), 400)
    confidence = known.max(axis=1)
    for found in (
        thresholded_confidence(confidence, right, confidence),
        transported_confidence(known, labels, right, known),
        importance_weighted(right, np.ones(400)),
        weighted_difference(confidence, right, np.ones(400), confidence),
    ):
        assert found == pytest.approx(right.mean(), abs=0.005)


def test_where_confidence_falls_those_that_read_it_follow():
    random = np.random.default_rng(1)
    known, labels, right = drawn(random, 600, 0.9)
    window, _, truth = drawn(random, 600, 0.5)
    before, now = known.max(axis=1), window.max(axis=1)
    assert shrunk_difference(before, right, now) == pytest.approx(truth.mean(), abs=0.05)
    assert weighted_difference(before, right, np.ones(600), now) == pytest.approx(truth.mean(), abs=0.05)
    assert thresholded_confidence(before, right, now) < right.mean() - 0.2
    assert transported_confidence(known, labels, right, window) < right.mean() - 0.2


def test_an_excess_that_chance_explains_is_no_excess():
    known, right = np.full(20, 0.9), np.arange(20) >= 1
    assert shrunk_difference(known, right, np.full(5, 0.8)) == pytest.approx(0.8)
    assert shrunk_difference(known, np.zeros(20, bool), np.full(5, 0.95)) == pytest.approx(0.05)


def test_pictures_are_carried_where_it_costs_least():
    """One of class 1 has to give way: of two that say 1 the less sure one is carried to 0."""
    p = np.array([[0.4, 0.6], [0.1, 0.9], [0.8, 0.2]])
    assert transport_costs(p, np.array([0, 1, 0])) == pytest.approx([0.6, 0.1, 0.2])


@pytest.mark.slow
def test_known_pictures_like_the_windows_weigh_more():
    random = np.random.default_rng(2)
    kind = np.arange(300) % 2
    known, window = random.normal(size=(300, 40)) + 2.0 * kind[:, None], random.normal(size=(200, 40)) + 2.0
    ratios = density_ratios(known, np.arange(300) // 2, window)
    assert ratios.max() <= 10
    assert ratios[kind == 1].mean() > 5 * ratios[kind == 0].mean()
    assert importance_weighted(kind == 1, ratios) > 0.8
