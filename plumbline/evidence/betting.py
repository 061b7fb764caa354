"""Betting on a mean: a test that may be looked at every day.

Is one version better than the other? Each labelled pair gives d = (challenger right) - (champion right), one of -1, 0,
1. Whoever believes that its mean is m at most would let us bet on more: our capital after n pairs is the product of
1 + l (d - m), for a share l fixed before. If they are right, the chance that our capital ever reaches 1 / alpha is at
most alpha, whenever we look (Ville 1939; Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by
betting", JRSS B 86(1), section 4; Shafer 2021, "Testing by betting", JRSS A 184(2)). Which share is best nobody knows
beforehand: our capital is spread over a grid of them, and the mean of such capitals is one, too. `monitoring.labelled`
bets on a site's error in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARES = np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 0.95])  # of what can be bet without ruin
MEANS = np.linspace(-0.99, 0.99, 199)


@dataclass(frozen=True)
class Bet:
    """What the pairs say so far.

    `better` and `worse` are the largest capitals ever held against "the challenger is not better" and "... not worse";
    `low`, `high` hold the mean difference with confidence 1 - alpha at every look.
    """

    pairs: int
    differing: int
    difference: float
    better: float
    worse: float
    low: float
    high: float


def capital(values: NDArray[np.float64], mean: float, worst: float = -1.0) -> NDArray[np.float64]:
    """Return the capital (N,) after each of `values` (N,), `worst` at least, of bets that their mean is above `mean`.

    `mean` is above `worst`, too.
    """
    shares = SHARES / (mean - worst)  # the worst value costs l (mean - worst): never everything
    growth = np.cumsum(np.log1p(shares[:, None] * (values[None, :] - mean)), axis=1)
    largest = growth.max(axis=0)
    return np.asarray(np.exp(np.minimum(largest + np.log(np.exp(growth - largest).mean(axis=0)), 700)))


def bet(differences: Sequence[int], alpha: float) -> Bet:
    """Return what pairs in the order of their labels say, at level `alpha` for both sides together."""
    given = np.asarray(differences, np.float64)
    if not len(given):
        return Bet(0, 0, 0.0, 1.0, 1.0, -1.0, 1.0)
    above = [bool(capital(given, mean).max() >= 2 / alpha) for mean in MEANS]  # refuted: it is more than this
    below = [bool(capital(-given, -mean).max() >= 2 / alpha) for mean in MEANS]
    return Bet(
        pairs=len(given),
        differing=int((given != 0).sum()),
        difference=float(given.mean()),
        better=float(max(1.0, capital(given, 0.0).max())),
        worse=float(max(1.0, capital(-given, 0.0).max())),
        low=max([-1.0, *(float(m) for m, refuted in zip(MEANS, above, strict=True) if refuted)]),
        high=min([1.0, *(float(m) for m, refuted in zip(MEANS, below, strict=True) if refuted)]),
    )
