"""Train a candidate's network on features mapped from disk: the same seed gives the same weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plumbline.common.quiet import verbose
from plumbline.imaging.labels import classes_of
from plumbline.models.batches import Batches
from plumbline.models.candidates import Candidate
from plumbline.models.distillation import Teaching
from plumbline.models.hints import Hinting
from plumbline.models.records import Status
from plumbline.models.watch import Watch
from plumbline.tasks.known import task_of_labels
from plumbline.tasks.labels import truth_table
from plumbline.tasks.task import Task

if TYPE_CHECKING:
    import keras
    import pandas as pd

ONE_CALL = 64
"""Batches of an epoch, at most, that TensorFlow goes through in one call."""


@dataclass(frozen=True)
class Targets:
    """What is to be learnt: the task, and which of `classes` each picture has, `truth` (N, C)."""

    classes: list[str]
    truth: NDArray[np.bool_]
    task: Task

    @cached_property
    def values(self) -> NDArray[Any]:
        """What Keras learns from: class numbers (N,), or where pictures have several labels 0/1 (N, C)."""
        return self.task.targets(self.truth)


def targets_of(labels: pd.Series) -> Targets:
    """Derive classes, task and targets from the labels."""
    classes = sorted(classes_of(labels))
    return Targets(classes, truth_table(labels, classes), task_of_labels(labels))


def balanced_weights(targets: Targets, rows: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Weights (N,) that give every class among `rows` the same total; their mean over `rows` is 1."""
    weights = targets.task.balanced_weights(targets.truth[rows]).astype(np.float32)
    return np.asarray(weights[targets.values])


