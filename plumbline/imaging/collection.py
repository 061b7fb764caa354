"""One table of the pictures in data/ with their labels and metadata, whatever the layout. Nothing is decoded."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from plumbline.common.errors import UserError
from plumbline.imaging.files import shown_path
from plumbline.imaging.labels import LabelError, classes_as_written, read_label, shown
from plumbline.imaging.layouts import arrays, folders, photographs, yolo
from plumbline.imaging.layouts.interface import Layout
from plumbline.imaging.layouts.published import AUGMENTED, photograph
from plumbline.imaging.layouts.which import find_layout
from plumbline.imaging.litter import is_litter
from plumbline.imaging.metadata import Matches, Metadata, Values, match, read_table, said, unread_tables
from plumbline.imaging.pictures import RESERVED, Found, Marked, Refused, source_of
from plumbline.imaging.settings import DataParams

if TYPE_CHECKING:
    import pandas as pd

LAYOUTS: dict[str, Layout] = {"folders": folders, "arrays": arrays, "yolo": yolo}


@dataclass(frozen=True)
class Collection:
    """The pictures of a folder before decoding: `images` (path, label, then metadata columns) and what was refused.

    `boxes`: those of whole photographs, in the order of `images`.
    """

    images: pd.DataFrame
    refused: list[Refused]
    boxes: list[Marked]


def list_images(params: DataParams) -> Collection:
    """Return every picture under `params.root` with its label and metadata, in a fixed order, none decoded.

    Raises UserError where the whole folder can't be used: missing, empty, arrays and labels that don't fit together,
    a metadata.csv that is no table.
    """
    import pandas as pd

    root = params.root
    if state := _unusable(root):
        raise UserError(f"{root}/ {state}: run `dvc pull` for the sample, or put a folder of pictures per class there.")
    layout = find_layout(params)
    found = (photographs if params.task == "detect" else LAYOUTS[layout]).list_pictures(params)
    if not found.rows and not found.refused:
        raise UserError(
            f"{root}/ holds no pictures: run `dvc pull` for the sample, or put a folder of JPEG, PNG, BMP or WebP "
            "files per class there."
        )
    _tie_augmented(found)
    _join_metadata(found, params)
    _check_labels(found)
    columns = list(dict.fromkeys(["path", "label", *(key for row in found.rows for key in row)]))
    values = [[row.get(column) for column in columns] for row in found.rows]
    images = pd.DataFrame(values, columns=columns, dtype=object)
    return Collection(images, sorted(found.refused, key=lambda r: r.path), found.boxes)


def _check_labels(found: Found) -> None:
    """Refuse every row whose label can't be a class's name, wherever it came from; write the others in one form."""
    known: dict[str, str | LabelError] = {}
    kept = []
    for row in found.rows:
        label = row["label"]
        if label not in known:
            try:
                known[label] = read_label(label)
            except LabelError as error:
                known[label] = error
        checked = known[label]
        if isinstance(checked, LabelError):
            reason = f"its label '{shown(label)}' {checked}"
            found.refused.append(Refused(row["path"], reason, "label", shown(label)))
        else:
            row["label"] = checked
            kept.append(row)
    found.rows = kept


def _tie_augmented(found: Found) -> None:
    """Give the copies that Roboflow augmented of one photograph its name as `photo`; metadata.csv may say otherwise."""
    marked = [row for row in found.rows if "photo" not in row and ".rf." in row["path"]]
    marked = [row for row in marked if AUGMENTED.search(PurePosixPath(row["path"]).stem)]
    names = {row["path"]: photograph(row["path"]) for row in marked}
    photographs = len(set(names.values()))
    if photographs == len(names):
        return
    for row in marked:
        row["photo"] = names[row["path"]]
    _say(
        [
            f"{len(names)} pictures are copies that Roboflow made of {photographs} photographs (the first: "
            f"{shown(marked[0]['path'])}): their column `photo` names the photograph."
        ]
    )


def _unusable(root: Path) -> str | None:
    if not root.is_dir():
        return "is missing"
    try:
        return None if any(not is_litter(entry.name) for entry in os.scandir(root)) else "is empty"
    except OSError as error:
        return f"can't be listed ({error.strerror})"


def _join_metadata(found: Found, params: DataParams) -> None:
    """Put metadata columns on the rows (a row for a YOLO photograph serves all its boxes) and settle the labels."""
    table = read_table(params.root, params.metadata, RESERVED)
    _say(unread_tables(found.files, params.metadata))
    if table is None or not table.rows:
        _say(f"{note}." for note in (table.notes if table else ()))
        found.refused += [_unlabelled(row, params) for row in found.rows if not row["label"]]
        found.rows = [row for row in found.rows if row["label"]]
        return
    # A photograph without a box has a row in metadata.csv and a file, but no picture in the table.
    pictures = {name for row in found.rows for name in (row["path"], source_of(row["path"]))}
    others = found.files | {name for one in found.refused for name in (one.path, source_of(one.path))}
    fits = match(table, pictures | others, own=[params.root.resolve().name])
    _say(said(params.metadata, table, fits))
    stated = {values.get("label") for values in table.rows.values()} - {None}
    classes = {part for label in stated for part in classes_as_written(label)}
    known = [_values_of(row, table, fits) for row in found.rows]
    classes |= _class_folders(found.rows, known)
    kept = []
    for row, values in zip(found.rows, known, strict=True):
        # Whole photographs have the label of their boxes, whatever the table says.
        refused = _settle_label(row, values.get("label"), classes, params) if params.task == "crops" else None
        if refused is not None:
            found.refused.append(refused)
            continue
        row.update({column: values.get(column) or row.get(column) for column in table.columns})
        kept.append(row)
    found.rows = kept
    for key, why in fits.unmatched.items():
        reason = f"{params.metadata} has a row for it, but {why}: correct its path or remove the row"
        found.refused.append(Refused(shown_path(key), reason, "missing", table.rows[key].get("label") or ""))


def _values_of(row: dict[str, Any], table: Metadata, fits: Matches) -> Values:
    """What the table has for a picture; a row for a YOLO photograph serves all its boxes."""
    key = fits.of.get(row["path"], fits.of.get(source_of(row["path"])))
    return table.rows[key] if key is not None else {}


def _class_folders(rows: list[dict[str, Any]], known: list[Values]) -> set[str]:
    """The classes by folder of which the table labels fewer pictures than not: they are used as classes, too."""
    balance: Counter[str] = Counter()
    for row, values in zip(rows, known, strict=True):
        balance[row["label"]] += -1 if values.get("label") else 1
    return {part for label, more in balance.items() if more >= 0 for part in classes_as_written(label)}


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _unlabelled(row: dict[str, Any], params: DataParams) -> Refused:
    reason = f"lies in no class folder and {params.metadata} gives it no label: move it, or add it there"
    return Refused(row["path"], reason, "label")


def _settle_label(row: dict[str, Any], stated: str | None, classes: set[str], params: DataParams) -> Refused | None:
    """Decide between the label in metadata.csv and the folder's.

    A folder that metadata.csv does not use as a class (photos/, site_a/), and most of whose pictures it labels, says
    nothing. Where both name a class and disagree, one is wrong and only a person knows which: quarantined, or settled
    by data.label_conflict. `helmet;vest` does not disagree with folder helmet/.
    """
    own = row["label"]
    mine = set(classes_as_written(own))
    if not classes_as_written(stated or ""):
        return None if mine & classes else _unlabelled(row, params)
    disagree = bool(mine) and mine <= classes and not mine <= set(classes_as_written(stated or ""))
    if disagree and params.label_conflict == "quarantine":
        reason = (
            f"lies under {own} but {params.metadata} says {stated}: correct one of them (or set data.label_conflict)"
        )
        return Refused(row["path"], reason, "label", own)
    if not (disagree and params.label_conflict == "folder"):
        row["label"] = stated
    return None
