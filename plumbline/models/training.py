"""Train one candidate on its backbone's features and predict every picture with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common.errors import UserError
from plumbline.common.params import Section
from plumbline.models.candidates import Candidate
from plumbline.models.features import BACKBONE_WEIGHTS, Features
from plumbline.models.fitting import (
    Batches,
    Targets,
    balanced_weights,
    fit,
    make_deterministic,
    predict,
    predictions_of,
    targets_of,
)
from plumbline.models.precision import BFLOAT16_UNITS, precision, processor_flags
from plumbline.models.trainable import build_trainable, chosen_parts, cut_networks, reads_pixels
from plumbline.models.weights import describe_origin

if TYPE_CHECKING:
    import keras
    import pandas as pd

CANDIDATES = Path("build/candidates")
COST = "cost.json"
FASTER_IN_BFLOAT16 = frozenset({"simple_cnn", "alexnet", "custom_cnn", "compact_cnn"})
"""Measured with avx512_bf16 (`python -m benchmarks.precision`): 0.48, 0.90, 0.78, 0.55 of float32's time a step; the
others, of many small layers, gain nothing."""


class TrainParams(Section):
    """Section `train`: what all candidates share. `folds` (3 or more) adds a cross-validation for gate.selection."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    folds: Annotated[int, Field(ge=3)] | None = None


