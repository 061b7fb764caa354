"""Permutations of whole groups between reference and windows, and the statistics that are taken on each.

The null hypothesis: given the class that is read from it, a photograph (a video, a chain of near-duplicates) looks like
those of the reference. So whole groups change places, never single images, and only among groups of the same
composition (all images read as one class, or mixed), so many that neither the images nor the groups of the window
become more; and both sides are weighted to the same class shares. Changed
class shares therefore change no statistic: `monitoring.shares` estimates them. Ernst 2004, "Permutation methods: a
basis for exact inference"; Lipton et al. 2018, "Detecting and correcting for label shift with black box predictors".

A draw is a row of signed weights: those of the window's images sum to 1, those of the reference's to -1, and every
statistic is a function of such a row. Beside the newest window stand pools of it with those before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from monitoring.observations import Floats

BATCH = 500  # permutations at a time
ENOUGH = 30  # once the strongest finding was reached this often, more permutations change no verdict
CELLS = 40_000_000  # weights held at a time: 160 MB
MARGIN = 0.5  # of the reference's images: a larger window is held to what chance does to windows of this size
TAIL = 0.1  # share of a statistic's draws by which its scale is judged

Statistic = Callable[[NDArray[np.float32]], Floats]
"""(B, N) rows of signed weights to (B,) figures on the scale of a square: the larger, the more the sides differ."""


@dataclass(frozen=True)
class Layout:
    """Which images can change places: N images in G groups.

    age: (N,) 0 in the reference, 1 in the newest window, 2 in the one before it, and so on; group: (N,) 0..G-1;
    predicted: (N,) class 0..C-1.
    """

    age: NDArray[np.int64]
    group: NDArray[np.int64]
    predicted: NDArray[np.int64]
    _slots: NDArray[np.int64] = field(init=False)  # (G,) the age of each group

    def __post_init__(self) -> None:
        slots = np.zeros(int(self.group.max()) + 1, np.int64)
        slots[self.group] = self.age
        if np.any(slots[self.group] != self.age):
            raise ValueError("a group has images on both sides")
        object.__setattr__(self, "_slots", slots)

    @property
    def in_window(self) -> NDArray[np.bool_]:
        """(N,) which images are of the newest window."""
        return np.asarray(self.age == 1)

    @property
    def compared(self) -> NDArray[np.bool_]:
        """(N,) which images are read as a class that reference and newest window both have: others weigh nothing."""
        shared = np.intersect1d(self.predicted[self.in_window], self.predicted[self.age == 0])
        return np.isin(self.predicted, shared)

    @property
    def composition(self) -> NDArray[np.int64]:
        """(G, C) how many images of each group are read as each class."""
        table = np.zeros((int(self.group.max()) + 1, int(self.predicted.max()) + 1), np.int64)
        np.add.at(table, (self.group, self.predicted), 1)
        return table

    def observed(self, newest: int = 1) -> NDArray[np.float32]:
        """Return the observed (1, N) weights of the `newest` windows together."""
        sides = np.where(self._slots == 0, -1, np.where(self._slots <= newest, 1, 0)).astype(np.int8)
        return self._weights(sides[None])

    def orders(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Return (count, G) random orders of the groups: those in front take the window's places."""
        return random.permuted(np.tile(np.arange(len(self._slots)), (count, 1)), axis=1)

    def weights(self, orders: NDArray[np.int64], newest: int, margin: float = MARGIN) -> NDArray[np.float32]:
        """Return (B, N) weights of the `newest` windows for orders (B, G) of the groups.

        In each stratum of groups (all images read as one class, or mixed) the first make up the window, until it has
        the images or the groups of the observed one: where groups of one side are larger, neither images nor groups
        may make chance look smaller than it is. As many as the older windows have are left out.

        A window of more than `margin` times the images of the reference is drawn that small: the reference is one
        sample, and what chance made of it does not go away however many images are compared with it.
        """
        images, known = int(np.sum((self.age > 0) & (self.age <= newest))), int(np.sum(self.age == 0))
        return self._weights(self.sides(orders, newest, min(1.0, margin * known / max(1, images))))

    def sides(
        self, orders: NDArray[np.int64], newest: int, share: float = 1.0, strata: bool = True
    ) -> NDArray[np.int8]:
        """Return (B, G): 1 in the window, -1 in the reference, 0 left out; `share` of the window's size is taken."""
        table = self.composition
        stratum = np.where((table > 0).sum(axis=1) > 1, table.shape[1], table.argmax(axis=1))
        stratum = stratum if strata else np.zeros_like(stratum)
        sizes = table.sum(axis=1).astype(np.float64)
        inside = (self._slots > 0) & (self._slots <= newest)
        length = int(stratum.max()) + 1

        def room(which: NDArray[np.bool_]) -> Floats:
            return np.stack([np.bincount(stratum[which], values[which], length) for values in (sizes, sizes > 0)])

        window, older = room(inside), room(self._slots > newest)
        return np.asarray(_sides_of(orders, stratum, sizes, share * window, older + (1 - share) * window))

    def _weights(self, sides: NDArray[np.int8]) -> NDArray[np.float32]:
        """Weights for equal class shares on both sides, with the least variance of a difference of two means."""
        return np.asarray(_weights_of(sides, self.composition, self.group, self.predicted))


