"""Several candidates as one model: the mean of their probabilities, or a logistic regression on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError

if TYPE_CHECKING:
    import keras

Floats = NDArray[np.float64]
Kind = Literal["soft_vote", "stacking"]
SMALLEST = 1e-6
"""Probabilities are clipped here before the logarithm, in training and in the served model alike."""


def evidence(probabilities: Floats, several_labels: bool) -> Floats:
    """What stacking sees of members' probabilities (N, M, C): log odds, or log probabilities for C > 2.

    Returns (N, M, F): F is 1 for two classes, C for more or for several labels.
    """
    p = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    if several_labels:
        return np.asarray(np.log(p) - np.log1p(-p))
    if p.shape[2] == 2:
        return np.asarray(np.log(p[..., 1:]) - np.log1p(-p[..., 1:]))
    return np.asarray(np.log(p))


def fit_stacking(seen: Floats, targets: NDArray[Any], several_labels: bool) -> tuple[Floats, Floats]:
    """Fit L2-regularised logistic regressions on `seen` (N, M, F); returns kernel (M * F, K) and bias (K,).

    K is 1 for two classes, C for more, and for several labels one regression for each label on its own log odds.
    """
    from sklearn.linear_model import LogisticRegression

    count, members, features = seen.shape
    if not several_labels:
        if len(np.unique(targets)) < 2:
            raise UserError("build/splits.parquet: stacking needs validation pictures of every class: split anew.")
        model = LogisticRegression(C=1.0, max_iter=1000).fit(seen.reshape(count, -1), targets)
        return model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)
    kernel, bias = np.zeros((members, features, features)), np.zeros(features)
    for label in range(features):
        truth = targets[:, label]
        if len(np.unique(truth)) < 2:
            raise UserError("build/splits.parquet: stacking needs validation pictures with and without every label.")
        model = LogisticRegression(C=1.0, max_iter=1000).fit(seen[:, :, label], truth)
        kernel[:, label, label], bias[label] = model.coef_[0], model.intercept_[0]
    return kernel.reshape(members * features, features), bias


def stacked(seen: Floats, kernel: Floats, bias: Floats, several_labels: bool) -> Floats:
    """Probabilities (N, C) of the stacking regression on `seen` (N, M, F)."""
    score = seen.reshape(len(seen), -1) @ kernel + bias
    if several_labels or score.shape[1] == 1:
        p = 1 / (1 + np.exp(-score))
        return p if several_labels else np.hstack([1 - p, p])
    score -= score.max(axis=1, keepdims=True)
    return np.asarray(np.exp(score) / np.exp(score).sum(axis=1, keepdims=True))


def write_head(path: Path, kernel: Floats, bias: Floats) -> None:
    """Write the combining layer's weights as HDF5."""
    import h5py

    with h5py.File(path, "w") as file:
        file["kernel"], file["bias"] = kernel, bias


def read_head(path: Path) -> tuple[Floats, Floats]:
    """Read what `write_head` wrote."""
    import h5py

    try:
        with h5py.File(path) as file:
            return np.asarray(file["kernel"]), np.asarray(file["bias"])
    except (OSError, KeyError) as error:
        raise UserError(f"{path} can't be read ({error}): run `dvc repro -f ensemble`.") from None


def combine(members: list[keras.Model], kind: Kind, head: Path, several_labels: bool) -> keras.Model:
    """One model from the members' shared pixels (N, S, S, 3) to the combined output, (N, 1) or (N, C)."""
    import keras

    pixels = keras.Input(members[0].input_shape[1:], name="pixels")
    outputs = []
    for number, member in enumerate(members):
        member.name = f"member_{number}"
        output = member(pixels, training=False)
        outputs.append(output)
    if not several_labels and max(output.shape[1] for output in outputs) == 2:
        outputs = [output if output.shape[1] == 1 else output[:, 1:] for output in outputs]
    if kind == "soft_vote":
        return keras.Model(pixels, keras.layers.Average(name="probability")(outputs), name="candidate")
    clipped = [keras.ops.clip(output, SMALLEST, 1 - SMALLEST) for output in outputs]
    odds = several_labels or outputs[0].shape[1] == 1
    seen = [keras.ops.log(p) - keras.ops.log(1.0 - p) if odds else keras.ops.log(p) for p in clipped]
    kernel, bias = read_head(head)
    layer = keras.layers.Dense(len(bias), activation="sigmoid" if odds else "softmax", name="probability")
    model = keras.Model(pixels, layer(keras.layers.Concatenate()(seen)), name="candidate")
    layer.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
    return model
