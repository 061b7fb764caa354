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
RESERVED = (*COMPUTED, PUBLISHED, WARNING)
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
    (a broken line of a YOLO file), `empty` (a class folder without pictures), `missing` (a metadata row, no file).
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


@dataclass
class Found:
    """What a layout finds before any picture is decoded: `rows` (path, label, columns), the refused, all its files."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    files: set[str] = field(default_factory=set)


def source_of(path: str) -> str:
    """Return the file that a picture's path lies in: `p1.jpg` for `p1.jpg#0`, itself for a file."""
    if is_picture_name(path):
        return path
    source, mark, number = path.rpartition("#")
    return source if mark and number.isdigit() else path


def is_picture_name(path: str) -> bool:
    """Return whether a file is named as a picture that is read."""
    return PurePosixPath(path).suffix.lower() in SUFFIXES
