"""Train a detector on photographs' maps: views and mosaics drawn from the seed, the pretrained layers slowly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.params import Section, parse_section
from plumbline.common.quiet import verbose
from plumbline.common.records import read_record
from plumbline.models.detecting import BOXES, SCORES, SIDES, Found, detections_table, from_maps, reported
from plumbline.models.detector import Design, Detector, DetectorRecord, Problem, design
from plumbline.models.fitting import make_deterministic
from plumbline.models.networks import load_stored
from plumbline.models.scene_maps import MapsRecord, Parts, StoredMaps, cut_at
from plumbline.models.scene_views import Example, mosaic, to_canvas, visible
from plumbline.tasks.boxes import anchors
from plumbline.tasks.scores import Floats, Ints

if TYPE_CHECKING:
    import keras
    import pandas as pd

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises to its height."""


@dataclass(frozen=True)
class Scenes:
    """N photographs: where each view lies on its canvas (N, 1 + views, 4), boxes and labels of each photograph.

    Boxes (M, 4) are in shares of the photograph, labels (M,) numbers of classes; `size` is the canvas' side in pixels.
    Photograph i has the maps (1 + views, G, G, C) in row `rows[i]` of `maps`, which may be mapped from the disk.
    """

    maps: NDArray[Any]
    affines: Floats
    boxes: Sequence[Floats]
    labels: Sequence[Ints]
    size: int
    rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def views(self) -> int:
        """Drawn views of each photograph, beside the letterbox."""
        return int(self.maps.shape[1] - 1)

    def example(self, row: int, view: int) -> Example:
        """One view of a photograph, with the boxes that can be seen in it."""
        boxes = to_canvas(self.boxes[row], self.affines[row, view])
        seen, labels = visible(boxes, self.labels[row], (0, 0, 1, 1), self.size)
        return Example(np.asarray(self.maps[self.rows[row], view]), seen, labels)

    def some(self, which: Ints) -> Scenes:
        """The photographs in rows `which`."""
        boxes, labels = [self.boxes[n] for n in which], [self.labels[n] for n in which]
        return Scenes(self.maps, self.affines[which], boxes, labels, self.size, self.rows[which])

    def chances(self, classes: int, rare: bool) -> Floats:
        """How often each photograph is drawn (N,), summing to 1.

        With `rare` as the root of how much rarer its rarest class is, by photographs, than the most frequent one.
        """
        weights = np.ones(len(self))
        if rare:
            has = np.array([[(one == c).any() for c in range(classes)] for one in self.labels], dtype=bool)
            number = np.maximum(has.sum(axis=0), 1)
            factor = np.sqrt(number.max() / number)
            weights = np.where(has, factor, 1.0).max(axis=1)
        return np.asarray(weights / weights.sum())


