"""What lies in data/: a folder per class, HelmNet arrays or a YOLO darknet folder, as one table of pictures.

A picture's `path` is unique, POSIX, relative to the root: `with_helmet/p1.jpg` for a file, `images.npy#12` for row 12
of an array, `p1.jpg#0` for the box on line 0 of p1.txt. Nothing is decoded here but by `read_source` and what calls it.
"""

from __future__ import annotations

import csv
import hashlib
import multiprocessing
import os
import stat
import sys
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import groupby
from multiprocessing.connection import wait as wait_for
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import numpy as np
from PIL import Image
from pydantic import BeforeValidator, Field

from plumbline.common.errors import UserError
from plumbline.common.params import Section
from plumbline.imaging.decode import (
    LARGEST_LIMIT,
    MAX_PIXELS,
    SUFFIXES,
    DecodeError,
    Pixels,
    decode_image,
    decode_resized,
    resize,
)
from plumbline.imaging.describe import MEASURES
from plumbline.imaging.metadata import match, read_table, said

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["name", "unreadable", "label", "box", "empty", "missing"]
Item = TypeVar("Item")
Result = TypeVar("Result")

# What the systems leave in folders of pictures; not anybody's picture.
LINKED_OUT = "is a symbolic link out of the folder"
_LITTER = {"thumbs.db", "desktop.ini"}
_SUBSETS = {"train", "training", "valid", "val", "validation", "test", "testing"}
# The manifest's own columns, which metadata can't bring along.
COMPUTED = (
    *("path", "id", "pixels_sha256", "label", "width", "height", "bytes", "format", "phash"),
    *MEASURES,
)


def _text_keys(value: Any) -> Any:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else value


class ArrayParams(Section):
    """HelmNet arrays: (N, H, W, 3) uint8 and a 0/1 label for each row."""

    images: str = "images.npy"
    labels: str = "labels.csv"
    channels: Literal["bgr", "rgb"] = "bgr"
    classes: Annotated[dict[str, str], BeforeValidator(_text_keys)] = Field(
        default={"0": "without_helmet", "1": "with_helmet"}
    )


class YoloParams(Section):
    """YOLO darknet: names of the classes, and what each is called here (its own name where it isn't listed)."""

    names: str = "obj.names"
    classes: dict[str, str] = Field(default={})


class DataParams(Section):
    """params.yaml, section `data`: where the pictures lie and how they are read."""

    root: Path = Path("data")
    layout: Literal["auto", "folders", "arrays", "yolo"] = "auto"
    metadata: str = "metadata.csv"
    label_conflict: Literal["quarantine", "metadata", "folder"] = "quarantine"
    follow_symlinks: bool = False
    max_pixels: int = Field(MAX_PIXELS, ge=1, le=LARGEST_LIMIT)
    max_bytes: int = Field(256_000_000, ge=1)
    arrays: ArrayParams = ArrayParams()
    yolo: YoloParams = YoloParams()


@dataclass(frozen=True)
class Refused:
    """A file, row or box that is not used: its path (escaped where it can't be written), why, and the class it was for.

    kind: `name` (can't be a path everywhere), `unreadable` (no picture), `label` (none, or two that disagree), `box`
    (a broken line of a YOLO file), `empty` (a class folder without pictures), `missing` (a metadata row, no file).
    """

    path: str
    reason: str
    kind: Kind
    label: str = ""


@dataclass(frozen=True)
class Collection:
    """The pictures of a folder before any is decoded: `images` (path, label, then metadata columns) and the refused."""

    images: pd.DataFrame
    refused: list[Refused]


@dataclass(frozen=True)
class Picture:
    """One picture of a source, decoded: upright RGB, the sha256 that is its id, its stored size and its format."""

    path: str
    image: Image.Image
    id: str
    bytes: int
    format: str


