"""Temperature scaling, and the expected calibration error that a perfectly calibrated model would show."""

from __future__ import annotations

import numpy as np

from plumbline.evidence.records import Bin
from plumbline.tasks.scores import LOWEST_PROBABILITY, Floats, Ints, confidence_bin

PRIOR_SPREAD = 0.5
"""Standard deviation of log temperature around 0: without it a validation set with no error asks for temperature 0."""


def fit_temperature(labels: Ints, probabilities: Floats) -> float:
    """Return the temperature that minimises the log loss of `probabilities` (N, K), with a weak pull towards 1."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        scaled = scale(probabilities, float(np.exp(log_temperature)))
        likelihood = np.log(np.clip(scaled[np.arange(len(labels)), labels], LOWEST_PROBABILITY, 1)).sum()
        return float(-likelihood + 0.5 * (log_temperature / PRIOR_SPREAD) ** 2)

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def scale(probabilities: Floats, temperature: float) -> Floats:
    """Return softmax(log p / temperature), (N, K): the class predicted stays the same, only the confidence moves."""
    logits = np.log(np.clip(probabilities, LOWEST_PROBABILITY, 1)) / temperature
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def null_calibration_errors(probabilities: Floats, bins: int, draws: int, seed: int) -> Floats:
    """Return the calibration errors (draws,) that a truly calibrated model with these confidences would show.

    In each draw every prediction is right with the probability it claims.
    """
    confidence = probabilities.max(axis=1)
    right = np.random.default_rng(seed).random((draws, len(confidence))) < confidence
    member = np.eye(bins)[confidence_bin(confidence, bins)]
    return np.asarray(np.abs((right - confidence) @ member).sum(axis=1) / len(confidence))


def reliability(labels: Ints, probabilities: Floats, bins: int) -> tuple[Bin, ...]:
    """Return, per bin of confidence that holds images: from, to, images, mean confidence and accuracy."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    places = confidence_bin(confidence, bins)
    return tuple(
        Bin(
            start=place / bins,
            end=(place + 1) / bins,
            images=int((places == place).sum()),
            confidence=float(confidence[places == place].mean()),
            accuracy=float(right[places == place].mean()),
        )
        for place in np.unique(places).tolist()
    )
