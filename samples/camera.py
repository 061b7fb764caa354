"""From drawn light to a file's bytes: lens, exposure, sensor noise, motion and JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samples.paint import Rng
from samples.scenery import Look
from samples.solids import Floats

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Optics:
    """What one camera does to one moment; blur and motion in pixels of the finished picture."""

    blur: float
    motion: float
    angle: float
    noise: float
    vignette: float
    quality: int


def draw_optics(rng: Rng, new_site: bool) -> Optics:
    """Draw lens and sensor; the new site's camera is soft, noisy and compresses harder."""
    sharp = rng.random() < 0.55
    return Optics(
        blur=float(rng.uniform(0.8, 1.6) if new_site else rng.uniform(0.0, 0.3) if sharp else rng.uniform(0.3, 1.0)),
        motion=float(rng.uniform(2.0, 6.0)) if rng.random() < 0.10 else 0.0,
        angle=float(rng.uniform(0, 180)),
        noise=float(rng.uniform(0.015, 0.035) if new_site else rng.uniform(0.002, 0.016)),
        vignette=float(rng.uniform(0.25, 0.5) if new_site else rng.uniform(0.0, 0.2)),
        quality=int(rng.integers(35, 60) if new_site else rng.integers(35, 93)),
    )


def expose(rng: Rng, canvas: Floats, look: Look, optics: Optics, side: int) -> Pixels:
    """Return the picture (side, side, 3) uint8 that the camera makes of a supersampled canvas."""
    light: Any = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    if optics.blur > 0.15:
        light = cv2.GaussianBlur(light, (0, 0), optics.blur)
    if optics.motion > 0:
        light = cv2.filter2D(light, -1, _streak(optics.motion, optics.angle), borderType=cv2.BORDER_REFLECT)
    rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    light = light * (1 - optics.vignette * (rows**2 + columns**2) / 2)[:, :, None]
    light = np.clip(light * look.exposure * look.cast, 0, 1) ** look.gamma
    grain = rng.normal(0, optics.noise, (side, side, 1)) + rng.normal(0, optics.noise * 0.5, (side, side, 3))
    pixels: Pixels = np.round(np.clip(light + grain, 0, 1) * 255).astype(np.uint8)
    return pixels


def _streak(length: float, angle: float) -> Floats:
    """Return a normalised motion-blur kernel."""
    size = 2 * int(np.ceil(length / 2)) + 3
    kernel = np.zeros((size, size))
    middle, reach = (size - 1) / 2, np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))]) * length / 2
    start, end = middle - reach, middle + reach
    cv2.line(kernel, (round(start[0]), round(start[1])), (round(end[0]), round(end[1])), 1.0, 1)
    soft: Any = cv2.GaussianBlur(kernel, (0, 0), 0.5)
    normalised: Floats = soft / soft.sum()
    return normalised


def encode(pixels: Pixels, quality: int) -> bytes:
    """Return JPEG bytes, or PNG bytes where `quality` is 0."""
    buffer = io.BytesIO()
    if quality:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    else:
        Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def decode(data: bytes) -> Pixels:
    """Return the pixels (H, W, 3) of encoded bytes."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
