"""A student learns from what a teacher says of its pictures, softened, and from the labels (Hinton et al. 2015).

What a teacher is unsure of says how alike classes are, and a network that is sure of everything says so too once its
probabilities are softened: p^(1/T), normalised. The loss is (1 - share) x cross-entropy to the label + share x T^2 x
Kullback-Leibler divergence from the softened teacher to the softened student; T^2 keeps the gradient of both parts
of one size. Validation counts the labels alone, so that a student's curve can be laid beside any other's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.models.candidates import Distillation
from plumbline.tasks.scores import Floats
from plumbline.tasks.task import Table, Task

if TYPE_CHECKING:
    import keras
    import pandas as pd

SMALLEST = 1e-7


@dataclass(frozen=True)
class Teaching:
    """What a teacher says of N pictures: `probabilities` (N, C), in the order of the splits; and how it is heard."""

    probabilities: Floats
    settings: Distillation
    task: Task

    @classmethod
    def of(
        cls, said: pd.DataFrame, paths: list[str], classes: list[str], settings: Distillation, task: Task, name: str
    ) -> Teaching:
        """Find the pictures `paths` in a table of predictions (path, p_CLASS).

        Raises UserError naming candidate `name` where the teacher knows other classes, or a picture is missing.
        """
        known = [str(column).removeprefix("p_") for column in said.columns if str(column).startswith("p_")]
        if sorted(known) != sorted(classes):
            raise UserError(
                f"params.yaml: candidates.{name}.teacher tells {', '.join(known) or 'nothing'} apart, but the classes "
                f"here are {', '.join(classes)}: name a teacher of these, or take `teacher` out."
            )
        table = said.set_index("path").reindex(paths)[[f"p_{one}" for one in classes]]
        if table.isna().any(axis=None):
            raise UserError(f"the teacher of {name} says nothing of {table.index[table.isna().any(axis=1)][0]}.")
        return cls(table.to_numpy(np.float64), settings, task)

    @property
    def width(self) -> int:
        """How many numbers `targets` has for a picture."""
        return 1 + 2 * as_options(self.probabilities[:1], self.task).size

    def targets(self, truth: Table, rows: NDArray[np.bool_], share: float | None = None) -> NDArray[np.float32]:
        """Return what Keras learns from (n, 1 + 2 D K) for the pictures `rows` (N,): the teacher's share, then D
        decisions between K options as the softened teacher sees them, then as they are."""
        soft = softened(as_options(self.probabilities[rows], self.task), self.settings.temperature)
        hard = as_options(truth[rows].astype(np.float64), self.task)
        part = np.full((int(rows.sum()), 1), self.settings.share if share is None else share)
        return np.hstack([part, soft.reshape(len(part), -1), hard.reshape(len(part), -1)]).astype(np.float32)

    def losses(self, units: int) -> tuple[Any, keras.metrics.Metric]:
        """Return the loss and the metric `accuracy` for a last layer of `units`, both of targets as above."""
        import keras

        def loss(targets: Any, output: Any) -> Any:
            options, soft, hard = self._unpacked(targets, output, units)
            plain = -keras.ops.sum(hard * keras.ops.log(options), axis=-1)
            own = keras.ops.log_softmax(keras.ops.log(options) / self.settings.temperature, axis=-1)
            apart = keras.ops.sum(soft * (keras.ops.log(keras.ops.maximum(soft, SMALLEST)) - own), axis=-1)
            share = targets[:, :1]
            both = (1 - share) * plain + share * self.settings.temperature**2 * apart
            return keras.ops.mean(both, axis=-1)

        def accuracy(targets: Any, output: Any) -> Any:
            options, _, hard = self._unpacked(targets, output, units)
            right = keras.ops.equal(keras.ops.argmax(options, axis=-1), keras.ops.argmax(hard, axis=-1))
            return keras.ops.mean(keras.ops.cast(right, "float32"), axis=-1)

        return loss, keras.metrics.MeanMetricWrapper(accuracy, name="accuracy")

    def _unpacked(self, targets: Any, output: Any, units: int) -> tuple[Any, Any, Any]:
        """The student's options, the softened teacher's and the true ones, (N, D, K) each; what stands behind the
        `units` and behind the targets is others' business."""
        import keras

        output = keras.ops.clip(output[:, :units], SMALLEST, 1 - SMALLEST)
        if self.task.exclusive and not self.task.yes_or_no(units):
            options = output[:, None, :]
        else:  # each unit is a probability of its own
            options = keras.ops.stack([1 - output, output], axis=-1)
        shape = (-1, *options.shape[1:])
        width = options.shape[1] * options.shape[2]
        soft = keras.ops.reshape(targets[:, 1 : 1 + width], shape)
        return options, soft, keras.ops.reshape(targets[:, 1 + width : 1 + 2 * width], shape)

    def chance_loss(self, truth: Table, rows: NDArray[np.bool_]) -> float:
        """Return the loss of giving each of the pictures `rows` (N,) the same answer: how frequent each class is."""
        answer = np.clip(as_options(truth[rows].mean(axis=0)[None], self.task), SMALLEST, 1)
        hard = as_options(truth[rows].astype(np.float64), self.task)
        temperature, share = self.settings.temperature, self.settings.share
        soft = softened(as_options(self.probabilities[rows], self.task), temperature)
        plain = -(hard * np.log(answer)).sum(axis=-1)
        apart = (soft * np.log(np.maximum(soft, SMALLEST) / softened(answer, temperature))).sum(axis=-1)
        return float(((1 - share) * plain + share * temperature**2 * apart).mean())


def as_options(probabilities: Floats, task: Task) -> Floats:
    """Return probabilities (N, C) as D decisions between K options (N, D, K): one, or a yes or no for each class."""
    if task.exclusive:
        return probabilities[:, None, :]
    return np.stack([1 - probabilities, probabilities], axis=-1)


def softened(options: Floats, temperature: float) -> Floats:
    """Return options (N, D, K) at a temperature: p^(1/T), normalised."""
    logits = np.log(np.clip(options, SMALLEST, 1)) / temperature
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))
