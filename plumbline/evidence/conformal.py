"""Conformal sets: the classes that can't be ruled out for a picture, so many that the right one is nearly always there.

Split conformal prediction on validation, for pictures that come in groups (hierarchical conformal prediction: Lee,
Barber and Willett 2023): every group counts the same, and one group more stands for the one to come. Whatever the
model, 95% of the pictures of new groups like these have their class in the set, if validation's groups are a sample of
them. Other sites and disturbed pictures are not: there the coverage is measured, not promised. Validation also stopped
training and set the temperature, so it flatters the model a little: the coverage on test stands beside each promise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from plumbline.evidence.candidates import Predictions
from plumbline.evidence.intervals import draw_weights, rate_if_any, rate_with_interval
from plumbline.evidence.records import ConformalSets, Figure, MembersSpread
from plumbline.tasks.scores import Floats, Ints

LEVELS = (0.90, 0.95)


def strangeness(sample: Predictions) -> tuple[Floats, Ints]:
    """Return how unlikely each decision's truth was to the model (M,), and the group of each (M,)."""
    truth, probabilities = sample.decisions
    each = len(truth) // len(sample.truth)
    return 1 - probabilities[np.arange(len(truth)), truth], np.repeat(sample.codes, each)


def bound_of(scores: Floats, codes: Ints, level: float) -> float | None:
    """Return how unlikely an option may be and still be in the set; None where there are too few groups to say.

    It is the `level` quantile of the `scores` (M,), where each of G groups (`codes` (M,)) weighs 1 / (G + 1), shared by
    its own scores; the last 1 / (G + 1) lies beyond all of them.
    """
    groups, members = np.unique(codes, return_inverse=True)
    weights = 1 / (len(groups) + 1) / np.bincount(members)[members]
    order = np.argsort(scores, kind="stable")
    reached = np.flatnonzero(np.cumsum(weights[order]) >= level - 1e-9)
    return float(scores[order][reached[0]]) if len(reached) else None


def sets_of(probabilities: Floats, bound: float | None) -> NDArray[np.bool_]:
    """Return which options (M, C) are in the sets; the likeliest always is, and all are where there is no bound."""
    if bound is None:
        return np.full(probabilities.shape, True)
    inside = 1 - probabilities <= bound + 1e-12
    inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
    return np.asarray(inside)


def groups_needed(level: float) -> int:
    """Return how many groups validation needs before it can rule out anything at `level`."""
    return int(np.ceil(round(level / (1 - level), 6)))


def conformal_sets(
    validation: Predictions, test: Predictions, draws: Floats, disturbed: dict[str, Predictions] | None, seed: int
) -> tuple[ConformalSets, ...]:
    """Return for each of LEVELS the bound from `validation` and what it does on `test` (`draws` (R, N) redraw it).

    `disturbed` are test pictures under the probes' conditions: how often the class is still in the set there.
    """
    scores, codes = strangeness(validation)
    found = []
    for level in LEVELS:
        bound = bound_of(scores, codes, level)
        needed = groups_needed(level)
        if bound is None:
            note = (
                f"Validation holds {validation.groups} groups, and {needed} are the fewest that can rule out a class "
                f"at {level:.0%}: every set holds every class."
            )
            found.append(ConformalSets(level=level, groups=validation.groups, bound=None, note=note))
            continue
        covered, undecided = _covered(test, bound, draws)
        probes = {
            name: _covered(sample, bound, draw_weights(sample.codes, len(draws), seed))[0]
            for name, sample in (disturbed or {}).items()
        }
        found.append(
            ConformalSets(
                level=level,
                groups=validation.groups,
                bound=bound,
                coverage=covered,
                undecided=undecided,
                probes=probes,
                note=_note(level, covered, undecided, test.task.counted),
            )
        )
    return tuple(found)


def _covered(sample: Predictions, bound: float, draws: Floats) -> tuple[Figure, Figure]:
    """Return how often the truth is in the set, and how often the set holds more than one option."""
    truth, probabilities = sample.decisions
    inside = sets_of(probabilities, bound)
    each = len(truth) // len(sample.truth)
    codes, times = np.repeat(sample.codes, each), np.repeat(draws, each, axis=1) if each > 1 else draws
    everywhere = np.full(len(truth), True)
    return (
        rate_with_interval(inside[np.arange(len(truth)), truth], everywhere, codes, times),
        rate_with_interval(inside.sum(axis=1) > 1, everywhere, codes, times),
    )


def _note(level: float, covered: Figure, undecided: Figure, counted: str) -> str:
    held = "as promised" if covered.high >= level else "less than promised: test is not like validation"
    return (
        f"At {level:.0%}, the sets hold the right class for {covered.value:.1%} of the test {counted}, {held}; "
        f"{undecided.value:.1%} of them have more than one class in theirs."
    )


def members_spread(members: dict[str, Predictions], ensemble: Predictions, draws: Floats) -> MembersSpread:
    """Return how often an ensemble's `members` disagree about test pictures, and how often it is right either way."""
    predicted = np.stack([sample.predicted for sample in members.values()])
    split = np.asarray((predicted != predicted[0]).any(axis=(0, 2)))
    everywhere = np.full(len(split), True)
    return MembersSpread(
        members=tuple(members),
        disagree=rate_with_interval(split, everywhere, ensemble.codes, draws),
        right_where_agreed=rate_if_any(ensemble.right, ~split, ensemble.codes, draws),
        right_where_not=rate_if_any(ensemble.right, split, ensemble.codes, draws),
    )
