"""A trained network in the formats of others: TensorFlow's SavedModel, and TFLite in float32 or int8.

Each file is read back by its own runtime and asked about real pictures before it may stay: what is left agrees with the
network that was evaluated, within what TOLERANCES says. All take RGB pixels (N, S, S, 3), float32 in [0, 255], of the
size and fit that stand in the description beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError, first_line
from plumbline.common.quiet import without_future_warnings
from plumbline.models.export import EMBEDDING, INPUT, PROBABILITIES

if TYPE_CHECKING:
    import keras

Format = Literal["saved-model", "tflite", "tflite-int8"]
FORMATS: tuple[Format, ...] = ("saved-model", "tflite", "tflite-int8")
SIGNATURES = {"serving_default": (PROBABILITIES,), "embedding": (EMBEDDING,), "all": (PROBABILITIES, EMBEDDING)}
"""By name, what each signature of a SavedModel gives; serving answers the same by TensorFlow Serving's REST."""


class ExportError(UserError):
    """A network that a format can't hold, or holds otherwise; a part of a sentence, without the candidate's name."""


@dataclass(frozen=True)
class Tolerance:
    """How far an export's probabilities may be from the network's: the greatest difference, and the mean one."""

    most: float
    mean: float

    def __str__(self) -> str:
        return f"at most {self.most:g} in any probability and {self.mean:g} in the mean"


TOLERANCES: dict[Format, Tolerance] = {
    "saved-model": Tolerance(1e-4, 1e-4),
    "tflite": Tolerance(1e-4, 1e-4),
    # In 256 steps a picture near the edge between two classes may fall on its other side; most must not move.
    "tflite-int8": Tolerance(0.5, 0.05),
}


@dataclass(frozen=True)
class Agreement:
    """How far an export's probabilities were from the network's, on so many pictures."""

    pictures: int
    most: float
    mean: float

    @classmethod
    def of(cls, expected: NDArray[Any], found: NDArray[Any]) -> Agreement:
        """Compare probabilities (N, C) of the same pictures."""
        apart = np.abs(found.astype(np.float64) - expected)
        return cls(len(expected), float(apart.max()), float(apart.mean()))

    def within(self, tolerance: Tolerance) -> bool:
        """Whether it is near enough; no number is not."""
        return self.most <= tolerance.most and self.mean <= tolerance.mean


def write_saved_model(model: keras.Model, folder: Path) -> None:
    """Write `model` (from `with_embedding`) into `folder`, a VERSION of TensorFlow Serving's layout MODEL/VERSION/."""
    import tensorflow as tf

    side = model.inputs[0].shape[1]
    pixels = tf.TensorSpec((None, side, side, 3), tf.float32, name=INPUT)

    def answering(outputs: tuple[str, ...]) -> Any:
        def answer(pixels: Any) -> dict[str, Any]:
            found = model(pixels, training=False)
            return {name: found[name] for name in outputs}

        return tf.function(answer, input_signature=[pixels])

    module = tf.Module()
    module.network = model  # its variables are saved with it
    signatures = {name: answering(outputs).get_concrete_function() for name, outputs in SIGNATURES.items()}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def ask_saved_model(folder: Path, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the probabilities (N, C) that a SavedModel gives pictures (N, S, S, 3) by its default signature."""
    import tensorflow as tf

    answer = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return np.asarray(answer(**{INPUT: tf.constant(pictures, tf.float32)})[PROBABILITIES])


def write_tflite(model: keras.Model, file: Path, calibration: Sequence[NDArray[np.uint8]] = ()) -> None:
    """Write `model` (from `with_embedding`) to `file` for one picture at a time; with `calibration` pictures (S, S, 3)
    weights and activations become int8, what goes in and comes out stays float32.

    Raises ExportError where TFLite has no such operation.
    """
    import tensorflow as tf

    side = model.inputs[0].shape[1]

    def answer(pixels: Any) -> dict[str, Any]:
        found = model(pixels, training=False)
        return {PROBABILITIES: found[PROBABILITIES], EMBEDDING: found[EMBEDDING]}

    function = tf.function(answer, input_signature=[tf.TensorSpec((1, side, side, 3), tf.float32, name=INPUT)])
    module = tf.Module()
    module.network, module.answer = model, function
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    if calibration:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([one[None].astype(np.float32)] for one in calibration)
    try:
        with without_future_warnings():
            written = converter.convert()
    except Exception as error:  # the converter raises its own, and those of the compiler below it
        raise ExportError(f"TFLite can't hold it ({first_line(error)})") from None
    file.write_bytes(written)


def ask_tflite(file: Path, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the probabilities (N, C) that a TFLite file gives pictures (N, S, S, 3), one at a time."""
    import tensorflow as tf

    with without_future_warnings():
        interpreter = tf.lite.Interpreter(model_path=str(file), num_threads=1)
    answer = interpreter.get_signature_runner()
    return np.concatenate([answer(**{INPUT: one[None].astype(np.float32)})[PROBABILITIES] for one in pictures])


def checked(
    model: keras.Model, ask: Callable[[NDArray[np.uint8]], NDArray[Any]], pictures: NDArray[np.uint8], kind: Format
) -> Agreement:
    """Compare what an export says of `pictures` (N, S, S, 3) with `model`; ExportError where they are too far apart."""
    expected = np.asarray(model(pictures.astype(np.float32), training=False)[PROBABILITIES])
    found = Agreement.of(expected, ask(pictures))
    if not found.within(TOLERANCES[kind]):
        raise ExportError(
            f"its probabilities differ from the network's by up to {found.most:.2g}, {found.mean:.2g} in the mean of "
            f"{found.pictures} pictures, and {TOLERANCES[kind]} is allowed: nothing was written"
        )
    return found