def chance_loss(targets: Targets, rows: NDArray[np.bool_], weights: NDArray[np.float32] | None = None) -> float:
    """Return the loss of giving every picture the same answer: how frequent each class is among `rows`."""
    truth = targets.truth[rows]
    if not len(truth):
        return 0.0
    # With weights that make the classes count the same, they are as good as equally frequent.
    shares = np.average(truth, axis=0, weights=weights)
    return targets.task.log_loss(truth, np.broadcast_to(shares, truth.shape))


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, and let TensorFlow use deterministic kernels only."""
    import keras
    import tensorflow as tf

    keras.utils.clear_session()  # layers are numbered per process, and the weights file contains the numbers
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


@dataclass(frozen=True)
class Lesson:
    """What a network is fitted to: the task, the batches it learns from, and those that say when to stop.

    `chance_loss` is the loss of giving every picture the same answer: how frequent each class is. `teaching` is what a
    teacher says, where there is one: the batches' targets are its own then; `hinting` are its maps, behind them.
    """

    task: Task
    train: Batches
    validation: Batches
    chance_loss: float
    teaching: Teaching | None = None
    hinting: Hinting | None = None


class Fitted(NamedTuple):
    """A row per epoch (epoch, loss, accuracy, val_loss, val_accuracy, learning_rate), and how training ended."""

    history: pd.DataFrame
    status: Status

    def then(self, later: Fitted) -> Fitted:
        """This training and a `later` one of the same network, its epochs numbered on."""
        import pandas as pd

        numbered = later.history.assign(epoch=later.history["epoch"] + len(self.history))
        return Fitted(pd.concat([self.history, numbered], ignore_index=True), later.status)


def fit(network: keras.Model, candidate: Candidate, lesson: Lesson, name: str = "", first_epoch: int = 0) -> Fitted:
    """Train with Adam, early stopping on val_loss (best weights restored) and the learning rate of `schedule`.

    Epochs are drawn from number `first_epoch` on. The accuracy of several labels is that of each label by itself.
    Training that diverges stops there; the network keeps the best weights it had before, which may be its first.
    Training that can't begin stops as well, see `Watch`.
    """
    import keras
    import pandas as pd

    learning, loss, metrics = _what_learns(network, lesson)
    steps = len(lesson.train)
    learning.compile(
        optimizer=keras.optimizers.AdamW(candidate.learning_rate, weight_decay=candidate.weight_decay)
        if candidate.weight_decay
        else keras.optimizers.Adam(candidate.learning_rate),
        loss=loss,
        weighted_metrics=metrics,
        steps_per_execution=steps if steps <= ONE_CALL else 1,
        jit_compile=False,  # measured: XLA's convolutions take four times oneDNN's time (`benchmarks.precision`)
    )
    stopping = keras.callbacks.EarlyStopping(
        monitor="val_loss", patience=candidate.early_stopping_patience, restore_best_weights=True
    )
    watch = Watch(name, candidate.epochs, lesson.chance_loss, lesson.train, network)
    callbacks = [_schedule(candidate), stopping, watch.callback()]
    if candidate.decay:
        callbacks.insert(2, _decay(candidate.decay))
    start = network.get_weights()
    history = learning.fit(
        lesson.train.dataset(candidate.epochs, first_epoch),
        steps_per_epoch=steps,
        validation_data=lesson.validation.dataset(),
        epochs=candidate.epochs,
        callbacks=callbacks,
        shuffle=False,
        verbose=2 if verbose() else 0,
    )
    if watch.status == "diverged" and not np.isfinite(stopping.best):
        network.set_weights(start)
    table = pd.DataFrame(history.history)
    table.insert(0, "epoch", np.arange(1, len(table) + 1))
    columns = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    return Fitted(table[columns], watch.status)


def _what_learns(network: keras.Model, lesson: Lesson) -> tuple[keras.Model, Any, list[keras.metrics.Metric]]:
    """What is fitted, its loss and its metrics: the network itself, or with hints behind its answers."""
    units = network.output_shape[-1]
    if lesson.teaching is not None and lesson.hinting is not None:
        return lesson.hinting.model(network), *lesson.hinting.losses(lesson.teaching, units)
    loss, accuracy = (lesson.teaching.losses if lesson.teaching else lesson.task.loss)(units)
    return network, loss, [accuracy]


def _schedule(candidate: Candidate) -> keras.callbacks.Callback:
    """Steps down on a plateau of val_loss, or half a cosine over all epochs (Loshchilov and Hutter 2017, SGDR)."""
    import keras

    if candidate.schedule == "plateau":
        return keras.callbacks.ReduceLROnPlateau(
            monitor="val_loss", factor=candidate.plateau_factor, patience=candidate.plateau_patience
        )
    return keras.callbacks.LearningRateScheduler(
        lambda epoch, _: candidate.learning_rate * (1 + math.cos(math.pi * epoch / candidate.epochs)) / 2
    )


def _decay(decay: float) -> keras.callbacks.Callback:
    """Divide the learning rate by 1 + `decay` x steps (Keras 2's `decay`) at each epoch, on top of the plateaus."""
    import keras

    class Decay(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            optimizer, steps = self.model.optimizer, self.params["steps"]
            if epoch:
                ratio = (1 + decay * (epoch - 1) * steps) / (1 + decay * epoch * steps)
                optimizer.learning_rate = float(optimizer.learning_rate) * ratio

    return Decay()


def predict(
    network: keras.Model,
    values: NDArray[Any],
    rows: NDArray[np.intp],
    batch_size: int,
    task: Task,
) -> NDArray[np.float64]:
    """Probabilities (N, C) of the pictures in `rows`, without augmentation."""
    data = Batches(values, rows, np.zeros(len(rows), dtype=np.int64), batch_size)
    return task.probabilities(network.predict(data.dataset(), verbose=0))


def predictions_of(table: pd.DataFrame, targets: Targets, probabilities: NDArray[np.float64]) -> pd.DataFrame:
    """The pictures of `table` with a p_CLASS column per class."""
    return table[["path", "id", "label", "split", "group"]].assign(
        **{f"p_{label}": probabilities[:, number] for number, label in enumerate(targets.classes)}
    )
