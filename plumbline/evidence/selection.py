"""The simplest of the candidates that can't be distinguished from the best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from plumbline.evidence.records import Comparison, Selection
from plumbline.tasks.scores import Floats


def select_simplest(
    right: NDArray[np.bool_],
    brier: Floats,
    names: list[str],
    costs: list[tuple[float, ...]],
    draws: Floats,
    alpha: float,
) -> Selection:
    """Return the cheapest candidate that is not distinguishable from the most accurate one.

    `right` (C, N) says which images each candidate got right, `brier` (C, N) how far its probabilities were off;
    `costs` orders the candidates, cheapest smallest; `draws` (R, N) says how often each image is in a redrawing of
    groups. A candidate is worse than the best if it is right less often, by McNemar's test *and* by the bootstrap over
    groups (the first is exact for few disagreements, the second knows that images of one group err together); or if
    its probabilities are worse, by the bootstrap on Brier scores: they decide alarms, and distinguish two
    models on far fewer images. For the two questions each p-value is doubled; Holm's correction is for the candidates.
    """
    accuracies = right.mean(axis=1)
    best = min(range(len(names)), key=lambda c: (-accuracies[c], brier[c].mean(), costs[c]))
    order = sorted(range(len(names)), key=lambda c: (costs[c], names[c]))
    others = [c for c in order if c != best]
    raw = [_p_values(right[best], right[c], brier[c] - brier[best], draws) for c in others]
    corrected = holm([min(1.0, 2 * min(max(p_mcnemar, p_boot), p_brier)) for p_mcnemar, p_boot, p_brier in raw])
    comparisons = [
        Comparison(
            candidate=names[c],
            difference=float(accuracies[best] - accuracies[c]),
            brier_difference=float((brier[c] - brier[best]).mean()),
            only_best_right=int((right[best] & ~right[c]).sum()),
            only_it_right=int((~right[best] & right[c]).sum()),
            p_mcnemar=raw[place][0],
            p_bootstrap=raw[place][1],
            p_brier=raw[place][2],
            p_corrected=corrected[place],
            tied=corrected[place] >= alpha,
        )
        for place, c in enumerate(others)
    ]
    tied = {names[best]} | {item.candidate for item in comparisons if item.tied}
    chosen = next(names[c] for c in order if names[c] in tied)
    return Selection(best=names[best], chosen=chosen, order=[names[c] for c in order], comparisons=comparisons)


def _p_values(
    best: NDArray[np.bool_], other: NDArray[np.bool_], excess: Floats, draws: Floats
) -> tuple[float, float, float]:
    gain = best.astype(np.float64) - other
    return (
        mcnemar(int((gain > 0).sum()), int((gain < 0).sum())),
        bootstrap_p(gain, draws),
        bootstrap_p(excess, draws) if excess.mean() > 0 else 1.0,
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return McNemar's two-sided mid-p value, from the numbers of images that only one of the two got right."""
    from scipy.stats import binom

    disagree = only_first + only_second
    if disagree == 0:
        return 1.0
    more = max(only_first, only_second)
    return min(1.0, 2 * float(binom.sf(more, disagree, 0.5) + 0.5 * binom.pmf(more, disagree, 0.5)))


def bootstrap_p(gain: Floats, draws: Floats) -> float:
    """Return the two-sided p-value that the mean of `gain` (N,) is 0, by redrawing groups (R, N)."""
    if not gain.any():
        return 1.0
    drawn = draws.sum(axis=1)
    means = (draws[drawn > 0] @ gain) / drawn[drawn > 0]
    # Under the null: how often are draws as far from their own centre as the sample is from 0?
    return float((1 + (np.abs(means - gain.mean()) >= abs(gain.mean())).sum()) / (1 + len(means)))


def holm(p_values: list[float]) -> list[float]:
    """Return Holm's step-down corrected p-values, in the order given."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return [float(value) for value in corrected]