def train(
    name: str, candidate: Candidate, splits: pd.DataFrame, features: Features, seed: int
) -> tuple[keras.Model, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Train candidate `name` on the training pictures of `splits` (path, id, label, group, split).

    Returns the trained network, its history (a row per epoch), the predictions of all pictures (a p_CLASS column per
    class) and the description for model.json. The test pictures are predicted, never looked at in training.
    """
    if candidate.augmented and not features.views:
        raise UserError(
            f"params.yaml: candidates.{name}.augmented needs augmented views: set backbones.{candidate.backbone}.views."
        )
    targets = targets_of(splits["label"])
    rows = features.rows_of(list(splits["path"]))
    in_split = {split: (splits["split"] == split).to_numpy() for split in ("train", "validation")}
    policy = training_precision(candidate, features)
    tuned = features.backbone.get("freeze", "head") != "head"
    networks = cut_networks(features.backbone, str(features.folder / BACKBONE_WEIGHTS)) if tuned else None
    make_deterministic(seed)
    shape = (len(targets.classes), targets.several_labels)
    with precision(policy):
        network = build_trainable(candidate, features.backbone, networks, *shape)
    history = fit_in_phases(
        network, candidate, *training_data(candidate, features, rows, targets, in_split, seed), targets.several_labels
    )
    if policy != "float32":  # the model that serves runs in float32, so that is the one whose figures count
        exact = build_trainable(candidate, features.backbone, networks, *shape)
        exact.set_weights(network.get_weights())
        network = exact
    probabilities = predict(network, features.values, rows, candidate.batch_size, targets.several_labels)
    predictions = predictions_of(splits, targets, probabilities)
    model = describe(name, candidate, features.backbone, network, targets, history, seed)
    return network, history, predictions, {**model, "training_precision": policy}


def cross_validate(
    name: str, candidate: Candidate, splits: pd.DataFrame, features: Features, seed: int, folds: int
) -> pd.DataFrame:
    """Predict every training and validation picture of `splits` with a model that never saw its group.

    Of `folds` parts of whole groups one is predicted, the next stops the training, the others are trained on, in turn;
    the test pictures take no part. Returns path, id, label, split, group and a p_CLASS column per class.
    """
    import pandas as pd
    from sklearn.model_selection import StratifiedGroupKFold

    seen = splits[splits["split"] != "test"].reset_index(drop=True)
    part = np.empty(len(seen), dtype=np.intp)
    drawn = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(seen, seen["label"], seen["group"])
    for number, (_, held) in enumerate(drawn):
        part[held] = number
    tables = []
    for number in range(folds):
        print(f"{name}: part {number + 1} of {folds} of the cross-validation", file=sys.stderr)
        roles = np.select([part == number, part == (number + 1) % folds], ["test", "validation"], "train")
        _, _, predictions, _ = train(name, candidate, seen.assign(split=roles), features, seed)
        tables.append(predictions[predictions["split"] == "test"])
    found = pd.concat(tables).sort_index()
    return found.assign(split=seen["split"])


def fit_in_phases(
    network: keras.Model,
    candidate: Candidate,
    train: Batches,
    validation: Batches,
    several_labels: bool,
) -> pd.DataFrame:
    """Train the head; where part of the backbone is to be trained too, that follows once the head can guide it."""
    import pandas as pd

    uppers = [layer for layer in network.layers if layer.name.startswith("upper_")]
    for upper in uppers:
        upper.trainable = False
    history = fit(network, candidate, train, validation, several_labels)
    if not uppers:
        return history
    for upper in uppers:
        upper.trainable = True
    second = fit(network, candidate.second_phase(), train, validation, several_labels)
    return pd.concat([history, second.assign(epoch=second["epoch"] + len(history))], ignore_index=True)


def training_precision(candidate: Candidate, features: Features) -> str:
    """The number format to train in: bfloat16 pays for the convolutions of some networks over pixels only."""
    if candidate.precision != "auto":
        return candidate.precision
    gains = reads_pixels(features.backbone) and candidate.architecture in FASTER_IN_BFLOAT16
    return "mixed_bfloat16" if gains and processor_flags() & BFLOAT16_UNITS else "float32"


def training_data(
    candidate: Candidate,
    features: Features,
    rows: NDArray[np.intp],
    targets: Targets,
    in_split: dict[str, NDArray[np.bool_]],
    seed: int,
) -> tuple[Batches, Batches]:
    """Batches of the training pictures, varied as the candidate says, and of the validation pictures as they are."""
    train, validation = in_split["train"], in_split["validation"]
    balanced = candidate.class_weights == "balanced"
    return (
        Batches(
            features.values,
            rows[train],
            targets.values[train],
            candidate.batch_size,
            views=features.views if candidate.augmented else 0,
            seed=seed,
            weights=balanced_weights(targets, train)[train] if balanced else None,
            mirror=candidate.mirror,
            brightness=candidate.brightness,
        ),
        Batches(features.values, rows[validation], targets.values[validation], candidate.batch_size),
    )


def describe(
    name: str,
    candidate: Candidate,
    backbone: dict[str, Any],
    network: keras.Model,
    targets: Targets,
    history: pd.DataFrame,
    seed: int,
) -> dict[str, Any]:
    """model.json: what was trained, on what, and where its weights began; `parameters` count the backbone's too."""
    parts = chosen_parts(candidate, backbone)
    return {
        "candidate": name,
        "architecture": candidate.architecture,
        "backbone": backbone["backbone"],
        "network": "+".join(part["network"] for part in parts) or backbone["network"],
        "freeze": backbone.get("freeze", "head"),
        "image_size": backbone["image_size"],
        "parameters": sum(part["parameters"] for part in parts) + network.count_params(),
        "trainable_parameters": int(sum(np.prod(variable.shape) for variable in network.trainable_variables)),
        "weights": weights_origin(backbone, [part["network"] for part in parts]),
        "weights_file": backbone["weights"]["file"],
        "weights_sha256": backbone["weights"]["sha256"],
        "precision": backbone["precision"],
        "classes": targets.classes,
        "several_labels": targets.several_labels,
        "seed": seed,
        "epochs_run": len(history),
        "best_epoch": int(history["epoch"].to_numpy()[history["val_loss"].argmin()]),
        "settings": candidate.model_dump(mode="json"),
    }


def weights_origin(backbone: dict[str, Any], networks: list[str]) -> str:
    """Where the weights of `networks` came from, for the leaderboard and the registry."""
    if not networks:
        return "from scratch"
    records = backbone["weights"].get("networks", [backbone["weights"]])
    return describe_origin([record for record in records if record.get("network", networks[0]) in networks])


def peak_megabytes() -> float:
    """The most memory this process ever held, libraries included; mapped features count while they are held."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