@njit(cache=True, nogil=True)
def _sides_of(orders: Any, stratum: Any, sizes: Any, window: Any, left: Any) -> Any:
    found = np.full(orders.shape, -1, np.int8)
    for row in range(len(orders)):
        inside, out = window.copy(), left.copy()
        for place in range(orders.shape[1]):
            group = orders[row, place]
            kind = stratum[group]
            if inside[0, kind] >= sizes[group] / 2 and inside[1, kind] >= 0.5:
                found[row, group] = 1
                inside[0, kind] -= sizes[group]
                inside[1, kind] -= 1
            elif out[0, kind] >= sizes[group] / 2 and out[1, kind] >= 0.5:
                found[row, group] = 0
                out[0, kind] -= sizes[group]
                out[1, kind] -= 1
    return found


@njit(cache=True, nogil=True)
def _weights_of(sides: Any, table: Any, group: Any, predicted: Any) -> Any:
    draws, classes = sides.shape[0], table.shape[1]
    found = np.zeros((draws, len(group)), np.float32)
    inside, outside, plus, minus = np.zeros(classes), np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for row in range(draws):
        inside[:], outside[:] = 0, 0
        for one in range(sides.shape[1]):
            if sides[row, one] > 0:
                inside += table[one]
            elif sides[row, one] < 0:
                outside += table[one]
        total = 0.0
        for k in range(classes):
            both = inside[k] > 0 and outside[k] > 0
            plus[k] = 1 / (1 / inside[k] + 1 / outside[k]) if both else 0.0
            total += plus[k]
        for k in range(classes):
            if plus[k] > 0:
                share = plus[k] / total
                plus[k], minus[k] = share / inside[k], share / outside[k]
            else:
                minus[k] = 0.0
        for image in range(len(group)):
            side = sides[row, group[image]]
            if side > 0:
                found[row, image] = plus[predicted[image]]
            elif side < 0:
                found[row, image] = -minus[predicted[image]]
    return found


@dataclass(frozen=True)
class Found:
    """A test's p-value by itself and after correction for all tests and pools, and of how many windows together."""

    p: float
    adjusted: float
    newest: int


