"""One detector: section `detectors` of detection/params.yaml, and what an architecture of detectors gives.

An architecture is a module in plumbline/models/detectors/ with a function `design(detector, problem) -> Design`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from plumbline.common.errors import UserError
from plumbline.common.params import Section
from plumbline.common.records import Record
from plumbline.tasks.scores import Floats, Ints

if TYPE_CHECKING:
    import keras

DETECTORS = Path(__file__).with_name("detectors")


class Suppression(Section):
    """What becomes of boxes around one object: `hard` drops all but the best, `soft` lowers the others' scores.

    `overlap` is the IoU from which `hard` drops, `sigma` how much `soft` lowers. Boxes below `least_score` are dropped
    first, and at most `most` of a photograph are kept.
    """

    kind: Literal["hard", "soft"] = "hard"
    overlap: Annotated[float, Field(gt=0, lt=1)] = 0.5
    sigma: Annotated[float, Field(gt=0)] = 0.5
    least_score: Annotated[float, Field(ge=0, lt=1)] = 0.01
    most: Annotated[int, Field(ge=1)] = 100


class Detector(Section):
    """One entry of `detectors`.

    `maps` is an entry of section `maps`. For `frozen_mobilenet`: `channels` of its pyramid, `tower` convolutions in
    each head, `quality`: what a score stands for besides the class (`iou` the overlap it expects, `centreness` FCOS's
    own branch, or `none`). For those from scratch: `width` multiplies filters, `anchors` by k-means. `frozen_epochs`
    train what is new alone, then `epochs` train the network's own layers too, at `tuned_rate` times the learning rate.
    Of the training examples a share `mosaic` is pieced of four; `rare` draws photographs with a rare class more often
    (by the root of how much rarer it is). `average` is the momentum of the average of weights over steps that is kept
    in the end, 0 for the last weights.
    """

    architecture: str
    maps: str
    channels: Annotated[int, Field(ge=8, le=512)] = 64
    tower: Annotated[int, Field(ge=0, le=4)] = 2
    quality: Literal["iou", "centreness", "none"] = "iou"
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    anchors: Annotated[int, Field(ge=1, le=12)] = 3
    frozen_epochs: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(ge=0)] = 20
    batch_size: Annotated[int, Field(ge=1, le=256)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    tuned_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 1e-3
    mosaic: Annotated[float, Field(ge=0, le=1)] = 0.3
    rare: bool = True
    average: Annotated[float, Field(ge=0, lt=1)] = 0.98
    suppression: Suppression = Suppression()

    @field_validator("architecture")
    @classmethod
    def _is_an_architecture(cls, name: str) -> str:
        if name not in detector_names():
            raise ValueError(f"there is no detector '{name}': use one of {', '.join(detector_names())}")
        return name

    @model_validator(mode="after")
    def _is_trained(self) -> Detector:
        if not self.frozen_epochs + self.epochs:
            raise ValueError("'epochs' and 'frozen_epochs' are both 0: nothing would be trained")
        return self


class DetectorRecord(Record):
    """detector.json: what was trained, on what, and the settings that build it again."""

    detector: str
    architecture: str
    maps: str
    image_size: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    classes: tuple[str, ...]
    settings: dict[str, Any]
    anchors: tuple[tuple[float, float], ...]
    seed: int
    photographs: int
    boxes: int
    parameters: int
    trainable_parameters: int
    epochs_run: int
    weights: str

    def problem(self) -> Problem:
        """What the detector was designed for."""
        anchors = np.array(self.anchors, dtype=np.float64).reshape(-1, 2)
        return Problem(self.shape, self.image_size, len(self.classes), self.strides, anchors)


def detector_names() -> list[str]:
    """Return what `architecture` may name: the modules of `plumbline/models/detectors/`."""
    return sorted(path.stem for path in DETECTORS.glob("*.py") if not path.stem.startswith("_"))


@dataclass(frozen=True)
class Problem:
    """What a detector is designed for.

    Attributes:
        shape: of one view's maps (G, G, C).
        image_size: side of the canvas in pixels.
        classes: how many.
        strides: of the maps that the network's upper part makes.
        anchors: widths and heights (A, 2) that boxes come in, in shares of the canvas (see tasks.boxes.anchors).
    """

    shape: tuple[int, ...]
    image_size: int
    classes: int
    strides: tuple[int, ...]
    anchors: Floats


def needs_maps(detector: Detector, problem: Problem) -> None:
    """Raise UserError where `maps` keeps pixels, on which no network stands."""
    if problem.shape[0] == problem.image_size:
        raise UserError(
            f"params.yaml: {detector.architecture} needs the maps of a network: maps.{detector.maps} keeps pixels."
        )


def needs_pixels(detector: Detector, problem: Problem) -> None:
    """Raise UserError where `maps` keeps a network's maps in place of pixels."""
    if problem.shape[0] != problem.image_size:
        raise UserError(
            f"params.yaml: {detector.architecture} learns from pixels: maps.{detector.maps} keeps a network's maps."
        )


class Design(Protocol):
    """A detector of one architecture: what is trained, what it learns from, and what its answers mean.

    P is the number of places it answers for, C the number of classes; boxes are (left, top, right, bottom) in shares of
    the canvas.
    """

    def network(self, upper: keras.Model | None) -> keras.Model:
        """Build what is trained, from one view's maps (N, G, G, C) to answers (N, P, K)."""

    def targets(self, boxes: Floats, labels: Ints) -> NDArray[np.float32]:
        """Return what the places (P, T) have to answer for a canvas with boxes (M, 4) and labels (M,)."""

    def loss(self, targets: Any, answers: Any) -> Any:
        """Return the loss, a scalar tensor, of answers (N, P, K) to targets (N, P, T)."""

    def metrics(self) -> dict[str, Callable[[Any, Any], Any]]:
        """Return what the learning curves show besides the loss, by name: functions of targets and answers."""

    def decoded(self, answers: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Return boxes (N, P, 4) and scores (N, P, C) in [0, 1] as tensors made of the answers (N, P, K)."""


def design(detector: Detector, problem: Problem) -> Design:
    """Return the design of the detector's architecture."""
    module = importlib.import_module(f"plumbline.models.detectors.{detector.architecture}")
    make: Callable[[Detector, Problem], Design] = module.design
    return make(detector, problem)