@dataclass
class _Found:
    """Rows on their way into a Collection."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    files: set[str] = field(default_factory=set)


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
    found = {"folders": _list_folders, "arrays": _list_arrays, "yolo": _list_yolo}[layout](params)
    if not found.rows and not found.refused:
        raise UserError(
            f"{root}/ holds no pictures: run `dvc pull` for the sample, or put a folder of JPEG, PNG, BMP or WebP "
            "files per class there."
        )
    _join_metadata(found, params)
    columns = list(dict.fromkeys(["path", "label", *(key for row in found.rows for key in row)]))
    values = [[row.get(column) for column in columns] for row in found.rows]
    return Collection(pd.DataFrame(values, columns=columns, dtype=object), sorted(found.refused, key=lambda r: r.path))


def _unusable(root: Path) -> str | None:
    if not root.is_dir():
        return "is missing"
    try:
        return None if any(not entry.name.startswith(".") for entry in os.scandir(root)) else "is empty"
    except OSError as error:
        return f"can't be listed ({error.strerror})"


def find_layout(params: DataParams) -> str:
    """Return `params.layout`, or what the files at the root say it is: arrays, yolo, else folders."""
    if params.layout != "auto":
        return params.layout
    if (params.root / params.arrays.images).is_file():
        return "arrays"
    names = params.yolo.names
    is_yolo = (params.root / names).is_file() or any(params.root.glob(f"*/{names}"))
    return "yolo" if is_yolo else "folders"


# ---------------------------------------------------------------------------------------------------- walking files


def _walk(params: DataParams, refused: list[Refused]) -> list[str]:
    """Return the relative POSIX paths of all files that can be named everywhere, in order; refuse the others."""
    inside = params.root.resolve()
    files: list[str] = []
    folders: list[str] = []
    seen = {inside}

    def visit(folder: Path, prefix: str) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            refused.append(Refused(_shown(prefix), f"can't be listed: {error.strerror}", "unreadable", _top(prefix)))
            return
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _LITTER:
                continue
            path = prefix + entry.name
            if reason := _bad_name(entry.name):
                refused.append(Refused(_shown(path), reason, "name", _top(path)))
            elif reason := _bad_link(entry, inside, params.follow_symlinks):
                refused.append(Refused(path, reason, "unreadable", _top(path)))
            elif entry.is_dir():
                target = Path(entry.path).resolve()
                if target not in seen:  # a link to a folder may lead back to one that is being walked
                    seen.add(target)
                    folders.append(path)
                    visit(Path(entry.path), path + "/")
            else:
                files.append(path)

    visit(params.root, "")
    return _without_twins(files, folders, refused)


def _bad_name(name: str) -> str | None:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in name):
        return "its name holds a line break or control character: rename it"
    return None


def _bad_link(entry: os.DirEntry[str], inside: Path, follow: bool) -> str | None:
    if not entry.is_symlink():
        return None
    try:
        target = Path(entry.path).resolve(strict=True)
    except (OSError, RuntimeError):
        return "is a symbolic link that leads nowhere: remove it"
    if target.is_relative_to(inside) or follow:
        return None
    return f"{LINKED_OUT}: copy the file here, or set data.follow_symlinks"


def _without_twins(files: list[str], folders: list[str], refused: list[Refused]) -> list[str]:
    """Refuse every path that another equals but for case or Unicode form: other systems would keep only one of them."""
    twins: dict[str, list[str]] = {}
    for path in (*folders, *files):
        twins.setdefault(unicodedata.normalize("NFC", path).casefold(), []).append(path)
    other = {path: next(p for p in paths if p != path) for paths in twins.values() if len(paths) > 1 for path in paths}
    if not other:
        return files
    kept = []
    for path in files:
        clash = next((p for p in (path, *map(str, PurePosixPath(path).parents)) if p in other), None)
        if clash is None:
            kept.append(path)
        else:
            reason = f"{clash} differs from {other[clash]} only in case or Unicode form: rename one of them"
            refused.append(Refused(path, reason, "name", _top(path)))
    return kept


def _shown(path: str) -> str:
    """A path that can't be written as it is, with \\x and \\udc escapes."""
    text = path.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _top(path: str) -> str:
    return _shown(path.split("/", 1)[0]) if "/" in path else ""


