"""Combine the best few candidates by validation; the ensemble competes with them.

Members share one input size, that of the best, so that the served model reads each picture once. The stacking
regression learns from validation pictures; its own figures on them come from folds that leave whole groups out, so that
it gains nothing from having seen the labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.files import file_digest
from plumbline.common.params import Section
from plumbline.common.records import read_record
from plumbline.models.assemble import read_cost
from plumbline.models.combination import Kind, stacked, stacking_inputs
from plumbline.models.fitting import Targets, predictions_of, targets_of
from plumbline.models.records import Cost, MemberRecord, ModelRecord
from plumbline.tasks.known import task_of

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDS = 5


class Ensemble(Section):
    """One entry of `ensembles`: the mean of the members' probabilities, or a regression on them."""

    kind: Kind
    members: Annotated[int, Field(ge=2, le=20)] = 3


@dataclass(frozen=True)
class Member:
    """A trained candidate: its model.json and its predictions, sorted by path."""

    name: str
    model: ModelRecord
    table: pd.DataFrame


def read_members(folder: Path, names: list[str]) -> list[Member]:
    """Read the trained candidates; UserError where one is missing or was trained on another split."""
    members = []
    for name in names:
        try:
            model = read_record(folder / name / artefacts.MODEL, ModelRecord, f"train@{name}")
            members.append(Member(name, model, _sorted(folder / name / artefacts.PREDICTIONS)))
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / name} can't be read ({error}): run `dvc repro train@{name}`.") from None
    first = members[0].table[["path", "label", "split"]]
    for member in members:
        if not member.table[["path", "label", "split"]].equals(first):
            raise UserError(f"{folder / member.name} was trained on another split: run `dvc repro`.")
    return members


def _sorted(file: Path) -> pd.DataFrame:
    return pd.read_parquet(file).sort_values("path", ignore_index=True)


def choose_members(members: list[Member], count: int) -> list[Member]:
    """The `count` candidates with the least validation loss among those with the best one's input size.

    An ensemble takes two or more. Candidates whose training failed take no part; there may be no others.
    """
    able = [member for member in members if member.model.status == "trained"]
    ranked = sorted(able, key=lambda member: (_validation_loss(member), member.name))
    return [member for member in ranked if _shown(member) == _shown(ranked[0])][:count]


def why_not_made(chosen: list[Member]) -> str:
    """Why there is no ensemble of the one or none that `choose_members` found."""
    if not chosen:
        return "the training of every candidate failed"
    size, best = chosen[0].model.image_size, chosen[0].name
    return f"no other candidate reads {size}-pixel pictures as the best one, {best}, does"


def _shown(member: Member) -> tuple[int, str]:
    """What a member's pictures look like, before its own network: their side, and how they are brought to it."""
    return member.model.image_size, member.model.fit


def _validation_loss(member: Member) -> float:
    rows = (member.table["split"] == "validation").to_numpy()
    targets = targets_of(member.table["label"])
    return targets.task.log_loss(targets.truth[rows], _probabilities(member)[rows])


def _probabilities(member: Member) -> NDArray[np.float64]:
    return member.table[[f"p_{name}" for name in member.model.classes]].to_numpy(np.float64)


def combine_predictions(
    members: list[Member], kind: Kind, folds: int = FOLDS
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]] | None]:
    """The ensemble's probabilities (N, C) for every picture, and stacking's kernel and bias (None for a vote)."""
    table = members[0].table
    targets = targets_of(table["label"])
    probabilities = np.stack([_probabilities(member) for member in members], axis=1)
    if kind == "soft_vote":
        return probabilities.mean(axis=1), None
    task = targets.task
    seen = stacking_inputs(probabilities, task)
    rows = np.flatnonzero((table["split"] == "validation").to_numpy())
    head = task.fit_stacking(seen[rows], targets.truth[rows])
    combined = stacked(seen, *head, task)
    for learn, held in _folds(table.iloc[rows], folds):
        fold = task.fit_stacking(seen[rows[learn]], targets.truth[rows[learn]])
        combined[rows[held]] = stacked(seen[rows[held]], *fold, task)
    return combined, head


def combined_unseen(members: list[Member], kind: Kind) -> pd.DataFrame:
    """What the ensemble says of the pictures of its members' tables, which no member saw (stacking's head neither)."""
    table = members[0].table
    # Every picture plays validation's part: none was trained on.
    unseen = [replace(member, table=member.table.assign(split="validation")) for member in members]
    probabilities, _ = combine_predictions(unseen, kind)
    return predictions_of(table, targets_of(table["label"]), probabilities)


def _folds(table: pd.DataFrame, folds: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    from sklearn.model_selection import StratifiedGroupKFold

    count = min(folds, table["group"].nunique())
    if count < 2:
        raise UserError(f"{artefacts.SPLITS}: stacking needs two groups or more in validation: split anew.")
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    yield from splitter.split(table, table["label"], table["group"])


def model_record(name: str, entry: Ensemble, members: list[Member], head_parameters: int) -> ModelRecord:
    """model.json of an ensemble: its parameters are the sum of its members', whose heads are named by digest."""
    first = members[0].model
    origins = sorted({m.model.weights for m in members}, key=lambda o: (not o.startswith("random"), o))
    heads = {
        member.name: file_digest(artefacts.CANDIDATES / member.name / artefacts.HEAD_WEIGHTS) for member in members
    }
    return ModelRecord(
        candidate=name,
        architecture=entry.kind,
        backbone=first.backbone,
        network=" + ".join(member.model.network or "" for member in members),
        image_size=first.image_size,
        fit=first.fit,
        parameters=sum(member.model.parameters for member in members) + head_parameters,
        trainable_parameters=sum(m.model.trainable_parameters for m in members) + head_parameters,
        weights=", ".join(origins),
        classes=first.classes,
        **task_of(first).record,
        seed=first.seed,
        epochs_run=1,
        best_epoch=1,
        members=tuple(MemberRecord(name=member.name, backbone=member.model.backbone) for member in members),
        settings={**entry.model_dump(mode="json"), "heads": heads},
    )


def cost_of(members: list[Member]) -> Cost:
    """cost.json of an ensemble: members score a picture one after the other, so their milliseconds add up."""
    measured = [read_cost(artefacts.CANDIDATES / member.name).latency_ms for member in members]
    known = [value for value in measured if value is not None]
    return Cost(latency_ms=round(sum(known), 3)) if len(known) == len(members) else Cost()


def history_of(targets: Targets, probabilities: NDArray[np.float64], split: pd.Series) -> pd.DataFrame:
    """An ensemble's learning curve, which is a single row."""
    row: dict[str, float] = {"epoch": 1}
    for prefix, name in (("", "train"), ("val_", "validation")):
        rows = (split == name).to_numpy()
        answers, chances = targets.task.decisions(targets.truth[rows], probabilities[rows])
        row[f"{prefix}loss"] = targets.task.log_loss(targets.truth[rows], probabilities[rows])
        row[f"{prefix}accuracy"] = float((chances.argmax(axis=1) == answers).mean())
    return pd.DataFrame([row])[["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]].assign(learning_rate=0.0)
