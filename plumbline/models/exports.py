"""A trained network in the formats of others: TensorFlow's SavedModel, and TFLite in float32 or int8.

Each file is read back by its own runtime and asked about real pictures before it may stay: what is left agrees with
its source within what TOLERANCES says. All take RGB pixels (N, S, S, 3), float32 in [0, 255], and give the graph's own
probabilities (N, C), before any temperature, and its embedding (N, D); TFLite takes one picture at a time. An int8 file
too has float32 outside: it brings pixels to int8 and answers back to float32.
https://www.tensorflow.org/tfx/serving/serving_basic, https://ai.google.dev/edge/litert/conversion/tensorflow
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError, first_line, no_room
from plumbline.common.quiet import without_future_warnings
from plumbline.models.export import EMBEDDING, INPUT, PROBABILITIES, stacked
from plumbline.tasks.task import Task

if TYPE_CHECKING:
    import keras

Format = Literal["saved-model", "tflite", "tflite-int8"]
FORMATS: tuple[Format, ...] = ("saved-model", "tflite", "tflite-int8")
DEFAULT = "serving_default"
SIGNATURES = {DEFAULT: (PROBABILITIES,), "embedding": (EMBEDDING,), "all": (PROBABILITIES, EMBEDDING)}
"""By name, what each signature of a SavedModel gives; serving answers the same by TensorFlow Serving's REST."""
AT_A_TIME = 16
"""Pictures in a batch of the check."""
Ask = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""From pictures (N, S, S, 3) to probabilities (N, C)."""


class ExportError(UserError):
    """A network that a format can't hold, or holds otherwise; a part of a sentence, without the network's name."""


@dataclass(frozen=True)
class Tolerance:
    """How far an export may be from its source: the greatest difference of a probability, the mean one, and the share
    of pictures whose predicted classes must be the same.
    """

    most: float
    mean: float
    same: float

    def __str__(self) -> str:
        parts = [f"at most {self.most:g} in any probability"] if self.most < 1 else []
        parts += [f"{self.mean:g} in the mean"] if self.mean < self.most else []
        return " and ".join([*parts, *([f"{self.same:.0%} of the same class"] if self.same else [])])


TOLERANCES: dict[Format, Tolerance] = {
    # Who is this near in float32 may differ in class only where two classes are as probable as each other.
    "saved-model": Tolerance(1e-4, 1e-4, 0.0),
    "tflite": Tolerance(1e-4, 1e-4, 0.0),
    # In 256 steps a picture near the edge between two classes may fall on its other side; most must not move.
    "tflite-int8": Tolerance(1.0, 0.05, 0.95),
}


@dataclass(frozen=True)
class Agreement:
    """How far an export was from its source on so many pictures: the greatest and the mean difference of a probability,
    and how many of the pictures got the same predicted classes.
    """

    pictures: int
    most: float
    mean: float
    same: int

    @classmethod
    def of(cls, expected: NDArray[Any], found: NDArray[Any], task: Task) -> Agreement:
        """Compare probabilities (N, C) of the same pictures."""
        apart = np.abs(found.astype(np.float64) - expected)
        same = (task.predicted(found) == task.predicted(expected)).all(axis=1)
        return cls(len(expected), float(apart.max()), float(apart.mean()), int(same.sum()))

    def within(self, tolerance: Tolerance) -> bool:
        """Whether it is near enough; what is no number is not."""
        near = self.most <= tolerance.most and self.mean <= tolerance.mean
        return near and self.same >= tolerance.same * self.pictures

    def __str__(self) -> str:
        return (
            f"the same class on {self.same} of {self.pictures} validation pictures, probabilities differ by "
            f"{self.mean:.2g} in the mean and {self.most:.2g} at most"
        )


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


def open_saved_model(folder: Path) -> Ask:
    """Read a SavedModel back: from pictures to the probabilities of its default signature."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))  # held by what is returned: its variables go when it goes

    def ask(pictures: NDArray[np.uint8]) -> NDArray[Any]:
        answer = loaded.signatures[DEFAULT]
        return np.asarray(answer(**{INPUT: tf.constant(pictures, tf.float32)})[PROBABILITIES])

    return ask


def write_tflite(model: keras.Model, file: Path, calibration: Sequence[NDArray[np.uint8]] = ()) -> None:
    """Write `model` (from `with_embedding`) to `file` for one picture at a time; with `calibration` pictures (S, S, 3)
    weights and activations become int8, what goes in and comes out stays float32.

    Raises ExportError where TFLite has no such operation.
    """
    import tensorflow as tf

    side = model.inputs[0].shape[1]
    # As constants: variables the converter leaves in the file, where nobody sets them, and no answer is a number.
    weights, others = ([v.numpy() for v in some] for some in (model.trainable_variables, model.non_trainable_variables))

    def answer(pixels: Any) -> dict[str, Any]:
        found, _ = model.stateless_call(weights, others, pixels, training=False)
        return {PROBABILITIES: found[PROBABILITIES], EMBEDDING: found[EMBEDDING]}

    module = tf.Module()
    module.answer = tf.function(answer, input_signature=[tf.TensorSpec((1, side, side, 3), tf.float32, name=INPUT)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.answer.get_concrete_function()], module)
    if calibration:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([one[None].astype(np.float32)] for one in calibration)
    try:
        with without_future_warnings():
            written = converter.convert()
    except Exception as error:  # the converter raises its own, and those of the compiler below it
        if no_room(error):  # it writes the network to the temporary folder
            raise
        raise ExportError(f"TFLite can't hold it ({first_line(error)})") from None
    file.write_bytes(written)


def open_tflite(file: Path) -> Ask:
    """Read a TFLite file back: from pictures to probabilities, one picture after the other."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter", UserWarning)  # of its coming move
        interpreter = tf.lite.Interpreter(model_path=str(file), num_threads=1)
    answer = interpreter.get_signature_runner()

    def ask(pictures: NDArray[np.uint8]) -> NDArray[Any]:
        return np.concatenate([answer(**{INPUT: one[None].astype(np.float32)})[PROBABILITIES] for one in pictures])

    return ask


def checked(source: Ask, export: Ask, pictures: NDArray[np.uint8], task: Task, kind: Format) -> Agreement:
    """Compare what an export says of `pictures` (N, S, S, 3) with its source; ExportError if too far apart."""
    expected, found = (_in_batches(ask, pictures) for ask in (source, export))
    agreement = Agreement.of(expected, found, task)
    if not agreement.within(TOLERANCES[kind]):
        raise ExportError(f"it disagrees with its source ({agreement}; allowed: {TOLERANCES[kind]})")
    return agreement


def _in_batches(ask: Ask, pictures: NDArray[np.uint8]) -> NDArray[Any]:
    return np.concatenate([ask(batch) for batch in stacked(pictures, AT_A_TIME)])
