"""Rivals of monitoring/accuracy.py: what accuracy to expect on images without labels.

Of N reference images with labels and M of a window, from the champion's calibrated probabilities or from embeddings.
benchmarks/drift.py, part `accuracy`, measures them; the best is what monitoring ships.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def thresholded_confidence(known: Floats, right: NDArray[np.bool_], window: Floats) -> float:
    """Return the share of the window's confidences (M,) above what as many of `known` (N,) reach as are right.

    Average thresholded confidence (ATC): Garg et al. 2022, "Leveraging unlabeled data to predict out-of-distribution
    performance", arXiv 2201.04234.
    """
    return float(np.mean(window >= np.quantile(known, 1 - right.mean())))


def shrunk_difference(known: Floats, right: NDArray[np.bool_], window: Floats) -> float:
    """Return the window's mean confidence (M,) less as much of the reference's excess (N,) as chance does not explain.

    Between average confidence and the difference of confidences (DoC, Guillory et al. 2021): the positive part of
    James and Stein (1961), one-dimensional, for how much the mean of `known` differs from the share that is `right`.
    """
    excess = known - right
    shrunk = max(0.0, 1 - float(excess.var(ddof=1)) / len(excess) / max(float(excess.mean()) ** 2, 1e-12))
    return float(np.clip(window.mean() - shrunk * excess.mean(), 0, 1))


def transported_confidence(known: Floats, labels: NDArray[np.int64], right: NDArray[np.bool_], window: Floats) -> float:
    """Return the share of the window's probabilities (M, C) that are cheap to carry to the reference's labels (N,).

    Cheap is what as many of the reference's own probabilities (N, C) are as are right. Confidence optimal transport
    with thresholding (COTT): Lu et al. 2023, "Characterizing out-of-distribution error via optimal transport", arXiv
    2305.15640, which assumes that the window's shares of classes are those of the reference.
    """
    limit = np.quantile(transport_costs(known, labels), right.mean())
    # As many labels as there are images, in the reference's shares.
    places = ((np.arange(len(window)) + 0.5) / len(window) * len(labels)).astype(np.int64)
    return float(np.mean(transport_costs(window, np.sort(labels)[places]) <= limit))


def transport_costs(probabilities: Floats, labels: NDArray[np.int64]) -> Floats:
    """Return what each image (N, C) costs where all are carried to the corners `labels` (N,) at the least cost.

    The cost of one is half the sum of the absolute differences between its probabilities and the corner: from 0 to 1.
    """
    from scipy.optimize import linear_sum_assignment

    # With a corner the half sum is what the label's own probability lacks to 1.
    costs = 1 - np.asarray(probabilities, np.float64)[:, labels]
    rows, columns = linear_sum_assignment(costs)
    return np.asarray(costs[rows, columns])


def density_ratios(
    known: Floats, groups: NDArray[np.int64], window: Floats, most: float = 10.0, components: int = 32
) -> Floats:
    """Return how much likelier each reference image (N,) is in the window than in the reference, `most` at most.

    The odds of a logistic regression of window against reference on the first `components` of their embeddings (N, D)
    and (M, D), each reference image asked of a regression without its group (Bickel et al. 2009, "Discriminative
    learning under covariate shift").
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict

    both = np.concatenate([known, window]).astype(np.float64)
    x = PCA(min(components, *both.shape), whiten=True, random_state=0).fit_transform(both)
    side = np.arange(len(both)) >= len(known)
    # The window is scored too, and not used: its images are groups of their own.
    every = np.concatenate([groups, groups.max() + 1 + np.arange(len(window))])
    regression = LogisticRegression(C=0.1, max_iter=1000)
    p = cross_val_predict(regression, x, side, groups=every, cv=GroupKFold(5), method="predict_proba")[: len(known), 1]
    return np.asarray(np.clip(p / (1 - p) * len(known) / len(window), 0, most))


def importance_weighted(right: NDArray[np.bool_], ratios: Floats) -> float:
    """Return the accuracy on the reference (N,), each image weighted by its density ratio (N,)."""
    return float(ratios @ right / ratios.sum())


def weighted_difference(known: Floats, right: NDArray[np.bool_], ratios: Floats, window: Floats) -> float:
    """Return the window's mean confidence (M,), less what the reference's (N,) promised too much, weighted (N,)."""
    return float(np.clip(window.mean() + ratios @ (right - known) / ratios.sum(), 0, 1))
