"""The chosen candidate: all results of earlier stages about it, and two digests that show whether it is new."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.files import file_digest, text_digest
from plumbline.common.records import read_record, read_records, read_table
from plumbline.evidence.candidates import folder_of
from plumbline.evidence.records import Decision, Evaluation, LeaderboardRow
from plumbline.imaging.decode import Fit
from plumbline.models.records import BackboneRecord, ModelRecord
from plumbline.registry.place import git
from plumbline.registry.records import Provenance
from plumbline.tasks.known import task_of
from plumbline.tasks.task import Task

Pictures = Callable[[list[str], int | None], Iterable[NDArray[np.uint8]]]
"""Manifest paths and a size S to pictures (S, S, 3), uint8 RGB, in order; size None leaves them as they are."""


def fitted(pictures: Pictures, fit: Fit) -> Pictures:
    """Return `pictures` so that they are brought to size as in the training of a model with this `fit`."""
    if fit == "stretch":
        return pictures
    with_fit: Callable[..., Iterable[NDArray[np.uint8]]] = pictures
    return partial(with_fit, fit=fit)


@dataclass(frozen=True)
class Shown:
    """What the registry shows of a version: its kind, tags (`main` is the one that says most), metrics and params."""

    kind: str
    main: str
    tags: dict[str, str]
    metrics: dict[str, float]
    params: dict[str, str]
    weights: str
    parameters: int


class Promotable(Protocol):
    """What promotion needs of a model that a gate chose, be it a classifier (Chosen) or a detector.

    `folder` holds what was trained, `features` what it stands on; `served` are the settings with which it serves, as
    its version's serving.json says them; `fingerprint` is of weights and `served`; `splits` (path, id, label, group,
    split) and `manifest` (path, id, ...) are of its data.
    """

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def features(self) -> Path: ...
    @property
    def decision(self) -> Decision: ...
    @property
    def splits(self) -> pd.DataFrame: ...
    @property
    def manifest(self) -> pd.DataFrame: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def weights_sha256(self) -> str: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def served(self) -> dict[str, Any]: ...
    @property
    def shown(self) -> Shown: ...


@dataclass(frozen=True)
class Chosen:
    """A candidate as `gate` chose it, with the tables of its data version.

    `decision`, `row`, `evaluation`, `model` and `backbones` (by name) are what the files of these names hold;
    `predictions` (path, id, label, split, group, p_CLASS ...), `splits` (path, id, label, group, split), `manifest`
    (path, id, ...).
    `fingerprint` identifies what is served: two decisions on the same weights, threshold and temperature have the same.
    """

    name: str
    folder: Path
    features: Path
    decision: Decision
    row: LeaderboardRow
    evaluation: Evaluation
    model: ModelRecord
    backbones: dict[str, BackboneRecord]
    predictions: pd.DataFrame
    splits: pd.DataFrame
    manifest: pd.DataFrame
    fingerprint: str
    weights_sha256: str

    @property
    def classes(self) -> list[str]:
        return list(self.model.classes)

    @property
    def task(self) -> Task:
        """The task, such as one label per picture."""
        return task_of(self.model)

    @property
    def served(self) -> dict[str, Any]:
        """How it serves, besides its weights."""
        return settings_served(self.name, self.evaluation)

    @property
    def shown(self) -> Shown:
        """Its row of the leaderboard, for the registry."""
        tags = {"test accuracy": with_interval(self.row, "accuracy")}
        violation = self.evaluation.violation_class
        if violation is not None:
            tags[f"test recall {violation}"] = with_interval(self.row, f"recall:{violation}")
        metrics = {
            f"{split} {score.replace(':', ' ')}": float(value)
            for split, values in self.row.metrics.items()
            for score, value in values.items()
        }
        flat = {key: value for key, value in self.model.settings.items() if not isinstance(value, dict)}
        flat |= {key: getattr(self.model, key) for key in ("seed", "image_size", "weights")}
        params = {key: str(value) for key, value in flat.items() if value is not None}
        return Shown("image classifier", "test accuracy", tags, metrics, params, self.row.weights, self.row.parameters)


def settings_served(name: str, evaluation: Evaluation) -> dict[str, Any]:
    """Return with which threshold and temperature a candidate serves, for which violation."""
    entry = evaluation.candidates[name]
    return {
        "threshold": entry.threshold,
        "temperature": entry.temperature,
        "violation_class": evaluation.violation_class,
    }


def with_interval(row: LeaderboardRow, score: str) -> str:
    """Return a test score with its interval as text."""
    if score not in row.metrics["test"]:
        return "not measured: no test picture shows it"
    low, high = row.intervals["test"][score]
    return f"{row.metrics['test'][score]:.3f} (95%: {low:.3f} to {high:.3f})"


def read_decision(build: Path) -> Decision:
    """Return build/decision.json; UserError if it is missing or is no decision."""
    return read_record(artefacts.DECISION.inside(build), Decision, artefacts.DECISION.by)


def read_chosen(build: Path, decision: Decision) -> Chosen:
    """Return the candidate that `decision` names; UserError names the file that is missing or does not belong to it."""
    name = decision.candidate
    if not name:
        raise UserError(f"{artefacts.DECISION.inside(build)} names no candidate: there is nothing to register.")
    features, stage = artefacts.FEATURES.inside(build), artefacts.EVALUATION.by
    folder = folder_of(artefacts.CANDIDATES.inside(build), name)
    model = read_record(folder / artefacts.MODEL, ModelRecord)
    backbones = {
        used: read_record(features / used / artefacts.BACKBONE, BackboneRecord) for used in backbones_of(model)
    }
    listed = read_records(artefacts.LEADERBOARD.inside(build), LeaderboardRow, stage)
    rows = {row.candidate: row for row in listed}
    evaluation = read_record(artefacts.EVALUATION.inside(build), Evaluation, stage)
    if name not in rows or name not in evaluation.candidates:
        raise UserError(f"{artefacts.LEADERBOARD.inside(build)} does not list {name}: run `dvc repro`.")
    weights = weights_digest(folder, features)
    served = settings_served(name, evaluation)
    return Chosen(
        name=name,
        folder=folder,
        features=features / next(iter(backbones)),
        decision=decision,
        row=rows[name],
        evaluation=evaluation,
        model=model,
        backbones=backbones,
        predictions=read_table(folder / artefacts.PREDICTIONS),
        splits=read_table(artefacts.SPLITS.inside(build)),
        manifest=read_table(artefacts.MANIFEST.inside(build)),
        fingerprint=text_digest(json.dumps([weights, served], sort_keys=True)),
        weights_sha256=weights,
    )


def with_pixels(splits: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Return `splits` with the manifest's `pixels_sha256` and `phash`, by which re-encoded copies are known."""
    known = [column for column in ("pixels_sha256", "phash") if column in manifest]
    return splits.merge(manifest[["path", *known]], on="path", how="left") if known else splits