def _is_picture_name(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in SUFFIXES


# ----------------------------------------------------------------------------------------------- the three layouts


def _list_folders(params: DataParams) -> _Found:
    found = _Found()
    found.files = set(files := _walk(params, found.refused))
    for path in files:
        label = _top(path)
        if _is_picture_name(path):
            found.rows.append({"path": path, "label": label})
        elif label:
            suffix = PurePosixPath(path).suffix or "no suffix"
            reason = f"is not named as a picture ({suffix}): JPEG, PNG, BMP or WebP is read, convert or remove it"
            found.refused.append(Refused(path, reason, "unreadable", label))
    tops = {row["label"] for row in found.rows} - {""}
    if tops and tops <= _SUBSETS and not (params.root / params.metadata).exists():
        raise UserError(
            f"{params.root}/ is split already ({', '.join(sorted(tops))}), and these are no classes: put the class "
            "folders at its top and let `split` part them, or check the split with `python -m stages.group audit`."
        )
    named = {row["label"] for row in found.rows} | {name for one in found.refused for name in (one.label, one.path)}
    for entry in sorted(os.scandir(params.root), key=lambda entry: entry.name):
        if entry.is_dir() and not entry.name.startswith(".") and _shown(entry.name) not in named:
            found.refused.append(Refused(entry.name + "/", "holds no pictures", "empty", entry.name))
    return found


def _list_arrays(params: DataParams) -> _Found:
    images, labels_file = open_array(params), params.root / params.arrays.labels
    header, table = _read_labels(labels_file)
    if len(table) != len(images):
        raise UserError(
            f"{labels_file} holds {len(table)} labels but {params.arrays.images} {len(images)} pictures: "
            "export both again, row for row."
        )
    found = _Found()
    place = header.index("label")
    _refuse_computed(set(header) - {"label"}, labels_file)
    for number, values in enumerate(table):
        path = f"{params.arrays.images}#{number}"
        value = values[place].strip()
        label = params.arrays.classes.get(value.removesuffix(".0"))
        if label is None:
            known = ", ".join(params.arrays.classes)
            reason = f"its label {value!r} is none of {known} (data.arrays.classes)"
            found.refused.append(Refused(path, reason, "label"))
        else:
            extra = {name: text or None for name, text in zip(header, values, strict=True) if name != "label"}
            found.rows.append({"path": path, "label": label, **extra})
    return found


def open_array(params: DataParams) -> Pixels:
    """Return the (N, H, W, 3) uint8 array, mapped rather than read; UserError where it is something else."""
    path = params.root / params.arrays.images
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: put it there, or set data.layout.") from None
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} is no plain NumPy array ({error}): save it again with np.save, dtype uint8.") from None
    if not isinstance(array, np.ndarray) or array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive of arrays"
        raise UserError(f"{path} holds {got}, not uint8 pictures (N, H, W, 3): save it again in that shape.")
    return array


