"""Bytes of a JPEG, PNG, BMP or WebP file to an upright RGB picture, or a DecodeError that says why not.

Conversions: EXIF (or XMP) orientation is applied; grey, palette, 1-bit and CMYK become RGB; transparency is composited
on white, but a BMP that is transparent throughout is opaque; 16-bit samples keep their high byte. Colour profiles are
not applied: models see the samples as stored.
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]
Fit = Literal["stretch", "letterbox"]

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
# Above this Pillow itself warns of decompression bombs, so a higher limit would not be in our hands.
LARGEST_LIMIT = 89_478_485
MAX_PIXELS = 50_000_000
SMALL_SIDE = 96
LETTERBOX_GREY = 127

LFS_POINTER = b"version https://git-lfs"  # how the text begins that Git leaves in place of a file
_ORIENTATION = 0x0112
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_OTHER_KINDS = {
    b"GIF8": "a GIF",
    b"II*\0": "a TIFF (or raw) file",
    b"MM\0*": "a TIFF (or raw) file",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x93NUMPY": "a NumPy array",
    LFS_POINTER: "a Git LFS pointer (run `git lfs pull`)",
}


_PNG = b"\x89PNG\r\n\x1a\n"
_DATA_WARNINGS = ("Corrupt JPEG data", "Premature end", "Inconsistent progression")


class DecodeError(Exception):
    """Why bytes are not a picture that can be used; a part of a sentence, without the file's name."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Return the whole picture as (H, W, 3) uint8 RGB, upright."""
    return np.asarray(decode_image(data, max_pixels))


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the whole picture as an upright RGB Pillow image, its `info["format"]` one of FORMATS."""
    return _guarded(data, max_pixels, lambda image: _to_rgb(_upright(image)))


def decode_resized(data: bytes, size: tuple[int, int], max_pixels: int = MAX_PIXELS, fit: Fit = "stretch") -> Pixels:
    """Return the picture brought to `size` = (height, width), (height, width, 3) uint8 RGB; `fit` as in `resize`.

    A JPEG is decoded at 1/2, 1/4 or 1/8 where that still leaves twice the wanted size: up to four times faster, and
    within a grey level or two of resizing the whole picture. Training and serving both come through here.
    """
    height, width = size

    def read(image: Image.Image) -> Image.Image:
        lying = _orientation(image) >= 5
        image.draft("RGB", (2 * height, 2 * width) if lying else (2 * width, 2 * height))
        return _to_rgb(_upright(image))

    return resize(np.asarray(_guarded(data, max_pixels, read)), size, fit)


def decode_small_grey(data: bytes, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Return the picture's luma (ITU-R BT.601) as (h, w) uint8, upright, its shorter side 96 to 191 where it has 96.

    A JPEG comes at 1/2, 1/4 or 1/8 straight from its DCT blocks, without the colour planes: the cheap way to a hash.
    """

    def read(image: Image.Image) -> Image.Image:
        if not _is_transparent(image):
            image.draft("L", (SMALL_SIDE, SMALL_SIDE))
        upright = _upright(image)
        return upright if upright.mode == "L" and not _is_transparent(upright) else _to_rgb(upright).convert("L")

    grey = _guarded(data, max_pixels, read)
    return np.asarray(_shrink_rest(grey) if grey.info["format"] == "JPEG" else shrink_grey(grey))


def shrink_grey(image: Image.Image) -> Image.Image:
    """Return an RGB or L image's luma, averaged over square blocks until its shorter side is 96 to 191.

    What `decode_small_grey` gives for the same picture, to within rounding, where the whole picture is decoded anyway.
    """
    grey = image if image.mode == "L" else image.convert("L")
    # In two steps as with a JPEG, whose decoder offers 1/2, 1/4 and 1/8.
    step = max(step for step in (1, 2, 4, 8) if step <= max(1, min(grey.size) // SMALL_SIDE))
    return _shrink_rest(grey.reduce(step) if step > 1 else grey)


def _shrink_rest(grey: Image.Image) -> Image.Image:
    factor = min(grey.size) // SMALL_SIDE
    return grey.reduce(factor) if factor > 1 else grey


def resize(rgb: Pixels, size: tuple[int, int], fit: Fit = "stretch") -> Pixels:
    """Return (H, W, 3) uint8 brought to `size` = (height, width), bilinear with antialiasing (Pillow's BILINEAR).

    `fit: stretch` fills it, `letterbox` keeps the picture's proportions, puts it in the middle and makes the rest grey.
    """
    height, width = size
    if rgb.shape[:2] == (height, width):
        return rgb
    if fit == "letterbox":
        factor = min(height / rgb.shape[0], width / rgb.shape[1])
        inner = (max(1, round(rgb.shape[0] * factor)), max(1, round(rgb.shape[1] * factor)))
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        boxed = np.full((height, width, 3), LETTERBOX_GREY, np.uint8)
        boxed[top : top + inner[0], left : left + inner[1]] = resize(rgb, inner)
        return boxed
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))


