"""Train a candidate's network on features mapped from disk: the same seed gives the same weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.imaging.labels import classes_of
from plumbline.models.candidates import Candidate
from plumbline.models.features import read_rows
from plumbline.tasks.known import task_of_labels
from plumbline.tasks.labels import truth_table
from plumbline.tasks.task import Task

if TYPE_CHECKING:
    import keras
    import pandas as pd
    import tensorflow as tf


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


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, and let TensorFlow use deterministic kernels only."""
    import keras
    import tensorflow as tf

    keras.utils.clear_session()  # layers are numbered per process, and the weights file contains the numbers
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


class Batches:
    """Batches of (features of one view, targets[, weights]) read from `values` (N, 1 + V, ...) as they are needed.

    With a `seed` every epoch is shuffled, and for each picture one of its 1 + `views` views is drawn, whether it is
    mirrored, and a factor for its pixels from 1 - `brightness` to 1 + `brightness`.
    """

    def __init__(
        self,
        values: NDArray[Any],
        rows: NDArray[np.intp],
        targets: NDArray[Any],
        batch_size: int,
        views: int = 0,
        seed: int | None = None,
        weights: NDArray[np.float32] | None = None,
        mirror: bool = False,
        brightness: float = 0.0,
    ) -> None:
        self.values, self.rows, self.targets, self.weights = values, rows, targets, weights
        self.batch_size, self.views, self.mirror, self.brightness = batch_size, views, mirror, brightness
        self.random = None if seed is None else np.random.default_rng(seed)
        self.order = np.arange(len(rows))
        self.view = np.zeros(len(rows), dtype=np.intp)
        self.mirrored = np.zeros(len(rows), dtype=np.bool_)
        self.gain = np.ones(len(rows), dtype=np.float32)
        self.draw()

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[NDArray[Any], ...]:
        chosen = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        features = read_rows(self.values, self.rows[chosen], self.view[chosen])
        if self.mirror:
            flip = self.mirrored[chosen]
            features[flip] = features[flip, :, ::-1]
        if self.brightness:
            features = np.clip(features * self.gain[chosen, None, None, None], 0, 255)
        batch = (features, self.targets[chosen])
        return batch if self.weights is None else (*batch, self.weights[chosen])

    def draw(self) -> None:
        """Draw the next epoch."""
        if self.random is None:
            return
        self.random.shuffle(self.order)
        self.view = self.random.integers(0, self.views + 1, size=len(self.rows))
        self.mirrored = self.random.random(len(self.rows)) < 0.5
        gain = self.random.uniform(1 - self.brightness, 1 + self.brightness, len(self.rows))
        self.gain = gain.astype(np.float32)

    def stream(self) -> tf.data.Dataset:
        """The batches for Keras, in the order of the epoch drawn last.

        One at a time: with deterministic operations tf.data does not read ahead from a Python generator.
        """
        import tensorflow as tf

        empty = self[len(self)]  # an empty batch past the end has the shapes and types without reading anything
        kinds = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in empty)
        batches = tf.data.Dataset.from_generator(
            lambda: (self[number] for number in range(len(self))), output_signature=kinds
        )
        return batches.apply(tf.data.experimental.assert_cardinality(len(self)))


@dataclass(frozen=True)
class Lesson:
    """What a network is fitted to: the task, the training batches, and the validation batches for early stopping."""

    task: Task
    train: Batches
    validation: Batches


def fit(network: keras.Model, candidate: Candidate, lesson: Lesson) -> pd.DataFrame:
    """Train with Adam, early stopping on val_loss (best weights restored) and the learning rate of `schedule`.

    Returns one row per epoch: epoch, loss, accuracy, val_loss, val_accuracy, learning_rate. The accuracy of several
    labels is that of each label by itself.
    """
    import keras
    import pandas as pd

    loss, accuracy = lesson.task.loss(network.output_shape[-1])
    network.compile(
        optimizer=keras.optimizers.AdamW(candidate.learning_rate, weight_decay=candidate.weight_decay)
        if candidate.weight_decay
        else keras.optimizers.Adam(candidate.learning_rate),
        loss=loss,
        weighted_metrics=[accuracy],
    )
    callbacks = [
        _schedule(candidate),
        keras.callbacks.EarlyStopping(
            monitor="val_loss", patience=candidate.early_stopping_patience, restore_best_weights=True
        ),
    ]
    if candidate.decay:
        callbacks.append(_decay(candidate.decay))
    callbacks.append(keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: lesson.train.draw()))
    history = network.fit(
        lesson.train.stream(),
        validation_data=lesson.validation.stream(),
        epochs=candidate.epochs,
        callbacks=callbacks,
        shuffle=False,
        verbose=2,
    )
    table = pd.DataFrame(history.history)
    table.insert(0, "epoch", np.arange(1, len(table) + 1))
    return table[["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]]


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
    return task.probabilities(network.predict(data.stream(), verbose=0))


def predictions_of(table: pd.DataFrame, targets: Targets, probabilities: NDArray[np.float64]) -> pd.DataFrame:
    """The pictures of `table` with a p_CLASS column per class."""
    return table[["path", "id", "label", "split", "group"]].assign(
        **{f"p_{label}": probabilities[:, number] for number, label in enumerate(targets.classes)}
    )
