"""HelmNet's arrays: images.npy, (N, H, W, 3) uint8, and a label for each row in labels.csv."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from plumbline.common.errors import UserError
from plumbline.imaging.decode import Pixels
from plumbline.imaging.labels import shown
from plumbline.imaging.metadata import SEPARATORS, table_text
from plumbline.imaging.pictures import RESERVED, Found, Picture, Refused
from plumbline.imaging.settings import DataParams

Rows = list[list[str]]

_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "target", "category", "y")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.A)
_TRUTH = {"true": "1", "false": "0"}


def list_pictures(params: DataParams) -> Found:
    """List every row of the array with its label; UserError where array and labels don't fit together."""
    images, labels_file = open_array(params), params.root / params.arrays.labels
    header, table = read_labels(labels_file, len(images), params.arrays.classes)
    if len(table) != len(images):
        raise UserError(
            f"{labels_file} holds {len(table)} labels but {params.arrays.images} {len(images)} pictures: "
            "export both again, row for row."
        )
    found = Found()
    place = header.index("label")
    for name in header:
        if name != "label" and (name in RESERVED or name.startswith("_")):
            raise UserError(f"{labels_file} has a column {name!r}, a name that ingest uses itself: rename it.")
    for number, values in enumerate(table):
        path = f"{params.arrays.images}#{number}"
        label = class_of(values[place], params.arrays.classes)
        if label is None:
            known = ", ".join(params.arrays.classes)
            reason = f"its label '{shown(values[place].strip())}' is none of {known} (data.arrays.classes)"
            found.refused.append(Refused(path, reason, "label"))
        else:
            extra = {name: text.strip() or None for name, text in zip(header, values, strict=True) if name != "label"}
            found.rows.append({"path": path, "label": label, **extra})
    return found


def class_of(text: str, classes: dict[str, str]) -> str | None:
    """Return the class that a cell of the labels stands for, None where it stands for none.

    `1`, `1.0`, `1.000e+00` and `True` are the class listed as 1; a class may also be called by its name.
    """
    value = text.strip()
    if value in classes:
        return classes[value]
    if _NUMBER.fullmatch(value) and float(value).is_integer():
        return classes.get(str(int(float(value))))
    if value.lower() in _TRUTH:
        return classes.get(_TRUTH[value.lower()])
    return value if value in classes.values() else None


def read_labels(path: Path, pictures: int, classes: dict[str, str]) -> tuple[list[str], Rows]:
    """Return the header, with one column `label`, and the rows of a labels file.

    It may be a single column with or without a header, as numpy.savetxt and pandas write it, or a table with a column
    `label`. With a header the file has one line more than there are `pictures`.
    """
    rows = [[cell.strip() for cell in row] for row in _read_rows(path) if any(cell.strip() for cell in row)]
    if not rows:
        raise UserError(f"{path} is empty: put a label on each line, one for each picture.")
    rows[0][0] = rows[0][0].removeprefix("#").strip()  # numpy.savetxt(header="label")
    first, has_header = rows[0], len(rows) == pictures + 1
    if len(first) == 1:
        is_label = class_of(first[0], classes) is not None or _NUMBER.fullmatch(first[0]) is not None
        is_named = first[0].casefold() in _LABEL_COLUMNS
        has_header = is_named or (has_header if is_label else len(rows) != pictures)
        return _checked(path, ["label"], rows[1:] if has_header else rows, first_row=2 if has_header else 1)
    if len(first) == 2 and len(rows) == pictures > 2 and _is_index(rows):  # Series.to_csv(header=False)
        return _checked(path, [_INDEX, "label"], rows, first_row=1)
    header = _without_index(first, rows)
    named = [name for name in header if name.casefold() in _LABEL_COLUMNS]
    named = [name for name in named if name.casefold() == "label"] or named
    unnamed = [name for name in header if name not in ("", _INDEX)]
    if not named and len(unnamed) == 1 and _INDEX in header:  # Series.to_csv: index and `0`
        named = unnamed
    if len(named) != 1:
        numbers = all(_NUMBER.fullmatch(cell) for cell in first)
        way = (
            "one column of class numbers is read, not a column for each class"
            if numbers
            else ("rename the one that holds it")
        )
        raise UserError(f"{path} has no column `label` but {', '.join(first)}: {way}.")
    names = ["label" if name == named[0] else name for name in header]
    return _checked(path, names, rows[1:], first_row=2)