def _read_labels(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a labels file: a single column with or without header, or a table with a `label`."""
    rows = [row for row in _read_csv(path) if row]
    if not rows:
        raise UserError(f"{path} is empty: put a label on each line, one for each picture.")
    header = [name.strip().lower() if name.strip().lower() == "label" else name.strip() for name in rows[0]]
    if "label" in header:
        return _checked_table(path, header, rows[1:])
    if len(header) > 1:
        raise UserError(f"{path} has no column `label` but {', '.join(header)}: rename the one that holds it.")
    is_label = header[0].removesuffix(".0").isdigit()
    return _checked_table(path, ["label"], rows if is_label else rows[1:])


def _list_yolo(params: DataParams) -> _Found:
    found = _Found()
    found.files = present = set(files := _walk(params, found.refused))
    named = [path for path in files if PurePosixPath(path).name == params.yolo.names]
    names = {str(PurePosixPath(path).parent): _read_names(params, path) for path in named}
    pictures = [path for path in files if _is_picture_name(path)]
    in_folders = any("/" in path for path in pictures)
    for path in pictures:
        boxes = _box_file(path)
        if boxes not in present:
            found.refused.append(Refused(path, f"has no {PurePosixPath(boxes).name} beside it", "label"))
            continue
        columns = {"photo": PurePosixPath(path).stem}
        if in_folders:
            columns["subset"] = _top(path)
        _list_boxes(found, params, path, _names_for(path, names, params), columns)
    boxes_of = {_box_file(path) for path in pictures}
    for path in files:
        if path.endswith(".txt") and path not in boxes_of and _looks_like_boxes(params.root / path):
            found.refused.append(Refused(path, "holds boxes, but there is no picture beside it", "box"))
    return found


def _list_boxes(found: _Found, params: DataParams, picture: str, names: list[str], columns: dict[str, Any]) -> None:
    try:
        lines = read_text(params, _box_file(picture)).splitlines()
    except DecodeError as error:
        found.refused.append(Refused(_box_file(picture), error.reason, "box"))
        return
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        path = f"{picture}#{number}"
        try:
            number_of_class, _ = parse_box(line)
            if number_of_class >= len(names):
                raise DecodeError(f"its class {number_of_class} is beyond the {len(names)} of {params.yolo.names}")
        except DecodeError as error:
            where = f"line {number + 1} of {PurePosixPath(_box_file(picture)).name}: "
            found.refused.append(Refused(path, where + error.reason, "box"))
            continue
        name = names[number_of_class]
        found.rows.append({"path": path, "label": params.yolo.classes.get(name, name), **columns})


def parse_box(line: str) -> tuple[int, tuple[float, float, float, float]]:
    """Return class number and (centre x, centre y, width, height) in shares of the picture, from a line of a .txt."""
    parts = line.split()
    if len(parts) != 5:
        raise DecodeError(f"has {len(parts)} values, not `class x y width height`")
    try:
        number, box = int(parts[0]), tuple(float(part) for part in parts[1:])
    except ValueError:
        raise DecodeError(f"is not five numbers: {line.strip()[:60]!r}") from None
    x, y, width, height = box
    # A NaN fails every comparison.
    if number < 0 or not (0 <= x <= 1 and 0 <= y <= 1 and 0 < width <= 1 and 0 < height <= 1):
        raise DecodeError(f"has a box outside the picture: {line.strip()[:60]!r}")
    return number, (x, y, width, height)


def box_pixels(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) in pixels of a picture of `size` = (width, height), clipped to it."""
    x, y, width, height = box
    left, right = round((x - width / 2) * size[0]), round((x + width / 2) * size[0])
    top, bottom = round((y - height / 2) * size[1]), round((y + height / 2) * size[1])
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
    if left >= right or top >= bottom:
        raise DecodeError(f"its box is less than a pixel of this {size[0]} x {size[1]} picture")
    return left, top, right, bottom


def _box_file(picture: str) -> str:
    return str(PurePosixPath(picture).with_suffix(".txt"))


def _read_names(params: DataParams, path: str) -> list[str]:
    try:
        names = [line.strip() for line in read_text(params, path).splitlines()]
    except DecodeError as error:
        raise UserError(f"{params.root / path} {error.reason}: it has to name a class on each line.") from None
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        raise UserError(f"{params.root / path} has no class, or an empty line: it has to name a class on each line.")
    return names


def _names_for(picture: str, names: dict[str, list[str]], params: DataParams) -> list[str]:
    """The class names of the nearest folder at or above a picture; else those of the only names file there is."""
    for folder in PurePosixPath(picture).parents:
        if str(folder) in names:
            return names[str(folder)]
    if len({tuple(one) for one in names.values()}) == 1:
        return next(iter(names.values()))
    raise UserError(
        f"{params.root}/ has no {params.yolo.names} for {picture}: put one at the top, a class on each line."
    )


def _looks_like_boxes(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as handle:
            parse_box(handle.readline(200))
    except (OSError, UnicodeDecodeError, DecodeError):
        return False
    return True


# -------------------------------------------------------------------------------------------------------- metadata


def _read_csv(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            return list(csv.reader(handle, strict=True))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: put it there, or set data.layout.") from None
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UserError(f"{path} is no CSV file in UTF-8 ({error}): save it again as one.") from None


def _checked_table(path: Path, header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    repeated = [name for name, count in Counter(header).items() if count > 1 or not name]
    if repeated:
        raise UserError(f"{path} has a column name twice, or without a name ({repeated[0]!r}): rename it.")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise UserError(f"{path}, row {number}: {len(row)} values under {len(header)} column names, correct it.")
    return header, rows


def _refuse_computed(names: Iterable[str], path: Path) -> None:
    for name in names:
        if name in COMPUTED or name.startswith("_"):
            raise UserError(f"{path} has a column {name!r}, a name that ingest uses itself: rename it.")


def _join_metadata(found: _Found, params: DataParams) -> None:
    """Put metadata columns on the rows (a row for a YOLO photograph serves all its boxes) and settle the labels."""
    table = read_table(params.root, params.metadata, COMPUTED)
    if table is None or not table.rows:
        _say(f"{note}." for note in (table.notes if table else ()))
        found.refused += [_unlabelled(row, params) for row in found.rows if not row["label"]]
        found.rows = [row for row in found.rows if row["label"]]
        return
    # A photograph without any box has its row, and its file, but no picture in the table.
    pictures = {name for row in found.rows for name in (row["path"], source_of(row["path"]))}
    others = found.files | {name for one in found.refused for name in (one.path, source_of(one.path))}
    fits = match(table, pictures | others, own=[params.root.resolve().name])
    _say(said(params.metadata, table, fits))
    classes = {part for values in table.rows.values() if values.get("label") for part in _parts(values["label"])}
    kept = []
    for row in found.rows:
        key = fits.of.get(row["path"], fits.of.get(source_of(row["path"])))
        values = table.rows[key] if key is not None else {}
        refused = _settle_label(row, values.get("label"), classes, params)
        if refused is not None:
            found.refused.append(refused)
            continue
        row.update({column: values.get(column) or row.get(column) for column in table.columns})
        kept.append(row)
    found.rows = kept
    for key, why in fits.unmatched.items():
        reason = f"{params.metadata} has a row for it, but {why}: correct its path or remove the row"
        found.refused.append(Refused(_shown(key), reason, "missing", table.rows[key].get("label") or ""))


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _parts(label: str | None) -> list[str]:
    return [part.strip() for part in (label or "").split(";")]


def _unlabelled(row: dict[str, Any], params: DataParams) -> Refused:
    reason = f"lies in no class folder and {params.metadata} gives it no label: move it, or add it there"
    return Refused(row["path"], reason, "label")


def _settle_label(row: dict[str, Any], stated: str | None, classes: set[str], params: DataParams) -> Refused | None:
    """Decide between the label in metadata.csv and the folder's.

    A folder that is no class there (photos/, site_a/) says nothing, so metadata.csv decides. Where both name a class
    and disagree, one is wrong and only a person knows which: quarantined, or settled by data.label_conflict.
    `helmet;vest` does not disagree with folder helmet/.
    """
    own = row["label"]
    if not stated:
        return None if own else _unlabelled(row, params)
    disagree = bool(own) and own in classes and own not in _parts(stated)
    if disagree and params.label_conflict == "quarantine":
        reason = (
            f"lies under {own} but {params.metadata} says {stated}: correct one of them (or set data.label_conflict)"
        )
        return Refused(row["path"], reason, "label", own)
    if not (disagree and params.label_conflict == "folder"):
        row["label"] = stated
    return None


# ------------------------------------------------------------------------------------------------- reading pictures


def source_of(path: str) -> str:
    """Return the file that a picture's path lies in: `p1.jpg` for `p1.jpg#0`, itself for a file."""
    if _is_picture_name(path):
        return path
    source, mark, number = path.rpartition("#")
    return source if mark and number.isdigit() else path


def read_bytes(params: DataParams, path: str) -> bytes:
    """Return a file's bytes; DecodeError where it is unreadable, no plain file, too big or linked out."""
    full = params.root / path
    try:
        if not params.follow_symlinks and not full.resolve().is_relative_to(params.root.resolve()):
            raise DecodeError(LINKED_OUT)
        # Not blocking: opening a named pipe would otherwise wait for a writer for ever.
        with open(full, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as handle:
            status = os.fstat(handle.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DecodeError("is not a plain file")
            if status.st_size > params.max_bytes:
                raise DecodeError(f"has {status.st_size:,} bytes, more than the {params.max_bytes:,} of data.max_bytes")
            return handle.read()
    except OSError as error:
        raise DecodeError(f"can't be read: {error.strerror}") from None


def read_text(params: DataParams, path: str) -> str:
    """Return a small UTF-8 text file; DecodeError as `read_bytes`."""
    try:
        return read_bytes(params, path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DecodeError("is not text in UTF-8") from None


def read_source(params: DataParams, source: str, paths: Sequence[str]) -> Iterator[Picture | Refused]:
    """Decode a file once and yield the pictures `paths` that lie in it; what can't be read comes as Refused."""
    if not _is_picture_name(source):
        array = open_array(params)
        yield from (_array_row(params, array, path) for path in paths)
        return
    try:
        data = read_bytes(params, source)
        image = decode_image(data, params.max_pixels)
    except DecodeError as error:
        yield Refused(source, error.reason, "unreadable")
        return
    digest = hashlib.sha256(data).hexdigest()
    if list(paths) == [source]:
        yield Picture(source, image, digest, len(data), image.info["format"])
        return
    try:
        lines = read_text(params, _box_file(source)).splitlines()
    except DecodeError as error:
        yield Refused(_box_file(source), error.reason, "box")
        return
    for path in paths:
        yield _crop(image, path, lines, digest, len(data))


def source_states(params: DataParams, source: str, paths: Sequence[str]) -> list[str]:
    """Digests of all that `read_source` would make `paths` of a file from, or why it can't be read; decodes nothing."""
    if not _is_picture_name(source):
        array = open_array(params)
        rows = (_array_row(params, array, path) for path in paths)
        return [one.reason if isinstance(one, Refused) else one.id for one in rows]
    files = [source] if list(paths) == [source] else [source, _box_file(source)]
    try:
        return [hashlib.sha256(read_bytes(params, file)).hexdigest() for file in files]
    except DecodeError as error:
        return [error.reason]


def _crop(image: Image.Image, path: str, lines: list[str], digest: str, size: int) -> Picture | Refused:
    try:
        line = lines[int(path.rpartition("#")[2])].strip()
        crop = image.crop(box_pixels(parse_box(line)[1], image.size))
    except IndexError:
        return Refused(path, "its line of the .txt is gone", "box")
    except DecodeError as error:
        return Refused(path, error.reason, "box")
    own = hashlib.sha256(f"{digest} {line}".encode()).hexdigest()
    return Picture(path, crop, own, size, image.info["format"])


def _array_row(params: DataParams, array: Pixels, path: str) -> Picture | Refused:
    number = int(path.rpartition("#")[2])
    if number >= len(array):
        return Refused(path, f"{params.arrays.images} holds only {len(array)} pictures", "unreadable")
    stored = np.ascontiguousarray(array[number])
    rgb = stored[..., ::-1] if params.arrays.channels == "bgr" else stored
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return Picture(path, image, hashlib.sha256(stored.data).hexdigest(), stored.nbytes, "array")


def load_rgb(params: DataParams, path: str) -> Pixels:
    """Return one picture of the manifest, (H, W, 3) uint8 RGB, upright; UserError naming it where it can't be read."""
    return _load(params, source_of(path), [(path, None)], None)[0]


def iter_rgb(
    params: DataParams,
    paths: Iterable[str],
    size: tuple[int, int] | None = None,
    ids: Iterable[str] | None = None,
) -> Iterator[Pixels]:
    """Yield pictures of the manifest in order, (H, W, 3) uint8 RGB, upright, over all cores.

    Args:
        size: (height, width) to stretch each to; None leaves them as they are.
        ids: the id that the manifest gives each; a picture with other bytes is refused.

    Memory stays bounded: at most four files a core are decoded ahead. Neighbouring boxes of one photograph share its
    decoding. Raises UserError naming the first picture that can't be read.
    """
    pairs = zip(paths, ids, strict=True) if ids is not None else ((path, None) for path in paths)
    runs = ((source, list(group)) for source, group in groupby(pairs, key=lambda pair: source_of(pair[0])))
    # An array's rows all share a source; cut them into tasks.
    tasks = ((source, run[i : i + 64]) for source, run in runs for i in range(0, len(run), 64))
    for pictures in in_order(lambda task: _load(params, *task, size), tasks):
        yield from pictures


def _load(
    params: DataParams, source: str, pairs: list[tuple[str, str | None]], size: tuple[int, int] | None
) -> list[Pixels]:
    paths = [path for path, _ in pairs]
    if size is not None and paths == [source]:
        try:
            data = read_bytes(params, source)
            if pairs[0][1] not in (None, hashlib.sha256(data).hexdigest()):
                raise DecodeError("holds other bytes")
            return [decode_resized(data, size, params.max_pixels)]
        except DecodeError as error:
            raise _changed(params, source, error.reason) from None
    pictures = []
    for one, (path, wanted) in zip(read_source(params, source, paths), pairs, strict=False):
        if isinstance(one, Refused):
            raise _changed(params, one.path, one.reason)
        if wanted not in (None, one.id):
            raise _changed(params, path, "holds other bytes")
        rgb = np.asarray(one.image)
        pictures.append(rgb if size is None else resize(rgb, size))
    return pictures


def _changed(params: DataParams, path: str, reason: str) -> UserError:
    if reason == LINKED_OUT:  # also where `dvc checkout` made links of the files: to DVC they are the same data
        way_out = (
            "set data.follow_symlinks to true in params.yaml (DVC's cache.type symlink needs it), then `dvc repro`"
        )
        return UserError(f"{params.root / path} {reason}: {way_out}.")
    return UserError(f"{params.root / path} {reason}: it has changed since ingest, run `dvc repro`.")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], ahead: int = 4) -> Iterator[Result]:
    """Yield function(item) in the items' order, computed on a thread per core, at most `ahead` per core in advance.

    For work that lets go of the interpreter lock, as Pillow's decoding and resizing do: nothing has to be copied
    between processes, or forked beside TensorFlow.
    """
    workers = cores()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    try:
        yield from _drain(pool, function, items, workers * ahead)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_order_by_processes(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int = 4
) -> Iterator[Result]:
    """As `in_order`, on a process per core: for work that holds the interpreter lock, with small results.

    `function`, items and results are pickled between our own processes. Raises UserError where a process dies.
    """
    workers = cores()
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield from _drain(pool, function, items, workers * ahead)
    except BrokenProcessPool:
        raise UserError(
            "a process that read pictures died: its error is above, else memory ran out (lower data.max_pixels)."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _drain(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], limit: int) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= limit:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _start_worker() -> None:
    """One thread for each process's matrix products, and an end to it when the parent is killed."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # Its queue never closes by itself: without this, a killed stage would leave its workers waiting for ever.
        Thread(target=lambda: (wait_for([parent.sentinel]), os._exit(1)), daemon=True).start()
