"""The tests cry when something moved, and only then: whole videos are permuted, and class shares are no drift."""

from __future__ import annotations

import numpy as np
import pytest

from monitoring.permutation import (
    Layout,
    classifier,
    kolmogorov,
    mean_discrepancy,
    more_often,
    p_values,
    share_moved,
)


def layout(reference: int, window: int, frames: int = 1, predicted=None) -> Layout:
    """`reference` and `window` groups of `frames` images."""
    group = np.repeat(np.arange(reference + window), frames)
    classes = np.zeros(len(group), np.int64) if predicted is None else predicted
    return Layout(group >= reference, group, classes)


def test_a_draw_weighs_window_and_reference_alike_and_keeps_groups_whole():
    random = np.random.default_rng(0)
    predicted = random.integers(0, 2, 60)
    found = layout(12, 8, 3, predicted)
    for weights in (found.observed(), found.permuted(random, 50)):
        np.testing.assert_allclose(np.where(weights > 0, weights, 0).sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(np.where(weights < 0, weights, 0).sum(axis=1), -1, rtol=1e-5)
        sides = (weights > 0).reshape(len(weights), 20, 3)
        assert (sides == sides[:, :, :1]).all()
        for one in (0, 1):
            np.testing.assert_allclose(weights[:, predicted == one].sum(axis=1), 0, atol=1e-5)


def test_a_group_on_both_sides_is_refused():
    with pytest.raises(ValueError, match="both sides"):
        Layout(np.array([False, True]), np.array([0, 0]), np.array([0, 0]))


def videos(random: np.random.Generator, count: int, moved: float) -> np.ndarray:
    """Ten frames a video, nearly alike within one: (10 * count, 4)."""
    centres = np.repeat(random.normal(moved, 1, (count, 4)), 10, axis=0)
    return centres + 0.1 * random.normal(size=centres.shape)


def rejected(moved: float, windows: int) -> dict[str, float]:
    """How often each test rejects at 0.05, over windows of 20 videos against 30 of the reference."""
    found: dict[str, list[bool]] = {}
    for seed in range(windows):
        random = np.random.default_rng(seed)
        vectors = np.concatenate([videos(random, 30, 0.0), videos(random, 20, moved)])
        sides = layout(30, 20, 10)
        tests = {
            "kolmogorov": kolmogorov(vectors[:, 0]),
            "mmd": mean_discrepancy(vectors, features=32),
            "classifier": classifier(vectors, sides),
            "far": more_often(np.linalg.norm(vectors, axis=1) > 3),
        }
        for name, p in p_values(sides, tests, 199, seed).items():
            found.setdefault(name, []).append(p <= 0.05)
    return {name: float(np.mean(values)) for name, values in found.items()}


def test_frames_of_the_same_videos_are_no_evidence():
    rates = rejected(0.0, 60)
    # At a true rate of 0.05 more than 9 of 60 come up once in 500 times.
    assert max(rates.values()) <= 9 / 60, rates


def test_a_shift_is_found_through_whole_videos():
    rates = rejected(1.2, 10)
    assert min(rates["kolmogorov"], rates["mmd"], rates["classifier"]) >= 0.8, rates


def test_single_frames_permuted_would_cry_wolf():
    """What the permutation of whole groups is for: the same windows, each frame taken for independent."""
    alarms = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        values = np.concatenate([videos(random, 30, 0.0), videos(random, 20, 0.0)])[:, 0]
        alarms += p_values(layout(300, 200), {"ks": kolmogorov(values)}, 199, seed)["ks"] <= 0.05
    assert alarms >= 8


def class_shift(seed: int, moved: float) -> tuple[Layout, np.ndarray]:
    """Half helmets in the reference, four fifths in the window; the two classes look quite different."""
    random = np.random.default_rng(seed)
    predicted = np.concatenate([np.arange(80) % 2, (np.arange(80) % 5 == 0).astype(np.int64)])
    values = random.normal(3.0 * predicted, 1)
    values[80:] += moved
    return layout(80, 80, 1, predicted), values


def test_a_share_of_classes_that_moved_is_no_drift():
    p = [p_values(*_ks(*class_shift(seed, 0.0)), 199, seed)["ks"] for seed in range(40)]
    assert np.mean(np.array(p) <= 0.05) <= 0.15
    assert share_moved(class_shift(0, 0.0)[0], 999) < 0.01


def test_a_shift_inside_the_classes_is_found_beside_one():
    assert p_values(*_ks(*class_shift(0, 1.0)), 999, 0)["ks"] < 0.01


def _ks(sides, values):
    return sides, {"ks": kolmogorov(values)}


def test_an_ordinary_share_has_not_moved():
    random = np.random.default_rng(1)
    assert share_moved(layout(60, 60, 1, random.integers(0, 2, 120)), 499) > 0.05


def test_p_values_stop_early_and_never_reach_zero():
    random = np.random.default_rng(0)
    sides = layout(40, 40)
    apart = np.concatenate([np.zeros(40), np.ones(40)])
    found = p_values(sides, {"apart": kolmogorov(apart), "same": kolmogorov(random.normal(size=80))}, 2000)
    assert found["apart"] == 1 / 2001
    assert found["same"] > 0.01
