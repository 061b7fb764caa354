"""Scores of predicted probabilities under weights: one weighting gives the figures, many give their bootstrap.

Every score is computed for a matrix of image weights (R, N) at once. A row of ones is the sample itself; a row of how
often each image was drawn is one resample, so that an interval costs a few matrix products and no loop over resamples.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.integer[Any]]

LOWEST_PROBABILITY = 1e-7
"""Probabilities are clipped here before a logarithm: one certain mistake must not make a log loss infinite."""

HIGHER_IS_BETTER = (
    "accuracy",
    "label_accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "pr_auc",
    "top_",
)


def is_rate(score: str) -> bool:
    """Whether a score lies in [0, 1] with 1 the best."""
    return score.startswith(HIGHER_IS_BETTER)


def score_all(labels: Ints, probabilities: Floats, weights: Floats, positive: int, bins: int) -> dict[str, Floats]:
    """Return every score, each an array (R,), of `probabilities` (N, K) for true `labels` (N,) under `weights` (R, N).

    `positive` is the class that the two-class curves are drawn for (the violation). With K > 2 the areas are macro
    averages over one-against-rest, and `top_2` (`top_3` where K > 3) is added. A class that a resample does not hold
    makes the scores that need it NaN there.
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    scores = confusion_scores(confusion(labels, predicted, weights, classes))
    curves = range(classes) if classes > 2 else [positive]
    scores["roc_auc"] = np.mean([roc_auc(labels == k, probabilities[:, k], weights) for k in curves], axis=0)
    scores["pr_auc"] = np.mean([average_precision(labels == k, probabilities[:, k], weights) for k in curves], axis=0)
    if classes > 2:
        top = min(3, classes - 1)
        scores[f"top_{top}"] = _mean(_within_top(labels, probabilities, top), weights)
    scores |= probability_scores(labels, probabilities, weights, bins)
    return scores


def score_several(truth: NDArray[np.bool_], probabilities: Floats, weights: Floats, bins: int) -> dict[str, Floats]:
    """Return every score, each (R,), where a picture has several labels: `truth` and `probabilities` (N, K).

    `accuracy` asks for every label of a picture (subset accuracy), `label_accuracy` counts each label by itself (1
    minus the Hamming loss), `balanced_accuracy` is the mean over labels of the recalls of having and not having it;
    areas are macro averages; log loss, Brier score and calibration error are those of the single labels' decisions.
    """
    predicted = probabilities > 0.5
    places = range(truth.shape[1])
    tables = np.stack(
        [confusion(truth[:, k].astype(np.int64), predicted[:, k].astype(np.int64), weights, 2) for k in places], axis=1
    )
    true, guessed = tables.sum(axis=3), tables.sum(axis=2)
    recalls = _ratio(np.einsum("rkcc->rkc", tables), true, empty=np.nan)
    scores = {
        "accuracy": _mean((predicted == truth).all(axis=1).astype(np.float64), weights),
        "label_accuracy": _mean((predicted == truth).mean(axis=1), weights),
        "balanced_accuracy": recalls.mean(axis=(1, 2)),
    }
    scores |= _by_class(tables[:, :, 1, 1], true[:, :, 1], guessed[:, :, 1])
    scores["roc_auc"] = np.mean([roc_auc(truth[:, k], probabilities[:, k], weights) for k in places], axis=0)
    scores["pr_auc"] = np.mean([average_precision(truth[:, k], probabilities[:, k], weights) for k in places], axis=0)
    labels, single = single_labels(truth, probabilities)
    return scores | probability_scores(labels, single, np.repeat(weights, truth.shape[1], axis=1), bins)


def single_labels(truth: NDArray[np.bool_], probabilities: Floats) -> tuple[Ints, Floats]:
    """Return each label of each picture as a decision of its own: labels (N * K,), probabilities (N * K, 2)."""
    p = probabilities.reshape(-1)
    return truth.reshape(-1).astype(np.int64), np.column_stack([1 - p, p])


def probability_scores(labels: Ints, probabilities: Floats, weights: Floats, bins: int) -> dict[str, Floats]:
    """Return log loss, Brier score (half the squared distance: 0 to 1) and expected calibration error, each (R,)."""
    return {
        "log_loss": _mean(log_loss_of_each(labels, probabilities), weights),
        "brier": _mean(brier_of_each(labels, probabilities), weights),
        "ece": calibration_error(labels, probabilities, weights, bins),
    }


def log_loss_of_each(labels: Ints, probabilities: Floats) -> Floats:
    """Return each image's log loss (N,): minus the logarithm of its true label's probability."""
    return np.asarray(-np.log(np.clip(_of_label(labels, probabilities), LOWEST_PROBABILITY, 1.0)))


