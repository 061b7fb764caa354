"""Sites: what stands behind, lies about and hangs in front of the worker, and the light there.

Canvases are (side, side, 3) float RGB in 0..1, drawn at the supersampled size; `unit` is pixels per head height, so
that bricks and barrels are as near as the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from samples.paint import GEAR, GEAR_SHARES, SKIN, Rng, cloth, pick, plain, skin, vary
from samples.solids import Floats, Light, Solid, View, place, render, rotation
from samples.worker import build_hat

TRAINING_SITES = ("scaffold", "roof", "brickwork", "warehouse", "earthworks", "night_yard")
NEW_SITE = "tunnel"


@dataclass(frozen=True)
class Look:
    """The light of one photograph and what the lens and the air add."""

    light: Light
    haze: float
    haze_colour: Floats
    gamma: float
    exposure: float
    cast: Floats


@dataclass(frozen=True)
class SiteLight:
    """The range of light at a site: sun strength, ambient strength, colour of the sun, hour-to-hour spread."""

    sun: tuple[float, float]
    ambient: tuple[float, float]
    colour: tuple[float, float, float]
    camera_pitch: tuple[float, float]
    exposure: tuple[float, float] = (0.9, 1.12)
    haze: tuple[float, float] = (0.0, 0.12)


LIGHTS = {
    "scaffold": SiteLight((0.45, 0.85), (0.48, 0.65), (1.0, 0.96, 0.88), (-2, 12)),
    "roof": SiteLight((0.50, 0.95), (0.45, 0.65), (1.0, 0.97, 0.92), (-8, 6)),
    "brickwork": SiteLight((0.40, 0.80), (0.46, 0.62), (1.0, 0.94, 0.84), (-2, 14)),
    "warehouse": SiteLight((0.35, 0.60), (0.45, 0.60), (1.0, 0.98, 0.90), (2, 18), (0.85, 1.1)),
    "earthworks": SiteLight((0.35, 0.95), (0.42, 0.62), (1.0, 0.92, 0.78), (0, 16)),
    "night_yard": SiteLight((0.55, 0.90), (0.28, 0.42), (0.98, 0.96, 1.0), (0, 14), (0.9, 1.2)),
    "tunnel": SiteLight((0.35, 0.70), (0.26, 0.42), (1.0, 0.74, 0.40), (24, 40), (0.95, 1.3), (0.2, 0.45)),
}


def draw_look(rng: Rng, site: str) -> Look:
    """Draw the light of one photograph at `site`."""
    own = LIGHTS[site]
    towards = rotation(yaw=float(rng.uniform(-75, 75)), pitch=-float(rng.uniform(20, 65))) @ np.array([0, 0, 1.0])
    ambient = rng.uniform(*own.ambient)
    colour = vary(rng, own.colour, 0.02)
    sky = np.array([0.92, 0.97, 1.06]) if site != NEW_SITE else np.array([1.1, 0.85, 0.5])
    light = Light(towards, rng.uniform(*own.sun) * colour, ambient * sky, 0.8 * ambient * np.array([1.05, 0.97, 0.85]))
    return Look(
        light=light,
        haze=float(rng.uniform(*own.haze)),
        haze_colour=np.clip(np.array([0.75, 0.78, 0.80]) * ambient * 1.6 * colour, 0, 1),
        gamma=float(rng.uniform(0.85, 1.18)),
        exposure=float(rng.uniform(*own.exposure)),
        cast=rng.normal(1.0, 0.035, 3),
    )


def draw_background(rng: Rng, site: str, look: Look, side: int, unit: float) -> Floats:
    """Draw what stands behind the worker, with distractors, lit as `look` says."""
    canvas = BACKGROUNDS[site](rng, side, unit)
    brightness = look.light.sky.mean() + 0.55 * look.light.sun.mean()
    canvas = np.clip(
        canvas * np.clip(brightness, 0.3, 1.1) * (0.5 + 0.5 * look.light.sky / look.light.sky.mean()), 0, 1
    )
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.80, 0.15, 0.04, 0.01]))):
        _distract(rng, canvas, look.light, unit)
    blur = float(rng.choice([0.0, rng.uniform(0.01, 0.05)])) * min(unit, 160)
    if blur > 0.3:
        canvas = cv2.GaussianBlur(canvas, (0, 0), blur)
    hazy: Floats = canvas * (1 - look.haze) + look.haze_colour * look.haze
    return hazy


# Surfaces


def _noise(rng: Rng, side: int, coarse: float, octaves: int = 4) -> Floats:
    """Return fractal noise (side, side) in about -1..1; the largest blobs are `coarse` pixels."""
    total = np.zeros((side, side))
    size, weight = coarse, 1.0
    for _ in range(octaves):
        cells = max(2, int(side / max(size, 2.0)) + 2)
        layer = cv2.resize(rng.normal(0, 0.6, (cells, cells)), (side, side), interpolation=cv2.INTER_CUBIC)
        total += weight * layer
        size, weight = size / 2, weight * 0.55
    return total


def _gradient(side: int, top: Sequence[float] | Floats, bottom: Sequence[float] | Floats) -> Floats:
    ramp = np.linspace(0, 1, side)[:, None, None]
    mixed: Floats = np.asarray(top) * (1 - ramp) + np.asarray(bottom) * ramp
    return np.broadcast_to(mixed, (side, side, 3)).copy()


def _textured(rng: Rng, canvas: Floats, coarse: float, strength: float) -> Floats:
    noisy: Floats = np.clip(canvas * (1 + strength * _noise(rng, len(canvas), coarse)[:, :, None]), 0, 1)
    return noisy


def _colour(value: Sequence[float] | Floats) -> tuple[float, float, float]:
    return float(value[0]), float(value[1]), float(value[2])


def _box(canvas: Floats, x: float, y: float, wide: float, high: float, colour: Sequence[float] | Floats) -> None:
    cv2.rectangle(canvas, (int(x), int(y)), (int(x + wide), int(y + high)), _colour(colour), -1)


def _pipe(canvas: Floats, start: Floats, end: Floats, thick: float, colour: Floats) -> None:
    """A round bar: dark edge, lighter middle."""
    for share, tone in ((1.0, 0.55), (0.7, 0.85), (0.35, 1.15)):
        cv2.line(
            canvas, (int(start[0]), int(start[1])), (int(end[0]), int(end[1])),
            _colour(np.clip(colour * tone, 0, 1)), max(1, int(thick * share)), cv2.LINE_AA,
        )  # fmt: skip


def _sky(rng: Rng, side: int) -> Floats:
    blue = vary(rng, [(0.45, 0.64, 0.88), (0.70, 0.78, 0.86), (0.85, 0.87, 0.88)][int(rng.integers(3))])
    canvas = _gradient(side, blue, np.clip(blue * 0.5 + 0.48, 0, 1))
    clouds = np.clip(_noise(rng, side, side / 2) - rng.uniform(-0.2, 0.6), 0, 1)[:, :, None]
    return np.clip(canvas * (1 - 0.7 * clouds) + 0.66 * clouds, 0, 1)


# Sites


def _scaffold(rng: Rng, side: int, unit: float) -> Floats:
    wall = vary(rng, [(0.72, 0.68, 0.60), (0.60, 0.62, 0.64), (0.80, 0.77, 0.70)][int(rng.integers(3))])
    canvas = _textured(rng, _gradient(side, wall, wall * 0.85), side / 4, 0.08)
    step = unit * rng.uniform(1.6, 2.6)
    for column in range(-1, int(side / step) + 2):
        for row in range(-1, int(side / step) + 2):
            if rng.random() < 0.6:
                pane = vary(rng, (0.28, 0.36, 0.44), 0.12)
                _box(canvas, column * step + step * 0.2, row * step + step * 0.2, step * 0.5, step * 0.6, pane)
    if rng.random() < 0.45:
        net = vary(rng, [(0.22, 0.40, 0.30), (0.30, 0.38, 0.48), (0.55, 0.42, 0.30)][int(rng.integers(3))])
        top = int(side * rng.uniform(0, 0.5))
        canvas[top:] = canvas[top:] * 0.35 + net * 0.65
    steel = vary(rng, (0.58, 0.58, 0.58), 0.1)
    offset = rng.uniform(0, step)
    for at in np.arange(offset - step, side + step, step * rng.uniform(0.7, 1.1)):
        lean = rng.normal(0, 0.02) * side
        _pipe(canvas, np.array([at, 0]), np.array([at + lean, side]), unit * 0.16, steel)
    for at in np.arange(rng.uniform(0, step) - step, side + step, step * rng.uniform(0.6, 0.9)):
        _pipe(canvas, np.array([0, at]), np.array([side, at + rng.normal(0, 0.02) * side]), unit * 0.14, steel)
        if rng.random() < 0.5:
            _box(canvas, 0, at + unit * 0.1, side, unit * 0.12, vary(rng, (0.60, 0.45, 0.28)))
    if rng.random() < 0.6:
        x, y = rng.uniform(-0.5, 0.5, 2) * side
        _pipe(
            canvas, np.array([x, y]), np.array([x + 1.5 * side, y + side * rng.uniform(0.6, 1.4)]), unit * 0.13, steel
        )
    return canvas


def _roof(rng: Rng, side: int, unit: float) -> Floats:
    canvas = _sky(rng, side)
    line = side * rng.uniform(0.45, 0.9)
    x = rng.uniform(-0.3, 0) * side
    while x < side:
        wide, high = side * rng.uniform(0.08, 0.25), side * rng.uniform(0.05, 0.38)
        tone = vary(rng, (0.52, 0.56, 0.62), 0.1)
        _box(canvas, x, line - high, wide, high + side, tone)
        for row in np.arange(line - high + 6, side, max(9.0, unit * 0.16)):
            _box(canvas, x + 3, row, wide - 6, 2, tone * 0.75)
        x += wide + side * rng.uniform(0, 0.15)
    if rng.random() < 0.55:
        mast, top = side * rng.uniform(0, 1), side * rng.uniform(0.02, 0.3)
        paint = vary(rng, (0.72, 0.58, 0.25))
        _pipe(canvas, np.array([mast, top]), np.array([mast, side]), unit * 0.08, paint)
        _pipe(canvas, np.array([mast - side, top]), np.array([mast + side, top - 0.05 * side]), unit * 0.08, paint)
    deck = side * rng.uniform(0.75, 1.05)
    _box(canvas, 0, deck, side, side, vary(rng, (0.55, 0.52, 0.48)))
    for at in np.arange(rng.uniform(0, unit), side, unit * rng.uniform(0.3, 0.6)) if rng.random() < 0.6 else ():
        bar = vary(rng, (0.36, 0.20, 0.13))
        _pipe(canvas, np.array([at, deck - unit * rng.uniform(0.4, 1.4)]), np.array([at, deck]), unit * 0.05, bar)
    if rng.random() < 0.5:
        for rail in (1.1, 0.6):
            at = deck - unit * rail
            _pipe(canvas, np.array([0, at]), np.array([side, at + 3]), unit * 0.08, vary(rng, (0.62, 0.60, 0.45)))
    return canvas


def _brickwork(rng: Rng, side: int, unit: float) -> Floats:
    brick = vary(rng, [(0.60, 0.28, 0.19), (0.68, 0.42, 0.27), (0.55, 0.50, 0.46)][int(rng.integers(3))])
    mortar = vary(rng, (0.68, 0.65, 0.60))
    canvas = np.broadcast_to(mortar, (side, side, 3)).copy()
    high = max(5.0, unit * rng.uniform(0.24, 0.36))
    wide = high * rng.uniform(2.2, 3.2)
    for row in range(-1, int(side / high) + 2):
        for column in range(-1, int(side / wide) + 2):
            x = column * wide + (row % 2) * wide / 2
            tone = np.clip(brick * rng.uniform(0.75, 1.22) + rng.normal(0, 0.015, 3), 0, 1)
            _box(canvas, x, row * high, wide - max(1.5, high * 0.14), high - max(1.5, high * 0.14) - 1, tone)
    canvas = _textured(rng, canvas, side / 3, 0.10)
    if rng.random() < 0.45:
        x, y = rng.uniform(-0.1, 0.8) * side, rng.uniform(-0.2, 0.6) * side
        _box(canvas, x - 6, y - 6, unit * 1.9 + 12, unit * 2.2 + 12, vary(rng, (0.75, 0.72, 0.66)))
        _box(canvas, x, y, unit * 1.9, unit * 2.2, vary(rng, (0.14, 0.17, 0.21)))
    if rng.random() < 0.4:
        top = side * rng.uniform(0, 0.45)
        _box(canvas, 0, 0, side, top, vary(rng, (0.62, 0.61, 0.58)))
        for at in np.arange(rng.uniform(0, unit), side, unit * 0.8):
            cv2.circle(canvas, (int(at), int(top * 0.6)), max(2, int(unit * 0.06)), (0.35, 0.34, 0.33), -1, cv2.LINE_AA)
    return canvas


def _warehouse(rng: Rng, side: int, unit: float) -> Floats:
    wall = vary(rng, [(0.50, 0.52, 0.54), (0.62, 0.60, 0.55), (0.40, 0.46, 0.50)][int(rng.integers(3))])
    canvas = _textured(rng, _gradient(side, wall * 1.1, wall * 0.7), side / 3, 0.06)
    step, frame = (
        unit * rng.uniform(1.2, 1.9),
        vary(rng, [(0.20, 0.28, 0.44), (0.55, 0.34, 0.18)][int(rng.integers(2))]),
    )
    for shelf in np.arange(rng.uniform(0, step), side + step, step):
        x = -rng.uniform(0, unit)
        while x < side:
            wide, high = unit * rng.uniform(0.4, 1.1), step * rng.uniform(0.35, 0.85)
            if rng.random() < 0.8:
                box = vary(
                    rng,
                    [(0.66, 0.50, 0.32), (0.55, 0.40, 0.25), (0.45, 0.46, 0.48), (0.30, 0.36, 0.42)][
                        int(rng.integers(4))
                    ],
                    0.08,
                )
                _box(canvas, x, shelf - high, wide, high, box * 0.9)
                _box(canvas, x + wide * 0.4, shelf - high, wide * 0.12, high, np.clip(box * 1.15, 0, 1))
                _box(canvas, x, shelf - high, wide, 2, np.clip(box * 1.3, 0, 1))
            x += wide + unit * rng.uniform(0.05, 0.4)
        _box(canvas, 0, shelf, side, unit * 0.13, frame)
    for at in np.arange(rng.uniform(0, step * 2), side, step * 2):
        _box(canvas, at, 0, unit * 0.14, side, frame * 0.8)
    shade = 0.75 + 0.3 * np.clip(_noise(rng, side, side / 1.5, 2), -1, 1)
    return np.clip(canvas * shade[:, :, None], 0, 1)


def _earthworks(rng: Rng, side: int, unit: float) -> Floats:
    canvas = _sky(rng, side)
    earth = vary(rng, [(0.52, 0.36, 0.22), (0.62, 0.50, 0.34), (0.42, 0.34, 0.27)][int(rng.integers(3))])
    horizon = side * rng.uniform(0.05, 0.6)
    for layer in range(3):
        heights = horizon + layer * side * 0.13 + _noise(rng, side, side / 2, 3)[0] * side * 0.07
        below = np.arange(side)[:, None] > heights[None, :]
        ground = _textured(rng, np.broadcast_to(earth * (0.85 + 0.13 * layer), (side, side, 3)), side / 8, 0.16)
        canvas = np.where(below[:, :, None], ground, canvas)
    if rng.random() < 0.55:
        _digger(rng, canvas, side * rng.uniform(0.0, 0.9), horizon + side * rng.uniform(0.05, 0.3), unit)
    if rng.random() < 0.4:
        paint = vary(rng, [(0.66, 0.40, 0.22), (0.80, 0.80, 0.78)][int(rng.integers(2))])
        top = horizon + side * rng.uniform(0, 0.2)
        for at in np.arange(0, side, unit * 0.35):
            _box(canvas, at, top, unit * 0.1, unit * 1.2, paint)
    return canvas


def _digger(rng: Rng, canvas: Floats, x: float, y: float, unit: float) -> None:
    paint = vary(rng, [(0.80, 0.62, 0.18), (0.62, 0.36, 0.16), (0.36, 0.44, 0.54)][int(rng.integers(3))])
    size, facing = unit * rng.uniform(1.2, 2.4), float(rng.choice([-1, 1]))
    _box(canvas, x - size, y, size * 2, size * 0.5, np.array([0.13, 0.13, 0.13]))
    _box(canvas, x - size * 0.8, y - size * 0.9, size * 1.5, size * 0.9, paint)
    _box(
        canvas, x + facing * size * 0.2 - size * 0.3, y - size * 1.4, size * 0.7, size * 0.8, np.array([0.3, 0.4, 0.45])
    )
    reach = np.array([x + facing * size, y - size * 1.8])
    _pipe(canvas, np.array([x, y - size * 0.6]), reach, size * 0.28, paint)
    _pipe(canvas, reach, reach + np.array([facing * size * 0.7, size * 1.4]), size * 0.22, paint)


def _night_yard(rng: Rng, side: int, unit: float) -> Floats:
    tone = vary(rng, (0.10, 0.13, 0.22), 0.08)
    canvas = _textured(rng, _gradient(side, tone * 0.8, tone * 2.4), side / 3, 0.25)
    for _ in range(int(rng.integers(1, 5))):
        x, wide, top = rng.uniform(-0.2, 1) * side, rng.uniform(0.1, 0.5) * side, rng.uniform(0.1, 0.8) * side
        _box(canvas, x, top, wide, side, vary(rng, (0.14, 0.15, 0.18), 0.1))
        for row in np.arange(top + unit * 0.3, side, unit * rng.uniform(0.5, 0.9)):
            for column in np.arange(x + unit * 0.2, x + wide - unit * 0.3, unit * 0.6):
                if rng.random() < 0.35:
                    _box(canvas, column, row, unit * 0.28, unit * 0.34, vary(rng, (0.85, 0.70, 0.40), 0.1))
    rows, columns = np.mgrid[0:side, 0:side]
    for _ in range(int(rng.integers(1, 6))):
        x, y, reach = rng.uniform(0, side), rng.uniform(0, side * 0.6), rng.uniform(0.03, 0.14) * side
        lamp = vary(rng, [(1.0, 0.95, 0.82), (1.0, 0.72, 0.38), (0.80, 0.90, 1.0)][int(rng.integers(3))])
        glow = np.exp(-np.hypot(columns - x, rows - y) / reach)[:, :, None]
        canvas = np.clip(canvas + glow * lamp * 1.1, 0, 1)
    # Lit by flood lights, not by the sky: undo the dimming that daylight scenes get.
    return np.clip(canvas * 1.5, 0, 1)


def _tunnel(rng: Rng, side: int, unit: float) -> Floats:
    concrete = vary(rng, (0.56, 0.54, 0.50), 0.06)
    canvas = _textured(rng, _gradient(side, concrete * 0.5, concrete), side / 5, 0.18)
    x, y = rng.uniform(-0.2, 1.2) * side, rng.uniform(-0.1, 0.5) * side
    for reach in np.geomspace(side * 0.12, side * 1.8, int(rng.integers(6, 11))):
        cv2.circle(canvas, (int(x), int(y)), int(reach), _colour(concrete * 0.3), max(2, int(unit * 0.08)), cv2.LINE_AA)
    cv2.circle(canvas, (int(x), int(y)), int(side * 0.11), (0.03, 0.03, 0.03), -1, cv2.LINE_AA)
    for angle in np.radians(rng.uniform(0, 360, int(rng.integers(3, 7)))):
        end = np.array([x + 2 * side * np.cos(angle), y + 2 * side * np.sin(angle)])
        _pipe(canvas, np.array([x, y]), end, unit * 0.10, vary(rng, (0.25, 0.24, 0.23)))
    rows, columns = np.mgrid[0:side, 0:side]
    for _ in range(int(rng.integers(2, 6))):
        at, up, reach = rng.uniform(0, side), rng.uniform(0, side * 0.5), rng.uniform(0.03, 0.08) * side
        glow = np.exp(-np.hypot(columns - at, rows - up) / reach)[:, :, None]
        canvas = np.clip(canvas + glow * np.array([2.4, 1.9, 1.0]), 0, 1)
    return canvas


BACKGROUNDS: dict[str, Callable[[Rng, int, float], Floats]] = {
    "scaffold": _scaffold,
    "roof": _roof,
    "brickwork": _brickwork,
    "warehouse": _warehouse,
    "earthworks": _earthworks,
    "night_yard": _night_yard,
    "tunnel": _tunnel,
}


# Things that are not helmets on heads


def _distract(rng: Rng, canvas: Floats, light: Light, unit: float) -> None:
    """Add a barrel, a ball, a sign, a cone or, seldom, a hard hat on a shelf; in the colours of the headgear."""
    kind = str(rng.choice(["barrel", "ball", "sign", "cone", "hat"], p=[0.29, 0.25, 0.27, 0.13, 0.06]))
    side = len(canvas)
    _, colour = pick(rng, GEAR, GEAR_SHARES)
    x, y = rng.uniform(0, 1) * side, rng.uniform(0.15, 1.0) * side
    # Kept off the middle, where the head will be: hidden things distract nobody.
    if abs(x - side / 2) < side * 0.2:
        x += side * 0.3 * (1 if x > side / 2 else -1)
    near = unit * rng.uniform(0.5, 1.0)
    if kind == "sign":
        _sign(rng, canvas, x, y, near, colour)
    elif kind == "cone":
        points = np.array([[x, y - near], [x - near * 0.4, y + near * 0.3], [x + near * 0.4, y + near * 0.3]])
        cv2.fillPoly(canvas, [points.astype(np.int32)], _colour(colour), cv2.LINE_AA)
        _box(canvas, x - near * 0.22, y - near * 0.25, near * 0.44, near * 0.2, (0.9, 0.9, 0.88))
    elif kind == "ball":
        ball = Solid((0, 0, 0), (0.4, 0.4, 0.4), plain(colour), gloss=float(rng.uniform(0, 0.8)))
        _solids(canvas, [ball], np.eye(3), View(x, y, near, side), light)
    elif kind == "barrel":
        _barrel(canvas, x, y, near, colour, light)
    else:
        _box(canvas, x - near, y + near * 0.10, near * 2, near * 0.14, vary(rng, (0.45, 0.33, 0.22)))
        turn = rotation(yaw=float(rng.uniform(-180, 180)), pitch=float(rng.normal(8, 8)))
        hat = build_hat(colour, int(rng.integers(2**31)), turn)
        drawn, covered = render(hat, View(x, y + near * 0.2, near * 0.75, side), light)
        canvas[:] = _blend(canvas, drawn, covered)


def _sign(rng: Rng, canvas: Floats, x: float, y: float, size: float, colour: Floats) -> None:
    if rng.random() < 0.5:
        _box(canvas, x - size * 0.5, y - size * 0.5, size, size * 0.8, colour)
        for line in range(3):
            _box(canvas, x - size * 0.4, y - size * (0.35 - 0.2 * line), size * 0.75, size * 0.07, (0.08, 0.08, 0.1))
    else:
        cv2.circle(canvas, (int(x), int(y)), max(2, int(size * 0.45)), _colour(colour), -1, cv2.LINE_AA)
        cv2.circle(canvas, (int(x), int(y)), max(1, int(size * 0.3)), (0.92, 0.92, 0.9), -1, cv2.LINE_AA)


def _barrel(canvas: Floats, x: float, y: float, size: float, colour: Floats, light: Light) -> None:
    """An upright drum: a column shaded across, with two hoops and a lid."""
    half, high = max(2, int(size * 0.42)), max(3, int(size * 1.2))
    across = np.linspace(-1, 1, 2 * half)
    shade = 0.45 + 0.55 * np.clip(light.towards[0] * across + light.towards[2] * np.sqrt(1 - across**2), 0, 1)
    top, left = int(y), int(x) - half
    rows = slice(max(0, top), max(0, min(len(canvas), top + high)))
    columns = slice(max(0, left), max(0, min(len(canvas), left + 2 * half)))
    cut = shade[columns.start - left : columns.stop - left]
    canvas[rows, columns] = np.clip(cut[None, :, None] * colour, 0, 1)
    for hoop in (0.33, 0.66):
        _box(canvas, left, y + hoop * high, 2 * half - 1, max(1, size * 0.04), colour * 0.6)
    cv2.ellipse(
        canvas,
        (int(x), top),
        (half, max(1, half // 4)),
        0,
        0,
        360,
        _colour(np.clip(colour * 1.1, 0, 1)),
        -1,
        cv2.LINE_AA,
    )


def _solids(canvas: Floats, solids: Sequence[Solid], turn: Floats, view: View, light: Light) -> None:
    drawn, covered = render(place(solids, turn), view, light)
    canvas[:] = _blend(canvas, drawn, covered)


def _blend(canvas: Floats, drawn: Floats, covered: Floats) -> Floats:
    blended: Floats = np.clip(canvas * (1 - covered[:, :, None]) + drawn * covered[:, :, None], 0, 1)
    return blended


# What hangs in front


def occlude(rng: Rng, canvas: Floats, view: View, light: Light) -> str:
    """Put something in front of the worker, never over more than about a third of the head; return what."""
    kind = str(rng.choice(["", "beam", "rail", "hand", "shoulder", "net"], p=[0.68, 0.05, 0.09, 0.07, 0.08, 0.03]))
    side, unit = view.side, view.scale
    if kind == "beam":
        paint = vary(rng, [(0.45, 0.46, 0.48), (0.55, 0.40, 0.25), (0.80, 0.62, 0.12)][int(rng.integers(3))])
        x = view.x + rng.choice([-1, 1]) * unit * rng.uniform(0.30, 0.75)
        _pipe(canvas, np.array([x, -5]), np.array([x + rng.normal(0, 0.06) * side, side + 5]), unit * 0.28, paint)
    elif kind == "rail":
        paint, y = vary(rng, (0.60, 0.60, 0.60), 0.12), view.y + unit * rng.uniform(0.35, 1.3)
        _pipe(canvas, np.array([-5, y]), np.array([side + 5, y + rng.normal(0, 0.08) * side]), unit * 0.2, paint)
    elif kind == "hand":
        _hand(rng, canvas, view, light)
    elif kind == "shoulder":
        _shoulder(rng, canvas, view, light)
    elif kind == "net":
        paint = vary(rng, (0.20, 0.36, 0.26), 0.1)
        for at in np.arange(-side, side * 2, unit * 0.35 + 6):
            for slope in (-1, 1):
                start = (int(at), 0 if slope > 0 else side)
                end = (int(at + side), side if slope > 0 else 0)
                cv2.line(canvas, start, end, _colour(paint), 1, cv2.LINE_AA)
    return kind


def _hand(rng: Rng, canvas: Floats, view: View, light: Light) -> None:
    """A hand and sleeve held to cheek or chin."""
    side = float(rng.choice([-1, 1]))
    paint = skin(rng, vary(rng, SKIN[int(rng.integers(len(SKIN)))], 0.04))
    x, y = side * rng.uniform(0.15, 0.45), rng.uniform(-0.45, -0.18)
    fingers = [
        Solid(
            (x + side * 0.07 * k, y + 0.10, 0.72),
            (0.045, 0.16, 0.05),
            paint,
            tilt=rotation(roll=float(rng.normal(0, 8))),
        )
        for k in range(-1, 3)
    ]
    sleeve = cloth(rng, vary(rng, (0.30, 0.32, 0.36), 0.15))
    arm = Solid((x + side * 0.38, y - 0.75, 0.68), (0.17, 0.62, 0.17), sleeve, tilt=rotation(roll=side * 28.0))
    _solids(canvas, [Solid((x, y - 0.08, 0.68), (0.14, 0.16, 0.09), paint), *fingers, arm], np.eye(3), view, light)


def _shoulder(rng: Rng, canvas: Floats, view: View, light: Light) -> None:
    """A neighbour's shoulder, nearer and out of focus, from a lower corner."""
    side = float(rng.choice([-1, 1]))
    coat = cloth(rng, vary(rng, (0.40, 0.40, 0.42), 0.3))
    solid = Solid((side * rng.uniform(1.2, 1.6), -1.35, 1.5), (0.85, 0.95, 0.6), coat)
    drawn, covered = render(place([solid], np.eye(3)), view, light)
    soft = max(0.5, view.scale * 0.04)
    blurred: list[Any] = [cv2.GaussianBlur(layer, (0, 0), soft) for layer in (drawn, covered)]
    canvas[:] = _blend(canvas, *blurred)
