"""The results of training for each candidate: description, learning curve and predictions for every image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.records import read_plain, read_record, read_table
from plumbline.evidence.calibration import scale
from plumbline.evidence.intervals import group_codes
from plumbline.imaging.labels import classes_of
from plumbline.models.assemble import read_cost
from plumbline.models.records import ModelRecord, Speed
from plumbline.tasks.known import task_of
from plumbline.tasks.labels import truth_table
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.scores import Floats, Ints, brier_of_each
from plumbline.tasks.task import LabelSets, Task

SPLITS = ("train", "validation", "test")
COLUMNS = ("path", "id", "label", "split", "group")
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class TrainedCandidate:
    """`table` is sorted by path: `COLUMNS`, and `p_CLASS` for each of `classes`; `history` is the learning curve."""

    name: str
    model: ModelRecord
    history: pd.DataFrame
    table: pd.DataFrame
    latency: float | None = None  # milliseconds of one picture, where they were measured
    seconds: float | None = None  # that its training took, where they were measured
    speed: Speed | None = None  # of a compressed one, measured in turns with its original's
    original_speed: Speed | None = None

    @property
    def classes(self) -> list[str]:
        return list(self.model.classes)

    @property
    def task(self) -> Task:
        """What was asked of each picture."""
        return task_of(self.model)

    def sample(self, split: str | None = None) -> Predictions:
        """The pictures of `split` (all by default) as arrays."""
        return sample_of(self.table, self.classes, split, self.task)

    @property
    def parameters(self) -> int:
        return self.model.parameters

    @property
    def bytes(self) -> int:
        """What it takes on disk: its weights in float32, of a compressed one its file."""
        return self.model.compressed.bytes if self.model.compressed else FLOAT32_BYTES * self.model.parameters


@dataclass(frozen=True)
class Predictions:
    """The images of one split: truth (N, K), probabilities (N, K), group codes (N,) and paths (N,).

    `task` says how they are read; a picture is right where every class is.
    """

    truth: NDArray[np.bool_]
    probabilities: Floats
    codes: Ints
    paths: list[str]
    task: Task = ONE_LABEL

    @property
    def groups(self) -> int:
        return len(np.unique(self.codes))

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """The classes that the model predicts (N, K)."""
        return self.task.predicted(self.probabilities)

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.asarray((self.predicted == self.truth).all(axis=1))

    @property
    def decisions(self) -> tuple[Ints, Floats]:
        """The single choices that calibration is about: their true option (M,), its probabilities (M, C)."""
        return self.task.decisions(self.truth, self.probabilities)

    @property
    def brier(self) -> Floats:
        """Each picture's Brier score (N,), the mean of its decisions'."""
        labels, probabilities = self.decisions
        return np.asarray(brier_of_each(labels, probabilities).reshape(len(self.truth), -1).mean(axis=1))

    @property
    def label_sets(self) -> LabelSets:
        """The sets of classes that pictures have: one class each, or combinations of labels."""
        return self.task.label_sets(self.truth)

    def scaled(self, temperature: float) -> Predictions:
        """The same with probabilities scaled by `temperature`."""
        after = scale(self.decisions[1], temperature)
        return self.answering(self.task.from_decisions(after, self.truth.shape[1]))

    def answering(self, probabilities: Floats) -> Predictions:
        """The same pictures with other probabilities (N, K)."""
        return replace(self, probabilities=probabilities)

    def take(self, rows: NDArray[Any]) -> Predictions:
        """Some of the pictures, by number or by a mask (N,); groups are counted anew."""
        paths = np.asarray(self.paths, dtype=object)[rows].tolist()
        return Predictions(self.truth[rows], self.probabilities[rows], group_codes(self.codes[rows]), paths, self.task)


def sample_of(table: pd.DataFrame, classes: list[str], split: str | None = None, task: Task = ONE_LABEL) -> Predictions:
    """Return the rows of `split` (all rows by default) of a predictions table as arrays."""
    rows = table if split is None else table[table["split"] == split]
    return Predictions(
        truth=truth_table(rows["label"], classes),
        probabilities=rows[[f"p_{name}" for name in classes]].to_numpy(np.float64),
        codes=group_codes(rows["group"]),
        paths=rows["path"].tolist(),
        task=task,
    )


def read_candidates(folder: Path, names: list[str]) -> tuple[dict[str, TrainedCandidate], list[str]]:
    """Return the candidates of `names` found under `folder`, and the names that have no result there.

    Raises UserError where none is found, or where two were not predicted for the same images, classes and splits.
    """
    folders = {name: folder_of(folder, name) for name in names}
    found = {name: read_candidate(place) for name, place in folders.items() if (place / artefacts.MODEL).is_file()}
    if not found:
        raise UserError(f"{folder} holds no trained candidate of params.yaml ({', '.join(names)}): run `dvc repro`.")
    first = next(iter(found.values()))
    for candidate in found.values():
        alike = (candidate.classes, candidate.task) == (first.classes, first.task)
        if not alike or not candidate.table[list(COLUMNS)].equals(first.table[list(COLUMNS)]):
            raise UserError(
                f"{folder}/{candidate.name} and {folder}/{first.name} were not predicted for the same images, "
                "classes and splits: run `dvc repro` so that both are trained on the present split."
            )
    return found, [name for name in names if name not in found]


def read_not_made(ensembles: Path) -> dict[str, str]:
    """Return the ensembles that had too few members, each with the reason."""
    file = ensembles / artefacts.NOT_MADE
    return read_plain(file, dict[str, str], artefacts.ENSEMBLES.by) if file.is_file() else {}


def folder_of(candidates: Path, name: str) -> Path:
    """Return the folder of candidate `name`: an ensemble's lies in `ensembles`, beside the folder `candidates`."""
    ensemble = candidates.parent / "ensembles" / name
    return ensemble if (ensemble / artefacts.MODEL).is_file() else candidates / name


