"""What training left behind for each candidate: its description, learning curve and predictions for every image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common.errors import UserError
from stages.evidence.intervals import group_codes
from stages.evidence.scores import Floats, Ints

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
    def parameters(self) -> int:
        return int(self.model["parameters"])

    @property
    def latency(self) -> float | None:
        """Milliseconds an image, where they were measured."""
        value = self.model.get("latency_ms")
        return None if value is None else float(value)


@dataclass(frozen=True)
class Sample:
    """The images of one split: labels (N,), probabilities (N, K), group codes (N,) and paths (N,)."""

    labels: Ints
    probabilities: Floats
    codes: Ints
    paths: list[str]

    @property
    def groups(self) -> int:
        return len(np.unique(self.codes))


def sample_of(table: pd.DataFrame, classes: list[str], split: str | None = None) -> Sample:
    """Return the rows of `split` (all rows by default) of a predictions table as arrays."""
    rows = table if split is None else table[table["split"] == split]
    probabilities = rows[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    return Sample(
        labels=np.asarray(pd.Categorical(rows["label"], categories=classes).codes, dtype=np.int64),
        probabilities=probabilities,
        codes=group_codes(rows["group"]),
        paths=rows["path"].tolist(),
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
        if candidate.classes != first.classes or not candidate.table[list(COLUMNS)].equals(first.table[list(COLUMNS)]):
            raise UserError(
                f"{folder}/{candidate.name} and {folder}/{first.name} were not predicted for the same images, "
                "classes and splits: run `dvc repro` so that both are trained on the present split."
            )
    return found, [name for name in names if name not in found]


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
    folds_file = folder / "cross_validation.parquet"
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
    if not np.isfinite(values).all() or np.abs(values.sum(axis=1) - 1).max(initial=0) > 1e-3:
        raise UserError(f"{path} holds probabilities that are not finite or do not add up to 1: {again}.")
    if not set(table["label"]) <= set(model["classes"]):
        raise UserError(f"{path} has labels that are not among the model's classes: {again}.")
    return table.sort_values("path", ignore_index=True)
