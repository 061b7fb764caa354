"""A student's maps are drawn to its teacher's: hints (FitNets, Romero et al. 2015).

Soft targets say what a teacher answers, hints what it sees on the way there. A 1x1 convolution, which is dropped once
training ends, turns the student's map of `stride` into so many channels as the teacher's has; the loss gains weight x
mean over places and channels of (that - the teacher's map)^2. The teacher's maps are divided by their root mean square
over the training pictures, so that 1 is the loss of saying nothing, whatever network teaches. The paper trains these
first, then the answers; here both are learnt at once.

The teacher's maps are computed when the student is trained, from what is stored of the pictures for the teacher:
by its network up to them where it reads pixels, or they are the stored features themselves. They are of the pictures as
they are: of one that the student is shown mirrored the map is mirrored, and a brighter one keeps its map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError, first_line
from plumbline.models.batches import Batches
from plumbline.models.candidates import Candidate
from plumbline.models.distillation import Teaching
from plumbline.models.feature_maps import feature_maps, maps_offered
from plumbline.models.features import Features
from plumbline.models.trainable import reads_pixels
from plumbline.models.watch import ANSWERS

if TYPE_CHECKING:
    import keras

Maps = NDArray[Any]
Grid = tuple[int, int]
REGRESSOR = "hint"


@dataclass(frozen=True)
class Teacher:
    """Who teaches: the settings, the trained part of its network, and what is stored of the pictures for it."""

    candidate: Candidate
    network: keras.Model
    features: Features


@dataclass(frozen=True)
class Hinting:
    """The teacher's `maps` (N, h, w, c) of the pictures of the splits, in units of their root mean square; how much
    they count beside the answers, and which map of which architecture is drawn to them."""

    maps: NDArray[np.float16]
    weight: float
    stride: int
    architecture: str

    @classmethod
    def of(cls, maps: Maps, train: NDArray[np.bool_], candidate: Candidate, name: str) -> Hinting:
        """Scale a teacher's maps (N, h, w, c) by those of the training pictures, `train` (N,)."""
        assert candidate.hints is not None
        size = float(np.sqrt(np.mean(np.square(maps[train], dtype=np.float64)))) if train.any() else 0.0
        if not (np.isfinite(size) and size > 0):
            raise refusal(name, f"the maps of {candidate.teacher} are {'empty' if size == 0 else 'no numbers'}")
        hints = candidate.hints
        return cls((maps / size).astype(np.float16), hints.weight, hints.stride, candidate.architecture)

    def model(self, network: keras.Model) -> keras.Model:
        """Return `network` with hints behind its answers: (N, units + h w c). It shares the weights of `network`."""
        import keras

        seen = feature_maps(network, self.architecture, [self.stride])[self.stride]
        # By name: a layer that Keras numbers would move the numbers of those that are built after it.
        regressor = keras.layers.Conv2D(self.maps.shape[-1], 1, name=REGRESSOR, dtype="float32")
        flat = keras.layers.Flatten(name=f"{REGRESSOR}_flat", dtype="float32")(regressor(seen))
        both = keras.layers.Concatenate(name=f"{REGRESSOR}_beside", dtype="float32")([network.outputs[0], flat])
        return keras.Model(network.inputs[0], both, name="hinted")

    def losses(self, teaching: Teaching, units: int) -> tuple[Any, list[keras.metrics.Metric]]:
        """Return the loss and the metrics of `model`, whose network has `units` outputs: `accuracy`, and the loss of
        the answers alone, which says whether these are learnt.

        Targets are the teacher's (see `Teaching.targets`) with the maps behind them; where these are missing, as for
        validation, the answers alone count.
        """
        import keras

        answers, accuracy = teaching.losses(units)
        own = teaching.width

        def loss(targets: Any, output: Any) -> Any:
            said = answers(targets, output)
            if targets.shape[-1] == own:
                return said
            apart = keras.ops.mean(keras.ops.square(output[:, units:] - targets[:, own:]), axis=-1)
            return said + self.weight * apart

        return loss, [accuracy, keras.metrics.MeanMetricWrapper(answers, name=ANSWERS)]


