"""An anchor-free head on a small top-down pyramid over a pretrained network's maps (FCOS on an FPN).

Each place of each map says for every class whether it lies in the middle of such an object, and how far away the
object's four sides are. Tian et al. 2019, arXiv:1904.01355 (FCOS: levels by size, the middle of a box, centreness);
Lin et al. 2017, arXiv:1612.03144 (FPN), arXiv:1708.02002 (focal loss); Rezatofighi et al. 2019, arXiv:1902.09630
(GIoU); Li et al. 2020, arXiv:2006.04388 (a score that expects the box's IoU: quality focal loss).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.common.overlap import areas
from plumbline.models.detector import Detector, Problem, needs_maps
from plumbline.models.overlaps import overlaps as _overlaps
from plumbline.tasks.scores import Floats, Ints

if TYPE_CHECKING:
    import keras

MIDDLE = 1.5
"""How far from a box's centre, in strides, a place may lie and still be one of its middle."""
LARGEST_STRIDES = 8.0
"""A map is for boxes whose root of the area is up to so many of its strides; the last one takes the larger ones too."""
PRIOR = 0.01
"""Probability that an untrained head gives every class everywhere: otherwise empty places would swamp the start."""
FARTHEST = 6.0
"""Largest logarithm of a distance in strides, so that exp() can't overflow early in training."""
BOX_WEIGHT = 2.0


def design(detector: Detector, problem: Problem) -> Fcos:
    """Return the design; UserError where `maps` keeps pixels, on which no network stands."""
    needs_maps(detector, problem)
    return Fcos(detector, problem)


