"""Triplets: an embedding trained so that a picture lies nearer to its own class than to any other, by a margin.

The loss is max(d(A, P) - d(A, N) + margin, 0) on squared distances of unit vectors (FaceNet, Schroff et al. 2015), its
triplets mined among each batch. The class is that of the nearest prototype, the mean of a class's training pictures.
For unit vectors a softmax over negative squared distances is a dense layer, 2 p.e - |p|^2 for prototype p, so the
network ends in the same layer as any other and is stored, judged and exported like it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.models.candidates import Candidate
from plumbline.models.features import read_rows
from plumbline.models.fitting import Fitted
from plumbline.models.records import Status

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from plumbline.models.training import TrainingSet


SHARPNESS = np.geomspace(0.5, 100, 40)
"""What distances may be multiplied with before the softmax; the one of least validation loss is taken."""
Floats = NDArray[np.float64]


def triplet_loss(labels: tf.Tensor, embedded: tf.Tensor, margin: float, mining: str) -> tf.Tensor:
    """The mean loss of the triplets mined among embedded pictures (N, D) with class numbers `labels` (N,).

    `hard`: for each anchor its farthest positive and its nearest negative. `semi_hard`: for each pair of anchor and
    positive the nearest negative that is farther than the positive; where none is, the farthest.
    """
    import tensorflow as tf

    labels = tf.reshape(labels, [-1])
    distance = squared_distances(embedded)
    same = tf.equal(labels[:, None], labels[None])
    positive = tf.logical_and(same, tf.logical_not(tf.eye(tf.shape(labels)[0], dtype=tf.bool)))
    far = tf.constant(1e6, distance.dtype)
    any_positive, any_negative = tf.reduce_any(positive, axis=1), tf.reduce_any(~same, axis=1)
    if mining == "hard":
        farthest = tf.reduce_max(tf.where(positive, distance, 0.0), axis=1)
        nearest = tf.reduce_min(tf.where(same, far, distance), axis=1)
        counted = tf.cast(any_positive & any_negative, distance.dtype)
        losses = tf.maximum(farthest - nearest + margin, 0.0)
    else:
        # (anchor, positive, negative)
        allowed = tf.logical_and(~same[:, None, :], distance[:, None, :] > distance[:, :, None])
        semi_hard = tf.reduce_min(tf.where(allowed, distance[:, None, :], far), axis=2)
        easiest = tf.reduce_max(tf.where(same, 0.0, distance), axis=1)[:, None]
        negative = tf.where(tf.reduce_any(allowed, axis=2), semi_hard, easiest)
        counted = tf.cast(positive & any_negative[:, None], distance.dtype)
        losses = tf.maximum(distance - negative + margin, 0.0)
    return tf.reduce_sum(losses * counted) / tf.maximum(tf.reduce_sum(counted), 1.0)


def squared_distances(embedded: tf.Tensor) -> tf.Tensor:
    """Squared Euclidean distances (N, N) of unit vectors (N, D)."""
    import tensorflow as tf

    return tf.maximum(2.0 - 2.0 * tf.matmul(embedded, embedded, transpose_b=True), 0.0)


def prototypes(embedded: Floats, truth: NDArray[np.bool_]) -> Floats:
    """The mean embedding (C, D) of each class's pictures: embedded (N, D), truth (N, C)."""
    return np.asarray(truth.T.astype(np.float64) @ embedded / np.maximum(truth.sum(axis=0), 1)[:, None])