_INDEX = "\0index"


def _without_index(header: list[str], rows: Rows) -> list[str]:
    """The header with pandas' unnamed index marked; `_checked` drops the column."""
    if header[0] not in ("", "Unnamed: 0", "index"):
        return header
    return [_INDEX, *header[1:]] if _is_index(rows[1:]) else header


def _is_index(rows: Rows) -> bool:
    return [row[0] for row in rows] == [str(number) for number in range(len(rows))]


def _checked(path: Path, header: list[str], rows: Rows, first_row: int) -> tuple[list[str], Rows]:
    repeated = [name for name, count in Counter(header).items() if count > 1 or not name]
    if repeated:
        raise UserError(f"{path} has a column name twice, or without a name ({repeated[0]!r}): rename it.")
    for number, row in enumerate(rows, first_row):
        if len(row) != len(header):
            raise UserError(f"{path}, row {number}: {len(row)} values under {len(header)} column names, correct it.")
    keep = [place for place, name in enumerate(header) if name != _INDEX]
    return [header[place] for place in keep], [[row[place] for place in keep] for row in rows]


def _read_rows(path: Path) -> Rows:
    try:
        text = table_text(path.read_bytes(), str(path))
        first = next(iter(text.splitlines()), "")
        mark = next((mark for mark in SEPARATORS if mark in first), ",")
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True))
    except FileNotFoundError:
        near = sorted(one.name for one in path.parent.glob("*") if "label" in one.name.casefold())
        there = f" ({shown(near[0])} lies there: save it as {path.name}, or set data.arrays.labels)" if near else ""
        raise UserError(f"{path} is missing{there}: put it there, or set data.layout.") from None
    except (csv.Error, OSError) as error:
        raise UserError(f"{path} is no CSV file in UTF-8 ({error}): save it again as one.") from None


def open_array(params: DataParams) -> Pixels:
    """Return the (N, H, W, 3) uint8 array, memory-mapped; UserError where it is something else."""
    path = params.root / params.arrays.images
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: put it there, or set data.layout.") from None
    except (ValueError, OSError, EOFError) as error:
        # NumPy takes every file that it does not know for a pickle, and advises to open it unsafely.
        why = "a pickle, or no array at all" if "pickle" in str(error) else str(error)
        raise UserError(f"{path} is no plain NumPy array ({why}): save it again with np.save, dtype uint8.") from None
    if not isinstance(array, np.ndarray) or array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive of arrays"
        raise UserError(f"{path} holds {got}, not uint8 pictures (N, H, W, 3): save it again in that shape.")
    return array


def read(params: DataParams, source: str, paths: Sequence[str]) -> Iterator[Picture | Refused]:
    """Yield rows of the array as pictures."""
    array = open_array(params)
    yield from (_row(params, array, path) for path in paths)


def states(params: DataParams, source: str, paths: Sequence[str]) -> list[str]:
    """Return a digest of each row, or why it can't be read."""
    return [one.reason if isinstance(one, Refused) else one.id for one in read(params, source, paths)]


def _row(params: DataParams, array: Pixels, path: str) -> Picture | Refused:
    number = int(path.rpartition("#")[2])
    if number >= len(array):
        return Refused(path, f"{params.arrays.images} holds only {len(array)} pictures", "unreadable")
    stored = np.ascontiguousarray(array[number])
    rgb = stored[..., ::-1] if params.arrays.channels == "bgr" else stored
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return Picture(path, image, hashlib.sha256(stored.data).hexdigest(), stored.nbytes, "array")
