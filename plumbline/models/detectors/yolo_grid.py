"""A grid of cells and anchors, from scratch: [pc, bx, by, bw, bh, classes] for each (the course's YOLO).

Redmon et al. 2016, arXiv:1506.02640; Redmon and Farhadi 2016, arXiv:1612.08242 (anchors by k-means over IoU, a box's
centre within its cell, its size as a multiple of an anchor's).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.models.architectures.se_resnet import residual_block
from plumbline.models.candidates import scaled
from plumbline.models.detector import Detector, Problem, needs_pixels
from plumbline.tasks.boxes import size_iou
from plumbline.tasks.scores import Floats, Ints

if TYPE_CHECKING:
    import keras

FILTERS = (32, 64, 128, 256)
"""Of the first convolution and the blocks, each of which halves the maps until they are of the grid's stride."""
EMPTY_WEIGHT = 0.5
BOX_WEIGHT = 5.0
PRIOR = 0.01
LARGEST = 4.0
"""Largest logarithm of a box's side against its anchor's."""


def design(detector: Detector, problem: Problem) -> YoloGrid:
    """Return the design; UserError where `maps` keeps a network's maps in place of pixels."""
    needs_pixels(detector, problem)
    return YoloGrid(detector, problem)


@dataclass(frozen=True)
class YoloGrid:
    """See detector.Design. Places are cell after cell, in each cell anchor after anchor."""

    detector: Detector
    problem: Problem

    @property
    def grid(self) -> int:
        """Cells along a side of the canvas; they are as large as the smallest stride."""
        return self.problem.image_size // self.problem.strides[0]

    def network(self, upper: keras.Model | None) -> keras.Model:
        """Residual blocks with squeeze-and-excitation from pixels (N, S, S, 3) to (N, cells * anchors, 5 + C)."""
        import keras

        pixels = keras.Input(self.problem.shape, name="pixels")
        x = keras.layers.Rescaling(1 / 255)(pixels)
        halvings = int(np.log2(self.problem.strides[0]))
        first, *rest = (scaled(filters, self.detector.width) for filters in FILTERS)
        x = keras.layers.Conv2D(first, 3, 2, padding="same", use_bias=False, name="first")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
        for place, count in enumerate(rest, start=1):
            x = residual_block(x, count, 2 if place < halvings else 1)
        x = residual_block(x, scaled(FILTERS[-1], self.detector.width), 1)
        classes, anchors = self.problem.classes, len(self.problem.anchors)
        seldom = np.zeros((anchors, 5 + classes))
        seldom[:, 0] = -np.log((1 - PRIOR) / PRIOR)
        bias = keras.initializers.Constant(0.0)
        x = keras.layers.Conv2D(anchors * (5 + classes), 1, bias_initializer=bias, name="cells")(x)
        answers = keras.layers.Reshape((self.grid * self.grid * anchors, 5 + classes), name="answers")(x)
        network = keras.Model(pixels, answers, name="yolo_grid")
        layer = network.get_layer("cells")
        layer.set_weights([layer.get_weights()[0], seldom.ravel()])
        return network

    def targets(self, boxes: Floats, labels: Ints) -> NDArray[np.float32]:
        """Return (P, 5 + C): pc, place in the cell, log of the size against the anchor's, which class.

        A box belongs to the cell of its centre, there to the anchor of the most like size that is still free; where
        all are taken, it is left out.
        """
        anchors, grid = self.problem.anchors, self.grid
        found = np.zeros((grid, grid, len(anchors), 5 + self.problem.classes), dtype=np.float32)
        if not len(boxes):
            return found.reshape(-1, found.shape[-1])
        sizes = boxes[:, 2:] - boxes[:, :2]
        centres = np.minimum((boxes[:, :2] + boxes[:, 2:]) / 2 * grid, grid - 1e-6)
        likeness = size_iou(sizes, anchors)
        for one in range(len(boxes)):
            column, row = centres[one].astype(int)
            for anchor in np.argsort(-likeness[one], kind="stable"):
                place = found[row, column, anchor]
                if not place[0]:
                    place[0] = 1
                    place[1:3] = centres[one] - [column, row]
                    place[3:5] = np.log(np.maximum(sizes[one], 1e-6) / anchors[anchor])
                    place[5 + labels[one]] = 1
                    break
        return found.reshape(-1, found.shape[-1])

    def loss(self, targets: Any, answers: Any) -> Any:
        """Cross entropy on pc, squared error on the box, cross entropy on the classes; only pc where there is none."""
        parts = self.metrics()
        return (
            parts["pc_loss"](targets, answers)
            + BOX_WEIGHT * parts["box_loss"](targets, answers)
            + parts["class_loss"](targets, answers)
        )

    def metrics(self) -> dict[str, Callable[[Any, Any], Any]]:
        """Each part of the loss."""
        return {"pc_loss": _pc_loss, "box_loss": _box_loss, "class_loss": _class_loss}

    def decoded(self, answers: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Boxes, and scores: pc times the class's probability."""
        import keras

        ops = keras.ops
        rows, columns = np.meshgrid(np.arange(self.grid), np.arange(self.grid), indexing="ij")
        corners = np.stack([columns.ravel(), rows.ravel()], axis=1).repeat(len(self.problem.anchors), axis=0)
        anchors = np.tile(self.problem.anchors, (self.grid * self.grid, 1)).astype(np.float32)
        centre = (ops.sigmoid(answers[..., 1:3]) + corners.astype(np.float32)) / self.grid
        size = ops.exp(ops.minimum(answers[..., 3:5], LARGEST)) * anchors
        boxes = ops.concatenate([centre - size / 2, centre + size / 2], axis=-1)
        return boxes, ops.sigmoid(answers[..., :1]) * ops.softmax(answers[..., 5:], axis=-1)


def _pc_loss(targets: Any, answers: Any) -> Any:
    import keras

    ops = keras.ops
    surprise = ops.binary_crossentropy(targets[..., :1], answers[..., :1], from_logits=True)
    weight = targets[..., :1] + EMPTY_WEIGHT * (1 - targets[..., :1])
    return ops.sum(weight * surprise) / _number(targets)


def _box_loss(targets: Any, answers: Any) -> Any:
    import keras

    ops = keras.ops
    place = ops.square(targets[..., 1:3] - ops.sigmoid(answers[..., 1:3]))
    size = ops.square(targets[..., 3:5] - answers[..., 3:5])
    return ops.sum(targets[..., :1] * (place + size)) / _number(targets)


def _class_loss(targets: Any, answers: Any) -> Any:
    import keras

    ops = keras.ops
    surprise = ops.categorical_crossentropy(targets[..., 5:], answers[..., 5:], from_logits=True)
    return ops.sum(targets[..., 0] * surprise) / _number(targets)


def _number(targets: Any) -> Any:
    import keras

    return keras.ops.maximum(keras.ops.sum(targets[..., 0]), 1.0)
