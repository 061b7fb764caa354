"""An estimate of the champion's accuracy on unlabelled images, from its confidence alone.

It assumes that confidence is as reliable there as on the reference. For a new kind of input that may be wrong, so the
estimate is a warning light; only labels are a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitoring.observations import Floats
from monitoring.shares import redraw

DRAWS = 500


@dataclass(frozen=True)
class Estimate:
    """A share with its 95% interval (bootstrap of whole groups of reference and window)."""

    value: float
    low: float
    high: float


def expected_accuracy(reference: Floats, right: NDArray[np.bool_], window: Floats) -> float:
    """Return the accuracy to expect from the champion's confidences in the window (M,), as the network gives them.

    The champion's accuracy on the reference (N,) plus the change of its mean confidence since: difference of
    confidences, Guillory et al. 2021, "Predicting with confidence on unseen distributions". Half a right and half a
    wrong image are added to the reference (Jeffreys), so that a few dozen without an error don't promise perfection.
    Not of calibrated confidences: a temperature fitted on few images adds noise. docs/decisions/drift.md has its mean
    absolute error beside that of its rivals.
    """
    known = (right.sum() + 0.5) / (len(right) + 1)
    return float(np.clip(known - reference.mean() + window.mean(), 0, 1))


def estimate_accuracy(
    reference: Floats,
    right: NDArray[np.bool_],
    groups: NDArray[np.int64],
    window: Floats,
    window_groups: NDArray[np.int64],
    seed: int = 0,
) -> Estimate:
    """Return the expected accuracy on the window, from the confidences of both sides as the network gives them.

    `reference`, `right` and `groups` are (N,), `window` and `window_groups` (M,). The interval is for the accuracy on
    this number of images and includes the chance of each being right or wrong.
    """
    random = np.random.default_rng(seed)
    draws = []
    for rows, window_rows in zip(redraw(groups, random, DRAWS), redraw(window_groups, random, DRAWS), strict=True):
        expected = expected_accuracy(reference[rows], right[rows], window[window_rows])
        draws.append(random.binomial(len(window_rows), expected) / len(window_rows))
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(expected_accuracy(reference, right, window), float(low), float(high))


def estimate_recall(
    probability: Floats, alarm: NDArray[np.bool_], groups: NDArray[np.int64], seed: int = 0
) -> Estimate | None:
    """Return the share of a class that raises the alarm, if `probability` (N,) of the class is calibrated.

    None where fewer than one image of the class is expected. The interval is for this number of images: each draw
    decides by its probability whether an image is of the class.
    """
    random = np.random.default_rng(seed)
    draws = []
    for rows in redraw(groups, random, DRAWS):
        member = random.random(len(rows)) < probability[rows]
        if member.any():
            draws.append(float(np.mean(alarm[rows][member])))
    if probability.sum() < 1 or not draws:
        return None
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(probability[alarm].sum() / probability.sum()), float(low), float(high))


def calibrated(probabilities: Floats, temperature: float) -> Floats:
    """Return p^(1/T), normalised: (N, C), as a version's serving.json says."""
    scaled = np.maximum(probabilities.astype(np.float64), 1e-12) ** (1 / temperature)
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def uncalibrated(probabilities: Floats, temperature: float) -> Floats:
    """Return probabilities (N, C) as the network gave them, from what `calibrated` made of them."""
    return calibrated(probabilities, 1 / temperature)


def checked_later(confidence: Floats, right: NDArray[np.bool_]) -> dict[str, float]:
    """Return the expected and the true accuracy on images that were labelled since.

    Images to label are chosen for being hard, so both figures are of these images only, not of the whole window. The
    interval is Wilson's.
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
