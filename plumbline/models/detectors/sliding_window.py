"""A classifier of windows made convolutional, in windows of several sizes: the plain rival of all detectors.

What a window shows is the average of the maps in it, as a classifier with average pooling sees a crop; one dense layer
for all windows says which class that is, or none. Sermanet et al. 2013, arXiv:1312.6229. A box is the window itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.common.overlap import iou
from plumbline.models.detector import Detector, Problem, needs_maps
from plumbline.tasks.scores import Floats, Ints

if TYPE_CHECKING:
    import keras

OBJECT, NOTHING = 0.5, 0.3
"""A window shows an object whose box it overlaps by the first, nothing below the second; between, nothing is learnt."""
HARDEST = 3.0
"""So many empty windows count for each with an object, those that the classifier is most wrong about."""


def design(detector: Detector, problem: Problem) -> SlidingWindow:
    """Return the design; UserError where `maps` keeps pixels."""
    needs_maps(detector, problem)
    return SlidingWindow(detector, problem)


@dataclass(frozen=True)
class SlidingWindow:
    """See detector.Design. Places are windows: anchor after anchor, each anchor's at every place of the finest map."""

    detector: Detector
    problem: Problem

    @property
    def cells(self) -> int:
        """Places along a side of the finest map."""
        return self.problem.image_size // self.problem.strides[0]

    @property
    def sides(self) -> list[tuple[int, int]]:
        """Height and width, in places of that map, of each anchor's windows."""
        return [
            (max(1, min(self.cells, round(high * self.cells))), max(1, min(self.cells, round(wide * self.cells))))
            for wide, high in self.problem.anchors
        ]

    @cached_property
    def windows(self) -> Floats:
        """All windows (P, 4) in shares of the canvas."""
        found = []
        for high, wide in self.sides:
            top, left = np.meshgrid(np.arange(self.cells - high + 1), np.arange(self.cells - wide + 1), indexing="ij")
            found.append(np.stack([left, top, left + wide, top + high], axis=-1).reshape(-1, 4) / self.cells)
        return np.concatenate(found)

    def network(self, upper: keras.Model | None) -> keras.Model:
        """From maps (N, G, G, C) to logits (N, P, 1 + classes), the first that of nothing."""
        import keras

        if upper is None:
            raise UserError(f"params.yaml: sliding_window needs the maps of a network: maps.{self.detector.maps}.")
        kept = keras.Input(self.problem.shape, name="maps")
        finest, *coarser = upper(kept, training=False)
        maps = [finest, *(keras.layers.UpSampling2D(finest.shape[1] // one.shape[1])(one) for one in coarser)]
        # Projected first: the average of a projection is the projection of the average, and costs a tenth.
        seen = [keras.layers.Conv2D(self.detector.channels, 1, use_bias=False)(one) for one in maps]
        joined = keras.layers.BatchNormalization()(keras.layers.Concatenate()(seen))
        classify = keras.layers.Conv2D(1 + self.problem.classes, 1, name="classify")
        answers = []
        for high, wide in self.sides:
            shown = keras.layers.ReLU()(keras.layers.AveragePooling2D((high, wide), 1)(joined))
            logits = classify(shown)
            answers.append(keras.layers.Reshape((logits.shape[1] * logits.shape[2], logits.shape[3]))(logits))
        joined_answers = keras.layers.Concatenate(axis=1, name="answers")(answers) if len(answers) > 1 else answers[0]
        return keras.Model(kept, joined_answers, name="sliding_window")

    def targets(self, boxes: Floats, labels: Ints) -> NDArray[np.float32]:
        """Return (P, 1 + classes): nothing, or which class; all 0 where nothing is to be learnt.

        A box that no window overlaps enough belongs to the one that overlaps it most.
        """
        found = np.zeros((len(self.windows), 1 + self.problem.classes), dtype=np.float32)
        if not len(boxes):
            found[:, 0] = 1
            return found
        overlap = iou(self.windows, boxes)
        best = overlap.argmax(axis=1)
        most = overlap[np.arange(len(best)), best]
        found[most < NOTHING, 0] = 1
        shows = np.flatnonzero(most >= OBJECT)
        found[shows, 1 + labels[best[shows]]] = 1
        for box in np.flatnonzero(overlap.max(axis=0) < OBJECT):
            window = overlap[:, box].argmax()
            found[window] = 0
            found[window, 1 + labels[box]] = 1
        return found

    def loss(self, targets: Any, answers: Any) -> Any:
        """Cross entropy on the windows that show an object, and on the hardest of the empty ones."""
        import keras

        ops = keras.ops
        surprise = ops.categorical_crossentropy(targets, answers, from_logits=True)
        there = ops.max(targets[..., 1:], axis=-1)
        number = ops.maximum(ops.sum(there), 1.0)
        empty = ops.reshape(targets[..., 0] * surprise, (-1,))
        count = ops.cast(ops.minimum(HARDEST * number, float(self.windows.shape[0])), "int32")
        hardest = -ops.sort(-empty)
        counted = ops.cast(ops.arange(ops.shape(hardest)[0]) < count, "float32")
        return (ops.sum(there * surprise) + ops.sum(counted * hardest)) / number

    def metrics(self) -> dict[str, Callable[[Any, Any], Any]]:
        """Nothing besides the loss."""
        return {}

    def decoded(self, answers: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """The windows, and the classes' probabilities."""
        import keras

        ops = keras.ops
        scores = ops.softmax(answers, axis=-1)[..., 1:]
        boxes = ops.zeros_like(answers[..., :1]) + self.windows.astype(np.float32)
        return boxes, scores