def backbones_of(model: ModelRecord) -> list[str]:
    """Return the backbones that model.json names: one, or those of an ensemble's members."""
    return sorted({member.backbone for member in model.members}) if model.members else [model.backbone]


def weights_digest(folder: Path, features: Path) -> str:
    """Return one SHA-256 over the candidate's weights, its backbones' (under `features`) and its architecture.

    A compressed candidate's weights are its file.
    """
    model = read_record(folder / artefacts.MODEL, ModelRecord)
    own = folder / (artefacts.SERVED_FILE if model.compressed else artefacts.HEAD_WEIGHTS)
    if not own.is_file():
        raise UserError(f"{own} is missing: run `dvc repro`.")
    whole = hashlib.sha256()
    if model.compressed:
        whole.update(file_digest(own).encode())
    else:
        shared = [features / name / artefacts.BACKBONE_WEIGHTS for name in backbones_of(model)]
        for path in [*sorted(folder.rglob("*.weights.h5")), *(path for path in shared if path.is_file())]:
            add_weights(whole, path)
    content = model.content()
    shape = {key: content.get(key) for key in ("classes", "image_size", "architecture", "settings", "members")}
    whole.update(json.dumps(shape, sort_keys=True).encode())
    return whole.hexdigest()


def add_weights(whole: hashlib._Hash, path: Path) -> None:
    """Add only the layers' arrays of a Keras weights file: its bytes also hold numbered names and the optimizer."""
    import h5py

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer/"):
            values = item[()]
            whole.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())

    try:
        with h5py.File(path, "r") as file:
            file.visititems(add)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error}): run `dvc repro`.") from None


def provenance(root: Path, manifest: pd.DataFrame) -> Provenance:
    """Return where the version comes from."""
    pairs = sorted(zip(manifest["id"].astype(str), manifest["label"].astype(str), strict=True))
    return Provenance(
        git_commit=git(root, "rev-parse", "HEAD") or None,
        git_changed=tuple(git(root, "status", "--porcelain", "--untracked-files=no").splitlines()),
        dvc_lock_sha256=file_digest(root / "dvc.lock") if (root / "dvc.lock").is_file() else None,
        data_md5=_data_md5(root / "data.dvc"),
        manifest_sha256=text_digest(json.dumps(pairs)),
        images=len(manifest),
    )


def _data_md5(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        return str(yaml.safe_load(path.read_text(encoding="utf-8"))["outs"][0]["md5"])
    except (yaml.YAMLError, KeyError, IndexError, TypeError):
        raise UserError(f"{path} names no md5 of the data: run `dvc add data`.") from None
