"""Permutations of whole groups between reference and window, and the statistics that are taken on each.

The null hypothesis: given what the champion predicts for it, a photograph (a video, a chain of near-duplicates) looks
like those of the reference. So whole groups change sides, never single images, and only among groups of the same
composition (all images predicted to be of one class, or mixed); and both sides are weighted to the same class shares.
Changed class shares therefore change no statistic: `monitoring.shares` estimates them. Ernst 2004, "Permutation
methods: a basis for exact inference"; Lipton et al. 2018, "Detecting and correcting for label shift with black box
predictors".

A draw is a row of signed weights: those of the window's images sum to 1, those of the reference's to -1, and every
statistic is a function of such a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from monitoring.observations import Floats

BATCH = 500  # permutations at a time
ENOUGH = 30  # a test whose statistic was reached this often needs no more permutations
CELLS = 40_000_000  # weights held at a time: 160 MB

Statistic = Callable[[NDArray[np.float32]], Floats]
"""(B, N) rows of signed weights to (B,) figures: the larger, the more the two sides differ."""


@dataclass(frozen=True)
class Layout:
    """Which images can change sides: N images in G groups.

    in_window: (N,) bool; group: (N,) 0..G-1; predicted: (N,) class 0..C-1.
    """

    in_window: NDArray[np.bool_]
    group: NDArray[np.int64]
    predicted: NDArray[np.int64]

    def __post_init__(self) -> None:
        counts = np.bincount(self.group, self.in_window)
        sizes = np.bincount(self.group)
        if np.any((counts > 0) & (counts < sizes)):
            raise ValueError("a group has images on both sides")

    @property
    def compared(self) -> NDArray[np.bool_]:
        """(N,) which images are predicted to be of a class that both sides have: the others weigh nothing."""
        shared = np.intersect1d(self.predicted[self.in_window], self.predicted[~self.in_window])
        return np.isin(self.predicted, shared)

    @property
    def composition(self) -> NDArray[np.int64]:
        """(G, C) how many images of each group are predicted to be of each class."""
        table = np.zeros((int(self.group.max()) + 1, int(self.predicted.max()) + 1), np.int64)
        np.add.at(table, (self.group, self.predicted), 1)
        return table

    def observed(self) -> NDArray[np.float32]:
        """Return the observed (1, N) weights."""
        sides = np.zeros(int(self.group.max()) + 1, bool)
        sides[self.group[self.in_window]] = True
        return self._weights(sides[None], self.composition)

    def permuted(self, random: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Return (count, N) weights after random changes of sides within each stratum of groups."""
        table = self.composition
        stratum = np.where((table > 0).sum(axis=1) > 1, -1, table.argmax(axis=1))
        sides = np.zeros((count, len(table)), bool)
        now = np.zeros(len(table), bool)
        now[self.group[self.in_window]] = True
        for name in np.unique(stratum):
            rows = np.flatnonzero(stratum == name)
            sides[:, rows] = random.permuted(np.tile(now[rows], (count, 1)), axis=1)
        return self._weights(sides, table)

    def _weights(self, sides: NDArray[np.bool_], table: NDArray[np.int64]) -> NDArray[np.float32]:
        """Weights for equal class shares on both sides, with the least variance of a difference of two means."""
        inside = sides.astype(np.float64) @ table
        outside = table.sum(axis=0) - inside
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where((inside > 0) & (outside > 0), 1 / (1 / inside + 1 / outside), 0.0)
            share /= share.sum(axis=1, keepdims=True)
            plus = np.nan_to_num(share / inside).astype(np.float32)
            minus = np.nan_to_num(share / outside).astype(np.float32)
        weights = np.empty((len(sides), len(self.group)), np.float32)
        for row in range(len(sides)):
            mine = sides[row][self.group]
            weights[row] = np.where(mine, plus[row][self.predicted], -minus[row][self.predicted])
        return weights


