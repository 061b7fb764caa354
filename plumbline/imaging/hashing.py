"""64-bit perceptual hashes, and the thumbnails by which pictures with near hashes are compared.

The manifest's hash is imagehash's own. The hashes of 37 windows of a picture, for finding crops, and of their mirror
images are computed here, because imagehash does not offer them; tests check them against imagehash.

A hash is a uint64 whose highest bit is the top left DCT coefficient, so `f"{value:016x}"` is what imagehash prints.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import imagehash
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image

from plumbline.imaging.decode import Pixels

TILE = 32  # imagehash: hash_size 8 * highfreq_factor 4
LOW = 8
SCALES = (0.95, 0.9, 0.8, 0.65)
PLACES = (0.0, 0.5, 1.0)
# (scale, vertical place, horizontal place); window 0 is the whole picture.
WINDOWS = ((1.0, 0.0, 0.0), *((scale, y, x) for scale in SCALES for y in PLACES for x in PLACES))
THUMBNAIL = (72, 96)
CHROMA = (18, 24)  # cells of 4 x 4 pixels of a thumbnail
CHROMA_ROWS = 2 * CHROMA[0] * CHROMA[1] // THUMBNAIL[1]
STORED = (THUMBNAIL[0] + CHROMA_ROWS, THUMBNAIL[1])  # a grey thumbnail, and below it its two planes of colour

Hashes = NDArray[np.uint64]
_INTERVALS = ((1.0, 0.0), *((scale, place) for scale in SCALES for place in PLACES))
_GREY = 128.0  # subtracted before the float32 products, so that flat pictures lose no digits to their brightness
_STEP = 8.0  # coefficients are rounded to this, a tenth of what rounding the tile to uint8 does to them


def phash(image: Image.Image) -> np.uint64:
    """Return imagehash.phash of a Pillow image as a number."""
    bits = imagehash.phash(image, hash_size=LOW, highfreq_factor=TILE // LOW).hash
    return np.uint64(int.from_bytes(np.packbits(bits).tobytes(), "big"))


def hash_coefficients(low: NDArray[np.floating]) -> Hashes:
    """Return (...) uint64 for (..., 8, 8) low frequencies: a bit for each that is above their median."""
    flat = low.reshape(*low.shape[:-2], LOW * LOW)
    middle = np.partition(flat, (31, 32), axis=-1)[..., 31:33].mean(axis=-1, keepdims=True)
    packed = np.packbits(flat > middle, axis=-1)
    return np.asarray(packed.view(">u8")[..., 0].astype(np.uint64))


def mirror_coefficients(low: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the coefficients of the mirror image: those of odd horizontal frequency change their sign."""
    return low * np.array([1, -1] * (LOW // 2), low.dtype)


def fingerprint(grey: Pixels) -> Hashes:
    """Return the (2, 37) hashes of a small grey picture (h, w): of its WINDOWS, and of their mirror images.

    Column 0 is the whole picture. Window k of row 1 is the mirror image of window k of row 0.
    """
    return np.asarray(fingerprints(grey[None])[0])


def fingerprints(greys: Pixels) -> Hashes:
    """Return (N, 2, 37) for N small grey pictures of one size, (N, h, w) uint8; see `fingerprint`.

    Cutting a window, resizing it (Lanczos) to 32x32 and taking its 8x8 lowest DCT coefficients is linear and separable:
    one product with a matrix per side gives all windows at once. The tile is not rounded to uint8 in between as
    imagehash does, so a bit whose coefficient lies next to the median may differ from `phash` of the cut window.
    """
    count, height, width = greys.shape
    down, across = _side(height), _side(width)
    rows = np.matmul(down.reshape(-1, height), greys.astype(np.float32) - np.float32(_GREY))
    rows = rows.reshape(count, len(_INTERVALS), LOW, width)
    low = np.empty((count, len(WINDOWS), LOW, LOW), np.float32)
    low[:, 0] = rows[:, 0] @ across[0].T
    for first in range(1, len(_INTERVALS), len(PLACES)):
        part = slice(first, first + len(PLACES))
        columns = across[part].reshape(-1, width)
        block = rows[:, part].reshape(count, -1, width) @ columns.T
        block = block.reshape(count, len(PLACES), LOW, len(PLACES), LOW).swapaxes(2, 3)
        start = 1 + (first - 1) * len(PLACES)
        low[:, start : start + len(PLACES) ** 2] = block.reshape(count, -1, LOW, LOW)
    low[..., 0, 0] += 4 * TILE * TILE * _GREY
    low = np.rint(low / np.float32(_STEP))
    return np.stack([hash_coefficients(low), hash_coefficients(mirror_coefficients(low))], axis=1)


def thumbnail(grey: Pixels) -> Pixels:
    """Return a small grey picture stretched to THUMBNAIL = (72, 96) uint8, for aligning two of them."""
    height, width = THUMBNAIL
    return np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR))


def chroma(image: Image.Image) -> Pixels:
    """Return (2, 18, 24) uint8: Cb and Cr (ITU-R BT.601, 128 is colourless) of an RGB picture, averaged over cells."""
    height, width = CHROMA
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    return np.ascontiguousarray(cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb)[:, :, [2, 1]].transpose(2, 0, 1))


def stored_thumbnail(image: Image.Image, grey: Pixels) -> Pixels:
    """Return STORED = (81, 96) uint8: the `thumbnail` of a small grey picture, and below it the picture's `chroma`.

    Args:
        image: the picture, RGB.
        grey: the same in grey, small.
    """
    return np.vstack([thumbnail(grey), chroma(image).reshape(CHROMA_ROWS, THUMBNAIL[1])])


def _tile_coefficients(tiles: Pixels) -> NDArray[np.float64]:
    columns = scipy.fft.dct(tiles.astype(np.float64), axis=-2)
    return np.asarray(scipy.fft.dct(columns, axis=-1)[..., :LOW, :LOW])


@lru_cache(maxsize=512)
def _side(length: int) -> NDArray[np.float32]:
    """Matrices (13, 8, length) from a line of pixels to the low frequencies of each of the _INTERVALS on it."""
    frequency, sample = np.arange(LOW)[:, None], np.arange(TILE)[None]
    basis = 2 * np.cos(np.pi * frequency * (2 * sample + 1) / (2 * TILE))
    cuts = [basis @ _lanczos(length, place * (1 - scale) * length, scale * length) for scale, place in _INTERVALS]
    return np.stack(cuts).astype(np.float32)


def _lanczos(length: int, start: float, extent: float) -> NDArray[np.float64]:
    """Matrix (32, length) that resizes [start, start + extent) of a line to 32 samples as Pillow's LANCZOS does."""
    scale = extent / TILE
    stretch = max(scale, 1.0)
    centres = start + (np.arange(TILE)[:, None] + 0.5) * scale
    pixels = np.arange(length)[None] + 0.5
    offset = (pixels - centres) / stretch
    inside = (pixels > start) & (pixels < start + extent) & (np.abs(offset) < 3)
    weights = np.where(inside, np.sinc(offset) * np.sinc(offset / 3), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
