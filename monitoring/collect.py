"""A site's files, in a folder or behind an fsspec URL; each new one is decoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from monitoring.result import MetadataSaid
from plumbline.common.errors import UserError, first_line
from plumbline.common.parallel import in_order
from plumbline.imaging.decode import SUFFIXES, DecodeError, Fit, Pixels, decode_image, decode_resized, resize
from plumbline.imaging.describe import describe_camera
from plumbline.imaging.labels import shown
from plumbline.imaging.litter import is_litter
from plumbline.imaging.measures import Row, measures_of
from plumbline.imaging.metadata import Matches, Metadata, find_table, match, parse_table, said
from plumbline.imaging.pictures import RESERVED, UNREAD
from plumbline.imaging.settings import DataParams
from plumbline.imaging.small import small_grey

if TYPE_CHECKING:
    import pandas as pd

TO_LABEL = "to_label"
METADATA = "metadata.csv"
STAMPS = (  # what stores call a file's checksum or time of change, the surest first
    *("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "updated"),
    *("modified", "modify", "last_write_time", "sha", "md5", "created"),
)


class NothingSentError(UserError):
    """A site has no folder: it has sent nothing yet, or drift.source is wrong."""


@dataclass(frozen=True)
class File:
    """A file of the source: its path below it, its size in bytes, and a stamp that changes with the file."""

    path: str
    bytes: int
    stamp: str


@dataclass(frozen=True)
class Measured:
    """One decoded picture: its row of figures, (S, S, 3) RGB for the champion, (18, 24) grey, RGB for drift's eyes."""

    row: Row
    rgb: Pixels
    small: Pixels
    for_eyes: Pixels | None = None


@dataclass(frozen=True)
class Unreadable:
    """A file that is no picture that can be used, and why."""

    file: File
    reason: str


@dataclass(frozen=True)
class NotFetched:
    """A file whose bytes the source did not give, and why: nothing is known of it, so it is tried again."""

    file: File
    reason: str


class FetchError(Exception):
    """Why a source does not give a file's bytes; a part of a sentence, without the file's name."""


class Source:
    """The folder of one site, local or remote."""

    def __init__(self, url: str) -> None:
        """Raises UserError where no such place can be opened."""
        import fsspec

        try:
            self.files, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UserError(f"{url} can't be opened ({error}): correct drift.source in params.yaml.") from None
        self.url = url
        self.unread: list[str] = []  # pictures and films of other kinds that `list` came across
        self.root = str(root).rstrip("/")
        self.is_local = "file" in (
            self.files.protocol if isinstance(self.files.protocol, tuple) else (self.files.protocol,)
        )

    def list(self) -> list[File]:
        """Return every file that is named as a picture, in order.

        Raises UserError where the source can't be listed.
        """
        try:
            self.files.invalidate_cache()
            found = self.files.find(self.root, detail=True)
        except FileNotFoundError:
            found = {}
        except Exception as error:  # each remote store raises its own errors
            raise UserError(f"{self.url} can't be listed ({first_line(error)}): is it reachable?") from None
        files, self.unread = [], []
        for name, info in found.items():
            path = str(name).removeprefix(self.root).lstrip("/")
            if info.get("type") != "file" or _is_set_aside(path):
                continue
            suffix = PurePosixPath(path).suffix.lower()
            if suffix in SUFFIXES:
                files.append(File(path, int(info.get("size") or 0), _stamp(info)))
            elif suffix in UNREAD:
                self.unread.append(path)
        if not files and not self.files.exists(self.root):
            raise NothingSentError(f"{self.url} is missing: put the site's images there, or correct drift.source.")
        return sorted(files, key=lambda file: file.path)

    def read(self, path: str) -> bytes:
        """Return a file's bytes; FetchError where the source does not give them."""
        try:
            return bytes(self.files.cat_file(f"{self.root}/{path}"))
        except Exception as error:
            raise FetchError(f"can't be read: {first_line(error)}") from None

    def metadata(self) -> Metadata | None:
        """Return the site's metadata.csv, None where there is none; UserError where it is not a table."""
        try:
            names = [PurePosixPath(str(name)).name for name in self.files.ls(self.root, detail=False)]
        except FileNotFoundError:
            return None
        name, notes = find_table(names, METADATA)
        if name is None:
            return Metadata({}, tuple(notes)) if notes else None
        try:
            content = self.read(name)
        except FetchError as error:
            raise UserError(f"{self.url}/{name} {error}: put that right.") from None
        table = parse_table(content, f"{self.url}/{name}", RESERVED)
        return Metadata(table.rows, (*notes, *table.notes))


