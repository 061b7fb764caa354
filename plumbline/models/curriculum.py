"""Training in an order: small pictures before large ones, or the easy ones before all.

Either way the first third of the epochs is spent on the easier lesson and the rest on the whole one, each with the
candidate's own schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.models.candidates import Candidate
from plumbline.models.fitting import Fitted, fit

if TYPE_CHECKING:
    import keras

    from plumbline.models.training import TrainingSet

FIRST_SHARE = 1 / 3
EASY_SHARE = 0.5
RAW_SIDE = 16
FOLDS = 5
Build = Callable[[tuple[int, ...]], "keras.Model"]


def fit_in_order(
    network: keras.Model, build: Build, candidate: Candidate, data: TrainingSet, seed: int, name: str
) -> Fitted:
    """Train `network` on the easier lesson of `candidate.curriculum`, then on the whole one.

    `build` makes the same network for features of another shape. Training that fails in the first part ends there.
    """
    begin = max(1, round(candidate.epochs * FIRST_SHARE))
    early = candidate.model_copy(update={"epochs": begin})
    late = candidate.model_copy(update={"epochs": max(1, candidate.epochs - begin)})
    if candidate.curriculum == "sizes":
        easier, small = shrunk(data), build(half(data.features.shape))
        _check_sizes(network, small, candidate)
        first = fit(small, early, easier.lesson(candidate, seed), f"{name}, small pictures")
        network.set_weights(small.get_weights())
    else:
        first = fit(network, early, easiest(data, seed).lesson(candidate, seed), f"{name}, easy pictures")
    if first.status == "diverged":
        return first
    return first.then(fit(network, late, data.lesson(candidate, seed), name, len(first.history)))


def half(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of pictures (H, W, C) at half the size."""
    return (shape[0] // 2, shape[1] // 2, *shape[2:])


def shrunk(data: TrainingSet) -> TrainingSet:
    """The same pictures, and their views, at half the size, held in memory; each place is the mean of four."""
    height, width = half(data.features.shape)[:2]
    values = np.empty((len(data.rows), *data.features.values.shape[1:2], height, width, 3), np.uint8)
    for place, row in enumerate(data.rows):
        stack = data.features.values[row, :, : 2 * height, : 2 * width].astype(np.float32)
        values[place] = np.rint(stack.reshape(-1, height, 2, width, 2, 3).mean(axis=(2, 4)))
    return replace(data, features=replace(data.features, values=values), rows=np.arange(len(data.rows)))


def easiest(data: TrainingSet, seed: int) -> TrainingSet:
    """The same with the harder half of each class's training pictures left out."""
    train = np.flatnonzero(data.inside("train"))
    sure = confidence(data, train, seed)
    classes = data.targets.truth[train].argmax(axis=1)
    kept = np.zeros(len(train), dtype=np.bool_)
    for number in np.unique(classes):
        of_class = np.flatnonzero(classes == number)
        order = of_class[np.argsort(-sure[of_class], kind="stable")]
        kept[order[: max(1, round(EASY_SHARE * len(order)))]] = True
    split = data.splits["split"].to_numpy(copy=True)
    split[train[~kept]] = "later"
    return replace(data, splits=data.splits.assign(split=split))


def confidence(data: TrainingSet, rows: NDArray[np.intp], seed: int) -> NDArray[np.float64]:
    """How sure of the right class a logistic regression on 16x16 pixels is that never saw a picture's group (N,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    raw = np.stack([_small(data.features.values[data.rows[row], 0]) for row in rows])
    truth = data.targets.truth[rows].argmax(axis=1)
    groups = data.splits["group"].to_numpy()[rows]
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    try:
        p = cross_val_predict(model, raw, truth, groups=groups, cv=folds, method="predict_proba")
    except ValueError as error:
        raise UserError(
            f"curriculum: confidence needs {FOLDS} groups of training pictures in every class ({error}): "
            "set curriculum: none or sizes for this candidate in params.yaml."
        ) from None
    return np.asarray(p[np.arange(len(rows)), truth], dtype=np.float64)


def _small(picture: NDArray[Any]) -> NDArray[np.float32]:
    import cv2

    return np.asarray(cv2.resize(picture, (RAW_SIDE, RAW_SIDE), interpolation=cv2.INTER_AREA), np.float32).reshape(-1)


def _check_sizes(network: keras.Model, small: keras.Model, candidate: Candidate) -> None:
    if [weight.shape for weight in network.weights] != [weight.shape for weight in small.weights]:
        raise UserError(
            f"params.yaml: curriculum: sizes needs an architecture whose weights are the same at every size, which "
            f"'{candidate.architecture}' is not: use compact_cnn, custom_cnn, se_resnet, inception_small or "
            "densenet_small, or curriculum: confidence."
        )
