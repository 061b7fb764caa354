"""A labelled batch, and which of its pictures are new.

A batch is a folder that `ingest` could read (class folders, or flat pictures with metadata.csv or labels.csv), or a
Label Studio JSON export (flows.label_studio).
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common.errors import UserError
from plumbline.common.params import Section
from plumbline.imaging.labels import SEVERAL, LabelError, label_classes, read_label, shown
from plumbline.imaging.layouts.which import find_layout
from plumbline.imaging.litter import is_litter
from plumbline.imaging.manifest import Ingested, IngestParams, ingest
from plumbline.imaging.metadata import ISO_TIME, find_table
from plumbline.imaging.settings import DataParams
from plumbline.leakage.copies import CopyParams, same_picture
from plumbline.leakage.hash_search import matches_within

if TYPE_CHECKING:
    import pandas as pd

METADATA = ("metadata.csv", "labels.csv")


class IntakeParams(Section):
    """params.yaml, section `intake`.

    A picture whose pHash is within `copy_distance` bits of a known one, and which `group` would call its copy, colours
    included, stays out (2: the same picture, encoded or scaled again). Pictures that are merely similar go in, and
    `group` keeps them on one side of the split.
    """

    copy_distance: int = Field(2, ge=0, le=16)


@dataclass(frozen=True)
class Refusal:
    """A picture of the batch that stays out: its name there, and why; `twin` names the known picture it copies."""

    path: str
    reason: str
    twin: str | None = None


@dataclass(frozen=True)
class LabelledBatch:
    """The readable, labelled pictures of a batch under `root`, and the refused.

    `table` is ingest's manifest, `thumbnails` (N, 81, 96) what ingest keeps to compare its rows by.
    """

    root: Path
    table: pd.DataFrame
    refused: list[Refusal]
    thumbnails: NDArray[np.uint8]


def read_folder(
    root: Path, data: DataParams, params: IngestParams, refused: list[Refusal] | None = None
) -> LabelledBatch:
    """Decode and check every picture of a batch folder; UserError where it holds none that can be used."""
    there = [entry.name for entry in os.scandir(root)]
    names = [name for name in METADATA if find_table(there, name)[0]]
    if len(names) == 2:
        raise UserError(f"{root} has both metadata.csv and labels.csv: keep the one that holds the labels.")
    # A published split does not matter for new pictures: `split` draws a side for them.
    parted = "refuse" if data.published_split == "refuse" else "merge"
    settings = {"root": root, "layout": "auto", "metadata": names[0] if names else METADATA[0]}
    here = data.model_copy(update={**settings, "published_split": parted})
    if (layout := find_layout(here)) != "folders":
        raise UserError(f"{root} holds {layout}, and intake takes class folders, or pictures with a labels.csv.")
    found: Ingested = ingest(here, params)
    _refuse_wrong_times(found.manifest)
    quarantined = found.quarantine[["path", "reason"]].itertuples(index=False)
    all_refused = [*(refused or []), *(Refusal(str(path), str(reason)) for path, reason in quarantined)]
    if found.manifest.empty:
        first = f"; the first: {all_refused[0].path} {all_refused[0].reason}" if all_refused else ""
        raise UserError(f"{root} holds no picture that can be used{first}.")
    return LabelledBatch(root, found.manifest, all_refused, found.thumbnails)


def _refuse_wrong_times(manifest: pd.DataFrame) -> None:
    """UserError where `validate` would stop the next run for a time of the batch that is none."""
    if "captured_at" not in manifest:
        return
    given = manifest["captured_at"].dropna().astype(str)
    wrong = given[~given.str.match(ISO_TIME)]
    if len(wrong):
        raise UserError(
            f"the batch has {len(wrong)} pictures whose captured_at is no time in ISO 8601 (the first: "
            f"{shown(wrong.iloc[0])} of {manifest.loc[wrong.index[0], 'path']}), and nothing was taken in: write it as "
            "2026-03-31T14:05:00."
        )


def new_pictures(
    batch: LabelledBatch,
    known: pd.DataFrame,
    params: IntakeParams,
    thumbnails: NDArray[np.uint8],
    likeness: CopyParams | None = None,
) -> tuple[pd.DataFrame, list[Refusal]]:
    """Return the rows of `batch.table` that are new, and the refused copies.

    A copy with another label than its twin has a reason of its own: one of the two labels is wrong, and only a person
    can say which. Where both are in the batch, neither goes in.

    Args:
        batch: what comes in.
        known: the manifest of data/.
        params: how near the hashes of copies are.
        thumbnails: (len(known), 81, 96), what ingest keeps of the known pictures.
        likeness: what the section `group` of params.yaml asks of copies; None is its defaults.
    """
    import pandas as pd

    columns = ["path", "id", "pixels_sha256", "label", "phash"]
    everything = pd.concat([known[columns], batch.table[columns]], ignore_index=True)
    offset = len(known)
    asked = likeness or CopyParams()

    def alike(new: int, other: int, distance: int) -> bool:
        a, b = (batch.thumbnails[row - offset] if row >= offset else thumbnails[row] for row in (new, other))
        return same_picture(a, b, distance, asked)

    twins = _twins(everything, offset, params.copy_distance, alike)
    refused, kept = [], []
    disputed: dict[int, int] = {}
    for row in range(offset, len(everything)):
        twin = twins.get(row)
        # The copy of a copy is a copy of the original.
        while twin is not None and twin in twins:
            twin = twins[twin]
        if twin is None:
            kept.append(row - offset)
            continue
        mine, other = everything.loc[row], everything.loc[twin]
        reason = f"is a copy of {other['path']}"
        if mine["label"] != other["label"]:
            reason += f", but labelled {mine['label']}, not {other['label']}: correct the one that is wrong"
            disputed.setdefault(twin - offset, row)
        refused.append(Refusal(str(mine["path"]), reason, str(other["path"])))
    for place_in_batch in sorted(set(disputed) & set(kept)):
        mine, other = batch.table.iloc[place_in_batch], everything.loc[disputed[place_in_batch]]
        reason = f"is the same picture as {other['path']}, but labelled {mine['label']}, not {other['label']}"
        refused.append(Refusal(str(mine["path"]), f"{reason}: correct the one that is wrong", str(other["path"])))
        kept.remove(place_in_batch)
    return batch.table.iloc[kept].reset_index(drop=True), refused


def _twins(table: pd.DataFrame, offset: int, distance: int, alike: Callable[[int, int, int], bool]) -> dict[int, int]:
    """Return row -> earlier row that is the same picture, for rows from `offset` on: bytes, pixels, then likeness.

    Args:
        alike: whether two rows, their hashes so many bits apart, are `same_picture`.
    """
    twins: dict[int, int] = {}
    for column in ("id", "pixels_sha256"):
        first: dict[str, int] = {}
        for row, value in enumerate(table[column]):
            earlier = first.setdefault(value, row)
            if earlier < row and row >= offset:
                twins.setdefault(row, earlier)
    hashes = table["phash"].to_numpy(np.uint64)
    near = matches_within(hashes[offset:], hashes, distance)
    for new, other, bits in zip(
        (near.first + offset).tolist(), near.second.tolist(), near.distance.tolist(), strict=True
    ):
        if other < new and new not in twins and alike(new, other, bits):
            twins[new] = other
    return twins


def class_folders(root: Path) -> dict[str, str]:
    """Return the top folders of data/ by `_folder_key`, so that a class goes into its existing folder."""
    if not root.is_dir():
        return {}
    return {_folder_key(entry.name): entry.name for entry in os.scandir(root) if not is_litter(entry.name)}


def _folder_key(name: str) -> str:
    """A key that is equal for folders that some systems take for the same."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def place(row: Any, folders: Mapping[str, str] | None = None) -> str:
    """Return where a new picture goes under data/: class folder, the name it came with, eight digits of its id.

    UserError where the label can't be a folder's name; `folders` are the existing ones (see `class_folders`).
    """
    try:
        label = read_label(row["label"])
    except LabelError as error:
        raise UserError(f"{row['path']}: its label {row['label']!r} {error}.") from None
    name = PurePosixPath(row["path"])
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name.stem).strip("._") or "picture"
    own = label_classes(label)[0]
    folder = (folders or {}).get(_folder_key(own), own)
    return f"{folder}/{stem[:60]}-{row['id'][:8]}{name.suffix.lower()}"


def metadata_rows(
    new: pd.DataFrame, computed: tuple[str, ...], folders: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Return what metadata.csv should say of the new pictures: path under data/, label where it is not the folder's
    name, and the batch's own columns."""
    own = [column for column in new.columns if column not in computed]
    rows = []
    for _, row in new.iterrows():
        values = {column: str(row[column]) for column in own if isinstance(row[column], str) and row[column]}
        path = place(row, folders)
        if SEVERAL in row["label"] or unicodedata.normalize("NFC", path.split("/")[0]) != row["label"]:
            values["label"] = row["label"]
        if values:
            rows.append({"path": path, **values})
    return rows