def p_values(
    layout: Layout,
    statistics: dict[str, Statistic],
    pools: tuple[int, ...],
    most: int,
    seed: int = 0,
    margin: float = MARGIN,
) -> dict[str, Found]:
    """Return each statistic's permutation p-value, alone and corrected for `statistics` x `pools`, of its best pool.

    The correction is single-step: how often, over the same permutations, the most extreme of all statistics is as
    extreme as this one (Westfall and Young 1993, "Resampling-based multiple testing"), which costs less than Holm's
    where tests depend on each other. To be compared, each statistic is measured from its upper tenth in units of the
    mean excess over it: an exponential tail (Knijnenburg et al. 2009, "Fewer permutations, more accurate P-values");
    observed and permuted figures count alike there, so any choice is valid.

    At most `most` permutations; they end once the strongest finding was reached ENOUGH times (Besag and Clifford 1991,
    "Sequential Monte Carlo p-values").
    """
    if not statistics:
        return {}
    random = np.random.default_rng(seed)
    columns = [(name, newest) for name in statistics for newest in pools]
    rows = [np.array([[float(statistics[name](layout.observed(newest))[0]) for name, newest in columns]])]
    batch = int(np.clip(CELLS // len(layout.group), 1, BATCH))
    done = 0
    while done < most:
        orders = layout.orders(random, min(batch, most - done))
        done += len(orders)
        weights = {newest: layout.weights(orders, newest, margin) for newest in pools}
        rows.append(np.stack([statistics[name](weights[newest]) for name, newest in columns], axis=1))
        scaled = _extremes(np.concatenate(rows))
        largest = scaled.max(axis=1)
        if np.sum(largest[1:] >= largest[0]) >= ENOUGH:
            break
    alone = np.mean(scaled >= scaled[0], axis=0)
    joint = np.mean(largest[:, None] >= scaled[0][None, :], axis=0)
    best: dict[str, Found] = {}
    for place in np.lexsort((-scaled[0], joint)):
        name, newest = columns[place]
        best.setdefault(name, Found(float(alone[place]), float(joint[place]), newest))
    return best


def _extremes(figures: Floats) -> Floats:
    """Return (B, T) figures in units of their tail, ties with the observed first row made exact."""
    tied = np.abs(figures - figures[0]) <= 1e-6 * np.maximum(np.abs(figures[0]), 1e-12)
    figures = np.where(tied, figures[0], figures)  # a tie that rounding broke counts against the finding
    start = np.quantile(figures, 1 - TAIL, axis=0)
    above = np.maximum(figures - start, 0.0)
    units = above.sum(axis=0) / np.maximum((above > 0).sum(axis=0), 1)
    units = np.where(units > 0, units, 1.0)
    return np.asarray((figures - start) / units)


def share_moved(layout: Layout, most: int, seed: int = 0) -> float:
    """Return the p-value of the largest change of a class's predicted share, all groups free to change sides.

    Of the newest window and the reference.
    """
    random = np.random.default_rng(seed)
    table = layout.composition.astype(np.float64)

    def change(sides: NDArray[np.int8]) -> Floats:
        inside, outside = (sides == 1) @ table, (sides == -1) @ table
        shares = inside / inside.sum(axis=1, keepdims=True) - outside / outside.sum(axis=1, keepdims=True)
        return np.asarray(np.abs(shares).max(axis=1))

    now = np.full((1, len(table)), -1, np.int8)
    now[0, layout.group[layout.in_window]] = 1
    observed = float(change(now)[0])
    reached = done = 0
    batch = int(np.clip(CELLS // len(table), 1, BATCH))
    while done < most and reached < ENOUGH:
        sides = layout.sides(layout.orders(random, min(batch, most - done)), 1, strata=False)
        reached += int(np.sum(change(sides) >= observed - 1e-12))
        done += len(sides)
    return (1 + reached) / (1 + done)


def kolmogorov(values: Floats) -> Statistic:
    """The squared largest distance between the two weighted distribution functions of `values` (N,)."""
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values)[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    return lambda weights: _largest_gap(weights, order, last) ** 2


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
    """How much more often images are `marked` (N,) in the window than in the reference, squared with its sign."""
    column = marked.astype(np.float32)

    def statistic(weights: NDArray[np.float32]) -> Floats:
        more = (weights @ column).astype(np.float64)
        return np.asarray(more * np.abs(more))

    return statistic


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
