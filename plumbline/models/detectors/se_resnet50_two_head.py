"""One object a picture, from scratch: a ResNet50 with squeeze-and-excitation, a head for its class, one for its box.

He et al. 2015, arXiv:1512.03385 (bottleneck blocks, 3-4-6-3 of them); Hu et al. 2017, arXiv:1709.01507. The object of
a photograph is its largest box; of a photograph without one the heads learn nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.overlap import areas
from plumbline.models.architectures.se_resnet import shortcut, squeeze_and_excite
from plumbline.models.candidates import scaled
from plumbline.models.detector import Detector, Problem, needs_pixels
from plumbline.models.overlaps import overlaps
from plumbline.tasks.scores import Floats, Ints

if TYPE_CHECKING:
    import keras

BLOCKS = (3, 4, 6, 3)
FILTERS = (64, 128, 256, 512)
EXPANSION = 4
BOX_WEIGHT = 5.0


def design(detector: Detector, problem: Problem) -> TwoHeads:
    """Return the design; UserError where `maps` keeps a network's maps in place of pixels."""
    needs_pixels(detector, problem)
    return TwoHeads(detector, problem)


@dataclass(frozen=True)
class TwoHeads:
    """See detector.Design. One place: logits of the classes, then the box's centre and size as logits of shares."""

    detector: Detector
    problem: Problem

    def network(self, upper: keras.Model | None) -> keras.Model:
        """ResNet50 of `width` from pixels (N, S, S, 3) to (N, 1, C + 4): class head, then box head."""
        import keras

        width = self.detector.width
        pixels = keras.Input(self.problem.shape, name="pixels")
        x = keras.layers.Rescaling(1 / 255)(pixels)
        x = _normalised(keras.layers.Conv2D(scaled(64, width), 7, 2, padding="same", use_bias=False)(x))
        x = keras.layers.MaxPooling2D(3, 2, padding="same")(keras.layers.ReLU()(x))
        for stage, (blocks, filters) in enumerate(zip(BLOCKS, FILTERS, strict=True)):
            for block in range(blocks):
                x = bottleneck(x, scaled(filters, width), 2 if stage and not block else 1)
        seen = keras.layers.GlobalAveragePooling2D()(x)
        kind = keras.layers.Dense(self.problem.classes, name="class_head")(seen)
        # The box head keeps places apart: an average over all of them would no longer say where.
        where = keras.layers.Conv2D(scaled(128, width), 1, activation="relu")(x)
        where = keras.layers.Dense(scaled(256, width), activation="relu")(keras.layers.Flatten()(where))
        box = keras.layers.Dense(4, name="box_head")(where)
        answers = keras.layers.Reshape((1, self.problem.classes + 4), name="answers")(
            keras.layers.Concatenate()([kind, box])
        )
        return keras.Model(pixels, answers, name="se_resnet50_two_head")

    def targets(self, boxes: Floats, labels: Ints) -> NDArray[np.float32]:
        """Return (1, C + 5): class, box and whether there is one: the largest."""
        found = np.zeros((1, self.problem.classes + 5), dtype=np.float32)
        if len(boxes):
            largest = int(areas(boxes).argmax())
            found[0, labels[largest]] = 1
            found[0, -5:-1] = boxes[largest]
            found[0, -1] = 1
        return found

    def loss(self, targets: Any, answers: Any) -> Any:
        """Cross entropy on the class, squared error on the box; 1 - GIoU besides, without which sizes drift."""
        parts = self.metrics()
        return parts["class_loss"](targets, answers) + BOX_WEIGHT * parts["box_loss"](targets, answers)

    def metrics(self) -> dict[str, Callable[[Any, Any], Any]]:
        """A loss and a measure for each head."""
        return {
            "class_loss": self._class_loss,
            "box_loss": self._box_loss,
            "class_accuracy": self._accuracy,
            "box_iou": self._iou,
        }

    def _class_loss(self, targets: Any, answers: Any) -> Any:
        import keras

        classes = self.problem.classes
        surprise = keras.ops.categorical_crossentropy(targets[..., :classes], answers[..., :classes], from_logits=True)
        return _mean(surprise, targets)

    def _box_loss(self, targets: Any, answers: Any) -> Any:
        import keras

        box, wanted = self._box(answers), targets[..., -5:-1]
        squared = keras.ops.sum(keras.ops.square(box - wanted), axis=-1)
        return _mean(squared + 0.2 * (1 - overlaps(wanted, box)[1]), targets)

    def _accuracy(self, targets: Any, answers: Any) -> Any:
        import keras

        ops, classes = keras.ops, self.problem.classes
        right = ops.argmax(targets[..., :classes], axis=-1) == ops.argmax(answers[..., :classes], axis=-1)
        return _mean(ops.cast(right, "float32"), targets)

    def _iou(self, targets: Any, answers: Any) -> Any:
        return _mean(overlaps(targets[..., -5:-1], self._box(answers))[0], targets)

    def _box(self, answers: Any) -> Any:
        import keras

        shares = keras.ops.sigmoid(answers[..., self.problem.classes :])
        centre, half = shares[..., :2], shares[..., 2:] / 2
        return keras.ops.concatenate([centre - half, centre + half], axis=-1)

    def decoded(self, answers: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """The one box, and the probabilities of its classes."""
        import keras

        return self._box(answers), keras.ops.softmax(answers[..., : self.problem.classes], axis=-1)


def bottleneck(x: keras.KerasTensor, filters: int, strides: int) -> keras.KerasTensor:
    """1x1, 3x3 and 1x1 convolutions, weighed by squeeze-and-excitation and added to the input.

    (N, h, w, c) to (N, h / strides, w / strides, EXPANSION * filters).
    """
    import keras

    past = x
    if strides != 1 or x.shape[-1] != EXPANSION * filters:
        past = shortcut(x, EXPANSION * filters, strides)
    y = keras.layers.ReLU()(_normalised(keras.layers.Conv2D(filters, 1, use_bias=False)(x)))
    y = keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(y)
    y = keras.layers.ReLU()(_normalised(y))
    y = _normalised(keras.layers.Conv2D(EXPANSION * filters, 1, use_bias=False)(y))
    return keras.layers.ReLU()(keras.layers.Add()([past, squeeze_and_excite(y)]))


def _normalised(x: keras.KerasTensor) -> keras.KerasTensor:
    import keras

    return keras.layers.BatchNormalization(momentum=0.9)(x)  # as in architectures.se_resnet


def _mean(values: Any, targets: Any) -> Any:
    """The mean of values (N, 1) over the pictures that have an object."""
    import keras

    there = targets[..., -1]
    return keras.ops.sum(there * values) / keras.ops.maximum(keras.ops.sum(there), 1.0)
