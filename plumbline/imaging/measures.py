"""What is measured of every picture, in the data set and at a site alike: the same columns by the same rules."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from plumbline.imaging.decode import DecodeError, Pixels
from plumbline.imaging.describe import describe
from plumbline.imaging.hashing import phash

Row = dict[str, str | int | float | np.uint64]


@dataclass(frozen=True)
class Measures:
    """A picture's row (path, id, pixels_sha256, width, height, bytes, format, phash, descriptors) and its pixels."""

    row: Row
    rgb: Pixels
    grey: Image.Image


def measures_of(path: str, digest: str, size: int, kind: str, image: Image.Image, min_side: int) -> Measures:
    """Hash and describe a decoded picture; DecodeError where a side is shorter than `min_side` pixels.

    `digest` is the SHA-256 of the file's bytes, `size` their number, `kind` the file format.
    """
    if min(image.size) < min_side:
        raise DecodeError(f"has only {image.width} x {image.height} pixels, fewer than ingest.min_side {min_side}")
    rgb, grey = np.asarray(image), image.convert("L")
    row: Row = {
        "path": path,
        "id": digest,
        "pixels_sha256": pixels_sha256(rgb),
        "width": image.width,
        "height": image.height,
        "bytes": size,
        "format": kind,
        "phash": phash(grey),
        **describe(rgb, np.asarray(grey)),
    }
    return Measures(row, rgb, grey)


def pixels_sha256(rgb: Pixels) -> str:
    """Return the sha256 of the shape, as text "HxWx3", followed by the pixels row by row."""
    digest = hashlib.sha256("x".join(map(str, rgb.shape)).encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()
