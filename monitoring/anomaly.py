"""How unlike the reference an image is: by an autoencoder's error, and by its distance to the nearest known images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitoring.observations import Floats
from plumbline.common.served import NEIGHBOUR

CODE = 32  # dimensions that the autoencoder squeezes an embedding through
FOLDS = 5
ROWS = 2048  # distances are computed for so many images at a time


@dataclass(frozen=True)
class Autoencoder:
    """The linear autoencoder of some embeddings: centre (D,), code (K, D).

    The first principal components minimise its squared error (Baldi and Hornik 1989, "Neural networks and principal
    component analysis"), so it is found in one step and is the same on every run. scikit-learn's network
    with a hidden layer, fitted to the hundred images of a small reference, found the new gate of the real photographs
    in 4 of 12 windows, this one in 34 of 40.
    """

    centre: Floats
    code: Floats

    def error(self, vectors: Floats) -> Floats:
        """Return (N,) the length of each embedding's residual."""
        moved = vectors - self.centre
        return np.asarray(np.linalg.norm(moved - (moved @ self.code.T) @ self.code, axis=1))


def fit_autoencoder(vectors: Floats) -> Autoencoder:
    """Fit to embeddings (N, D), of at least two images."""
    from sklearn.decomposition import PCA

    fitted = PCA(min(CODE, len(vectors) // 2, vectors.shape[1]), random_state=0).fit(vectors)
    return Autoencoder(fitted.mean_, fitted.components_)


def reconstruction_errors(
    reference: Floats, reference_groups: NDArray[np.int64], window: Floats, window_groups: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return the errors of reference (N,) and window (M,) by autoencoders that were fitted to neither the image nor its
    group.

    Groups of both sides are dealt to folds; an image's error is that of the autoencoder fitted to the reference's other
    folds. Otherwise the reference, on which it was fitted, would always look better than any window.
    """
    fold, window_fold = folds_of(reference_groups), folds_of(window_groups, seed=1)
    errors, window_errors = np.zeros(len(reference)), np.zeros(len(window))
    for number in range(FOLDS):
        network = fit_autoencoder(reference[fold != number])
        errors[fold == number] = network.error(reference[fold == number])
        window_errors[window_fold == number] = network.error(window[window_fold == number])
    return errors, window_errors


def folds_of(groups: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """Return (N,) the fold, 0 to FOLDS - 1, that each image's group is dealt to; no fold stays empty."""
    random = np.random.default_rng(seed)
    dealt = random.permutation(np.arange(int(groups.max()) + 1) % FOLDS)
    return np.asarray(dealt[groups], np.int64)


@dataclass(frozen=True)
class Nearness:
    """distances (N,): cosine distance to the third nearest reference image; nearest (N,): the row of the nearest."""

    distances: Floats
    nearest: NDArray[np.int64]


def nearness(
    vectors: Floats, reference: Floats, parts: NDArray[np.int64] | None, reference_parts: NDArray[np.int64]
) -> Nearness:
    """Compare `vectors` (N, D) with the reference's, each with those of other parts than its own (None: with all)."""
    known = _directions(reference)
    distances, nearest = np.empty(len(vectors)), np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), ROWS):
        part = slice(start, start + ROWS)
        apart = 1 - _directions(vectors[part]) @ known.T
        if parts is not None:
            apart[parts[part, None] == reference_parts[None, :]] = np.inf
        nearest[part] = apart.argmin(axis=1)
        distances[part] = np.partition(apart, min(NEIGHBOUR, apart.shape[1]) - 1, axis=1)[
            :, min(NEIGHBOUR, apart.shape[1]) - 1
        ]
    return Nearness(distances, nearest)


def cross_distances(
    reference: Floats, reference_groups: NDArray[np.int64], window: Floats, window_groups: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return distances of reference (N,) and window (M,) in a comparable way: both to the reference's other folds."""
    fold, window_fold = folds_of(reference_groups), folds_of(window_groups, seed=1)
    return (
        nearness(reference, reference, fold, fold).distances,
        nearness(window, reference, window_fold, fold).distances,
    )


def _directions(vectors: Floats) -> NDArray[np.float32]:
    single = vectors.astype(np.float32)
    return np.asarray(single / np.maximum(np.linalg.norm(single, axis=1, keepdims=True), 1e-12))
