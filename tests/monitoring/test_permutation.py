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
    return Layout((group >= reference).astype(np.int64), group, classes)


def test_a_draw_weighs_window_and_reference_alike_and_keeps_groups_whole():
    random = np.random.default_rng(0)
    predicted = random.integers(0, 2, 60)
    found = layout(12, 8, 3, predicted)
    for weights in (found.observed(), found.weights(found.orders(random, 50), 1, margin=1.0)):
        np.testing.assert_allclose(np.where(weights > 0, weights, 0).sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(np.where(weights < 0, weights, 0).sum(axis=1), -1, rtol=1e-5)
        sides = (weights > 0).reshape(len(weights), 20, 3)
        assert (sides == sides[:, :, :1]).all()
        for one in (0, 1):
            np.testing.assert_allclose(weights[:, predicted == one].sum(axis=1), 0, atol=1e-5)


def test_a_group_on_both_sides_is_refused():
    with pytest.raises(ValueError, match="both sides"):
        Layout(np.array([0, 1]), np.array([0, 0]), np.array([0, 0]))


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
        for name, p in p_values(sides, tests, (1,), 199, seed).items():
            found.setdefault(name, []).append(p.p <= 0.05)
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.mark.slow
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
        alarms += p_values(layout(300, 200), {"ks": kolmogorov(values)}, (1,), 199, seed)["ks"].p <= 0.05
    assert alarms >= 8


def class_shift(seed: int, moved: float) -> tuple[Layout, np.ndarray]:
    """Half helmets in the reference, four fifths in the window; the two classes look quite different."""
    random = np.random.default_rng(seed)
    predicted = np.concatenate([np.arange(80) % 2, (np.arange(80) % 5 == 0).astype(np.int64)])
    values = random.normal(3.0 * predicted, 1)
    values[80:] += moved
    return layout(80, 80, 1, predicted), values


def test_a_share_of_classes_that_moved_is_no_drift():
    p = [p_values(*_ks(*class_shift(seed, 0.0)), (1,), 199, seed)["ks"].p for seed in range(40)]
    assert np.mean(np.array(p) <= 0.05) <= 0.15
    assert share_moved(class_shift(0, 0.0)[0], 999) < 0.01


def test_a_shift_inside_the_classes_is_found_beside_one():
    assert p_values(*_ks(*class_shift(0, 1.0)), (1,), 999, 0)["ks"].p < 0.01


def _ks(sides, values):
    return sides, {"ks": kolmogorov(values)}


def test_an_ordinary_share_has_not_moved():
    random = np.random.default_rng(1)
    assert share_moved(layout(60, 60, 1, random.integers(0, 2, 120)), 499) > 0.05


def test_p_values_never_reach_zero_and_stop_once_nothing_is_found():
    random = np.random.default_rng(0)
    sides = layout(40, 40)
    apart = np.concatenate([np.zeros(40), np.ones(40)])
    tests = {"apart": kolmogorov(apart), "same": kolmogorov(random.normal(size=80))}
    found = p_values(sides, tests, (1,), 2000)
    assert (found["apart"].p, found["apart"].adjusted) == (1 / 2001, 1 / 2001)
    assert found["same"].p > 0.01
    assert p_values(sides, {"same": tests["same"]}, (1,), 2000)["same"].p in {k / 501 for k in range(502)}


def windows(reference: int, sizes: list[int]) -> Layout:
    """A reference of single images and windows of `sizes`, newest first."""
    ages = np.concatenate([np.full(size, age) for age, size in enumerate([reference, *sizes])])
    return Layout(ages, np.arange(len(ages)), np.zeros(len(ages), np.int64))


def test_a_pool_weighs_its_windows_and_no_older_ones():
    found = windows(40, [5, 10, 20])
    newest, two = found.observed(1)[0], found.observed(2)[0]
    assert np.unique(newest[40:45]).tolist() == pytest.approx([1 / 5])
    assert not newest[45:].any()
    assert np.unique(two[40:55]).tolist() == pytest.approx([1 / 15])
    assert not two[55:].any()
    assert np.unique(two[:40]).tolist() == pytest.approx([-1 / 40])


def test_a_window_larger_than_half_the_reference_is_held_to_what_chance_does_to_half_of_it():
    found = windows(40, [5, 95])
    random = np.random.default_rng(0)
    places = found.orders(random, 20)
    assert ((found.weights(places, 1) > 0).sum(axis=1) == 5).all()
    assert ((found.weights(places, 2) > 0).sum(axis=1) == 20).all()
    assert ((found.weights(places, 2) < 0).sum(axis=1) == 40).all()


def test_correction_over_tests_holds_the_level_and_costs_copies_of_one_test_nothing():
    joint, alone = [], []
    for seed in range(60):
        values = np.random.default_rng(seed).normal(size=(140, 12))
        columns = {f"{k}": kolmogorov(values[:, k]) for k in range(12)}
        found = p_values(layout(100, 40), columns, (1,), 199, seed)
        joint.append(min(one.adjusted for one in found.values()) <= 0.05)
        twins = p_values(layout(100, 40), {"a": columns["0"], "b": columns["0"]}, (1,), 199, seed)
        alone.append(twins["a"].adjusted == twins["a"].p)
    assert np.mean(joint) <= 9 / 60
    assert all(alone)


@pytest.mark.slow
def test_evidence_that_no_window_shows_adds_up_over_three():
    alone, together = 0, 0
    for seed in range(10):
        random = np.random.default_rng(seed)
        values = np.concatenate([random.normal(size=400), random.normal(0.45, 1, 180)])
        tests = {"ks": kolmogorov(values)}
        sides = windows(400, [60, 60, 60])
        alone += p_values(sides, tests, (1,), 1999, seed)["ks"].adjusted <= 0.005
        together += p_values(sides, tests, (1, 3), 1999, seed)["ks"].adjusted <= 0.005
    assert together >= 7, (alone, together)
    assert together >= alone + 2, (alone, together)


def test_groups_of_another_size_than_the_reference_s_make_no_alarm():
    """Single new images against a reference of pairs: as many pairs would be twice as many images, and vary less."""
    alarms = []
    for seed in range(120):
        values = np.random.default_rng(seed).normal(size=160)
        group = np.concatenate([np.repeat(np.arange(60), 2), 60 + np.arange(40)])
        sides = Layout((np.arange(160) >= 120).astype(np.int64), group, np.zeros(160, np.int64))
        alarms.append(p_values(sides, {"ks": kolmogorov(values)}, (1,), 199, seed)["ks"].p <= 0.05)
    # At a true rate of 0.05 more than 13 of 120 come up once in 200 times.
    assert sum(alarms) <= 13, sum(alarms)
