"""Pictures, refused files, and how both are named.

A picture's `path` is unique, POSIX, relative to the root: `with_helmet/p1.jpg` for a file, `images.npy#12` for row 12
of an array, `p1.jpg#0` for the box on line 0 of p1.txt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from PIL import Image

from plumbline.imaging.decode import SUFFIXES
from plumbline.imaging.describe import MEASURES

Kind = Literal["name", "unreadable", "label", "box", "empty", "missing"]

# The manifest's own columns; metadata must not have columns of these names.
COMPUTED = (
    *("path", "id", "pixels_sha256", "label", "width", "height", "bytes", "format", "phash"),
    *MEASURES,
)
PUBLISHED = "published_split"  # the column of those who publish a split: train, validation or test
WARNING = "decoder_warning"  # the column of what decoders had to guess, where one had to
BOX_COUNT = "box_count"  # the column of whole photographs: how many boxes each has
RESERVED = (*COMPUTED, PUBLISHED, WARNING, BOX_COUNT)
# Pictures and films that can't be read. Other files beside the class folders are taken for notes, these are not.
UNREAD = (
    *(".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".svg", ".psd", ".tga", ".ico"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".dcm"),
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"),
)


@dataclass(frozen=True)
class Refused:
    """A file, row or box that is not used: its path (escaped where it can't be printed), the reason, and its class.

    kind: `name` (not a path on every system), `unreadable` (not a picture), `label` (none, or two that disagree), `box`
    (a box that can't be used, or a photograph without one that can), `empty` (a class folder without pictures),
    `missing` (a metadata row, no file).
    """

    path: str
    reason: str
    kind: Kind
    label: str = ""


@dataclass(frozen=True)
class Picture:
    """One picture of a source, decoded: upright RGB, the sha256 that is its id, its stored size and its format.

    `warning` is what its decoder had to guess: a file that is damaged and can still be shown.
    """

    path: str
    image: Image.Image
    id: str
    bytes: int
    format: str
    warning: str | None = None


@dataclass(frozen=True)
class Marked:
    """A labelled box of a whole photograph, as the file of whoever drew it has it.

    `number` names it in that file (line, annotation or object, from 0). The edges are shares of the upright
    photograph's width and height or, with `size`, pixels of a photograph of that (width, height): (0, 0) where the file
    doesn't say.
    """

    path: str
    number: int
    label: str
    left: float
    top: float
    right: float
    bottom: float
    size: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """What the box is called in reports: `p1.jpg#3`."""
        return f"{self.path}#{self.number}"


@dataclass
class Found:
    """What a layout finds before any picture is decoded: `rows` (path, label, columns), the refused, all its files.

    `boxes`: those of whole photographs, in the order of the rows.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    boxes: list[Marked] = field(default_factory=list)


def source_of(path: str) -> str:
    """Return the file that a picture's path lies in: `p1.jpg` for `p1.jpg#0`, itself for a file."""
    if is_picture_name(path):
        return path
    source, mark, number = path.rpartition("#")
    return source if mark and number.isdigit() else path


def is_picture_name(path: str) -> bool:
    """Return whether a file is named as a picture that is read."""
    return PurePosixPath(path).suffix.lower() in SUFFIXES