def brier_of_each(labels: Ints, probabilities: Floats) -> Floats:
    """Return each image's Brier score (N,): half the squared distance of its probabilities from the truth, 0 to 1."""
    return np.asarray(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1) / 2)


def confusion(labels: Ints, predicted: Ints, weights: Floats, classes: int) -> Floats:
    """Return weighted counts (R, K, K): row = true class, column = predicted class."""
    cells = np.eye(classes * classes)[labels * classes + predicted]
    return np.asarray(weights @ cells).reshape(-1, classes, classes)


def confusion_scores(matrices: Floats) -> dict[str, Floats]:
    """Return accuracy, balanced accuracy, and precision, recall and F1 by class, macro and weighted from (R, K, K).

    The keys by class end in the class's index: `recall:1`. A class never predicted has precision 0, as in scikit-learn.
    """
    right = np.einsum("rkk->rk", matrices)
    true, guessed = matrices.sum(axis=2), matrices.sum(axis=1)
    recall = _ratio(right, true, empty=np.nan)
    scores = {"accuracy": right.sum(axis=1) / true.sum(axis=1), "balanced_accuracy": recall.mean(axis=1)}
    return scores | _by_class(right, true, guessed)


def _by_class(right: Floats, true: Floats, guessed: Floats) -> dict[str, Floats]:
    """Precision, recall and F1 by class, macro, and weighted by true counts, from how often (R, K) each class was
    right, true and predicted."""
    share = true / true.sum(axis=1, keepdims=True)
    by_class = {
        "precision": _ratio(right, guessed, empty=0.0),
        "recall": _ratio(right, true, empty=np.nan),
        "f1": _ratio(2 * right, true + guessed, empty=np.nan),
    }
    scores = {}
    for name, values in by_class.items():
        scores[f"{name}_macro"] = values.mean(axis=1)
        scores[f"{name}_weighted"] = (np.nan_to_num(values) * share).sum(axis=1)
        scores |= {f"{name}:{k}": values[:, k] for k in range(values.shape[1])}
    return scores


def roc_auc(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """Return the area under the ROC curve (R,); equal scores count half. NaN where a resample holds one class only."""
    true, false = _running_counts(positive, score, weights)
    rise = (true[:, 1:] + true[:, :-1]) / 2
    area = (rise * np.diff(false, axis=1)).sum(axis=1)
    return _ratio(area, true[:, -1] * false[:, -1], empty=np.nan)


def average_precision(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """Return the area under the precision-recall curve as average precision (R,), stepwise, as in scikit-learn."""
    true, false = _running_counts(positive, score, weights)
    precision = _ratio(true[:, 1:], true[:, 1:] + false[:, 1:], empty=0.0)
    area = (precision * np.diff(true, axis=1)).sum(axis=1)
    return _ratio(area, true[:, -1], empty=np.nan)


def calibration_error(labels: Ints, probabilities: Floats, weights: Floats, bins: int) -> Floats:
    """Return the expected calibration error (R,) of the predicted class over `bins` equal-width bins of confidence."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    member = np.eye(bins)[confidence_bin(confidence, bins)]
    gap = weights @ (member * (right - confidence)[:, None])
    return np.asarray(np.abs(gap).sum(axis=1) / weights.sum(axis=1))


def confidence_bin(confidence: Floats, bins: int) -> Ints:
    """Return the bin (N,) of each confidence in [0, 1]; a confidence of 1 belongs to the last."""
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def _running_counts(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted true and false positives (R, U + 1) as the threshold falls through the U distinct scores, from 0."""
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    ordered = weights[:, order]
    flags = positive[order]
    start = np.zeros((len(weights), 1))
    true = np.cumsum(ordered * flags, axis=1)[:, last_of_tie]
    false = np.cumsum(ordered * ~flags, axis=1)[:, last_of_tie]
    return np.hstack([start, true]), np.hstack([start, false])


def _of_label(labels: Ints, probabilities: Floats) -> Floats:
    return np.asarray(probabilities[np.arange(len(labels)), labels])


def _within_top(labels: Ints, probabilities: Floats, top: int) -> Floats:
    better = (probabilities > _of_label(labels, probabilities)[:, None]).sum(axis=1)
    return np.asarray(better < top, dtype=np.float64)


def _mean(values: Floats, weights: Floats) -> Floats:
    return np.asarray((weights @ values) / weights.sum(axis=1))


def _ratio(part: Floats, whole: Floats, empty: float) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), empty), where=whole > 0))
