"""A labelled batch as it comes, and what of it is new.

A batch is a folder that `ingest` could read (class folders, or flat pictures with metadata.csv or labels.csv), or a
Label Studio JSON export (full or JSON-MIN) with the folder that holds its pictures.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common.errors import UserError
from plumbline.common.files import write_table
from plumbline.common.params import Section
from plumbline.imaging.collection import DataParams
from plumbline.imaging.decode import SUFFIXES
from plumbline.imaging.manifest import Ingested, IngestParams, ingest
from plumbline.leakage.copies import CopyParams, same_picture
from plumbline.leakage.hash_search import matches_within

if TYPE_CHECKING:
    import pandas as pd

METADATA = ("metadata.csv", "labels.csv")


class IntakeParams(Section):
    """params.yaml, section `intake`.

    A picture whose pHash is within `copy_distance` bits of a known one, and which `group` would call its copy, colours
    included, stays out (2: the same picture, encoded or scaled again); nearer relatives than strangers go in, and
    `group` keeps them on one side of the split.
    """

    copy_distance: int = Field(2, ge=0, le=16)


@dataclass(frozen=True)
class Refusal:
    """A picture of the batch that does not go in: its name there, and why; `twin` names the known picture it copies."""

    path: str
    reason: str
    twin: str | None = None


@dataclass(frozen=True)
class Batch:
    """The readable, labelled pictures of a batch under `root`, and the refused.

    `table` is ingest's manifest, `thumbnails` (N, 81, 96) what ingest keeps to compare its rows by.
    """

    root: Path
    table: pd.DataFrame
    refused: list[Refusal]
    thumbnails: NDArray[np.uint8]


def read_folder(root: Path, data: DataParams, params: IngestParams, refused: list[Refusal] | None = None) -> Batch:
    """Decode and check every picture of a batch folder; UserError where it holds none that can be used."""
    names = [name for name in METADATA if (root / name).exists()]
    if len(names) == 2:
        raise UserError(f"{root} has both metadata.csv and labels.csv: keep the one that holds the labels.")
    settings = {"root": root, "layout": "folders", "metadata": names[0] if names else METADATA[0]}
    found: Ingested = ingest(data.model_copy(update=settings), params)
    quarantined = found.quarantine[["path", "reason"]].itertuples(index=False)
    all_refused = [*(refused or []), *(Refusal(str(path), str(reason)) for path, reason in quarantined)]
    if found.manifest.empty:
        first = f"; the first: {all_refused[0].path} {all_refused[0].reason}" if all_refused else ""
        raise UserError(f"{root} holds no picture that can be used{first}.")
    return Batch(root, found.manifest, all_refused, found.thumbnails)


def read_label_studio(export: Path, images: Path, into: Path) -> list[Refusal]:
    """Lay the pictures of a Label Studio export out in `into` as a batch folder; return what could not be used.

    Args:
        export: JSON or JSON-MIN, one choice a picture; other data fields become metadata columns.
        images: the folder that uploaded or local files of the tasks are in. Tasks may name URLs (s3://, https://).
        into: an empty folder.
    """
    import pandas as pd

    refused: list[Refusal] = []
    rows = []
    names: Counter[str] = Counter()
    for number, task in enumerate(_tasks(export), 1):
        name = f"task {task.get('id', number)}"
        try:
            data = task["data"] if isinstance(task.get("data"), dict) else task
            key = _image_key(data)
            label = _label(task, data)
            source = str(data[key])
            stem = re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(unquote(urlsplit(source).path)).name) or "picture"
            if _local_name(source):
                stem = PurePosixPath(_local_name(source) or stem).name
            names[stem] += 1
            target = into / (stem if names[stem] == 1 else f"{names[stem]}-{stem}")
            _fetch(source, images, target)
        except _Unusable as error:
            refused.append(Refusal(name, str(error)))
            continue
        columns = {name: text for name, text in data.items() if name != key and _is_metadata(name, text)}
        rows.append({"path": target.name, "label": label, **columns})
    if rows:
        write_table(into / METADATA[0], pd.DataFrame(rows))
    return refused


def new_pictures(
    batch: Batch,
    known: pd.DataFrame,
    params: IntakeParams,
    thumbnails: NDArray[np.uint8],
    likeness: CopyParams | None = None,
) -> tuple[pd.DataFrame, list[Refusal]]:
    """Return the rows of `batch.table` that are not known in any form, and the copies among them.

    A copy with another label than its twin is told apart: one of the two labels is wrong, and only a person can say
    which.

    Args:
        batch: what comes in.
        known: the manifest of what is there.
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
    for row in range(offset, len(everything)):
        twin = twins.get(row)
        # A copy of something that itself stays out copies what that one copies.
        while twin is not None and twin in twins:
            twin = twins[twin]
        if twin is None:
            kept.append(row - offset)
            continue
        mine, other = everything.loc[row], everything.loc[twin]
        reason = f"is a copy of {other['path']}"
        if mine["label"] != other["label"]:
            reason += f", but labelled {mine['label']}, not {other['label']}: correct the one that is wrong"
        refused.append(Refusal(str(mine["path"]), reason, str(other["path"])))
    return batch.table.iloc[kept].reset_index(drop=True), refused


def _twins(table: pd.DataFrame, offset: int, distance: int, alike: Callable[[int, int, int], bool]) -> dict[int, int]:
    """Return row -> earlier row that is the same picture, for rows from `offset` on: bytes, pixels, then likeness.

    Args:
        alike: whether two rows whose hashes are so many bits apart are `same_picture`.
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


def place(row: Any) -> str:
    """Return where a new picture goes under data/: class folder, the name it came with, eight digits of its id."""
    name = PurePosixPath(row["path"])
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name.stem).strip("._") or "picture"
    folder = str(row["label"]).split(";")[0].strip()
    return f"{folder}/{stem[:60]}-{row['id'][:8]}{name.suffix.lower()}"


def metadata_rows(new: pd.DataFrame, computed: tuple[str, ...]) -> list[dict[str, str]]:
    """Return what metadata.csv should say of the new pictures: path under data/, label where it is more than the
    folder's, and the batch's own columns."""
    own = [column for column in new.columns if column not in computed]
    rows = []
    for _, row in new.iterrows():
        values = {column: str(row[column]) for column in own if isinstance(row[column], str) and row[column]}
        if ";" in row["label"]:
            values["label"] = row["label"]
        if values:
            rows.append({"path": place(row), **values})
    return rows


class _Unusable(Exception):
    """Why a task of an export can't be used; ends a sentence that begins with its number."""


def _tasks(export: Path) -> list[dict[str, Any]]:
    try:
        tasks = json.loads(export.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{export} is missing: give the path of Label Studio's JSON export.") from None
    except ValueError as error:
        raise UserError(f"{export} is not valid JSON ({error}): export it again from Label Studio as JSON.") from None
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{export} is no list of tasks: export it from Label Studio as JSON or JSON-MIN.")
    return tasks


def _image_key(data: dict[str, Any]) -> str:
    """The data field that names the picture: `image`, or the only one that looks like a picture's path."""
    if isinstance(data.get("image"), str):
        return "image"
    names = [key for key, value in data.items() if isinstance(value, str) and _looks_like_picture(value)]
    if len(names) != 1:
        raise _Unusable("names no picture" if not names else f"names pictures in {', '.join(sorted(names))}")
    return names[0]


def _looks_like_picture(text: str) -> bool:
    return PurePosixPath(_local_name(text) or urlsplit(text).path).suffix.lower() in SUFFIXES


def _label(task: dict[str, Any], data: dict[str, Any]) -> str:
    """The choice that all annotations agree on; several choices of one annotation are joined by `;`."""
    if "annotations" not in task:  # JSON-MIN
        choice = next((task[key] for key in ("choice", "label", "class") if task.get(key)), None)
        choices = choice.get("choices") if isinstance(choice, dict) else choice
        found = {_joined(choices)} if choices else set()
    else:
        valid = [entry for entry in task["annotations"] if not entry.get("was_cancelled")]
        found = {_joined(choices) for entry in valid if (choices := _choices(entry.get("result") or []))}
    if not found:
        raise _Unusable("has no label: it was skipped, or annotated with something other than choices")
    if len(found) > 1:
        raise _Unusable(f"has annotations that disagree: {' and '.join(sorted(found))}")
    return found.pop()


def _choices(result: list[dict[str, Any]]) -> list[str]:
    return [choice for part in result if part.get("type") == "choices" for choice in part["value"].get("choices", [])]


def _joined(choices: str | list[str]) -> str:
    return choices if isinstance(choices, str) else ";".join(sorted(choices))


def _is_metadata(name: str, value: Any) -> bool:
    """Plain fields of a task's data; not what JSON-MIN puts beside them."""
    own = {"id", "choice", "label", "class", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}
    return name not in own and isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _local_name(source: str) -> str | None:
    """The file of /data/local-files/?d=FILE and /data/upload/PROJECT/FILE, None for other forms."""
    parts = urlsplit(source)
    if parts.path.rstrip("/").endswith("/data/local-files"):
        return parse_qs(parts.query).get("d", [""])[0] or None
    if "/data/upload/" in parts.path:
        return unquote(parts.path.partition("/data/upload/")[2])
    return None


def _fetch(source: str, images: Path, target: Path) -> None:
    name = _local_name(source)
    remote = urlsplit(source)
    if name is None and remote.scheme not in ("", "file"):
        _download(source, target)
        return
    name = name or unquote(remote.path)
    # Uploads lie under their project's number on the server, and flat where somebody exported the files.
    tried = [images / name.lstrip("/"), images / PurePosixPath(name).name]
    inside = [path for path in tried if path.resolve().is_relative_to(images.resolve())]
    found = next((path for path in inside if path.is_file()), None)
    if found is None:
        raise _Unusable(f"names {source}, which is not in {images}")
    shutil.copyfile(found, target)


def _download(url: str, target: Path) -> None:
    import fsspec

    try:
        with fsspec.open(url, "rb") as remote, target.open("wb") as local:
            shutil.copyfileobj(remote, local)
    except (FileNotFoundError, ImportError, ValueError) as error:
        raise _Unusable(f"names {url}, which can't be read: {error}") from None
