"""Views of a whole photograph on a square canvas, and mosaics of several, with the boxes where they then are.

A view is the photograph resized, perhaps mirrored, and laid somewhere on grey. Where it lies is four numbers
(x scale, x shift, y scale, y shift): a point at share x of the photograph is at share `x scale * x + x shift` of the
canvas. View 0 is the letterbox that serves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from plumbline.common.overlap import areas
from plumbline.common.params import Section
from plumbline.imaging.decode import LETTERBOX_GREY, Pixels, resize
from plumbline.tasks.scores import Floats, Ints

LEAST_VISIBLE = 0.3
"""Share of a box that must lie on the canvas for it to be an object there."""
LEAST_SIDE = 2.0
"""Pixels of the canvas that each side of a box must have there."""


class Jitter(Section):
    """Ranges that a view is drawn from.

    `scale` is the photograph's size against the letterbox's, `aspect` the share by which width and height differ from
    that either way; it is laid anywhere on the canvas, or the canvas anywhere on it. `brightness`, `contrast` and
    `saturation` are shares either way, `hue` degrees of the colour circle.
    """

    scale: tuple[Annotated[float, Field(gt=0.05, le=8)], Annotated[float, Field(gt=0.05, le=8)]] = (0.6, 1.6)
    aspect: Annotated[float, Field(ge=0, lt=0.9)] = 0.1
    mirror: bool = True
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.25
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.25
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.4
    hue: Annotated[float, Field(ge=0, le=180)] = 8.0

    @model_validator(mode="after")
    def _runs_upwards(self) -> Jitter:
        if self.scale[0] > self.scale[1]:
            raise ValueError("'scale' is the least and the most, in this order")
        return self


@dataclass(frozen=True)
class Place:
    """Where a photograph lies on a canvas: its size and corner there, in pixels, and whether it is mirrored."""

    width: int
    height: int
    left: int
    top: int
    mirrored: bool = False

    def affine(self, size: int) -> NDArray[np.float64]:
        """Return (x scale, x shift, y scale, y shift) for a canvas of `size` pixels a side."""
        x_scale, x_shift = self.width / size, self.left / size
        if self.mirrored:
            x_scale, x_shift = -x_scale, x_shift + x_scale
        return np.array([x_scale, x_shift, self.height / size, self.top / size])


def letterbox(width: int, height: int, size: int) -> Place:
    """Return where `decode.resize(..., "letterbox")` lays a photograph on a canvas of `size` pixels a side."""
    factor = size / max(width, height)
    inner = max(1, round(width * factor)), max(1, round(height * factor))
    return Place(*inner, (size - inner[0]) // 2, (size - inner[1]) // 2)


def drawn_place(width: int, height: int, size: int, jitter: Jitter, random: np.random.Generator) -> Place:
    """Draw where a photograph of (width, height) pixels lies."""
    base = letterbox(width, height, size)
    scale = np.exp(random.uniform(*np.log(jitter.scale)))
    aspect = np.exp(random.uniform(-1, 1) * np.log1p(jitter.aspect) / 2)
    wide, high = max(1, round(base.width * scale * aspect)), max(1, round(base.height * scale / aspect))
    left, top = (round(random.uniform(min(0, size - side), max(0, size - side))) for side in (wide, high))
    return Place(wide, high, left, top, bool(jitter.mirror and random.random() < 0.5))


def laid(photograph: Pixels, place: Place, size: int) -> Pixels:
    """Return the canvas (size, size, 3) with the photograph (H, W, 3) where `place` says, grey around it."""
    canvas = np.full((size, size, 3), LETTERBOX_GREY, np.uint8)
    scaled = resize(photograph, (place.height, place.width))
    if place.mirrored:
        scaled = scaled[:, ::-1]
    left, top = max(place.left, 0), max(place.top, 0)
    right, bottom = min(place.left + place.width, size), min(place.top + place.height, size)
    canvas[top:bottom, left:right] = scaled[
        top - place.top : bottom - place.top, left - place.left : right - place.left
    ]
    return canvas


def recoloured(canvas: Pixels, jitter: Jitter, random: np.random.Generator) -> Pixels:
    """Return a canvas in another light: hue and saturation, then contrast about its mean, then brightness."""
    import cv2

    hsv = cv2.cvtColor(canvas, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + random.uniform(-jitter.hue, jitter.hue) / 2) % 180  # OpenCV's hue is half degrees
    hsv[..., 1] = np.clip(hsv[..., 1] * random.uniform(1 - jitter.saturation, 1 + jitter.saturation), 0, 255)
    rgb = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    contrast = random.uniform(1 - jitter.contrast, 1 + jitter.contrast)
    bright = random.uniform(1 - jitter.brightness, 1 + jitter.brightness)
    mean = rgb.mean()
    return np.asarray(np.clip((mean + contrast * (rgb - mean)) * bright, 0, 255).round().astype(np.uint8))


def views_of(photograph: Pixels, picture_id: str, size: int, views: int, jitter: Jitter) -> tuple[Pixels, Floats]:
    """Return view 0 and `views` drawn ones, (1 + views, size, size, 3), and where each lies, (1 + views, 4).

    The draw depends on `picture_id`, the view's number and the settings alone.
    """
    height, width = photograph.shape[:2]
    place = letterbox(width, height, size)
    canvases, places = [laid(photograph, place, size)], [place.affine(size)]
    for view in range(1, views + 1):
        digest = hashlib.sha256(f"{picture_id}:scene:{view}".encode()).digest()
        random = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        place = drawn_place(width, height, size, jitter, random)
        canvases.append(recoloured(laid(photograph, place, size), jitter, random))
        places.append(place.affine(size))
    return np.stack(canvases), np.stack(places)


def to_canvas(boxes: Floats, affine: Floats) -> Floats:
    """Boxes (N, 4) in shares of the photograph as shares of the canvas; they may reach over its edges."""
    x = np.sort(affine[0] * boxes[:, [0, 2]] + affine[1], axis=1)
    y = affine[2] * boxes[:, [1, 3]] + affine[3]
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)


def to_photograph(boxes: Floats, affine: Floats) -> Floats:
    """Boxes (N, 4) in shares of the canvas as shares of the photograph, cut off at its edges."""
    x = np.sort((boxes[:, [0, 2]] - affine[1]) / affine[0], axis=1)
    y = (boxes[:, [1, 3]] - affine[3]) / affine[2]
    return np.asarray(np.clip(np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1), 0, 1))


def visible(boxes: Floats, labels: Ints, window: Sequence[float], size: float) -> tuple[Floats, Ints]:
    """Return the boxes (N, 4) that lie in `window` (left, top, right, bottom), cut off at it, and their labels.

    Those of which less than LEAST_VISIBLE, or a side of less than LEAST_SIDE pixels of a canvas of `size`, is in it
    are left out.
    """
    low, high = np.tile(window[:2], 2), np.tile(window[2:], 2)
    cut = np.clip(boxes, low, high)
    whole = areas(boxes)
    sides = (cut[:, 2:] - cut[:, :2]).min(axis=1, initial=np.inf) if len(cut) else np.zeros(0)
    kept = (areas(cut) >= LEAST_VISIBLE * whole) & (sides >= LEAST_SIDE / size)
    return cut[kept], labels[kept]


@dataclass(frozen=True)
class Example:
    """What a detector learns from: maps (G, G, C) of a canvas, and its boxes (M, 4) in shares of it, labels (M,)."""

    maps: NDArray[Any]
    boxes: Floats
    labels: Ints


def mosaic(four: Sequence[Example], size: int, random: np.random.Generator) -> Example:
    """Return a canvas of four quarters that meet at a drawn place, each a drawn part of one of `four`, pieced of maps.

    Maps that a network made of each picture by itself differ from those it would make of the mosaic in the places
    along the seams only. Pieced of maps, a mosaic costs nothing, and the four need not be known when they are made:
    no picture of another split gets into it. (YOLOv4's mosaic, arXiv:2004.10934, on maps.)
    """
    grid = four[0].maps.shape[0]
    low, high = max(1, round(0.3 * grid)), min(grid - 1, round(0.7 * grid))
    x, y = random.integers(low, high + 1, 2)
    maps = np.empty_like(four[0].maps)
    boxes, labels = [], []
    quarters = ((0, 0, x, y), (x, 0, grid, y), (0, y, x, grid), (x, y, grid, grid))
    for one, (left, top, right, bottom) in zip(four, quarters, strict=True):
        across = int(random.integers(0, grid - (right - left) + 1))
        down = int(random.integers(0, grid - (bottom - top) + 1))
        maps[top:bottom, left:right] = one.maps[down : down + bottom - top, across : across + right - left]
        moved = one.boxes + np.array([left - across, top - down] * 2) / grid
        seen, of = visible(moved, one.labels, [left / grid, top / grid, right / grid, bottom / grid], size)
        boxes.append(seen)
        labels.append(of)
    return Example(maps, np.concatenate(boxes), np.concatenate(labels))
