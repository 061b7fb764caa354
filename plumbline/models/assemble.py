"""The whole model of a trained candidate, from pixels to probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.params import parse_section
from plumbline.common.records import read_record
from plumbline.models.candidates import Candidate
from plumbline.models.combination import combine
from plumbline.models.networks import load_stored
from plumbline.models.records import BackboneRecord, Cost, ModelRecord
from plumbline.models.trainable import Parts, assemble, build_trainable, cut_networks, reads_pixels
from plumbline.tasks.known import task_of
from plumbline.tasks.task import Task

if TYPE_CHECKING:
    import keras


def load_candidate(folder: Path, features: Path) -> keras.Model:
    """Assemble candidate folder `folder` with the backbone of `features` (a folder such as build/features/vgg16).

    Maps RGB pixels (N, S, S, 3), float32 in [0, 255], to the network's output: (N, 1), the probability of the second
    class, for two classes, (N, C) for more; the `probabilities` of its task (`task_of(model.json)`) makes both (N, C).

    Raises UserError where a file is missing or does not fit, or where the candidate is compressed: `load_served`.
    """
    model = read_record(folder / artefacts.MODEL, ModelRecord)
    if model.members:  # an ensemble holds its members' folders; their backbones lie beside `features`
        loaded = [
            load_candidate(folder / artefacts.MEMBERS / member.name, features.parent / member.backbone)
            for member in model.members
        ]
        return combine(loaded, model.architecture, folder / artefacts.HEAD_WEIGHTS, task_of(model))
    backbone, candidate, networks, trained = _load(model, folder, features, whole=True)
    return _whole(candidate, backbone, networks, trained)


def load_served(folder: Path, features: Path) -> keras.Model | Path:
    """Return what is served of candidate folder `folder`: its network, or of a compressed candidate its file.

    Here the two kinds part, and nowhere else: all that reads predictions, costs and records takes both alike.
    """
    if not read_record(folder / artefacts.MODEL, ModelRecord).compressed:
        return load_candidate(folder, features)
    file = folder / artefacts.SERVED_FILE
    if not file.is_file():
        raise UserError(f"{file} is missing: run `dvc repro -f compress@{folder.name}`.")
    return file


def whole_of(candidate: Candidate, features: Path, trained: keras.Model, classes: int, task: Task) -> keras.Model:
    """Return the whole model of what `candidate` has just `trained` on the backbone of folder `features`."""
    backbone = read_record(features / artefacts.BACKBONE, BackboneRecord)
    networks = _networks(backbone, features)
    if networks is not None and backbone.freeze != "head":  # what was trained of them has to be in the whole as well
        again = build_trainable(candidate, backbone, networks, classes, task)
        again.set_weights(trained.get_weights())
        trained = again
    return _whole(candidate, backbone, networks, trained)


def _whole(candidate: Candidate, backbone: BackboneRecord, networks: Parts | None, trained: keras.Model) -> keras.Model:
    plain = networks is None and backbone.preprocess is None
    return trained if plain else assemble(candidate, backbone, networks, trained)


def _networks(backbone: BackboneRecord, features: Path) -> Parts | None:
    """The backbone's networks with their weights, None for pixels."""
    return None if reads_pixels(backbone) else cut_networks(backbone, str(features / artefacts.BACKBONE_WEIGHTS))


def load_trained(folder: Path, features: Path) -> keras.Model:
    """Load the trained part of a candidate, not an ensemble: one view's stored features (N, ...) to its output."""
    return _load(read_record(folder / artefacts.MODEL, ModelRecord), folder, features, whole=False)[3]


def _load(
    model: ModelRecord, folder: Path, features: Path, whole: bool
) -> tuple[BackboneRecord, Candidate, Parts | None, keras.Model]:
    """backbone.json, settings, the backbone's networks (None for pixels or where not needed), the trained part."""
    if model.compressed:
        raise UserError(
            f"{folder} holds a compressed candidate, which has no layers to look into: use {model.compressed.of}."
        )
    backbone = read_record(features / artefacts.BACKBONE, BackboneRecord)
    candidate = parse_section("settings", model.settings, Candidate, folder / artefacts.MODEL)
    networks = _networks(backbone, features) if whole or backbone.freeze != "head" else None
    trained = build_trainable(candidate, backbone, networks, len(model.classes), task_of(model))
    load_stored(trained, folder / artefacts.HEAD_WEIGHTS, model.made_by)
    return backbone, candidate, networks, trained


def read_cost(folder: Path) -> Cost:
    """Return a candidate's cost.json; its figures are None where nothing was measured."""
    return read_record(folder / artefacts.COST, Cost) if (folder / artefacts.COST).is_file() else Cost()
