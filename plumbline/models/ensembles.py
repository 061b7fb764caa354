"""Combine the best few candidates by validation, and let the result compete with them.

Members share one input size, that of the best, so that the served model reads each picture once. The stacking
regression learns from validation pictures; its figures on these come from folds that leave whole groups out, so that
it is not chosen for having seen the answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from plumbline.common.errors import UserError
from plumbline.common.files import file_digest
from plumbline.common.params import Section
from plumbline.models.assemble import CROSS_VALIDATION, HEAD_WEIGHTS, MODEL
from plumbline.models.combination import Kind, evidence, fit_stacking, stacked
from plumbline.models.fitting import Targets, predictions_of, targets_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CANDIDATES = Path("build/candidates")
ENSEMBLES = Path("build/ensembles")
FOLDS = 5


class Ensemble(Section):
    """One entry of `ensembles`: the mean of the members' probabilities, or a regression on them."""

    kind: Kind
    members: Annotated[int, Field(ge=2, le=20)] = 3


class Named(Section):
    """Any entry under `candidates`: only its name matters here."""

    model_config = ConfigDict(frozen=True, extra="ignore")


@dataclass(frozen=True)
class Member:
    """A trained candidate: its model.json, its predictions and those of its cross-validation, sorted by path."""

    name: str
    model: dict[str, Any]
    table: pd.DataFrame
    folds: pd.DataFrame | None = None


def read_members(folder: Path, names: list[str]) -> list[Member]:
    """Read the trained candidates; UserError where one is missing or was trained on another split."""
    members = []
    for name in names:
        try:
            model = json.loads((folder / name / MODEL).read_text(encoding="utf-8"))
            table = _sorted(folder / name / "predictions.parquet")
            folds = folder / name / CROSS_VALIDATION
            members.append(Member(name, model, table, _sorted(folds) if folds.is_file() else None))
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / name} can't be read ({error}): run `dvc repro train@{name}`.") from None
    first = members[0].table[["path", "label", "split"]]
    for member in members:
        if not member.table[["path", "label", "split"]].equals(first):
            raise UserError(f"{folder / member.name} was trained on another split: run `dvc repro`.")
    return members


def _sorted(file: Path) -> pd.DataFrame:
    return pd.read_parquet(file).sort_values("path", ignore_index=True)


def log_loss(targets: Targets, probabilities: NDArray[np.float64]) -> float:
    """Mean negative logarithm of the true class's probability; of each label's right answer for several labels."""
    p = np.clip(probabilities, 1e-7, 1 - 1e-7)
    if targets.several_labels:
        return float(-np.mean(np.where(targets.values > 0, np.log(p), np.log1p(-p))))
    return float(-np.log(p[np.arange(len(p)), targets.values]).mean())


def choose_members(members: list[Member], count: int) -> list[Member]:
    """The `count` candidates of least validation loss among those of the best one's input size, which may be it alone.

    An ensemble takes two or more.
    """
    ranked = sorted(members, key=lambda member: (_validation_loss(member), member.name))
    size = ranked[0].model["image_size"]
    return [member for member in ranked if member.model["image_size"] == size][:count]


def _validation_loss(member: Member) -> float:
    rows = (member.table["split"] == "validation").to_numpy()
    targets = targets_of(member.table["label"])
    return log_loss(_of(targets, rows), _probabilities(member)[rows])


def _probabilities(member: Member) -> NDArray[np.float64]:
    return member.table[[f"p_{name}" for name in member.model["classes"]]].to_numpy(np.float64)


def _of(targets: Targets, rows: NDArray[np.bool_]) -> Targets:
    return Targets(targets.classes, targets.values[rows], targets.several_labels)


def combine_predictions(
    members: list[Member], kind: Kind, folds: int = FOLDS
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]] | None]:
    """The ensemble's probabilities (N, C) for every picture, and stacking's kernel and bias (None for a vote)."""
    table = members[0].table
    targets = targets_of(table["label"])
    probabilities = np.stack([_probabilities(member) for member in members], axis=1)
    if kind == "soft_vote":
        return probabilities.mean(axis=1), None
    several = targets.several_labels
    seen = evidence(probabilities, several)
    rows = np.flatnonzero((table["split"] == "validation").to_numpy())
    head = fit_stacking(seen[rows], targets.values[rows], several)
    combined = stacked(seen, *head, several)
    for learn, held in _folds(table.iloc[rows], folds):
        fold = fit_stacking(seen[rows[learn]], targets.values[rows[learn]], several)
        combined[rows[held]] = stacked(seen[rows[held]], *fold, several)
    return combined, head


def cross_validated(members: list[Member], kind: Kind) -> pd.DataFrame | None:
    """What the ensemble says of pictures whose groups no member saw (stacking's head neither); None without folds."""
    tables = [member.folds for member in members if member.folds is not None]
    if len(tables) < len(members):
        return None
    # Every picture plays validation's part: none was trained on.
    unseen = [
        replace(member, table=table.assign(split="validation")) for member, table in zip(members, tables, strict=True)
    ]
    probabilities, _ = combine_predictions(unseen, kind)
    return predictions_of(tables[0], targets_of(tables[0]["label"]), probabilities)


def _folds(table: pd.DataFrame, folds: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    from sklearn.model_selection import StratifiedGroupKFold

    count = min(folds, table["group"].nunique())
    if count < 2:
        raise UserError("build/splits.parquet: stacking needs two groups or more in validation: split anew.")
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    yield from splitter.split(table, table["label"], table["group"])


def describe(name: str, entry: Ensemble, members: list[Member], head_parameters: int) -> dict[str, Any]:
    """model.json of an ensemble: the cost is the sum of its members', and their heads are sealed by digest."""
    first = members[0].model
    origins = sorted({str(m.model["weights"]) for m in members}, key=lambda o: (not o.startswith("random"), o))
    return {
        "candidate": name,
        "architecture": entry.kind,
        "backbone": first["backbone"],
        "network": " + ".join(str(member.model["network"]) for member in members),
        "image_size": first["image_size"],
        "parameters": sum(int(member.model["parameters"]) for member in members) + head_parameters,
        "trainable_parameters": sum(int(m.model["trainable_parameters"]) for m in members) + head_parameters,
        "weights": ", ".join(origins),
        "classes": first["classes"],
        "several_labels": bool(first.get("several_labels", False)),
        "seed": first["seed"],
        "epochs_run": 1,
        "best_epoch": 1,
        "members": [{"name": member.name, "backbone": member.model["backbone"]} for member in members],
        "settings": {
            **entry.model_dump(mode="json"),
            "heads": {member.name: file_digest(CANDIDATES / member.name / HEAD_WEIGHTS) for member in members},
        },
    }


def history_of(targets: Targets, probabilities: NDArray[np.float64], split: pd.Series) -> pd.DataFrame:
    """The one row that an ensemble has of a learning curve."""
    row: dict[str, float] = {"epoch": 1}
    for prefix, name in (("", "train"), ("val_", "validation")):
        rows = (split == name).to_numpy()
        if targets.several_labels:
            right = (probabilities > 0.5) == (targets.values > 0)
        else:
            right = probabilities.argmax(axis=1) == targets.values
        row[f"{prefix}loss"] = log_loss(_of(targets, rows), probabilities[rows])
        row[f"{prefix}accuracy"] = float(right[rows].mean())
    return pd.DataFrame([row])[["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]].assign(learning_rate=0.0)
