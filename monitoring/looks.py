"""What pictures look like, whatever a champion says of them, and which tests compare it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monitoring.anomaly import folds_of
from monitoring.observations import Floats
from monitoring.permutation import Layout, Statistic, centred, classifier, kolmogorov, mean_discrepancy
from monitoring.shares import confusion, solve

if TYPE_CHECKING:
    import pandas as pd

COMPONENTS = 32  # principal components of the embeddings that the tests look at
CELLS = (6, 6)  # columns and rows of the grid of brightness
FLOOR = 8.0  # grey levels added before the logarithm, so that black cells don't dominate
PROBE_RIDGE = 1e3
MMD, CLASSIFIER = ON_EMBEDDINGS = ("embeddings (MMD)", "embeddings (classifier)")


@dataclass(frozen=True)
class Looks:
    """N pictures: measures (N, M) descriptors, a column each; seen (N, E) embeddings; small (N, 18, 24) greys or None;
    groups (N,) numbers, equal for pictures that are not independent."""

    measures: pd.DataFrame
    seen: Floats
    small: NDArray[np.uint8] | None
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.groups)

    def take(self, rows: NDArray[np.intp]) -> Looks:
        """Return the pictures `rows`, in that order."""
        small = None if self.small is None else self.small[rows]
        return Looks(self.measures.iloc[rows].reset_index(drop=True), self.seen[rows], small, self.groups[rows])


@dataclass(frozen=True)
class Known:
    """What the reference looks like, and what is known of it.

    labels: (N,) class numbers, -1 of pictures that nobody labelled.
    kinds: (N,) 0 of pictures of the data set, 1, 2, ... of accepted windows that looked different, -1 of those that
    did not and may be of any kind; None where no window was accepted that looked different.
    """

    looks: Looks
    labels: NDArray[np.int64]
    kinds: NDArray[np.int64] | None = None


def drawn(groups: NDArray[np.int64], most: int, seed: int) -> NDArray[np.intp]:
    """Return all rows, or those of whole groups drawn at random up to `most` images."""
    if len(groups) <= most:
        return np.arange(len(groups))
    names, counts = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = names[order[np.cumsum(counts[order]) <= most]]
    return np.flatnonzero(np.isin(groups, chosen))


def statistics_of(known: Known, windows: Sequence[Looks], names: Sequence[str]) -> tuple[Layout, dict[str, Statistic]]:
    """Return the layout of reference and windows, newest first, and the statistics on it; `names` are descriptors.

    Where accepted windows looked different, part of the reference is compared (`of_their_kinds`).
    """
    reference, every = known.looks, [known.looks, *windows]
    shifts = np.cumsum([0, *(int(one.groups.max()) + 1 for one in every[:-1])])
    joined = np.concatenate([one.groups + shift for one, shift in zip(every, shifts, strict=True)])
    groups = np.unique(joined, return_inverse=True)[1].astype(np.int64)
    ages = np.concatenate([np.full(len(one), age, np.int64) for age, one in enumerate(every)])
    start = len(reference)
    seen = np.concatenate([one.seen for one in every]).astype(np.float32)
    fold = folds_of(reference.groups)
    theirs = folds_of(np.unique(groups[start:], return_inverse=True)[1].astype(np.int64), seed=1)
    scaled = _scaled(seen, start)
    read = read_classes(scaled[:start], known.labels, fold, scaled[start:], theirs)
    if known.kinds is not None:
        plain = _scaled(_plain(every, names), start)
        rows = of_their_kinds(known, np.concatenate([scaled, plain], axis=1), fold, theirs)
        kept = np.concatenate([rows, np.arange(start, len(read))])
        every[0], read, seen, ages = reference.take(rows), read[kept], seen[kept], ages[kept]
        groups = np.unique(groups[kept], return_inverse=True)[1].astype(np.int64)
    layout = Layout(ages, groups, read)
    found: dict[str, Statistic] = {}
    for name in names:
        values = np.concatenate([one.measures[name].to_numpy(np.float64) for one in every])
        if np.ptp(values) > 0:
            found[name] = kolmogorov(values)
    found |= embedding_tests(seen, layout)
    small = [one.small for one in every if one.small is not None]
    if len(small) == len(every):
        cells = centred(grid(np.concatenate(small)), layout.predicted)
        if cells.std(axis=0).min() > 0:
            found["places"] = classifier(cells / cells.std(axis=0), layout)
    return layout, found


def _scaled(values: Floats, start: int) -> Floats:
    """Return `values` (N, D) in units of the spread of the first `start` rows, the reference's."""
    return np.asarray((values - values[:start].mean(axis=0)) / (values[:start].std(axis=0) + 1e-6))


