"""The chosen candidate: all that the stages before left about it, and two digests that say whether it is new."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.common.files import file_digest, text_digest
from plumbline.evidence.candidates import folder_of
from plumbline.models.assemble import HEAD_WEIGHTS, MODEL
from plumbline.models.features import BACKBONE, BACKBONE_WEIGHTS

Pictures = Callable[[list[str], int | None], Iterable[NDArray[np.uint8]]]
"""Manifest paths and a size S to pictures (S, S, 3), uint8 RGB, in order; size None leaves them as they are."""


@dataclass(frozen=True)
class Chosen:
    """A candidate as `gate` chose it, with the tables of its data version.

    `decision`, `row`, `evaluation`, `model` and `backbones` (by name) are the parsed JSON files; `predictions` (path,
    id, label, split, group, p_CLASS ...), `splits` (path, id, label, group, split), `manifest` (path, id, ...).
    """

    name: str
    folder: Path
    features: Path
    decision: dict[str, Any]
    row: dict[str, Any]
    evaluation: dict[str, Any]
    model: dict[str, Any]
    backbones: dict[str, Any]
    predictions: pd.DataFrame
    splits: pd.DataFrame
    manifest: pd.DataFrame
    fingerprint: str
    weights_sha256: str

    @property
    def classes(self) -> list[str]:
        return [str(name) for name in self.model["classes"]]

    @property
    def several(self) -> bool:
        """Whether a picture may have several labels at once."""
        return bool(self.model.get("several_labels", False))


def read_decision(build: Path) -> dict[str, Any]:
    """Return build/decision.json; UserError if it is missing or is no decision."""
    decision = _json(build / "decision.json")
    if not isinstance(decision, dict) or decision.get("verdict") not in ("PROMOTE", "HOLD", "REJECT"):
        raise UserError(f"{build / 'decision.json'} has no verdict PROMOTE, HOLD or REJECT: run `dvc repro gate`.")
    return decision


def read_chosen(build: Path, decision: dict[str, Any]) -> Chosen:
    """Return the candidate that `decision` names; UserError names the file that is missing or does not belong to it."""
    name = str(decision.get("candidate") or "")
    if not name:
        raise UserError(f"{build / 'decision.json'} names no candidate: there is nothing to register.")
    folder = folder_of(build / "candidates", name)
    model = _json(folder / MODEL)
    backbones = {used: _json(build / "features" / used / BACKBONE) for used in backbones_of(model)}
    rows = {row["candidate"]: row for row in _json(build / "leaderboard.json")}
    evaluation = _json(build / "evaluation.json")
    if name not in rows or name not in evaluation["candidates"]:
        raise UserError(f"{build / 'leaderboard.json'} does not list {name}: run `dvc repro`.")
    weights = weights_digest(folder, build / "features")
    return Chosen(
        name=name,
        folder=folder,
        features=build / "features" / next(iter(backbones)),
        decision=decision,
        row=rows[name],
        evaluation=evaluation,
        model=model,
        backbones=backbones,
        predictions=_table(folder / "predictions.parquet"),
        splits=_table(build / "splits.parquet"),
        manifest=_table(build / "manifest.parquet"),
        fingerprint=text_digest(json.dumps([decision, weights], sort_keys=True)),
        weights_sha256=weights,
    )


def with_pixels(splits: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Return `splits` with the manifest's `pixels_sha256` and `phash`, by which re-encoded copies are known."""
    known = [column for column in ("pixels_sha256", "phash") if column in manifest]
    return splits.merge(manifest[["path", *known]], on="path", how="left") if known else splits


def backbones_of(model: dict[str, Any]) -> list[str]:
    """Return the backbones that model.json names: one, or those of an ensemble's members."""
    members = model.get("members")
    return sorted({str(member["backbone"]) for member in members}) if members else [str(model["backbone"])]


def weights_digest(folder: Path, features: Path) -> str:
    """Return one SHA-256 over the candidate's weights, its backbones' (under `features`) and its architecture."""
    model = _json(folder / MODEL)
    own = sorted(folder.rglob("*.weights.h5"))
    if folder / HEAD_WEIGHTS not in own:
        raise UserError(f"{folder / HEAD_WEIGHTS} is missing: run `dvc repro`.")
    shared = [features / name / BACKBONE_WEIGHTS for name in backbones_of(model)]
    whole = hashlib.sha256()
    for path in [*own, *(path for path in shared if path.is_file())]:
        _add_weights(whole, path)
    shape = {key: model.get(key) for key in ("classes", "image_size", "architecture", "settings", "members")}
    whole.update(json.dumps(shape, sort_keys=True).encode())
    return whole.hexdigest()


def _add_weights(whole: hashlib._Hash, path: Path) -> None:
    """Add a Keras weights file by its layers' arrays alone: its bytes hold counted-up names and the optimizer, too."""
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


def provenance(root: Path, manifest: pd.DataFrame) -> dict[str, Any]:
    """Return where the version comes from: Git commit, dvc.lock and data version; None for what there is not.

    `data_md5` is what data.dvc records; `manifest_sha256` is over the ids and labels of the images that were read, and
    holds where the data is not tracked by DVC.
    """
    pairs = sorted(zip(manifest["id"].astype(str), manifest["label"].astype(str), strict=True))
    return {
        "git_commit": _git(root, "rev-parse", "HEAD") or None,
        "git_changed": _git(root, "status", "--porcelain", "--untracked-files=no").splitlines(),
        "dvc_lock_sha256": file_digest(root / "dvc.lock") if (root / "dvc.lock").is_file() else None,
        "data_md5": _data_md5(root / "data.dvc"),
        "manifest_sha256": text_digest(json.dumps(pairs)),
        "images": len(manifest),
    }


def _data_md5(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        return str(yaml.safe_load(path.read_text(encoding="utf-8"))["outs"][0]["md5"])
    except (yaml.YAMLError, KeyError, IndexError, TypeError):
        raise UserError(f"{path} names no md5 of the data: run `dvc add data`.") from None


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro`.") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): run `dvc repro`.") from None


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro`.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}): run `dvc repro`.") from None
