"""What the champion's accuracy on unlabelled images may be, from its calibrated confidence alone.

It assumes that confidence means there what it meant on the reference. A new kind of input is just where it may not, so
the figure is a warning light, not a measurement: labels are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitoring.sample import Floats
from monitoring.shares import redraw

DRAWS = 500


@dataclass(frozen=True)
class Estimate:
    """A share with its 95% interval (bootstrap of whole groups of reference and window)."""

    value: float
    low: float
    high: float


def confident_share(reference: Floats, right: NDArray[np.bool_], window: Floats) -> float:
    """Return the share of the window's confidences (M,) above the threshold that parts right from wrong.

    Average thresholded confidence: the threshold is exceeded by as large a share of the reference (N,) as the champion
    was `right` on. Garg et al. 2022, "Leveraging unlabeled data to predict out-of-distribution performance". One right
    and one wrong image are added to the reference (Laplace), lest a few dozen without an error promise perfection.
    """
    wrong = 1 - (right.sum() + 1) / (len(right) + 2)
    return float(np.mean(window >= np.quantile(reference, wrong)))


def estimate_accuracy(
    reference: Floats,
    right: NDArray[np.bool_],
    groups: NDArray[np.int64],
    window: Floats,
    window_groups: NDArray[np.int64],
    seed: int = 0,
) -> Estimate:
    """Return the expected accuracy on the window from the confidences of both sides."""
    random = np.random.default_rng(seed)
    draws = [
        confident_share(reference[rows], right[rows], window[window_rows])
        for rows, window_rows in zip(
            redraw(groups, random, DRAWS), redraw(window_groups, random, DRAWS), strict=True
        )
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(confident_share(reference, right, window), float(low), float(high))


def estimate_recall(probability: Floats, alarm: NDArray[np.bool_], groups: NDArray[np.int64], seed: int = 0) -> Estimate:
    """Return what share of a class raises the alarm, if `probability` (N,) of it is calibrated."""
    random = np.random.default_rng(seed)

    def recall(rows: NDArray[np.intp]) -> float:
        total = float(probability[rows].sum())
        return float(probability[rows][alarm[rows]].sum()) / total if total > 0 else 1.0

    low, high = np.percentile([recall(rows) for rows in redraw(groups, random, DRAWS)], [2.5, 97.5])
    return Estimate(recall(np.arange(len(groups))), float(low), float(high))


def calibrated(probabilities: Floats, temperature: float) -> Floats:
    """Return p^(1/T), normalised: (N, C), as a version's serving.json says."""
    scaled = np.maximum(probabilities.astype(np.float64), 1e-12) ** (1 / temperature)
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def checked_later(confidence: Floats, right: NDArray[np.bool_]) -> dict[str, float]:
    """Return what confidence promised on images that were labelled since, and what was true of the same images.

    The images to label are chosen for being hard, so they say nothing of the whole window: promise and truth are of
    these images only. The interval is Wilson's.
    """
    from scipy.stats import binomtest

    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return {
        "images": len(right),
        "promised": float(confidence.mean()),
        "right": float(right.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
    }
