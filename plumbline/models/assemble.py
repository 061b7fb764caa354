"""The whole model of a trained candidate, from pixels to probabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.common.errors import UserError
from plumbline.models.candidates import Candidate
from plumbline.models.combination import combine
from plumbline.models.features import BACKBONE, BACKBONE_WEIGHTS
from plumbline.models.trainable import Parts, assemble, build_trainable, cut_networks, reads_pixels

if TYPE_CHECKING:
    import keras

MODEL = "model.json"
HEAD_WEIGHTS = "head.weights.h5"
MEMBERS = "members"
CROSS_VALIDATION = "cross_validation.parquet"
NOT_MADE = "not_made.json"  # in build/ensembles: entry of `ensembles` -> why it has no folder


def load_candidate(folder: Path, features: Path) -> keras.Model:
    """Assemble candidate folder `folder` with the backbone of `features` (a folder such as build/features/vgg16).

    Maps RGB pixels (N, S, S, 3), float32 in [0, 255], to the network's output: (N, 1), the probability of the second
    class, for two classes, (N, C) for more; `plumbline.models.candidates.class_probabilities` makes both (N, C).

    Raises UserError where a file is missing or does not fit.
    """
    model = _read(folder / MODEL)
    if "members" in model:  # an ensemble holds its members' folders; their backbones lie beside `features`
        loaded = [
            load_candidate(folder / MEMBERS / member["name"], features.parent / member["backbone"])
            for member in model["members"]
        ]
        return combine(loaded, model["architecture"], folder / HEAD_WEIGHTS, model["several_labels"])
    backbone, candidate, networks, trained = _load(model, folder, features, whole=True)
    return trained if networks is None else assemble(candidate, backbone, networks, trained)


def load_trained(folder: Path, features: Path) -> keras.Model:
    """Load what was trained of a candidate (no ensemble): from one view's features (N, ...) as stored to its output."""
    return _load(_read(folder / MODEL), folder, features, whole=False)[3]


def _load(
    model: dict[str, Any], folder: Path, features: Path, whole: bool
) -> tuple[dict[str, Any], Candidate, Parts | None, keras.Model]:
    """backbone.json, settings, the backbone's networks (None for pixels, or where they are not needed), the trained."""
    backbone = _read(features / BACKBONE)
    candidate = Candidate.model_validate(model["settings"])
    needed = not reads_pixels(backbone) and (whole or backbone.get("freeze", "head") != "head")
    networks = cut_networks(backbone, str(features / BACKBONE_WEIGHTS)) if needed else None
    trained = build_trainable(
        candidate, backbone, networks, len(model["classes"]), bool(model.get("several_labels", False))
    )
    trained.load_weights(folder / HEAD_WEIGHTS)
    return backbone, candidate, networks, trained


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}): run `dvc repro`.") from None
    return content