def p_values(layout: Layout, statistics: dict[str, Statistic], most: int, seed: int = 0) -> dict[str, float]:
    """Return the permutation p-value of each statistic, (1 + times reached) / (1 + permutations).

    At most `most` permutations, the same for every statistic; a statistic that was reached ENOUGH times stops
    early, and its p-value is that of its permutations so far (Besag and Clifford 1991, "Sequential Monte Carlo
    p-values").
    """
    random = np.random.default_rng(seed)
    observed = {name: float(statistic(layout.observed())[0]) for name, statistic in statistics.items()}
    reached = dict.fromkeys(statistics, 0)
    seen = dict.fromkeys(statistics, 0)
    batch = int(np.clip(CELLS // len(layout.group), 1, BATCH))
    open_tests = list(statistics)
    done = 0
    while open_tests and done < most:
        weights = layout.permuted(random, min(batch, most - done))
        done += len(weights)
        for name in open_tests:
            # A tie that rounding broke still counts as a tie, against the finding.
            level = observed[name] - 1e-6 * max(1.0, abs(observed[name])) * (abs(observed[name]) > 0)
            reached[name] += int(np.sum(statistics[name](weights) >= level))
            seen[name] = done
        open_tests = [name for name in open_tests if reached[name] < ENOUGH]
    return {name: (1 + reached[name]) / (1 + seen[name]) for name in statistics}


def share_moved(layout: Layout, most: int, seed: int = 0) -> float:
    """Return the p-value of the largest change of a class's predicted share, all groups free to change sides."""
    random = np.random.default_rng(seed)
    table = layout.composition
    sides = np.zeros(len(table), bool)
    sides[layout.group[layout.in_window]] = True

    def change(drawn: NDArray[np.bool_]) -> Floats:
        inside = drawn.astype(np.float64) @ table
        outside = table.sum(axis=0) - inside
        shares = inside / inside.sum(axis=1, keepdims=True) - outside / outside.sum(axis=1, keepdims=True)
        return np.asarray(np.abs(shares).max(axis=1))

    observed = float(change(sides[None])[0])
    reached = done = 0
    batch = int(np.clip(CELLS // len(table), 1, BATCH))
    while done < most and reached < ENOUGH:
        drawn = random.permuted(np.tile(sides, (min(batch, most - done), 1)), axis=1)
        reached += int(np.sum(change(drawn) >= observed - 1e-12))
        done += len(drawn)
    return (1 + reached) / (1 + done)


def kolmogorov(values: Floats) -> Statistic:
    """The largest distance between the two weighted distribution functions of `values` (N,)."""
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values)[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    return lambda weights: _largest_gap(weights, order, last)


@njit(cache=True, nogil=True)
def _largest_gap(weights: Any, order: Any, last: Any) -> Any:
    found = np.zeros(len(weights), np.float64)
    for row in range(len(weights)):
        total, largest = 0.0, 0.0
        for place in range(len(order)):
            total += weights[row, order[place]]
            if last[place] and abs(total) > largest:
                largest = abs(total)
        found[row] = largest
    return found


def more_often(marked: NDArray[np.bool_]) -> Statistic:
    """How much more often images are `marked` (N,) in the window than in the reference."""
    column = marked.astype(np.float32)
    return lambda weights: weights @ column


def mean_discrepancy(vectors: Floats, features: int = 256, seed: int = 0) -> Statistic:
    """Squared maximum mean discrepancy of `vectors` (N, D) under a Gaussian kernel of the median distance.

    Gretton et al. 2012, "A kernel two-sample test"; the kernel by random Fourier features (Rahimi and Recht 2007),
    whose error costs power but not validity: every permutation uses the same features.
    """
    random = np.random.default_rng(seed)
    width = float(np.median(pdist(vectors[random.permutation(len(vectors))[:500]]))) or 1.0
    angles = vectors @ (random.normal(size=(vectors.shape[1], features)) / width)
    waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32) / np.float32(np.sqrt(features))
    return lambda weights: ((weights @ waves) ** 2).sum(axis=1)


def classifier(vectors: Floats, layout: Layout, folds: int = 5, ridge: float = 1.0, seed: int = 0) -> Statistic:
    """How well a linear classifier of window against reference separates images that it was not trained on.

    Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests", with a ridge discriminant on `vectors` (N, D):
    the difference of its mean scores, each image scored by the classifier of the folds without its group. The solution
    is linear in the labels, so every permutation has classifiers of its own.
    """
    x = centred(vectors, layout.predicted).astype(np.float32)
    fold = np.random.default_rng(seed).integers(0, folds, int(layout.group.max()) + 1)[layout.group]
    parts = []
    for number in range(folds):
        held, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        gram = x[rest].T @ x[rest] / max(1, len(rest))
        gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=np.float32)
        parts.append((held, rest, np.linalg.solve(gram, x[held].T).T))

    def statistic(weights: NDArray[np.float32]) -> Floats:
        total = np.zeros(len(weights), np.float64)
        for held, rest, solved in parts:
            total += ((weights[:, rest] @ x[rest]) * (weights[:, held] @ solved)).sum(axis=1)
        return total

    return statistic


def centred(vectors: Floats, predicted: NDArray[np.int64]) -> Floats:
    """Return `vectors` (N, D) less the mean of their predicted class, over both sides."""
    moved = np.array(vectors, np.float64)
    for one in np.unique(predicted):
        moved[predicted == one] -= moved[predicted == one].mean(axis=0)
    return moved
