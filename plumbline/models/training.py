"""Train one candidate on its backbone's features and predict every picture with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.params import Section
from plumbline.models.candidates import Candidate
from plumbline.models.features import Features
from plumbline.models.fitting import (
    Batches,
    Lesson,
    Targets,
    balanced_weights,
    fit,
    make_deterministic,
    predict,
    predictions_of,
    targets_of,
)
from plumbline.models.precision import BFLOAT16_UNITS, precision, processor_flags
from plumbline.models.records import BackboneRecord, ModelRecord
from plumbline.models.trainable import build_trainable, chosen_parts, cut_networks, reads_pixels
from plumbline.models.weights import describe_origin

if TYPE_CHECKING:
    import keras
    import pandas as pd

FASTER_IN_BFLOAT16 = frozenset({"simple_cnn", "alexnet", "custom_cnn", "compact_cnn"})
"""Measured with avx512_bf16 (`python -m benchmarks.precision`): 0.48, 0.90, 0.78, 0.55 of float32's time a step; the
others, of many small layers, gain nothing."""


class TrainParams(Section):
    """Section `train`: what all candidates share, and what the race between them (gate.selection) may take.

    `folds` of the training pictures may be asked about, for so many `minutes` of training in all.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    folds: Annotated[int, Field(ge=2)] = 5
    minutes: Annotated[float, Field(ge=0)] = 2


class Trained(NamedTuple):
    """What training leaves: the network, its learning curve (a row per epoch), predictions of all pictures (a p_CLASS
    column per class) and model.json."""

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

    @classmethod
    def of(cls, splits: pd.DataFrame, features: Features) -> TrainingSet:
        """Find the pictures among the features; UserError names one that has none."""
        return cls(splits, features, features.rows_of(list(splits["path"])), targets_of(splits["label"]))

    def inside(self, split: str) -> NDArray[np.bool_]:
        """Which pictures are in `split` (N,)."""
        return (self.splits["split"] == split).to_numpy()

    def lesson(self, candidate: Candidate, seed: int) -> Lesson:
        """The training pictures, varied as the candidate says, and the validation pictures as they are."""
        train = self.inside("train")
        varied = Batches(
            self.features.values,
            self.rows[train],
            self.targets.values[train],
            candidate.batch_size,
            views=self.features.views if candidate.augmented else 0,
            seed=seed,
            weights=balanced_weights(self.targets, train)[train] if candidate.class_weights == "balanced" else None,
            mirror=candidate.mirror,
            brightness=candidate.brightness,
        )
        return Lesson(self.targets.task, varied, self.plain("validation", candidate.batch_size))

    def plain(self, split: str, batch_size: int, seed: int | None = None) -> Batches:
        """The pictures of `split` as they are, shuffled anew in each epoch where there is a `seed`."""
        inside = self.inside(split)
        return Batches(self.features.values, self.rows[inside], self.targets.values[inside], batch_size, seed=seed)

    def predictions(self, network: keras.Model, batch_size: int) -> pd.DataFrame:
        """What `network` says of every picture: path, id, label, split, group and a p_CLASS column per class."""
        p = predict(network, self.features.values, self.rows, batch_size, self.targets.task)
        return predictions_of(self.splits, self.targets, p)


def train(name: str, candidate: Candidate, splits: pd.DataFrame, features: Features, seed: int) -> Trained:
    """Train candidate `name` on the training pictures of `splits` (path, id, label, group, split).

    The test pictures are predicted, never looked at in training.
    """
    if candidate.augmented and not features.views:
        raise UserError(
            f"params.yaml: candidates.{name}.augmented needs augmented views: set backbones.{candidate.backbone}.views."
        )
    data = TrainingSet.of(splits, features)
    build = builder(candidate, data)
    policy = training_precision(candidate, features)
    make_deterministic(seed)
    with precision(policy):
        network = build()
    history = fit_in_phases(network, candidate, data.lesson(candidate, seed))
    if policy != "float32":  # the model that serves runs in float32, so that is the one whose figures count
        weights, network = network.get_weights(), build()
        network.set_weights(weights)
    predictions = data.predictions(network, candidate.batch_size)
    return Trained(network, history, predictions, model_record(name, candidate, data, network, history, seed))


def builder(candidate: Candidate, data: TrainingSet) -> Callable[[], keras.Model]:
    """What builds the candidate's network, with new weights each time, but for those of a backbone behind its cut."""
    features, targets = data.features, data.targets
    tuned = features.backbone.freeze != "head"
    networks = cut_networks(features.backbone, str(features.folder / artefacts.BACKBONE_WEIGHTS)) if tuned else None
    return partial(build_trainable, candidate, features.backbone, networks, len(targets.classes), targets.task)


def fit_in_phases(network: keras.Model, candidate: Candidate, lesson: Lesson) -> pd.DataFrame:
    """Train the head; where part of the backbone is to be trained too, that follows once the head can guide it."""
    import pandas as pd

    uppers = [layer for layer in network.layers if layer.name.startswith("upper_")]
    for upper in uppers:
        upper.trainable = False
    history = fit(network, candidate, lesson)
    if not uppers:
        return history
    for upper in uppers:
        upper.trainable = True
    second = fit(network, candidate.second_phase(), lesson)
    return pd.concat([history, second.assign(epoch=second["epoch"] + len(history))], ignore_index=True)


def training_precision(candidate: Candidate, features: Features) -> str:
    """The number format to train in: bfloat16 pays for the convolutions of some networks over pixels only."""
    if candidate.precision != "auto":
        return candidate.precision
    gains = reads_pixels(features.backbone) and candidate.architecture in FASTER_IN_BFLOAT16
    return "mixed_bfloat16" if gains and processor_flags() & BFLOAT16_UNITS else "float32"


def model_record(
    name: str,
    candidate: Candidate,
    data: TrainingSet,
    network: keras.Model,
    history: pd.DataFrame,
    seed: int,
) -> ModelRecord:
    """model.json: what was trained, on what, and where its weights began; `parameters` count the backbone's too."""
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
        epochs_run=len(history),
        best_epoch=int(history["epoch"].to_numpy()[history["val_loss"].argmin()]),
        settings=candidate.model_dump(mode="json"),
        training_precision=training_precision(candidate, data.features),
    )


def weights_origin(backbone: BackboneRecord, networks: list[str]) -> str:
    """Where the weights of `networks` came from, for the leaderboard and the registry."""
    if not networks:
        return "from scratch"
    if not backbone.weights.networks:
        return describe_origin([backbone.weights])
    return describe_origin([record for record in backbone.weights.networks if record.network in networks])


def peak_megabytes() -> float:
    """The most memory this process ever held, libraries included; mapped features count while they are held."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
