"""Tables of points for `dvc plots` and for the page's charts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from plumbline.evidence.candidates import Predictions
from plumbline.tasks.labels import label_texts
from plumbline.tasks.scores import Floats


def learning(history: pd.DataFrame) -> pd.DataFrame:
    """Return the learning curve by epoch: epoch, train_loss, validation_loss, train_accuracy, validation_accuracy.

    Epochs whose loss is no number are left out.
    """
    history = history.dropna(subset=["loss", "val_loss"])
    columns = {
        f"{name}_{score}": history[f"{prefix}{score}"]
        for score in ("loss", "accuracy")
        for name, prefix in (("train", ""), ("validation", "val_"))
    }
    return pd.DataFrame({"epoch": history["epoch"], **columns})


def pairs(sample: Predictions, classes: list[str]) -> pd.DataFrame:
    """Return the true and the predicted labels of each image, which is what DVC's confusion template counts."""
    return pd.DataFrame(
        {"actual": label_texts(sample.truth, classes), "predicted": label_texts(sample.predicted, classes)}
    )


def roc(sample: Predictions, classes: list[str], violation: str | None) -> pd.DataFrame:
    """Return class, threshold, false_positive_rate, true_positive_rate: of each shown class against the rest."""
    rows = []
    for name in sample.task.shown_classes(classes, violation):
        thresholds, true, false = _counts(sample, classes.index(name))
        rows.append(
            pd.DataFrame(
                {
                    "class": name,
                    "threshold": thresholds,
                    "false_positive_rate": false / max(false[-1], 1),
                    "true_positive_rate": true / max(true[-1], 1),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def precision_recall(sample: Predictions, classes: list[str], violation: str | None) -> pd.DataFrame:
    """Return class, threshold, recall, precision, as `roc` does."""
    rows = []
    for name in sample.task.shown_classes(classes, violation):
        thresholds, true, false = (values[1:] for values in _counts(sample, classes.index(name)))
        rows.append(
            pd.DataFrame(
                {
                    "class": name,
                    "threshold": thresholds,
                    "recall": true / max(true[-1], 1),
                    "precision": true / np.maximum(true + false, 1),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def _counts(sample: Predictions, k: int) -> tuple[Floats, Floats, Floats]:
    """Thresholds falling from 1, with true and false positives at each; the first point is (1, 0, 0)."""
    score, positive = sample.probabilities[:, k], sample.truth[:, k]
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    true, false = np.cumsum(positive[order])[last_of_tie], np.cumsum(~positive[order])[last_of_tie]
    return (
        np.concatenate([[1.0], score[order][last_of_tie]]),
        np.concatenate([[0], true]).astype(np.float64),
        np.concatenate([[0], false]).astype(np.float64),
    )
