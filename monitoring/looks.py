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
    """What the reference looks like, and of what class it is: `labels` (N,) numbers."""

    looks: Looks
    labels: NDArray[np.int64]


def drawn(groups: NDArray[np.int64], most: int, seed: int) -> NDArray[np.intp]:
    """Return all rows, or those of whole groups drawn at random up to `most` images."""
    if len(groups) <= most:
        return np.arange(len(groups))
    names, counts = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = names[order[np.cumsum(counts[order]) <= most]]
    return np.flatnonzero(np.isin(groups, chosen))


def statistics_of(known: Known, windows: Sequence[Looks], names: Sequence[str]) -> tuple[Layout, dict[str, Statistic]]:
    """Return the layout of reference and windows, newest first, and the statistics on it; `names` are descriptors."""
    reference, every = known.looks, [known.looks, *windows]
    shifts = np.cumsum([0, *(int(one.groups.max()) + 1 for one in every[:-1])])
    joined = np.concatenate([one.groups + shift for one, shift in zip(every, shifts, strict=True)])
    groups = np.unique(joined, return_inverse=True)[1].astype(np.int64)
    ages = np.concatenate([np.full(len(one), age, np.int64) for age, one in enumerate(every)])
    start = len(reference)
    seen = np.concatenate([one.seen for one in every]).astype(np.float32)
    fold = folds_of(reference.groups)
    theirs = folds_of(np.unique(groups[start:], return_inverse=True)[1].astype(np.int64), seed=1)
    spread = seen[:start].std(axis=0) + 1e-6
    scaled = (seen - seen[:start].mean(axis=0)) / spread
    read = read_classes(scaled[:start], known.labels, fold, scaled[start:], theirs)
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
    known: Floats, labels: NDArray[np.int64], fold: NDArray[np.int64], window: Floats, theirs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return (N + M,) the class that a ridge classifier reads from each embedding, fitted without its fold.

    Not the champion's: it has learnt some of the reference by heart, and calls those right more often than new ones.
    """
    from sklearn.linear_model import RidgeClassifier

    read = np.zeros(len(known) + len(window), np.int64)
    ours = np.concatenate([fold, np.full(len(window), -1)])
    new = np.concatenate([np.full(len(known), -1), theirs])
    both = np.concatenate([known, window])
    for number in np.unique(fold):
        rows = (ours == number) | (new == number)
        rest = fold != number
        if not rows.any():
            continue
        if len(np.unique(labels[rest])) < 2:
            read[rows] = labels[rest][0]
            continue
        read[rows] = RidgeClassifier(PROBE_RIDGE).fit(known[rest], labels[rest]).predict(both[rows])
    return read


def grid(small: NDArray[np.uint8]) -> Floats:
    """Return (N, 36) the logarithm of each cell's brightness over the picture's, from small greys (N, 18, 24)."""
    rows, columns = small.shape[1] // CELLS[1], small.shape[2] // CELLS[0]
    cells: Any = small.reshape(len(small), CELLS[1], rows, CELLS[0], columns).mean(axis=(2, 4), dtype=np.float64)
    cells = cells.reshape(len(small), -1)
    return np.asarray(np.log((cells + FLOOR) / (cells.mean(axis=1, keepdims=True) + FLOOR)))
