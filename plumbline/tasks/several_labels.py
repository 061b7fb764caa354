"""The task of pictures that may have several of the classes at once: `helmet;vest`."""

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
class SeveralLabels:
    """Each class is a decision of its own, a sigmoid; a picture is right where each of them is. See `Task`."""

    name = "several_labels"
    exclusive = False
    counted = "labels"
    right_means = "in every label "

    @property
    def record(self) -> dict[str, Any]:
        return {"several_labels": True}

    def fits(self, labels: Iterable[tuple[str, ...]]) -> bool:
        return True

    def targets(self, truth: Table) -> NDArray[Any]:
        return truth.astype(np.float32)

    def balanced_weights(self, truth: Table) -> Floats:
        raise UserError("params.yaml: class_weights: balanced is for pictures of one label each; these have several.")

    def output_layer(self, classes: int, softmax: bool = False) -> keras.layers.Layer:
        import keras

        return keras.layers.Dense(classes, activation="sigmoid", name="probability", dtype="float32")

    def yes_or_no(self, units: int) -> bool:
        return True

    def loss(self, units: int) -> tuple[keras.losses.Loss, keras.metrics.Metric]:
        """The accuracy is that of each label by itself."""
        import keras

        return keras.losses.BinaryCrossentropy(), keras.metrics.BinaryAccuracy(name="accuracy")

    def probabilities(self, output: Any) -> NDArray[np.float64]:
        return np.asarray(output, dtype=np.float64)

    def log_loss(self, truth: Table, probabilities: Floats) -> float:
        p = np.clip(probabilities, 1e-7, 1 - 1e-7)
        return float(-np.mean(np.where(truth, np.log(p), np.log1p(-p))))

    def predicted(self, probabilities: Floats) -> Table:
        return np.asarray(probabilities > 0.5)

    def decisions(self, truth: Table, probabilities: Floats) -> tuple[Ints, Floats]:
        return scores.single_labels(truth, probabilities)

    def from_decisions(self, probabilities: Floats, classes: int) -> Floats:
        return np.asarray(probabilities[:, 1].reshape(-1, classes))

    def sure_of_label(self, truth: Table, probabilities: Floats) -> Floats:
        return np.asarray(np.where(truth, probabilities, 1 - probabilities).min(axis=1))

    def sure_of_mistake(self, truth: Table, probabilities: Floats) -> Floats:
        predicted = self.predicted(probabilities)
        sure = np.where(predicted, probabilities, 1 - probabilities)
        return np.asarray(np.where(predicted != truth, sure, 0).max(axis=1))

    def label_sets(self, truth: Table) -> LabelSets:
        members, numbers = np.unique(truth, axis=0, return_inverse=True)
        return LabelSets(numbers.reshape(-1).astype(np.int64), members, list(range(truth.shape[1])))

    def questions(self, truth: Table) -> list[tuple[Ints, list[int | None]]]:
        return [(truth[:, k].astype(np.int64), [None, k]) for k in range(truth.shape[1])]

    def usual(self, truth: Table) -> Floats:
        """Certainty of the most frequent set of labels."""
        sets = self.label_sets(truth)
        return np.asarray(sets.members[np.bincount(sets.numbers).argmax()], dtype=np.float64)

    def scores(
        self, truth: Table, probabilities: Floats, weights: Floats, positive: int, bins: int
    ) -> dict[str, Floats]:
        return scores.score_several(truth, probabilities, weights, bins)

    def telling_units(self, output: Any) -> Any:
        return output

    def fit_stacking(self, seen: Floats, truth: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """One regression for each label, on the members' probabilities of that label: K is C."""
        from sklearn.linear_model import LogisticRegression

        _, members, labels = seen.shape
        kernel, bias = np.zeros((members, labels, labels)), np.zeros(labels)
        for k in range(labels):
            if len(np.unique(truth[:, k])) < 2:
                raise UserError(f"{artefacts.SPLITS}: stacking needs validation pictures with and without every label.")
            model = LogisticRegression(C=1.0, max_iter=1000).fit(seen[:, :, k], truth[:, k])
            kernel[:, k, k], bias[k] = model.coef_[0], model.intercept_[0]
        return kernel.reshape(members * labels, labels), bias

    def confusions(self, truth: Table, predicted: Table, classes: list[str]) -> list[Confusion]:
        """One matrix of two rows for each label."""
        matrices = []
        for k, name in enumerate(classes):
            true, said = truth[:, k], predicted[:, k]
            counts = tuple(tuple(int((t & p).sum()) for p in (said, ~said)) for t in (true, ~true))
            matrices.append(Confusion(title=name, classes=(name, f"not {name}"), counts=counts))
        return matrices

    def shown_classes(self, classes: list[str], violation: str | None) -> list[str]:
        return classes


SEVERAL_LABELS = SeveralLabels()
