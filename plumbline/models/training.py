"""Train one candidate on its backbone's features and predict every picture with it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.params import Section
from plumbline.models.batches import Batches
from plumbline.models.candidates import TRIPLET, Candidate, build_network
from plumbline.models.curriculum import fit_in_order
from plumbline.models.distillation import Teaching
from plumbline.models.features import Features
from plumbline.models.fitting import (
    Fitted,
    Lesson,
    Targets,
    balanced_weights,
    chance_loss,
    fit,
    make_deterministic,
    predict,
    predictions_of,
    targets_of,
)
from plumbline.models.hints import Hinting, Maps
from plumbline.models.precision import BFLOAT16_UNITS, precision, processor_flags
from plumbline.models.records import NOT_ELIGIBLE, BackboneRecord, ModelRecord, StartRecord, Status
from plumbline.models.simsiam import start_without_labels
from plumbline.models.trainable import build_trainable, chosen_parts, cut_networks, reads_pixels
from plumbline.models.triplets import fit_triplets
from plumbline.models.weights import describe_origin

if TYPE_CHECKING:
    import keras
    import pandas as pd

FASTER_IN_BFLOAT16 = frozenset({"simple_cnn", "alexnet", "custom_cnn", "compact_cnn"})
"""Measured with avx512_bf16 (`python -m benchmarks.precision`): 0.48, 0.90, 0.78, 0.55 of float32's time a step; the
others, of many small layers, gain nothing."""
STARTS = 4
"""Initialisations that are tried, at most, where a network gives every picture the same answer."""


NEVER_BEGAN = (
    "start {start} gave every picture the same answer after {epochs} epochs (its relus are dead, or nothing tells the "
    "pictures apart)"
)


class TrainParams(Section):
    """Section `train`: what all candidates share, and what the race between them (gate.selection) may take.

    `folds` of the training pictures may be asked about, for so many `minutes` of training in all.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    folds: Annotated[int, Field(ge=2)] = 5
    minutes: Annotated[float, Field(ge=0)] = 2


class Trained(NamedTuple):
    """The result of training: the network, its learning curve (a row per epoch), predictions for all pictures (a
    p_CLASS column per class) and model.json."""

    network: keras.Model
    history: pd.DataFrame
    predictions: pd.DataFrame
    model: ModelRecord


@dataclass(frozen=True)
class TrainingSet:
    """The N pictures of a table of splits (path, id, label, group, split): their features' `rows` (N,) and targets."""

    splits: pd.DataFrame
    features: Features
    rows: NDArray[np.intp]
    targets: Targets
    teaching: Teaching | None = None
    hinting: Hinting | None = None

    @classmethod
    def of(cls, splits: pd.DataFrame, features: Features) -> TrainingSet:
        """Find the pictures among the features; UserError names one that has none."""
        return cls(splits, features, features.rows_of(list(splits["path"])), targets_of(splits["label"]))

    def inside(self, split: str) -> NDArray[np.bool_]:
        """Which pictures are in `split` (N,)."""
        return (self.splits["split"] == split).to_numpy()

    def with_labels(self, share: float, seed: int) -> TrainingSet:
        """The same with only so many of each class's training groups (one at least) left in train.

        A smaller share is part of a larger one. Validation keeps its labels.
        """
        if share >= 1:
            return self
        train = self.splits[self.splits["split"] == "train"]
        kept: set[object] = set()
        for _, of_class in train.groupby("label"):
            groups = np.sort(of_class["group"].unique())
            order = np.random.default_rng(seed).permutation(len(groups))
            kept |= set(groups[order[: max(1, round(share * len(groups)))]])
        left = (self.splits["split"] == "train") & ~self.splits["group"].isin(kept)
        return replace(self, splits=self.splits.assign(split=self.splits["split"].mask(left, "unlabelled")))

    def taught(self, name: str, candidate: Candidate, said: pd.DataFrame | None) -> TrainingSet:
        """The same with what candidate `name`'s teacher `said` (path, p_CLASS); UserError where that is missing."""
        if candidate.teacher is None:
            return self
        if said is None:
            raise UserError(f"params.yaml: {name} has a teacher, {candidate.teacher}: put it under `students`.")
        paths, classes = list(self.splits["path"]), self.targets.classes
        teaching = Teaching.of(said, paths, classes, candidate.distillation, self.targets.task, name)
        return replace(self, teaching=teaching)

    def hinted(self, name: str, candidate: Candidate, maps: Maps | None) -> TrainingSet:
        """The same with its teacher's `maps` (N, h, w, c) of the pictures, where the candidate learns from hints."""
        if candidate.hints is None:
            return self
        if maps is None:
            raise UserError(
                f"params.yaml: {name} has hints, but nobody gave its teacher's maps: put it under `students`."
            )
        return replace(self, hinting=Hinting.of(maps, self.inside("train"), candidate, name))

    def lesson(self, candidate: Candidate, seed: int) -> Lesson:
        """The training pictures, augmented as the candidate says, and the validation pictures as they are."""
        train = self.inside("train")
        weights = balanced_weights(self.targets, train)[train] if candidate.class_weights == "balanced" else None
        varied = Batches(
            self.features.values,
            self.rows[train],
            self._answers(train),
            candidate.batch_size,
            views=self.features.views if candidate.augmented else 0,
            seed=seed,
            weights=weights,
            mirror=candidate.mirror,
            brightness=candidate.brightness,
            maps=None if self.hinting is None else self.hinting.maps[train],
        )
        validation = self.plain("validation", candidate.batch_size)
        if self.teaching is not None:
            validation.targets = self._answers(self.inside("validation"), 0.0)
            chance = self.teaching.chance_loss(self.targets.truth, train)
            return Lesson(self.targets.task, varied, validation, chance, self.teaching, self.hinting)
        return Lesson(self.targets.task, varied, validation, chance_loss(self.targets, train, weights))

    def _answers(self, inside: NDArray[np.bool_], share: float | None = None) -> NDArray[Any]:
        """What is to be learnt of some pictures (N,): labels, and what a teacher says with its share of the loss."""
        if self.teaching is None:
            return np.asarray(self.targets.values[inside])
        return self.teaching.targets(self.targets.truth, inside, share)

    def plain_lesson(self, candidate: Candidate, seed: int) -> Lesson:
        """The training pictures as they are, shuffled, and the validation pictures."""
        size = candidate.batch_size
        chance = chance_loss(self.targets, self.inside("train"))
        return Lesson(self.targets.task, self.plain("train", size, seed), self.plain("validation", size), chance)

    def plain(self, split: str, batch_size: int, seed: int | None = None) -> Batches:
        """The pictures of `split` as they are, shuffled anew in each epoch where there is a `seed`."""
        inside = self.inside(split)
        return Batches(self.features.values, self.rows[inside], self.targets.values[inside], batch_size, seed=seed)

    def predictions(self, network: keras.Model, batch_size: int) -> pd.DataFrame:
        """Predictions for every picture: path, id, label, split, group and a p_CLASS column per class."""
        p = predict(network, self.features.values, self.rows, batch_size, self.targets.task)
        return predictions_of(self.splits, self.targets, p)


