"""The task of pictures that have exactly one of the classes each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.tasks import scores
from plumbline.tasks.records import Confusion
from plumbline.tasks.scores import Floats, Ints
from plumbline.tasks.task import LabelSets, Table

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class OneLabel:
    """Two classes end in one sigmoid unit, the probability of the second; more in a softmax. See `Task`."""

    name = "one_label"
    exclusive = True
    counted = "pictures"
    right_means = ""

    @property
    def record(self) -> dict[str, Any]:
        return {"several_labels": False}

    def fits(self, labels: Iterable[tuple[str, ...]]) -> bool:
        return all(len(classes) == 1 for classes in labels)

    def targets(self, truth: Table) -> NDArray[Any]:
        return np.asarray(truth.argmax(axis=1), dtype=np.int64)

    def balanced_weights(self, truth: Table) -> Floats:
        counts = truth.sum(axis=0)
        share = np.maximum(counts, 1) / len(truth)
        return np.asarray(1 / (share * (counts > 0).sum()))

    def output_layer(self, classes: int, softmax: bool = False) -> keras.layers.Layer:
        import keras

        if classes == 2 and not softmax:
            return keras.layers.Dense(1, activation="sigmoid", name="probability", dtype="float32")
        return keras.layers.Dense(classes, activation="softmax", name="probability", dtype="float32")

    def yes_or_no(self, units: int) -> bool:
        return units == 1

    def loss(self, units: int) -> tuple[keras.losses.Loss, keras.metrics.Metric]:
        import keras

        if self.yes_or_no(units):
            return keras.losses.BinaryCrossentropy(), keras.metrics.BinaryAccuracy(name="accuracy")
        accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        return keras.losses.SparseCategoricalCrossentropy(), accuracy

    def probabilities(self, output: Any) -> NDArray[np.float64]:
        values = np.asarray(output, dtype=np.float64)
        if values.shape[1] == 1:
            return np.hstack([1 - values, values])
        return np.asarray(values / values.sum(axis=1, keepdims=True))

    def log_loss(self, truth: Table, probabilities: Floats) -> float:
        p = np.clip(probabilities, 1e-7, 1 - 1e-7)
        return float(-np.log(p[np.arange(len(p)), truth.argmax(axis=1)]).mean())

    def predicted(self, probabilities: Floats) -> Table:
        return np.asarray(np.eye(probabilities.shape[1], dtype=bool)[probabilities.argmax(axis=1)])

    def decisions(self, truth: Table, probabilities: Floats) -> tuple[Ints, Floats]:
        return np.asarray(truth.argmax(axis=1)), probabilities

    def from_decisions(self, probabilities: Floats, classes: int) -> Floats:
        return probabilities

    def sure_of_label(self, truth: Table, probabilities: Floats) -> Floats:
        return np.asarray(probabilities[np.arange(len(truth)), truth.argmax(axis=1)])

    def sure_of_mistake(self, truth: Table, probabilities: Floats) -> Floats:
        wrong = self.predicted(probabilities) & ~truth
        return np.asarray(np.where(wrong, probabilities, 0).max(axis=1))

    def label_sets(self, truth: Table) -> LabelSets:
        numbers = truth.argmax(axis=1)
        members = np.eye(int(numbers.max()) + 1, dtype=bool)  # a class at the end without pictures is left out
        return LabelSets(numbers, members, list(range(len(members))) if len(members) > 2 else [1])

    def questions(self, truth: Table) -> list[tuple[Ints, list[int | None]]]:
        return [(np.asarray(truth.argmax(axis=1)), list(range(truth.shape[1])))]

    def usual(self, truth: Table) -> Floats:
        return np.asarray(truth.mean(axis=0))

    def scores(
        self, truth: Table, probabilities: Floats, weights: Floats, positive: int, bins: int
    ) -> dict[str, Floats]:
        return scores.score_all(truth.argmax(axis=1), probabilities, weights, positive, bins)

    def telling_units(self, output: Any) -> Any:
        return output[:, 1:] if output.shape[1] == 2 else output

    def fit_stacking(self, seen: Floats, truth: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """K is 1 for two classes, else C."""
        from sklearn.linear_model import LogisticRegression

        targets = truth.argmax(axis=1)
        if len(np.unique(targets)) < 2:
            raise UserError(f"{artefacts.SPLITS}: stacking needs validation pictures of every class: split anew.")
        model = LogisticRegression(C=1.0, max_iter=1000).fit(seen.reshape(len(seen), -1), targets)
        return model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)

    def confusions(self, truth: Table, predicted: Table, classes: list[str]) -> list[Confusion]:
        once = np.ones((1, len(truth)))
        counts = scores.confusion(truth.argmax(axis=1), predicted.argmax(axis=1), once, len(classes))[0]
        return [Confusion(title="", classes=tuple(classes), counts=counts.astype(int).tolist())]

    def shown_classes(self, classes: list[str], violation: str | None) -> list[str]:
        return classes if len(classes) > 2 else [violation or classes[-1]]


ONE_LABEL = OneLabel()
