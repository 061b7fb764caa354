"""The share of each class among unlabelled images: black-box shift estimation.

Lipton, Wang and Smola 2018: where only the class shares have changed, the shares of the champion's predictions
are its confusion matrix on the reference times the true shares, which solving recovers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from monitoring.observations import Floats

DRAWS = 500


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> Floats:
    """Return (C, C): how often an image of class j (column) is predicted to be i.

    A class without images counts as always predicted right.
    """
    table = np.zeros((classes, classes))
    np.add.at(table, (predicted, labels), 1)
    absent = table.sum(axis=0) == 0
    table[absent, absent] = 1
    return np.asarray(table / table.sum(axis=0))


def solve(matrix: Floats, predicted_share: Floats) -> Floats:
    """Return the true shares (C,), none negative, sum 1, that best explain predictions with this confusion matrix."""
    from scipy.optimize import nnls

    heavy = 1e3
    shares, _ = nnls(np.vstack([matrix, heavy * np.ones(matrix.shape[1])]), np.append(predicted_share, heavy))
    return np.asarray(shares / shares.sum())


def estimate_shares(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    groups: NDArray[np.int64],
    window_predicted: NDArray[np.int64],
    window_groups: NDArray[np.int64],
    classes: int,
    seed: int = 0,
) -> dict[str, Floats]:
    """Return the window's shares of classes, `value`, `low` and `high` (C,): 95% by bootstrap of both sides' groups."""
    random = np.random.default_rng(seed)

    def shares(rows: NDArray[np.intp], window_rows: NDArray[np.intp]) -> Floats:
        matrix = confusion(labels[rows], predicted[rows], classes)
        return solve(matrix, np.bincount(window_predicted[window_rows], minlength=classes) / len(window_rows))

    draws = [
        shares(redrawn, window_redrawn)
        for redrawn, window_redrawn in zip(
            redraw(groups, random, DRAWS), redraw(window_groups, random, DRAWS), strict=True
        )
    ]
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return {
        "value": shares(np.arange(len(groups)), np.arange(len(window_groups))),
        "low": np.asarray(low),
        "high": np.asarray(high),
    }


def redraw(groups: NDArray[np.int64], random: np.random.Generator, draws: int) -> Iterator[NDArray[np.intp]]:
    """Yield bootstrap draws of whole groups, each as row numbers."""
    order = np.argsort(groups, kind="stable")
    _, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
    for _ in range(draws):
        drawn = random.integers(0, len(starts), len(starts))
        sizes = counts[drawn]
        # Row k of a drawn group is k places after its start.
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        yield order[np.repeat(starts[drawn], sizes) + within]