class DetectorParams(Section):
    """Section `train` of detection/params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class TrainedDetector(NamedTuple):
    """The result of training: the network, a row per epoch, what it reports of every photograph, detector.json.

    `parts` is the network that made the maps.
    """

    network: keras.Model
    history: pd.DataFrame
    detections: pd.DataFrame
    record: DetectorRecord
    design: Design
    parts: Parts


def scenes_of(maps: StoredMaps, paths: Sequence[str], boxes: pd.DataFrame, classes: Sequence[str]) -> Scenes:
    """Return the photographs `paths` with their `boxes` (path, label, left, top, right, bottom)."""
    numbers = {label: number for number, label in enumerate(classes)}
    of = dict(list(boxes.groupby("path")))
    none = boxes.iloc[:0]
    rows = maps.rows_of(list(paths))
    tables = [of.get(path, none) for path in paths]
    return Scenes(
        maps.values,
        maps.affines[rows],
        [table[SIDES].to_numpy(np.float64) for table in tables],
        [table["label"].map(numbers).to_numpy(np.int64) for table in tables],
        maps.record.image_size,
        rows,
    )


def train(
    name: str, detector: Detector, maps: StoredMaps, splits: pd.DataFrame, boxes: pd.DataFrame, seed: int
) -> TrainedDetector:
    """Train detector `name` on the training photographs of `splits` (path, split, ...), and run it on all of them.

    `boxes` are (path, label, left, top, right, bottom) in shares of the photographs. Classes are those of all boxes,
    in alphabetical order. UserError where there is no box to learn from.
    """
    classes = sorted(boxes["label"].unique())
    scenes = scenes_of(maps, list(splits["path"]), boxes, classes)
    sides = {
        side: scenes.some(np.flatnonzero((splits["split"] == side).to_numpy())) for side in ("train", "validation")
    }
    learnt = sides["train"]
    if not sum(map(len, learnt.boxes)):
        raise UserError(f"{artefacts.SPLITS}: no training photograph has a box: there is nothing to learn from.")
    make_deterministic(seed)
    letterboxed = np.concatenate([learnt.example(row, 0).boxes for row in range(len(learnt))])
    problem = Problem(
        maps.values.shape[2:],
        maps.record.image_size,
        len(classes),
        maps.record.strides,
        anchors(letterboxed[:, 2:] - letterboxed[:, :2], detector.anchors, seed),
    )
    plan = design(detector, problem)
    parts = cut_at(maps.record, None if maps.record.reads_pixels else maps.folder / artefacts.BACKBONE_WEIGHTS)
    network = plan.network(parts.upper)
    history = fit(network, parts.upper, plan, detector, learnt, sides["validation"], len(classes), seed)
    if not np.isfinite(history["loss"].iloc[-1]):
        raise UserError(f"params.yaml: detectors.{name} diverged: its loss is no number any more; lower learning_rate.")
    found = detect(network, plan, detector, scenes)
    table = detections_table(list(splits["path"]), found, scenes.affines[:, 0], classes)
    table.insert(1, "split", table["path"].map(dict(zip(splits["path"], splits["split"], strict=True))))
    lower = 0 if parts.lower is None else parts.lower.count_params()
    record = DetectorRecord(
        detector=name,
        architecture=detector.architecture,
        maps=detector.maps,
        image_size=problem.image_size,
        shape=problem.shape,
        strides=problem.strides,
        classes=tuple(classes),
        settings=detector.model_dump(mode="json"),
        anchors=tuple((float(wide), float(high)) for wide, high in problem.anchors),
        seed=seed,
        photographs=len(learnt),
        boxes=sum(map(len, learnt.boxes)),
        parameters=lower + network.count_params(),
        trainable_parameters=sum(int(np.prod(one.shape)) for one in network.trainable_variables),
        epochs_run=len(history),
        weights=maps.record.weights.origin if maps.record.kept else "from scratch",
    )
    return TrainedDetector(network, history, table, record, plan, parts)


def load_detector(folder: Path, maps: Path) -> tuple[keras.Model, Design, DetectorRecord, Parts]:
    """Load a trained detector: its network from maps on, its design and record, and the network that makes maps."""
    record = read_record(folder / artefacts.DETECTOR, DetectorRecord)
    described = read_record(maps / artefacts.MAPS_RECORD, MapsRecord, f"maps@{record.maps}")
    detector = parse_section("settings", record.settings, Detector, folder / artefacts.DETECTOR)
    plan = design(detector, record.problem())
    parts = cut_at(described, None if described.reads_pixels else maps / artefacts.BACKBONE_WEIGHTS)
    network = plan.network(parts.upper)
    load_stored(network, folder / artefacts.HEAD_WEIGHTS, f"detector@{record.detector}")
    return network, plan, record, parts


def examples(scenes: Scenes, detector: Detector, classes: int, seed: int, epoch: int) -> Iterator[Example]:
    """Yield the training examples of an epoch, as many as there are photographs, drawn from `seed` and `epoch`."""
    random = np.random.default_rng([seed, epoch])
    chances = scenes.chances(classes, detector.rare)

    def draw() -> Example:
        return scenes.example(int(random.choice(len(scenes), p=chances)), int(random.integers(0, scenes.views + 1)))

    order = random.permutation(len(scenes)) if not detector.rare else random.choice(len(scenes), len(scenes), p=chances)
    for row in order:
        one = scenes.example(int(row), int(random.integers(0, scenes.views + 1)))
        if random.random() < detector.mosaic:
            one = mosaic([one, draw(), draw(), draw()], scenes.size, random)
        yield one


def fit(
    network: keras.Model,
    upper: keras.Model | None,
    design: Design,
    detector: Detector,
    train: Scenes,
    validation: Scenes,
    classes: int,
    seed: int,
) -> pd.DataFrame:
    """Train `network`; return a row per epoch: epoch, loss and the metrics, the same of validation with `val_`.

    First `frozen_epochs` without the layers of `upper`, at a steady learning rate, then `epochs` with all, along half
    a cosine. What is kept are averages of the weights over the steps.
    """
    import keras
    import pandas as pd

    steps = max(1, len(train) // detector.batch_size)
    rows: list[dict[str, float]] = []
    own = [] if upper is None else [layer for layer in upper.layers if layer.weights]
    for epochs, tuned in ((detector.frozen_epochs, False), (detector.epochs, detector.tuned_rate > 0)):
        if not epochs:
            continue
        for layer in own:
            # Their normalisation keeps the statistics of many pictures; a batch of few would spoil them.
            layer.trainable = tuned and not isinstance(layer, keras.layers.BatchNormalization)
        slowly = {variable.path for layer in own for variable in layer.trainable_variables}
        schedule = _schedule(detector, steps * epochs, falls=epochs == detector.epochs)
        network.compile(
            optimizer=_optimizer(schedule, detector, slowly),
            loss=design.loss,
            metrics=[_named(name, made) for name, made in design.metrics().items()],
            jit_compile=False,  # see fitting.fit
        )
        history = network.fit(
            _batches(train, design, detector, classes, seed, len(rows), epochs),
            steps_per_epoch=steps,
            validation_data=_plain(validation, design, detector.batch_size) if len(validation) else None,
            validation_steps=-(-len(validation) // detector.batch_size) or None,
            epochs=epochs,
            shuffle=False,
            verbose=2 if verbose() else 0,
        ).history
        for values in zip(*history.values(), strict=True):
            rows.append({"epoch": len(rows) + 1, **dict(zip(history, values, strict=True))})
    table = pd.DataFrame(rows)
    return table


def _named(name: str, made: Callable[[Any, Any], Any]) -> Any:
    """A function as a metric of that name: its mean over batches, of a scalar each."""
    import keras

    return keras.metrics.MeanMetricWrapper(made, name=name)


def _schedule(detector: Detector, steps: int, falls: bool) -> Any:
    import keras

    rate, warm = detector.learning_rate, max(1, round(WARM_UP * steps))
    return keras.optimizers.schedules.CosineDecay(
        rate / 10, max(1, steps - warm), alpha=0.01 if falls else 1.0, warmup_target=rate, warmup_steps=warm
    )


def _optimizer(schedule: Any, detector: Detector, slowly: set[str]) -> Any:
    """AdamW that moves the variables named in `slowly` at `tuned_rate` times the learning rate."""
    import keras

    class TwoRates(keras.optimizers.AdamW):  # type: ignore[misc]
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            # TensorFlow's own variable comes here, whose name is not Keras' path.
            path = self._trainable_variables[self._get_variable_index(variable)].path
            factor = detector.tuned_rate if path in slowly else 1.0
            super().update_step(gradient, variable, learning_rate * factor)

    averaged = {"use_ema": True, "ema_momentum": detector.average} if detector.average else {}
    return TwoRates(schedule, weight_decay=detector.weight_decay, clipnorm=10.0, **averaged)


def _batches(
    scenes: Scenes, design: Design, detector: Detector, classes: int, seed: int, first_epoch: int, epochs: int
) -> Any:
    def made() -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
        for epoch in range(first_epoch, first_epoch + epochs):
            drawn = examples_in_batches(scenes, design, detector, classes, seed, epoch)
            yield from islice(drawn, max(1, len(scenes) // detector.batch_size))

    return _dataset(made, scenes, design)


def examples_in_batches(
    scenes: Scenes, design: Design, detector: Detector, classes: int, seed: int, epoch: int
) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
    """Yield maps (n, G, G, C) and targets (n, P, T) of an epoch."""
    waiting: list[Example] = []
    for one in examples(scenes, detector, classes, seed, epoch):
        waiting.append(one)
        if len(waiting) == min(detector.batch_size, len(scenes)):
            yield _stacked(waiting, design)
            waiting = []


def _plain(scenes: Scenes, design: Design, batch_size: int) -> Any:
    def made() -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
        for start in range(0, len(scenes), batch_size):
            rows = range(start, min(start + batch_size, len(scenes)))
            yield _stacked([scenes.example(row, 0) for row in rows], design)

    return _dataset(made, scenes, design).repeat()


def _stacked(some: Sequence[Example], design: Design) -> tuple[NDArray[Any], NDArray[np.float32]]:
    return np.stack([one.maps for one in some]), np.stack([design.targets(one.boxes, one.labels) for one in some])


def _dataset(made: Any, scenes: Scenes, design: Design) -> Any:
    import tensorflow as tf

    targets = design.targets(np.zeros((0, 4)), np.zeros(0, dtype=np.int64))
    signature = (
        tf.TensorSpec((None, *scenes.maps.shape[2:]), scenes.maps.dtype),
        tf.TensorSpec((None, *targets.shape), tf.float32),
    )
    data = tf.data.Dataset.from_generator(made, output_signature=signature)
    return data.map(lambda maps, wanted: (tf.cast(maps, tf.float32), wanted)).prefetch(2)


def detect(network: keras.Model, design: Design, detector: Detector, scenes: Scenes) -> list[Found]:
    """Return what the detector reports of each photograph, as it lies in the letterbox."""
    model = from_maps(network, design)
    found = []
    for start in range(0, len(scenes), detector.batch_size):
        rows = scenes.rows[start : start + detector.batch_size]
        batch = np.stack([scenes.maps[row, 0] for row in rows]).astype(np.float32)
        answers = model.predict_on_batch(batch)
        found += [
            reported(boxes, scores, detector.suppression)
            for boxes, scores in zip(np.asarray(answers[BOXES]), np.asarray(answers[SCORES]), strict=True)
        ]
    return found
