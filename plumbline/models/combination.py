"""Several candidates as one model: the mean of their probabilities, or a logistic regression on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.tasks.task import Task

if TYPE_CHECKING:
    import keras

Floats = NDArray[np.float64]
Kind = Literal["soft_vote", "stacking"]
SMALLEST = 1e-6
"""Probabilities are clipped here before the logarithm, in training and in the served model alike."""


def stacking_inputs(probabilities: Floats, task: Task) -> Floats:
    """Stacking's inputs from members' probabilities (N, M, C): log odds, or log probabilities where they add up to 1.

    Returns (N, M, F): F is 1 where one of two classes is true, else C.
    """
    count, members, classes = probabilities.shape
    p = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    p = task.telling_units(p.reshape(-1, classes)).reshape(count, members, -1)
    return np.asarray(np.log(p) - np.log1p(-p) if task.yes_or_no(p.shape[2]) else np.log(p))


def stacked(seen: Floats, kernel: Floats, bias: Floats, task: Task) -> Floats:
    """Probabilities (N, C) of the stacking regression on `seen` (N, M, F)."""
    score = seen.reshape(len(seen), -1) @ kernel + bias
    if task.yes_or_no(score.shape[1]):
        return task.probabilities(1 / (1 + np.exp(-score)))
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


def combine(members: list[keras.Model], kind: str, head: Path, task: Task) -> keras.Model:
    """One model from the members' shared pixels (N, S, S, 3) to the combined output, (N, 1) or (N, C)."""
    import keras

    pixels = keras.Input(members[0].input_shape[1:], name="pixels")
    outputs = []
    for number, member in enumerate(members):
        member.name = f"member_{number}"
        outputs.append(task.telling_units(member(pixels, training=False)))
    if kind == "soft_vote":
        return keras.Model(pixels, keras.layers.Average(name="probability")(outputs), name="candidate")
    clipped = [keras.ops.clip(output, SMALLEST, 1 - SMALLEST) for output in outputs]
    odds = task.yes_or_no(outputs[0].shape[1])
    seen = [keras.ops.log(p) - keras.ops.log(1.0 - p) if odds else keras.ops.log(p) for p in clipped]
    kernel, bias = read_head(head)
    layer = keras.layers.Dense(len(bias), activation="sigmoid" if odds else "softmax", name="probability")
    model = keras.Model(pixels, layer(keras.layers.Concatenate()(seen)), name="candidate")
    layer.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])
    return model