def read_candidate(folder: Path) -> TrainedCandidate:
    """Return one candidate of `folder`; UserError names the file that is missing or holds something else."""
    model = read_record(folder / artefacts.MODEL, ModelRecord, f"train@{folder.name}")
    try:
        history = pd.read_csv(folder / artefacts.HISTORY)
        table = pd.read_parquet(folder / artefacts.PREDICTIONS)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: run `dvc repro -f {model.made_by}`.") from None
    except ValueError as error:
        raise UserError(f"{folder} is damaged ({error}): run `dvc repro -f {model.made_by}`.") from None
    cost = read_cost(folder)
    candidate = TrainedCandidate(
        name=folder.name,
        model=model,
        history=history,
        table=_checked(table, model, folder / artefacts.PREDICTIONS),
        latency=cost.latency_ms,
        seconds=cost.seconds,
        speed=cost.speed,
        original_speed=cost.original_speed,
    )
    missing = set(SPLITS) - set(candidate.table["split"])
    if missing:
        raise UserError(
            f"{folder}/predictions.parquet has no {', '.join(sorted(missing))} images: run `dvc repro split`."
        )
    return candidate


def read_unseen(race: Path, candidates: dict[str, TrainedCandidate], finalists: list[str]) -> dict[str, Predictions]:
    """Return the pictures that select, by finalist; UserError where a table is missing, or they are not the same."""
    found: dict[str, Predictions] = {}
    for name in finalists:
        file = race / f"{name}.parquet"
        if name not in candidates or not file.is_file():
            raise UserError(f"{file} or the candidate it is about is missing: run `dvc repro -f race`.")
        candidate = candidates[name]
        table = _checked(read_table(file, stage=artefacts.RACE.by), candidate.model, file)
        found[name] = sample_of(table, candidate.classes, task=candidate.task)
        if found[name].paths != found[finalists[0]].paths:
            raise UserError(f"{file} is about other pictures than the others' beside it: run `dvc repro -f race`.")
    return found


def _checked(table: pd.DataFrame, model: ModelRecord, path: Path) -> pd.DataFrame:
    probabilities = [f"p_{name}" for name in model.classes]
    absent = [column for column in (*COLUMNS, *probabilities) if column not in table.columns]
    again = f"run `dvc repro -f {model.made_by}`"
    if absent:
        raise UserError(f"{path} has no column {', '.join(absent)}: {again}.")
    values = table[probabilities].to_numpy(np.float64)
    exclusive = task_of(model).exclusive
    if not np.isfinite(values).all() or values.min(initial=0) < 0 or values.max(initial=0) > 1 + 1e-6:
        raise UserError(f"{path} holds probabilities that are not finite or not between 0 and 1: {again}.")
    if exclusive and np.abs(values.sum(axis=1) - 1).max(initial=0) > 1e-3:
        raise UserError(f"{path} holds probabilities that do not add up to 1, with one label to a picture: {again}.")
    labels = set(table["label"].astype(str))
    if not (labels if exclusive else classes_of(labels)) <= set(model.classes):
        raise UserError(f"{path} has labels that are not among the model's classes: {again}.")
    return table.sort_values("path", ignore_index=True)
