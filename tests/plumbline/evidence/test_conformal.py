"""Conformal sets hold the right class as often as they promise, on groups; too few groups promise nothing."""

import numpy as np
import pytest

from plumbline.evidence.candidates import Predictions
from plumbline.evidence.conformal import bound_of, conformal_sets, groups_needed, members_spread, sets_of
from plumbline.evidence.intervals import draw_weights
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.several_labels import SEVERAL_LABELS


def sample_of(p_second, labels, codes=None, task=ONE_LABEL):
    """Pictures of two classes with the probability of the second."""
    p_second, labels = np.asarray(p_second, dtype=float), np.asarray(labels)
    truth = np.stack([labels == 0, labels == 1], axis=1)
    codes = np.arange(len(labels)) if codes is None else np.asarray(codes)
    return Predictions(
        truth, np.stack([1 - p_second, p_second], axis=1), codes, [str(n) for n in range(len(labels))], task
    )


def test_the_bound_by_hand():
    # Nine groups of one picture weigh a tenth each: 90% is reached with the ninth, 80% with the eighth, 95% never.
    scores = np.array([0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert bound_of(scores, np.arange(9), 0.9) == 0.9
    assert bound_of(scores, np.arange(9), 0.8) == 0.8
    assert bound_of(scores, np.arange(9), 0.95) is None
    assert bound_of(scores[:8], np.arange(8), 0.9) is None
    assert (groups_needed(0.9), groups_needed(0.95)) == (9, 19)


def test_a_group_of_many_pictures_counts_as_one():
    # 90 pictures of one group, all strange, and 9 groups of one that are not: 10% of the weight, not 91% of it.
    scores = np.concatenate([np.full(90, 0.99), np.linspace(0.1, 0.2, 9)])
    codes = np.concatenate([np.zeros(90, dtype=int), np.arange(1, 10)])
    assert bound_of(scores, codes, 0.8) == pytest.approx(0.2)
    assert bound_of(scores, codes, 0.9) == 0.99


def test_sets_hold_what_is_likely_enough_and_never_nothing():
    p = np.array([[0.97, 0.02, 0.01], [0.5, 0.45, 0.05], [0.34, 0.33, 0.33]])
    np.testing.assert_array_equal(sets_of(p, 0.6), [[1, 0, 0], [1, 1, 0], [1, 0, 0]])
    assert sets_of(p, 0.68).sum(axis=1).tolist() == [1, 2, 3]
    assert sets_of(p, None).all()


def grouped(groups, random):
    """Pictures whose difficulty is shared within groups of 1 to 8; a model that is right on some 85%."""
    sizes = random.integers(1, 9, groups)
    codes = np.repeat(np.arange(groups), sizes)
    labels = random.integers(0, 2, groups)[codes]
    logit = random.normal(1.5, 1.5, groups)[codes] + random.normal(0, 0.5, len(codes))
    p_right = 1 / (1 + np.exp(-logit))
    return sample_of(np.where(labels == 1, p_right, 1 - p_right), labels, codes)


def test_the_right_class_is_inside_as_often_as_promised_on_new_groups():
    """400 draws of 40 validation groups: the mean coverage of a picture of a new group is 90% or more, and not 100%."""
    random = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        validation, new = grouped(40, random), grouped(40, random)
        truth, p = new.decisions
        bound = bound_of(
            1 - validation.decisions[1][np.arange(len(validation.codes)), validation.decisions[0]],
            validation.codes,
            0.9,
        )
        inside = sets_of(p, bound)[np.arange(len(truth)), truth]
        covered.append(np.mean([inside[new.codes == group].mean() for group in range(40)]))
    assert 0.895 <= np.mean(covered) <= 0.94


def test_what_is_said_of_test_and_of_disturbed_pictures():
    random = np.random.default_rng(1)
    validation, test = grouped(200, random), grouped(150, random)
    draws = draw_weights(test.codes, 300, 0)
    upside_down = test.answering(test.probabilities[:, ::-1])
    ninety, ninety_five = conformal_sets(validation, test, draws, {"upside down": upside_down}, 0)
    assert (ninety.level, ninety_five.level, ninety.groups) == (0.9, 0.95, 200)
    assert ninety.bound < ninety_five.bound
    assert ninety.coverage.low < 0.9 < ninety.coverage.high
    assert ninety.coverage.value <= ninety_five.coverage.value
    assert ninety.undecided.value < ninety_five.undecided.value
    assert ninety.probes["upside down"].high < 0.9
    assert "as promised" in ninety.note
    (broken, _) = conformal_sets(validation, upside_down, draws, None, 0)
    assert "less than promised: test is not like validation" in broken.note


def test_too_few_groups_are_said_to_be_too_few():
    random = np.random.default_rng(2)
    validation, test = grouped(12, random), grouped(30, random)
    ninety, ninety_five = conformal_sets(validation, test, draw_weights(test.codes, 200, 0), None, 0)
    assert ninety.bound is not None
    assert (ninety_five.bound, ninety_five.coverage) == (None, None)
    assert ninety_five.note == (
        "validation holds 12 groups, and 19 are the fewest that can rule out a class at 95%: "
        "every set holds every class."
    )


def test_several_labels_are_judged_label_by_label():
    random = np.random.default_rng(3)
    truth = random.random((300, 3)) < 0.5
    p = np.clip(0.5 + np.where(truth, 0.4, -0.4) + random.normal(0, 0.2, truth.shape), 0.01, 0.99)
    sample = Predictions(truth, p, np.arange(300) // 3, [str(n) for n in range(300)], SEVERAL_LABELS)
    first, _ = conformal_sets(sample, sample, draw_weights(sample.codes, 200, 0), None, 0)
    assert first.groups == 100
    assert 0.88 <= first.coverage.value <= 0.99
    assert "test labels" in first.note


def test_an_ensembles_spread_is_how_often_its_members_disagree():
    labels = np.array([0, 0, 1, 1, 0, 1])
    a = sample_of([0.1, 0.9, 0.9, 0.8, 0.2, 0.9], labels)  # wrong on the second
    b = sample_of([0.2, 0.1, 0.7, 0.3, 0.4, 0.8], labels)  # wrong on the fourth
    both = a.answering((a.probabilities + b.probabilities) / 2)  # 0.5 for the second, 0.55 for the fourth
    found = members_spread({"a": a, "b": b}, both, draw_weights(both.codes, 200, 0))
    assert found.members == ("a", "b")
    assert found.disagree.value == pytest.approx(2 / 6)
    assert found.right_where_agreed.value == 1.0
    assert found.right_where_not.value == pytest.approx(both.right[[1, 3]].mean())
    alike = members_spread({"a": a, "b": a}, a, draw_weights(a.codes, 200, 0))
    assert (alike.disagree.value, alike.right_where_not) == (0.0, None)
