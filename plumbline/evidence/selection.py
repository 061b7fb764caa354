"""The simplest candidate that is shown to be no worse than the best by more than a margin, or else the best itself.

A candidate that can't be distinguished from the best need not be as good: with few pictures nothing can be
distinguished. So this is a test of non-inferiority: how much accuracy does a simpler candidate lack at most, on the
pictures used for selection? docs/decisions/selection.md has the figures behind the rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from plumbline.evidence.records import Comparison, Selection
from plumbline.tasks.scores import Floats, Ints


@dataclass(frozen=True)
class Shortfalls:
    """What each of C candidates lacks against the best: mean (C,) and its standard error (C,), shares of pictures."""

    mean: Floats
    error: Floats

    def at_most(self, confidence: float) -> Floats:
        """Return what each lacks at most (C,), with this one-sided confidence."""
        return np.asarray(self.mean + NormalDist().inv_cdf(confidence) * self.error)

    def at_least(self, confidence: float) -> Floats:
        """Return what each lacks at least (C,), with this one-sided confidence."""
        return np.asarray(self.mean - NormalDist().inv_cdf(confidence) * self.error)


def select_simplest(
    right: NDArray[np.bool_],
    brier: Floats,
    names: list[str],
    costs: list[tuple[float, ...]],
    codes: Ints,
    times: Floats,
    margin: float,
    confidence: float,
    alpha: float,
) -> Selection:
    """Return the cheapest candidate shown to lack no more than `margin` of the best one's accuracy, or the best.

    `right` (C, N) says which images each candidate got right, `brier` (C, N) how far its probabilities were off;
    `costs` orders the candidates, cheapest smallest; `codes` (N,) are the images' groups, 0 to G - 1, `times` (R, G)
    says how often each group is in a redrawing of them. The best is the most accurate, of equals the one with
    the better Brier score. Another is chosen instead where it is cheaper, lacks at most `margin` (a share: 0.01 is one
    point) with `confidence`, and its probabilities, which decide alarms, are not worse (Brier score, level `alpha`,
    Holm's correction).
    """
    best = best_of(right, brier, costs)
    order = sorted(range(len(names)), key=lambda c: (costs[c], names[c]))
    others = [c for c in order if c != best]
    lacking = shortfalls(right, best, codes, times)
    highest = lacking.at_most(confidence)
    excess = brier - brier[best]
    redrawn = redrawn_means(excess, codes, times)
    worse = holm([p_value(excess[c].mean(), redrawn[:, c]) if excess[c].mean() > 0 else 1.0 for c in others])
    comparisons = [
        Comparison(
            candidate=names[c],
            difference=float(lacking.mean[c]),
            at_most=float(highest[c]),
            only_best_right=int((right[best] & ~right[c]).sum()),
            only_it_right=int((~right[best] & right[c]).sum()),
            brier_difference=float(excess[c].mean()),
            p_brier=worse[place],
            shown=bool(highest[c] <= margin and worse[place] >= alpha),
        )
        for place, c in enumerate(others)
    ]
    standing = {names[best]} | {item.candidate for item in comparisons if item.shown}
    return Selection(
        best=names[best],
        chosen=next(names[c] for c in order if names[c] in standing),
        order=[names[c] for c in order],
        comparisons=comparisons,
        margin=margin,
        confidence=confidence,
    )


def best_of(right: NDArray[np.bool_], brier: Floats, costs: list[tuple[float, ...]]) -> int:
    """Return the number of the most accurate candidate; of equals the better Brier score, then the cheaper."""
    accuracies, scores = right.mean(axis=1), brier.mean(axis=1)
    return min(range(len(right)), key=lambda c: (-accuracies[c], scores[c], costs[c]))


def shortfalls(right: NDArray[np.bool_], best: int, codes: Ints, times: Floats) -> Shortfalls:
    """Return what each candidate of `right` (C, N) lacks against number `best`, paired by picture.

    The bootstrap over groups (`codes` (N,), redrawn so many `times` (R, G)) gives the error. Candidates that agree on
    the few pictures there are would look the same for certain, so one more group is counted on which they disagree
    (Agresti and Min 2005 add as much): it matters where groups are few, and vanishes where they are many.
    """
    gain = right[best].astype(np.float64) - right
    groups = int(codes.max()) + 1
    error = np.sqrt(redrawn_means(gain, codes, times).var(axis=0) + 1 / groups**2)
    error[best] = 0.0
    return Shortfalls(gain.mean(axis=1), error)


def redrawn_means(values: Floats, codes: Ints, times: Floats) -> Floats:
    """Return the means (R, C) of `values` (C, N) where the groups (`codes` (N,)) are there so many `times` (R, G)."""
    sums = np.stack([np.bincount(codes, row) for row in values], axis=1)
    return np.asarray((times @ sums) / (times @ np.bincount(codes).astype(np.float64))[:, None])


def bootstrap_p(gain: Floats, draws: Floats) -> float:
    """Return the two-sided p-value that the mean of `gain` (N,) is 0, by redrawing groups (R, N)."""
    if not gain.any():
        return 1.0
    drawn = draws.sum(axis=1)
    means = (draws[drawn > 0] @ gain) / drawn[drawn > 0]
    return p_value(gain.mean(), means)


def p_value(mean: float, means: Floats) -> float:
    """Return the two-sided p-value that `mean` is 0, of which `means` (R,) are the same of redrawn samples."""
    # Under the null: how often are draws as far from their own centre as the sample is from 0?
    return float((1 + (np.abs(means - mean) >= abs(mean)).sum()) / (1 + len(means)))


def holm(p_values: list[float]) -> list[float]:
    """Return Holm's step-down corrected p-values, in the order given."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return [float(value) for value in corrected]