@dataclass(frozen=True)
class Fcos:
    """See detector.Design. Answers: a logit for each class, four logarithms of distances, the logit of centreness."""

    detector: Detector
    problem: Problem

    @cached_property
    def places(self) -> tuple[Floats, Floats]:
        """Centres (P, 2) of all places, in pixels of the canvas, and their strides (P,), level after level."""
        centres, strides = [], []
        for stride in self.problem.strides:
            across = (np.arange(self.problem.image_size // stride) + 0.5) * stride
            y, x = np.meshgrid(across, across, indexing="ij")
            centres.append(np.stack([x.ravel(), y.ravel()], axis=1))
            strides.append(np.full(x.size, float(stride)))
        return np.concatenate(centres), np.concatenate(strides)

    def network(self, upper: keras.Model | None) -> keras.Model:
        """Build pyramid and heads on `upper`; the heads' convolutions are shared by the levels, their norms are not."""
        import keras

        if upper is None:
            raise UserError(f"params.yaml: frozen_mobilenet needs the maps of a network: maps.{self.detector.maps}.")
        channels = self.detector.channels
        kept = keras.Input(self.problem.shape, name="maps")
        levels = upper(kept, training=False)
        laterals = [
            keras.layers.BatchNormalization(name=f"lateral_norm_{n}")(
                keras.layers.Conv2D(channels, 1, use_bias=False, name=f"lateral_{n}")(level)
            )
            for n, level in enumerate(levels)
        ]
        merged = [laterals[-1]]
        for lateral in laterals[-2::-1]:
            merged.insert(0, lateral + keras.layers.UpSampling2D(2)(merged[0]))
        return keras.Model(kept, self._heads(merged), name="frozen_mobilenet")

    def _heads(self, levels: list[keras.KerasTensor]) -> keras.KerasTensor:
        import keras

        classes = self.problem.classes
        answers = []
        towers = {"class": levels, "box": levels}
        for kind in towers:
            for depth in range(self.detector.tower):
                shared = keras.layers.Conv2D(
                    self.detector.channels, 3, padding="same", use_bias=False, name=f"{kind}_{depth}"
                )
                towers[kind] = [
                    keras.layers.ReLU()(keras.layers.BatchNormalization(name=f"{kind}_{depth}_norm_{n}")(shared(level)))
                    for n, level in enumerate(towers[kind])
                ]
        seldom = keras.initializers.Constant(-np.log((1 - PRIOR) / PRIOR))
        small = keras.initializers.RandomNormal(stddev=0.01)
        score = keras.layers.Conv2D(
            classes, 3, padding="same", kernel_initializer=small, bias_initializer=seldom, name="score"
        )
        near = keras.initializers.Constant(np.log(1.5))
        box = keras.layers.Conv2D(4, 3, padding="same", kernel_initializer=small, bias_initializer=near, name="sides")
        centre = keras.layers.Conv2D(1, 3, padding="same", kernel_initializer=small, name="centreness")
        for of_class, of_box in zip(towers["class"], towers["box"], strict=True):
            parts = [score(of_class), box(of_box)]
            if self.detector.quality == "centreness":
                parts.append(centre(of_box))
            joined = keras.layers.Concatenate()(parts)
            places = joined.shape[1] * joined.shape[2]
            answers.append(keras.layers.Reshape((places, joined.shape[3]))(joined))
        return keras.layers.Concatenate(axis=1, name="answers")(answers)

    def targets(self, boxes: Floats, labels: Ints) -> NDArray[np.float32]:
        """Return (P, C + 5): which class lies there, its box in shares, centreness.

        A box belongs to the places in its middle on the map for its size; to the nearest place there, where it has
        none in it. A place in the middle of two belongs to the smaller.
        """
        centres, strides = self.places
        found = np.zeros((len(strides), self.problem.classes + 5), dtype=np.float32)
        pixels = boxes * self.problem.image_size
        levels = np.array(self.problem.strides, dtype=np.float64)
        sizes = areas(pixels)
        for one in np.argsort(-sizes, kind="stable"):  # the smallest is written last
            fitting = levels[np.sqrt(sizes[one]) <= LARGEST_STRIDES * levels]
            stride = fitting[0] if len(fitting) else levels[-1]
            left, top, right, bottom = pixels[one]
            middle = np.array([(left + right) / 2, (top + bottom) / 2])
            on_level = strides == stride
            away = np.abs(centres - middle)
            inside = (
                (centres > [left, top]).all(axis=1)
                & (centres < [right, bottom]).all(axis=1)
                & on_level
                & (away < MIDDLE * stride).all(axis=1)
            )
            if not inside.any():
                inside = np.arange(len(strides)) == np.where(on_level, away.max(axis=1), np.inf).argmin()
            found[inside] = 0
            found[inside, labels[one]] = 1
            found[inside, -5:-1] = boxes[one]
            x, y = centres[inside].T
            across, down = np.stack([x - left, right - x]), np.stack([y - top, bottom - y])
            ratio = across.min(0).clip(0) * down.min(0).clip(0) / (across.max(0) * down.max(0)).clip(1e-6)
            found[inside, -1] = np.sqrt(ratio.clip(0, 1))
        return found

    def loss(self, targets: Any, answers: Any) -> Any:
        """Focal loss on classes, GIoU loss on the boxes of places that have one, cross entropy on centreness."""
        total = self._class_loss(targets, answers) + BOX_WEIGHT * self._box_loss(targets, answers)
        if self.detector.quality == "centreness":
            total += self._centreness_loss(targets, answers)
        return total

    def metrics(self) -> dict[str, Any]:
        """Each part of the loss."""
        return {"class_loss": self._class_loss, "box_loss": self._box_loss}

    def _class_loss(self, targets: Any, answers: Any) -> Any:
        import keras

        ops = keras.ops
        wanted, logit = targets[..., : self.problem.classes], answers[..., : self.problem.classes]
        if self.detector.quality == "iou":
            overlap, _ = _overlaps(self._wanted_boxes(targets), self._boxes(answers))
            sought = wanted * ops.stop_gradient(ops.clip(overlap, 0.0, 1.0))[..., None]
            surprise = ops.binary_crossentropy(sought, logit, from_logits=True)
            focal = surprise * ops.square(sought - ops.sigmoid(logit))
        else:
            chance = ops.sigmoid(logit)
            missing = wanted * (1 - chance) + (1 - wanted) * chance
            balance = 0.25 * wanted + 0.75 * (1 - wanted)
            focal = balance * missing**2 * ops.binary_crossentropy(wanted, logit, from_logits=True)
        return ops.sum(focal) / self._positives(targets)

    def _box_loss(self, targets: Any, answers: Any) -> Any:
        """GIoU loss; the nearer the middle, the more a place counts."""
        import keras

        ops = keras.ops
        _, general = _overlaps(self._wanted_boxes(targets), self._boxes(answers))
        weight = ops.max(targets[..., : self.problem.classes], axis=-1) * ops.maximum(targets[..., -1], 0.1)
        return ops.sum(weight * (1 - general)) / ops.maximum(ops.sum(weight), 1e-3)

    def _centreness_loss(self, targets: Any, answers: Any) -> Any:
        import keras

        ops = keras.ops
        surprise = ops.binary_crossentropy(targets[..., -1:], answers[..., -1:], from_logits=True)[..., 0]
        positive = ops.max(targets[..., : self.problem.classes], axis=-1)
        return ops.sum(positive * surprise) / self._positives(targets)

    def _positives(self, targets: Any) -> Any:
        import keras

        return keras.ops.maximum(keras.ops.sum(targets[..., : self.problem.classes]), 1.0)

    def _wanted_boxes(self, targets: Any) -> Any:
        return targets[..., self.problem.classes : self.problem.classes + 4]

    def decoded(self, answers: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Boxes, and scores: probabilities of classes; with centreness the geometric mean of both."""
        import keras

        scores = keras.ops.sigmoid(answers[..., : self.problem.classes])
        if self.detector.quality == "centreness":
            scores = keras.ops.sqrt(scores * keras.ops.sigmoid(answers[..., -1:]))
        return self._boxes(answers), scores

    def _boxes(self, answers: Any) -> Any:
        import keras

        centres, strides = self.places
        classes, size = self.problem.classes, float(self.problem.image_size)
        logs = answers[..., classes : classes + 4]
        away = keras.ops.exp(keras.ops.minimum(logs, FARTHEST)) * (strides[:, None] / size).astype(np.float32)
        middle = (centres / size).astype(np.float32)
        low = keras.ops.subtract(middle, away[..., :2])  # NumPy's own minus can't take a symbolic tensor
        return keras.ops.concatenate([low, away[..., 2:] + middle], axis=-1)