def nearest(embedded: Floats, centres: Floats) -> NDArray[np.intp]:
    """Which of the prototypes (C, D) is nearest to each picture (N, D)."""
    return np.asarray(((embedded[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1))


def output_weights(centres: Floats, sharpness: float, units: int) -> list[NDArray[np.float32]]:
    """Kernel and bias of a last layer that answers with the nearest prototype: one sigmoid unit, or a softmax."""
    kernel, bias = 2 * centres.T, -(centres**2).sum(axis=1)
    if units == 1:
        kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
    return [(sharpness * part).astype(np.float32) for part in (kernel, bias)]


def embedder(network: keras.Model) -> keras.Model:
    """What of a trained `triplet` network maps features to unit vectors (N, D)."""
    import keras

    return keras.Model(network.inputs[0], network.get_layer("embedding").output)


def embed(network: keras.Model, values: NDArray[Any], rows: NDArray[np.intp], batch_size: int = 256) -> Floats:
    """The unit vectors (N, D) of the pictures `rows` of stored features (M, 1 + V, ...)."""
    model, found = embedder(network), []
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        found.append(np.asarray(model(read_rows(values, some, np.zeros(len(some), np.intp)), training=False)))
    return np.concatenate(found).astype(np.float64)


def fit_triplets(network: keras.Model, candidate: Candidate, data: TrainingSet, seed: int, name: str = "") -> Fitted:
    """Train the embedding; after each epoch the prototypes are set and the network is judged as a classifier.

    The weights of the epoch of least validation loss are kept; training ends `early_stopping_patience` epochs after it.
    """
    import keras
    import pandas as pd

    if not data.targets.task.exclusive:
        raise UserError(f"params.yaml: candidates.{name} learns from triplets, which need one label a picture.")
    settings, lesson = candidate.triplet, data.lesson(candidate, seed)
    model = embedder(network)
    model.compile(
        keras.optimizers.AdamW(candidate.learning_rate, weight_decay=candidate.weight_decay),
        lambda labels, embedded: triplet_loss(labels, embedded, settings.margin, settings.mining),
    )
    rows: list[dict[str, float]] = []
    status: Status = "trained"
    best, best_loss = network.get_weights(), np.inf
    for epoch in range(candidate.epochs):
        logs = model.fit(lesson.train.dataset(1, epoch), epochs=1, verbose=0).history
        told = judge(network, data)
        rate = float(model.optimizer.learning_rate)
        rows.append({"epoch": epoch + 1, **told, "learning_rate": rate})
        if not (np.isfinite(logs["loss"][0]) and np.isfinite(told["val_loss"])):
            status = "diverged"
            break
        if told["val_loss"] < best_loss:
            best, best_loss, best_epoch = network.get_weights(), told["val_loss"], epoch
        if epoch - best_epoch >= candidate.early_stopping_patience:
            break
    network.set_weights(best)
    return Fitted(pd.DataFrame(rows), status)


def judge(network: keras.Model, data: TrainingSet) -> dict[str, float]:
    """Set the prototypes from the training pictures and the sharpness from the validation pictures; losses, accuracies.

    The losses are the log losses of the classifier, comparable with any other candidate's.
    """
    from scipy.special import expit, softmax

    task, truth = data.targets.task, data.targets.truth
    sides = {side: np.flatnonzero(data.inside(side)) for side in ("train", "validation")}
    seen = {side: embed(network, data.features.values, data.rows[rows]) for side, rows in sides.items()}
    centres = prototypes(seen["train"], truth[sides["train"]])
    last = network.layers[-1]

    def answers(side: str, sharpness: float) -> Floats:
        kernel, bias = (part.astype(np.float64) for part in output_weights(centres, sharpness, last.units))
        score = seen[side] @ kernel + bias
        return task.probabilities(expit(score) if last.units == 1 else softmax(score, axis=1))

    losses = [task.log_loss(truth[sides["validation"]], answers("validation", one)) for one in SHARPNESS]
    sharpness = float(SHARPNESS[int(np.argmin(losses))])
    last.set_weights(output_weights(centres, sharpness, last.units))
    told = {}
    for side, prefix in (("train", ""), ("validation", "val_")):
        p, right = answers(side, sharpness), truth[sides[side]]
        told[f"{prefix}loss"] = task.log_loss(right, p)
        told[f"{prefix}accuracy"] = float((task.predicted(p) == right).all(axis=1).mean())
    return told
