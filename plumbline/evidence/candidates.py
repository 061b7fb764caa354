"""What training left behind for each candidate: its description, learning curve and predictions for every image."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.evidence.calibration import scale
from plumbline.evidence.intervals import group_codes
from plumbline.evidence.scores import Floats, Ints, brier_of_each, single_labels
from plumbline.models.assemble import CROSS_VALIDATION, NOT_MADE
from plumbline.models.fitting import SEVERAL

SPLITS = ("train", "validation", "test")
COLUMNS = ("path", "id", "label", "split", "group")


@dataclass(frozen=True)
class Candidate:
    """`table` is sorted by path and has `COLUMNS` and `p_CLASS` for each of `classes`; `history` is the learning curve.

    `folds` holds predictions by cross-validation over groups, in the same form, where training made them.
    """

    name: str
    model: dict[str, Any]
    history: pd.DataFrame
    table: pd.DataFrame
    folds: pd.DataFrame | None = None

    @property
    def classes(self) -> list[str]:
        return [str(name) for name in self.model["classes"]]

    @property
    def several(self) -> bool:
        """Whether a picture may have several labels at once."""
        return bool(self.model.get("several_labels", False))

    def sample(self, split: str | None = None) -> Sample:
        """The pictures of `split` (all by default) as arrays."""
        return sample_of(self.table, self.classes, split, self.several)

    @property
    def parameters(self) -> int:
        return int(self.model["parameters"])

    @property
    def latency(self) -> float | None:
        """Milliseconds an image, where they were measured."""
        value = self.model.get("latency_ms")
        return None if value is None else float(value)


@dataclass(frozen=True)
class Sample:
    """The images of one split: truth (N, K), probabilities (N, K), group codes (N,) and paths (N,).

    With `several` labels each column of probabilities stands for itself, and a picture is right where every label is.
    """

    truth: NDArray[np.bool_]
    probabilities: Floats
    codes: Ints
    paths: list[str]
    several: bool = False

    @property
    def groups(self) -> int:
        return len(np.unique(self.codes))

    @property
    def labels(self) -> Ints:
        """The class (N,) of pictures that have one label each."""
        return np.asarray(self.truth.argmax(axis=1))

    @property
    def told(self) -> NDArray[np.bool_]:
        """What the model said (N, K)."""
        if self.several:
            return np.asarray(self.probabilities > 0.5)
        return np.asarray(np.eye(self.truth.shape[1], dtype=bool)[self.probabilities.argmax(axis=1)])

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.asarray((self.told == self.truth).all(axis=1))

    @property
    def decisions(self) -> tuple[Ints, Floats]:
        """What calibration is about: labels (M,), probabilities (M, C); with several labels each a decision of two."""
        return single_labels(self.truth, self.probabilities) if self.several else (self.labels, self.probabilities)

    @property
    def brier(self) -> Floats:
        """Each picture's Brier score (N,); the mean of its labels' where it has several."""
        labels, probabilities = self.decisions
        return np.asarray(brier_of_each(labels, probabilities).reshape(len(self.truth), -1).mean(axis=1))

    @property
    def label_sets(self) -> tuple[Ints, NDArray[np.bool_]]:
        """Which combination of labels each picture has (N,), and the labels of each (S, K); the classes themselves
        where pictures have one label each."""
        if not self.several:
            return self.labels, np.eye(self.truth.shape[1], dtype=bool)
        members, codes = np.unique(self.truth, axis=0, return_inverse=True)
        return codes.reshape(-1).astype(np.int64), members

    def scaled(self, temperature: float) -> Sample:
        """The same with probabilities scaled by `temperature`."""
        after = scale(self.decisions[1], temperature)
        return self.answering(after[:, 1].reshape(self.truth.shape) if self.several else after)

    def answering(self, probabilities: Floats) -> Sample:
        """The same pictures with other probabilities (N, K)."""
        return replace(self, probabilities=probabilities)

    def take(self, rows: NDArray[Any]) -> Sample:
        """Some of the pictures, by number or by a mask (N,); groups are counted anew."""
        paths = np.asarray(self.paths, dtype=object)[rows].tolist()
        return Sample(self.truth[rows], self.probabilities[rows], group_codes(self.codes[rows]), paths, self.several)


def names_told(told: NDArray[np.bool_], classes: list[str]) -> list[str]:
    """Return the labels of each row of `told` (N, K) as text: `helmet;vest`, or `nothing`."""
    return [SEVERAL.join(np.asarray(classes, dtype=object)[row]) or "nothing" for row in told]


def sample_of(table: pd.DataFrame, classes: list[str], split: str | None = None, several: bool = False) -> Sample:
    """Return the rows of `split` (all rows by default) of a predictions table as arrays."""
    rows = table if split is None else table[table["split"] == split]
    parts = [frozenset(str(label).split(SEVERAL)) for label in rows["label"]]
    return Sample(
        truth=np.array([[name in names for name in classes] for names in parts], dtype=bool).reshape(-1, len(classes)),
        probabilities=rows[[f"p_{name}" for name in classes]].to_numpy(np.float64),
        codes=group_codes(rows["group"]),
        paths=rows["path"].tolist(),
        several=several,
    )


def read_candidates(folder: Path, names: list[str]) -> tuple[dict[str, Candidate], list[str]]:
    """Return the candidates of `names` found under `folder`, and the names that have no result there.

    Raises UserError where none is found, or where two were not predicted for the same images, classes and splits.
    """
    folders = {name: folder_of(folder, name) for name in names}
    found = {name: read_candidate(place) for name, place in folders.items() if (place / "model.json").is_file()}
    if not found:
        raise UserError(f"{folder} holds no trained candidate of params.yaml ({', '.join(names)}): run `dvc repro`.")
    first = next(iter(found.values()))
    for candidate in found.values():
        alike = (candidate.classes, candidate.several) == (first.classes, first.several)
        if not alike or not candidate.table[list(COLUMNS)].equals(first.table[list(COLUMNS)]):
            raise UserError(
                f"{folder}/{candidate.name} and {folder}/{first.name} were not predicted for the same images, "
                "classes and splits: run `dvc repro` so that both are trained on the present split."
            )
    return found, [name for name in names if name not in found]


def read_not_made(ensembles: Path) -> dict[str, str]:
    """Return the ensembles that had too few members, each with the reason."""
    file = ensembles / NOT_MADE
    reasons = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {str(name): str(reason) for name, reason in reasons.items()}


def folder_of(candidates: Path, name: str) -> Path:
    """Return the folder of candidate `name`: an ensemble's lies in `ensembles`, beside the folder `candidates`."""
    ensemble = candidates.parent / "ensembles" / name
    return ensemble if (ensemble / "model.json").is_file() else candidates / name