def _guarded(data: bytes, max_pixels: int, read: Callable[[Image.Image], Image.Image]) -> Image.Image:
    if not data:
        raise DecodeError("is empty (0 bytes)")
    _own_limit()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse(image, max_pixels)
            # A phone's JPEG with a depth map or preview behind it opens as MPO; its first frame is the photograph.
            kind = "JPEG" if image.format == "MPO" else image.format
            result = read(_without_unused_alpha(image))
            result.load()
            result.info = {"format": kind}
            return result
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError(_what_else(data)) from None
    except Image.DecompressionBombError:
        raise DecodeError(f"has more than the {max_pixels:,} pixels allowed (data.max_pixels)") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes; the reason quotes them.
        words = str(error).strip().splitlines()
        raise DecodeError(f"is damaged: {words[0] if words else type(error).__name__}") from None


@cache
def _own_limit() -> None:
    # Pillow warns of large pictures when it opens them; `_refuse` turns them away with the user's own limit.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def _refuse(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise DecodeError(f"has {width} x {height} pixels, more than the {max_pixels:,} allowed (data.max_pixels)")
    frames = getattr(image, "n_frames", 1)
    if image.format != "MPO" and frames > 1:
        raise DecodeError(f"is animated ({frames} frames): save the frame you mean as a picture of its own")


def decoder_warning(data: bytes) -> str | None:
    """Return what is wrong with a JPEG or PNG that can be decoded all the same (overwritten bytes, say), else None.

    Of a JPEG, what libjpeg warns of: Pillow hears such warnings and drops them; simplejpeg hands them on. Of a PNG, the
    first chunk whose checksum is another: Pillow does not look at those of pixels. Other formats have none.
    """
    import simplejpeg

    if data.startswith(_PNG):
        return _png_warning(data)
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        # Every byte has to be read, but only a thumbnail of it is wanted.
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, min_factor=1, strict=True)
    except ValueError as error:
        words = str(error).strip().rstrip(".")
        # Other messages are of kinds of JPEG that this decoder does not know, and Pillow does.
        return words if words.startswith(_DATA_WARNINGS) else None
    return None


def _png_warning(data: bytes) -> str | None:
    view, place = memoryview(data), len(_PNG)
    while place + 12 <= len(data):  # length, kind, content, CRC-32 of the two before it
        length, kind = int.from_bytes(view[place : place + 4], "big"), bytes(view[place + 4 : place + 8])
        end = place + 8 + length
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return f"Corrupt PNG data: the checksum of chunk {kind.decode('ascii', 'replace')} is another"
        if kind == b"IEND":
            break
        place = end + 4
    return None


def stored_orientation(data: bytes) -> tuple[tuple[int, int], int]:
    """Return a picture's (width, height) as stored, and its EXIF orientation, 1 to 8; DecodeError as `decode`."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size, _orientation(image)
    except Exception:
        raise DecodeError(_what_else(data)) from None


def picture_suffix(data: bytes) -> str:
    """Return the usual suffix of a picture's format, such as `.jpg`; DecodeError where it can't be read.

    For pictures whose names have no suffix.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp"}[str(image.format)]
    except Exception:
        raise DecodeError(_what_else(data)) from None


def _what_else(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    kind = next((name for magic, name in _OTHER_KINDS.items() if data.startswith(magic)), None)
    if data[4:8] == b"ftyp":
        kind = "a HEIC or AVIF picture, or a video"
    elif head.startswith((b"<!doctype html", b"<html")):
        kind = "a web page"
    elif head.startswith((b"<svg", b"<?xml")):
        kind = "an SVG or XML file"
    if kind is None:
        return "is not a picture, or its beginning is damaged: no JPEG, PNG, BMP or WebP header"
    return f"is {kind}, not a JPEG, PNG, BMP or WebP"


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Viewers ignore a damaged EXIF block, and so do we.
        return 1
    return value if value in _TO_UPRIGHT else 1


def _upright(image: Image.Image) -> Image.Image:
    turn = _TO_UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _without_unused_alpha(image: Image.Image) -> Image.Image:
    """A 32-bit BMP whose fourth byte is 0 throughout: its writer left it unused, and viewers show the picture."""
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    return image


def _is_transparent(image: Image.Image) -> bool:
    return image.has_transparency_data and not image.mode.startswith("I")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        samples = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(samples, 0, 0xFFFF) >> 8).astype(np.uint8)).convert("RGB")
    if _is_transparent(image):
        colours = image.convert("RGBA")
        paper = Image.new("RGBA", colours.size, "white")
        return Image.alpha_composite(paper, colours).convert("RGB")
    return image.convert("RGB")