def _plain(every: Sequence[Looks], names: Sequence[str]) -> Floats:
    """Return (N, D) what all have beside embeddings: descriptors and where light and dark lie."""
    parts = [np.concatenate([one.measures[list(names)].to_numpy(np.float64) for one in every])]
    small = [one.small for one in every if one.small is not None]
    return np.concatenate([*parts, *([grid(np.concatenate(small))] if len(small) == len(every) else [])], axis=1)


def of_their_kinds(known: Known, both: Floats, fold: NDArray[np.int64], theirs: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the rows of the reference to compare: as many as there are of each kind in the shares that windows show.

    With pictures of the data set and of accepted windows that looked different the reference is a mixture, and a
    window of one kind alone would differ from it for ever. So the windows' shares of the kinds are estimated as shares
    of classes are (`monitoring.shares`, by what a classifier reads from known ones that it was not fitted to), and the
    reference is thinned to these shares, whole groups at random. What fits a window best can only hide a difference
    between kinds that a person has accepted: all else, and chance, is on both sides.

    Args:
        both: (N + M, D) figures of reference and windows; fold (N,), theirs (M,): as `read_classes`.
    """
    assert known.kinds is not None
    start, kinds = len(known.looks), int(known.kinds.max()) + 1
    read = read_classes(both[:start], known.kinds, fold, both[start:], theirs, balanced=True)
    sure = known.kinds >= 0
    told = confusion(known.kinds[sure], read[:start][sure], kinds)
    shares = solve(told, np.bincount(read[start:], minlength=kinds) / len(theirs))
    own = np.where(sure, known.kinds, read[:start])
    counts = np.bincount(own, minlength=kinds)
    scale = float((counts[shares > 0] / shares[shares > 0]).min())
    parts = []
    for kind in range(kinds):
        rows = np.flatnonzero(own == kind)
        parts.append(rows[drawn(known.looks.groups[rows], round(scale * shares[kind]), seed=kind)])
    return np.sort(np.concatenate(parts))


def embedding_tests(vectors: Floats, layout: Layout) -> dict[str, Statistic]:
    """Return the two tests on embeddings (N, D) of both sides, by their principal components."""
    from sklearn.decomposition import PCA

    moved = centred(vectors, layout.predicted)
    components = min(COMPONENTS, moved.shape[1], len(moved) - 1)
    parts = PCA(components, random_state=0).fit_transform(moved)
    parts = parts[:, parts.std(axis=0) > 1e-9]
    if not parts.shape[1]:
        return {}
    return {
        MMD: mean_discrepancy(parts),
        CLASSIFIER: classifier(parts / parts.std(axis=0), layout),
    }


def read_classes(
    known: Floats,
    labels: NDArray[np.int64],
    fold: NDArray[np.int64],
    window: Floats,
    theirs: NDArray[np.int64],
    balanced: bool = False,
) -> NDArray[np.int64]:
    """Return (N + M,) the class that a ridge classifier reads from each embedding, fitted without its fold.

    Not the champion's: it has learnt some of the reference by heart, and calls those right more often than new ones.
    Pictures with label -1 are read and not learnt from. `balanced`: a rare class weighs as much as a frequent one.
    """
    from sklearn.linear_model import RidgeClassifier

    read = np.zeros(len(known) + len(window), np.int64)
    ours = np.concatenate([fold, np.full(len(window), -1)])
    new = np.concatenate([np.full(len(known), -1), theirs])
    both = np.concatenate([known, window])
    for number in np.unique(fold):
        rows = (ours == number) | (new == number)
        rest = (fold != number) & (labels >= 0)
        if not rows.any():
            continue
        if len(np.unique(labels[rest])) < 2:
            read[rows] = labels[rest][0]
            continue
        weights = "balanced" if balanced else None
        read[rows] = (
            RidgeClassifier(PROBE_RIDGE, class_weight=weights).fit(known[rest], labels[rest]).predict(both[rows])
        )
    return read


def grid(small: NDArray[np.uint8]) -> Floats:
    """Return (N, 36) the logarithm of each cell's brightness over the picture's, from small greys (N, 18, 24)."""
    rows, columns = small.shape[1] // CELLS[1], small.shape[2] // CELLS[0]
    cells: Any = small.reshape(len(small), CELLS[1], rows, CELLS[0], columns).mean(axis=(2, 4), dtype=np.float64)
    cells = cells.reshape(len(small), -1)
    return np.asarray(np.log((cells + FLOOR) / (cells.mean(axis=1, keepdims=True) + FLOOR)))