def read_candidate(folder: Path) -> Candidate:
    """Return one candidate of `folder`; UserError names the file that is missing or holds something else."""
    try:
        model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        history = pd.read_csv(folder / "history.csv")
        table = pd.read_parquet(folder / "predictions.parquet")
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: run `dvc repro -f train@{folder.name}`.") from None
    except ValueError as error:
        raise UserError(f"{folder} is damaged ({error}): run `dvc repro -f train@{folder.name}`.") from None
    folds_file = folder / CROSS_VALIDATION
    candidate = Candidate(
        name=folder.name,
        model=model,
        history=history,
        table=_checked(table, model, folder / "predictions.parquet"),
        folds=_checked(pd.read_parquet(folds_file), model, folds_file) if folds_file.is_file() else None,
    )
    missing = set(SPLITS) - set(candidate.table["split"])
    if missing:
        raise UserError(
            f"{folder}/predictions.parquet has no {', '.join(sorted(missing))} images: run `dvc repro split`."
        )
    return candidate


def _checked(table: pd.DataFrame, model: dict[str, Any], path: Path) -> pd.DataFrame:
    probabilities = [f"p_{name}" for name in model.get("classes", [])]
    absent = [column for column in (*COLUMNS, *probabilities) if column not in table.columns]
    again = f"run `dvc repro -f train@{path.parent.name}`"
    if absent:
        raise UserError(f"{path} has no column {', '.join(absent)}: {again}.")
    values = table[probabilities].to_numpy(np.float64)
    several = bool(model.get("several_labels", False))
    if not np.isfinite(values).all() or values.min(initial=0) < 0 or values.max(initial=0) > 1 + 1e-6:
        raise UserError(f"{path} holds probabilities that are not finite or not between 0 and 1: {again}.")
    if not several and np.abs(values.sum(axis=1) - 1).max(initial=0) > 1e-3:
        raise UserError(f"{path} holds probabilities that do not add up to 1, with one label to a picture: {again}.")
    labels = table["label"].astype(str)
    if not set(labels.str.split(SEVERAL).explode() if several else labels) <= set(model["classes"]):
        raise UserError(f"{path} has labels that are not among the model's classes: {again}.")
    return table.sort_values("path", ignore_index=True)