def _is_set_aside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return TO_LABEL in parts or any(is_litter(part) for part in parts)


def _stamp(info: dict[str, Any]) -> str:
    for key in STAMPS:
        if info.get(key) is not None:
            return str(info[key])
    return ""


def unstamped(source: Source, files: list[File]) -> list[str]:
    """Return a note where the source does not say when its files changed."""
    if all(file.stamp for file in files):
        return []
    return [f"{source.url} gives no time of change of its files: one that changes and keeps its size is not noticed."]


def measure_all(
    source: Source,
    files: list[File],
    size: int,
    data: DataParams,
    min_side: int,
    fit: Fit = "stretch",
    eyes: int | None = None,
) -> Iterator[Measured | Unreadable | NotFetched]:
    """Yield what each file holds, in order, over all cores; memory holds a few pictures a core.

    `size` and `fit` are the champion's; `eyes` is the size that drift's own eyes take, None where they don't look.
    """
    yield from in_order(lambda file: _measure(source, file, size, data, min_side, fit, eyes), files)


def _measure(
    source: Source, file: File, size: int, data: DataParams, min_side: int, fit: Fit, eyes: int | None
) -> Measured | Unreadable | NotFetched:
    try:
        if file.bytes > data.max_bytes:
            raise DecodeError(f"has {file.bytes:,} bytes, more than the {data.max_bytes:,} of data.max_bytes")
        content = source.read(file.path)
        image = decode_image(content, data.max_pixels)
        digest, kind = hashlib.sha256(content).hexdigest(), str(image.info["format"])
        found = measures_of(file.path, digest, len(content), kind, image, min_side)
    except DecodeError as error:
        return Unreadable(file, error.reason)
    except FetchError as error:
        return NotFetched(file, str(error))
    more = describe_camera(found.rgb, np.asarray(found.grey))
    row = {**found.row, "stamp": file.stamp, "listed": file.bytes, **more}
    mine = _brought_to(content, image, found.rgb, size, data.max_pixels, fit)
    same = eyes == size and fit == "stretch"
    other = None if eyes is None else mine if same else _brought_to(content, image, found.rgb, eyes, data.max_pixels)
    return Measured(row, mine, small_grey(found.grey), other)


def _brought_to(
    content: bytes, image: Image.Image, rgb: Pixels, size: int, max_pixels: int, fit: Fit = "stretch"
) -> Pixels:
    """The picture as training and serving see it: large JPEGs are shrunk while they are decoded."""
    if image.info["format"] == "JPEG" and min(image.size) >= 4 * size:
        return decode_resized(content, (size, size), max_pixels, fit)
    return resize(rgb, (size, size), fit)


@dataclass(frozen=True)
class Known:
    """What metadata.csv has for a site's pictures: its table, the matches of rows and pictures, and notes (`said`)."""

    table: Metadata
    fits: Matches
    said: list[str]

    def summary(self) -> MetadataSaid:
        """Return what a window's result keeps of it: counts, the first unmatched rows, notes."""
        rows = len(self.table.rows)
        lost = [{"path": path, "reason": why} for path, why in self.fits.unmatched.items()]
        return {"rows": rows, "unmatched": len(lost), "first_unmatched": lost[:20], "said": self.said}


def known_of(source: Source, names: Iterable[str], site: str, others: Collection[str]) -> Known:
    """Read the site's metadata.csv and match it to its pictures `names`, here now or counted before.

    Args:
        others: names of other sites, whose rows are not this one's.
    """
    table = source.metadata() or Metadata({})
    fits = match(table, names, own=[site, PurePosixPath(source.root).name], others=others)
    lines = said(f"{source.url}/{METADATA}", table, fits)
    if source.unread:
        lines.append(
            f"{len(source.unread)} files are of kinds that are not read (the first: {shown(min(source.unread))}): send "
            "JPEG, PNG, BMP or WebP."
        )
    return Known(table, fits, lines)


def with_metadata(table: pd.DataFrame, known: Known) -> pd.DataFrame:
    """Return the images (column path) with the columns that metadata.csv has for them, None where it says nothing."""
    rows = [known.table.rows.get(known.fits.of.get(path, ""), {}) for path in table["path"]]
    new = [name for name in known.table.columns if name not in table]
    columns: dict[str, Any] = {name: [values.get(name) for values in rows] for name in new}
    return table.assign(**columns)
