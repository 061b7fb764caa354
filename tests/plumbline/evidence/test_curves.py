"""Points of the curves, worked out by hand for five pictures."""

import numpy as np
import pandas as pd
import pytest

from plumbline.evidence import curves
from plumbline.evidence.candidates import Predictions
from plumbline.tasks.one_label import ONE_LABEL

CLASSES = ["helmet", "bare"]


@pytest.fixture
def sample():
    """Probabilities of `bare` 0.9 (bare), 0.8 (helmet), 0.8 (bare), 0.3 (helmet), 0.1 (helmet)."""
    bare = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
    truth = np.array([[0, 1], [1, 0], [0, 1], [1, 0], [1, 0]], bool)
    return Predictions(
        truth=truth,
        probabilities=np.stack([1 - bare, bare], axis=1),
        codes=np.arange(5),
        paths=list("abcde"),
        task=ONE_LABEL,
    )


def test_roc_counts_a_tie_as_one_step(sample):
    table = curves.roc(sample, CLASSES, "bare")
    assert set(table["class"]) == {"bare"}
    assert table["threshold"].tolist() == [1.0, 0.9, 0.8, 0.3, 0.1]
    assert table["true_positive_rate"].tolist() == [0, 0.5, 1, 1, 1]
    assert table["false_positive_rate"].tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1])


def test_precision_and_recall(sample):
    table = curves.precision_recall(sample, CLASSES, "bare")
    assert table["threshold"].tolist() == [0.9, 0.8, 0.3, 0.1]
    assert table["recall"].tolist() == [0.5, 1, 1, 1]
    assert table["precision"].tolist() == pytest.approx([1, 2 / 3, 2 / 4, 2 / 5])


def test_pairs_name_the_classes(sample):
    table = curves.pairs(sample, CLASSES)
    assert table["actual"].tolist() == ["bare", "helmet", "bare", "helmet", "helmet"]
    assert table["predicted"].tolist() == ["bare", "bare", "bare", "helmet", "helmet"]


def test_the_learning_curve_has_both_sides():
    history = pd.DataFrame(
        {
            "epoch": [1, 2],
            "loss": [0.6, 0.4],
            "accuracy": [0.5, 0.7],
            "val_loss": [0.7, 0.5],
            "val_accuracy": [0.4, 0.6],
        }
    )
    table = curves.learning(history)
    assert table.to_dict("list") == {
        "epoch": [1, 2],
        "train_loss": [0.6, 0.4],
        "validation_loss": [0.7, 0.5],
        "train_accuracy": [0.5, 0.7],
        "validation_accuracy": [0.4, 0.6],
    }