def train(
    name: str,
    candidate: Candidate,
    splits: pd.DataFrame,
    features: Features,
    seed: int,
    told: bool = True,
    said: pd.DataFrame | None = None,
    maps: Maps | None = None,
) -> Trained:
    """Train candidate `name` on the training pictures of `splits` (path, id, label, group, split).

    The test pictures are only predicted; training does not use them. `told`: a line on stderr says how it went. `said`
    is what the candidate's teacher says of the pictures (path, p_CLASS), `maps` what it sees in them where the
    candidate has hints: (N, h, w, c) in the order of `splits`, from `teacher_maps`.
    """
    if candidate.augmented and not features.views and not features.backbone.views_left_out:
        raise UserError(
            f"params.yaml: candidates.{name}.augmented needs augmented views: set backbones.{candidate.backbone}.views."
        )
    data = TrainingSet.of(splits, features)
    taught = data.taught(name, candidate, said).hinted(name, candidate, maps).with_labels(candidate.labels, seed)
    build = builder(candidate, data)
    policy = training_precision(candidate, features)
    began = time.monotonic()
    for start in range(STARTS):
        make_deterministic(seed_of_start(seed, start))
        with precision(policy):
            network = build()
        before = None
        if candidate.start is not None:
            _needs_pixels(candidate, data, f"candidates.{name}.start")
            before = start_without_labels(network, candidate, data, seed, name)
        fitted = learn(network, candidate, taught, seed, name)
        if fitted.status != "constant":
            break
        print(f"{name}: {NEVER_BEGAN.format(start=start + 1, epochs=len(fitted.history))}", file=sys.stderr)
    if policy != "float32":  # the model that serves runs in float32, so that is the one whose figures count
        weights, network = network.get_weights(), build()
        network.set_weights(weights)
    predictions = data.predictions(network, candidate.batch_size)
    model = model_record(name, candidate, data, network, fitted, seed)
    model = model.model_copy(update=_particulars(candidate, features, fitted.status, start + 1, before))
    if told:
        print(summary(model, fitted, time.monotonic() - began), file=sys.stderr)
    return Trained(network, fitted.history, predictions, model)


def _particulars(
    candidate: Candidate, features: Features, status: Status, starts: int, start: StartRecord | None
) -> dict[str, Any]:
    """What model.json says only where there is something to say."""
    left_out = candidate.augmented and features.backbone.views_left_out > 0
    said = {"status": status, "starts": starts, "without_views": left_out, "fit": features.backbone.fit, "start": start}
    return {key: value for key, value in said.items() if value != ModelRecord.model_fields[key].default}


def seed_of_start(seed: int, start: int) -> int:
    """The seed of initialisation number `start` (0, 1, ...)."""
    return (seed + start * 1_000_003) % 2**32