def refusal(name: str, why: str) -> UserError:
    """The error where student `name` can't be given hints."""
    return UserError(f"params.yaml: students.{name} can't be given hints: {why}: take `distillation.hints` out.")


def teacher_maps(name: str, student: Candidate, features: Features, teacher: Teacher, paths: list[str]) -> Maps:
    """Return the teacher's maps of pictures `paths`, on the grid of the student's map: (N, h, w, c) float32.

    Of a teacher that reads pixels they are the coarsest of its maps that have no fewer places than the student's; more
    are averaged. Raises UserError naming student `name` where the two can't be compared.
    """
    if features.backbone.fit != teacher.features.backbone.fit:
        raise refusal(
            name,
            f"its pictures are brought to size by {features.backbone.fit}, those of {student.teacher} by "
            f"{teacher.features.backbone.fit}, so a place is not the same place",
        )
    grid = _grid(name, student, features)
    if reads_pixels(teacher.features.backbone):
        return _computed(name, student, teacher, paths, grid)
    if len(teacher.features.shape) != 3:
        raise refusal(name, f"backbones.{teacher.candidate.backbone} of {student.teacher} is pooled and keeps no maps")
    _check(name, student, teacher.features.shape, grid)
    rows = teacher.features.rows_of(paths)
    batches = Batches(teacher.features.values, rows, np.zeros(len(rows)), teacher.candidate.batch_size)
    return np.concatenate([_on(grid, stored) for stored, _ in batches.dataset()])


def _grid(name: str, student: Candidate, features: Features) -> Grid:
    """The places of the student's map."""
    assert student.hints is not None
    stride = student.hints.stride
    if not reads_pixels(features.backbone):
        raise refusal(name, f"backbones.{student.backbone} has a network of its own, whose maps are not learnt")
    try:
        offered = maps_offered(student.architecture)
    except UserError as error:
        raise refusal(name, first_line(error)) from None
    height, width = features.shape[:2]
    if stride not in offered or height % stride or width % stride:
        fitting = [one for one in offered if not height % one and not width % one]
        listed = " or ".join(map(str, fitting)) or "none"
        raise refusal(
            name, f"{student.architecture} has no maps of stride {stride} of {width} x {height} pixels (set {listed})"
        )
    return height // stride, width // stride


def _computed(name: str, student: Candidate, teacher: Teacher, paths: list[str], grid: Grid) -> Maps:
    """The maps of a network that reads pixels."""
    import keras

    try:
        maps = feature_maps(teacher.network, teacher.candidate.architecture)
    except UserError as error:
        raise refusal(name, first_line(error)) from None
    enough = [map_ for _, map_ in sorted(maps.items()) if map_.shape[1] >= grid[0] and map_.shape[2] >= grid[1]]
    if not enough:
        _check(name, student, next(map_ for _, map_ in sorted(maps.items())).shape[1:], grid)
    seeing = keras.Model(teacher.network.inputs[0], enough[-1], name="seeing")
    rows = teacher.features.rows_of(paths)
    batches = Batches(teacher.features.values, rows, np.zeros(len(rows)), teacher.candidate.batch_size)

    def each() -> Iterator[Maps]:
        for pixels, _ in batches.dataset():
            yield _on(grid, seeing(pixels, training=False))

    return np.concatenate(list(each()))


def _check(name: str, student: Candidate, shape: tuple[int, ...], grid: Grid) -> None:
    if shape[0] < grid[0] or shape[1] < grid[1]:
        raise refusal(
            name,
            f"the maps of {student.teacher} have {shape[0]} x {shape[1]} places, too few for the student's "
            f"{grid[0]} x {grid[1]} (a larger `stride` has fewer)",
        )


def _on(grid: Grid, maps: Any) -> Maps:
    """Maps (n, H, W, c) averaged over the places of a grid: (n, h, w, c) float32."""
    import tensorflow as tf

    maps = tf.cast(maps, tf.float32)
    same = tuple(maps.shape[1:3]) == grid
    return np.asarray(maps if same else tf.image.resize(maps, grid, method="area"))
