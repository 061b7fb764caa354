"""What pictures look like: their class is read without hindsight, and where light lies is compared."""

from __future__ import annotations

import numpy as np
import pandas as pd

from monitoring.anomaly import folds_of
from monitoring.looks import Known, Looks, drawn, grid, read_classes, statistics_of
from monitoring.permutation import p_values


def looks(seed: int, images: int = 120, dirty: bool = False) -> tuple[Looks, np.ndarray]:
    """Pictures and their classes: the first direction of what is seen knows the class."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    seen = random.normal(size=(images, 24)) + 4 * labels[:, None] * np.eye(24)[0]
    small = random.integers(90, 160, (images, 18, 24)).astype(np.uint8)
    if dirty:
        small[:, 3:6, 16:20] //= 3
    measures = pd.DataFrame({"brightness": small.mean(axis=(1, 2)), "aspect": np.ones(images)})
    return Looks(measures, seen, small, np.arange(images)), labels


def known(images: int = 160) -> Known:
    ours, labels = looks(0, images)
    return Known(ours, labels)


def found(window: Looks) -> dict[str, float]:
    layout, statistics = statistics_of(known(), [window], ["brightness", "aspect"])
    return {name: one.adjusted for name, one in p_values(layout, statistics, (1,), 999).items()}


def test_nothing_is_found_where_nothing_changed():
    tests = found(looks(1)[0])
    assert set(tests) == {"brightness", "embeddings (MMD)", "embeddings (classifier)", "places"}
    assert min(tests.values()) > 0.05, tests


def test_a_dirty_lens_is_called_by_its_name():
    tests = found(looks(1, dirty=True)[0])
    assert tests["places"] == min(tests.values()) <= 0.002, tests


def test_the_class_is_read_without_the_picture_s_own_group():
    random = np.random.default_rng(0)
    noise, labels = random.normal(size=(200, 400)), random.integers(0, 2, 200)
    fold, theirs = folds_of(np.arange(200)), folds_of(np.arange(50), seed=1)
    read = read_classes(noise, labels, fold, random.normal(size=(50, 400)), theirs)
    assert 0.3 < np.mean(read[:200] == labels) < 0.7, "by heart it would be nearly always right"
    ours, truth = looks(3)
    read = read_classes(ours.seen, truth, folds_of(ours.groups), ours.seen[:9], folds_of(np.arange(9), seed=1))
    assert np.mean(read[:120] == truth) > 0.95


def test_one_class_alone_is_read_as_that_class():
    ours, _ = looks(3)
    read = read_classes(ours.seen, np.ones(120, np.int64), folds_of(ours.groups), ours.seen[:5], np.arange(5))
    assert set(read) == {1}


def test_the_grid_sees_where_light_lies_and_not_how_much():
    bright = np.full((1, 18, 24), 200, np.uint8)
    bright[:, :3, :4] = 20
    dark = (bright // 2).astype(np.uint8)
    assert grid(bright)[0, 0] < -1
    np.testing.assert_allclose(grid(bright), grid(dark), atol=0.3)
    np.testing.assert_allclose(grid(np.zeros((1, 18, 24), np.uint8)), 0)


def test_whole_groups_are_drawn():
    groups = np.repeat(np.arange(30), 4)
    rows = drawn(groups, 50, 0)
    assert len(rows) == 48
    assert set(np.bincount(groups[rows])) <= {0, 4}
    assert len(drawn(groups, 200, 0)) == 120