def summary(model: ModelRecord, fitted: Fitted, seconds: float) -> str:
    """One line for the log: how a training went."""
    ended = f"{model.candidate}: {model.epochs_run} epochs in {seconds:.0f} s"
    if model.best_epoch is None:
        return f"{ended}: {NOT_ELIGIBLE[fitted.status]}"
    best = fitted.history.set_index("epoch").loc[model.best_epoch]
    figures = f"best {model.best_epoch}: validation loss {best['val_loss']:.3f}, accuracy {best['val_accuracy']:.3f}"
    why = f"; {NOT_ELIGIBLE[fitted.status]}" if fitted.status in NOT_ELIGIBLE else ""
    return f"{ended}, {figures}{why}"


def builder(candidate: Candidate, data: TrainingSet) -> Callable[[], keras.Model]:
    """Return a function that builds the candidate's network with new weights, except those of a backbone."""
    features, targets = data.features, data.targets
    tuned = features.backbone.freeze != "head"
    networks = cut_networks(features.backbone, str(features.folder / artefacts.BACKBONE_WEIGHTS)) if tuned else None
    return partial(build_trainable, candidate, features.backbone, networks, len(targets.classes), targets.task)


def learn(network: keras.Model, candidate: Candidate, data: TrainingSet, seed: int, name: str) -> Fitted:
    """Train `network` the candidate's way: from triplets, in an order, or on everything at once."""
    if candidate.architecture == TRIPLET:
        if reads_pixels(data.features.backbone):
            raise UserError(f"params.yaml: candidates.{name}: architecture triplet needs the features of a network.")
        return fit_triplets(network, candidate, data, seed, name)
    if candidate.curriculum == "none":
        return fit_in_phases(network, candidate, data.lesson(candidate, seed), name)
    _needs_pixels(candidate, data, f"candidates.{name}.curriculum")

    def build(shape: tuple[int, ...]) -> keras.Model:
        with precision(training_precision(candidate, data.features)):
            return build_network(candidate, shape, len(data.targets.classes), data.targets.task)

    return fit_in_order(network, build, candidate, data, seed, name)


def _needs_pixels(candidate: Candidate, data: TrainingSet, key: str) -> None:
    if not reads_pixels(data.features.backbone):
        raise UserError(f"params.yaml: {key} needs pixels: backbones.{candidate.backbone} has a network of its own.")


def fit_in_phases(network: keras.Model, candidate: Candidate, lesson: Lesson, name: str = "") -> Fitted:
    """Train the head; where part of the backbone is to be trained too, that follows once the head can guide it."""
    uppers = [layer for layer in network.layers if layer.name.startswith("upper_")]
    for upper in uppers:
        upper.trainable = False
    first = fit(network, candidate, lesson, name)
    if not uppers or first.status != "trained":
        return first
    for upper in uppers:
        upper.trainable = True
    return first.then(fit(network, candidate.second_phase(), lesson, f"{name}, fine-tuning", len(first.history)))


def training_precision(candidate: Candidate, features: Features) -> str:
    """The number format to train in: bfloat16 is faster only for some networks that convolve pixels."""
    if candidate.precision != "auto":
        return candidate.precision
    gains = reads_pixels(features.backbone) and candidate.architecture in FASTER_IN_BFLOAT16
    return "mixed_bfloat16" if gains and processor_flags() & BFLOAT16_UNITS else "float32"


def model_record(
    name: str,
    candidate: Candidate,
    data: TrainingSet,
    network: keras.Model,
    fitted: Fitted,
    seed: int,
) -> ModelRecord:
    """Return model.json: what was trained, on what, and the origin of its weights."""
    backbone, targets = data.features.backbone, data.targets
    parts = chosen_parts(candidate, backbone)
    return ModelRecord(
        candidate=name,
        architecture=candidate.architecture,
        backbone=backbone.backbone,
        network="+".join(part.network for part in parts) or backbone.network,
        freeze=backbone.freeze,
        image_size=backbone.image_size,
        parameters=sum(part.parameters for part in parts) + network.count_params(),
        trainable_parameters=int(sum(np.prod(variable.shape) for variable in network.trainable_variables)),
        weights=weights_origin(backbone, [part.network for part in parts]),
        weights_file=backbone.weights.file,
        weights_sha256=backbone.weights.sha256,
        precision=backbone.precision,
        classes=tuple(targets.classes),
        **targets.task.record,
        seed=seed,
        epochs_run=len(fitted.history),
        best_epoch=best_epoch(fitted.history),
        settings=candidate.model_dump(mode="json"),
        training_precision=training_precision(candidate, data.features),
    )


def best_epoch(history: pd.DataFrame) -> int | None:
    """The epoch of least validation loss, None where none is a number."""
    losses = history["val_loss"].to_numpy(np.float64)
    return int(history["epoch"].to_numpy()[np.nanargmin(losses)]) if np.isfinite(losses).any() else None


def weights_origin(backbone: BackboneRecord, networks: list[str]) -> str:
    """Where the weights of `networks` came from, for the leaderboard and the registry."""
    if not networks:
        return "from scratch"
    if not backbone.weights.networks:
        return describe_origin([backbone.weights])
    return describe_origin([record for record in backbone.weights.networks if record.network in networks])


def peak_megabytes() -> float:
    """The most memory this process has used, in megabytes: libraries and mapped features included."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
