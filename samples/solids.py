"""A small ray caster for ellipsoids: enough 3D to turn a head and to let a helmet shine and throw its shadow.

The view is orthographic along -z (x right, y up, z towards the camera), so a ray meets an ellipsoid where a quadratic
says; caps, brims, hoods and hair are ellipsoids of which only a part is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Paint = Callable[[Floats], Floats]  # points (N, 3) in the solid's own frame to colours (N, 3) in 0..1
Keep = Callable[[Floats], Mask]  # the same points to the part that exists


@dataclass(frozen=True)
class Solid:
    """An ellipsoid in the frame of the body part it belongs to; lengths in head heights."""

    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    paint: Paint
    keep: Keep | None = None
    tilt: Floats = field(default_factory=lambda: np.eye(3))
    gloss: float = 0.0
    casts: bool = True


@dataclass(frozen=True)
class Placed:
    """A solid whose frame is turned by `turn` about the frame's origin, which lies at `origin` (head heights)."""

    solid: Solid
    turn: Floats
    origin: Floats


@dataclass(frozen=True)
class Light:
    """A sun (or flood light) and the soft light from above and below; colours (3,), 1 = full white."""

    towards: Floats
    sun: Floats
    sky: Floats
    ground: Floats


@dataclass(frozen=True)
class View:
    """Where the head's centre falls in the picture (pixels), pixels per head height, and the picture's side."""

    x: float
    y: float
    scale: float
    side: int


def rotation(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Floats:
    """Return the (3, 3) turn that rolls, then bows by `pitch`, then turns by `yaw` (about y); degrees."""
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    turned: Floats = about_y @ about_x @ about_z
    return turned


def place(solids: Sequence[Solid], turn: Floats, origin: Sequence[float] = (0.0, 0.0, 0.0)) -> list[Placed]:
    """Put solids of one frame into the world."""
    return [Placed(solid, turn, np.asarray(origin, dtype=float)) for solid in solids]


def shifted(placed: Sequence[Placed], by: Sequence[float]) -> list[Placed]:
    """Move placed solids by `by` head heights."""
    return [replace(item, origin=item.origin + np.asarray(by, dtype=float)) for item in placed]


def render(placed: Sequence[Placed], view: View, light: Light) -> tuple[Floats, Floats]:
    """Return colours (side, side, 3), unclipped, and coverage (side, side) of the solids seen in `view`."""
    depth = np.full((view.side, view.side), -np.inf)
    normals = np.zeros((view.side, view.side, 3))
    albedo = np.zeros((view.side, view.side, 3))
    gloss = np.zeros((view.side, view.side))
    placed = [item for item in placed if _window(item, view) is not None]
    for item in placed:
        _draw(item, view, depth, normals, albedo, gloss)
    seen = np.isfinite(depth)
    rows, columns = np.nonzero(seen)
    points = np.stack([(columns + 0.5 - view.x) / view.scale, (view.y - rows - 0.5) / view.scale, depth[seen]], axis=1)
    colours = np.zeros((view.side, view.side, 3))
    colours[seen] = _shade(points, normals[seen], albedo[seen], gloss[seen], placed, light)
    return colours, seen.astype(float)


def _draw(item: Placed, view: View, depth: Floats, normals: Floats, albedo: Floats, gloss: Floats) -> None:
    """Write the pixels where `item` is nearer than what was drawn before."""
    window = _window(item, view)
    if window is None:
        return
    top, bottom, left, right = window
    columns, rows = np.meshgrid(np.arange(left, right), np.arange(top, bottom))
    base = np.stack(
        [(columns.ravel() + 0.5 - view.x) / view.scale, (view.y - rows.ravel() - 0.5) / view.scale, 0.0 * rows.ravel()],
        axis=1,
    )
    near, far, hit = _meet(item, base, np.array([0.0, 0.0, 1.0]))
    part = depth[top:bottom, left:right].ravel()
    # The far wall shows where the near one is cut away: the inside of a hood, the underside of a brim.
    for distance in (far, near):
        point = base + distance[:, None] * np.array([0.0, 0.0, 1.0])
        own = (point - item.origin) @ item.turn
        visible = hit & (distance > part)
        if item.solid.keep is not None:
            visible &= item.solid.keep(own)
        if not visible.any():
            continue
        at = (rows.ravel()[visible], columns.ravel()[visible])
        depth[at] = distance[visible]
        part = depth[top:bottom, left:right].ravel()
        normals[at] = _normal(item, own[visible])
        albedo[at] = item.solid.paint(own[visible])
        gloss[at] = item.solid.gloss


def _window(item: Placed, view: View) -> tuple[int, int, int, int] | None:
    """Return the rows and columns that can show `item`, or None where it lies outside the picture."""
    axes = item.turn @ item.solid.tilt * np.asarray(item.solid.radii)
    reach = np.linalg.norm(axes, axis=1) * view.scale + 1
    center = item.turn @ np.asarray(item.solid.center) + item.origin
    x, y = view.x + center[0] * view.scale, view.y - center[1] * view.scale
    left, right = int(max(0, np.floor(x - reach[0]))), int(min(view.side, np.ceil(x + reach[0])))
    top, bottom = int(max(0, np.floor(y - reach[1]))), int(min(view.side, np.ceil(y + reach[1])))
    return (top, bottom, left, right) if left < right and top < bottom else None


def _meet(item: Placed, points: Floats, along: Floats) -> tuple[Floats, Floats, Mask]:
    """Return distances (N,) along a ray from each point to the solid's far-ahead and first wall, and who meets it."""
    solid = item.solid
    to_unit = item.turn @ solid.tilt / np.asarray(solid.radii)
    start = (points - item.origin - item.turn @ np.asarray(solid.center)) @ to_unit
    step = along @ to_unit
    a = float(step @ step)
    b = start @ step
    c = np.einsum("ij,ij->i", start, start) - 1.0
    square = b * b - a * c
    hit = square > 0
    root = np.sqrt(np.where(hit, square, 0.0))
    return (-b + root) / a, (-b - root) / a, hit


def _normal(item: Placed, own: Floats) -> Floats:
    """Return unit normals (N, 3) in the world, turned towards the camera."""
    solid = item.solid
    inside = (own - np.asarray(solid.center)) @ solid.tilt
    normal = (inside / np.square(np.asarray(solid.radii))) @ solid.tilt.T @ item.turn.T
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    turned: Floats = np.where(normal[:, 2:] < 0, -normal, normal)
    return turned


def _shade(
    points: Floats, normals: Floats, albedo: Floats, gloss: Floats, placed: Sequence[Placed], light: Light
) -> Floats:
    """Lambert and Blinn-Phong, cast shadows, and a glint of the sky on glossy things."""
    facing = np.clip((normals @ light.towards + 0.15) / 1.15, 0, 1)
    # A shadow is never quite black: light comes back from walls, ground and dust.
    lit = facing * (0.25 + 0.75 * _reaches(points, placed, light.towards))
    above = np.array([0.0, 0.94, 0.34])
    open_sky = 0.65 + 0.35 * _reaches(points, placed, above)
    up = 0.5 + 0.5 * normals[:, 1]
    diffuse = lit[:, None] * light.sun + (up * open_sky)[:, None] * light.sky + (1 - up)[:, None] * light.ground
    half = light.towards + np.array([0.0, 0.0, 1.0])
    half = half / np.linalg.norm(half)
    shine = np.clip(normals @ half, 0, 1) ** 35 * (lit > 0.3 * facing)
    mirrored_up = 2 * normals[:, 2] * normals[:, 1]
    glint = np.clip((mirrored_up - 0.72) / 0.12, 0, 1) * 0.16 + 0.22 * (1 - normals[:, 2]) ** 3
    extra = gloss[:, None] * (0.95 * shine[:, None] * light.sun + glint[:, None] * light.sky)
    coloured: Floats = albedo * diffuse + extra
    return coloured


def _reaches(points: Floats, placed: Sequence[Placed], towards: Floats) -> Floats:
    """Return 1 where nothing that casts a shadow stands between a point and the light, else 0; (N,)."""
    free = np.ones(len(points))
    for item in placed:
        if not item.solid.casts:
            continue
        far, near, hit = _meet(item, points, towards)
        for distance in (far, near):
            blocked = hit & (distance > 0.03) & (free > 0)
            if item.solid.keep is not None and blocked.any():
                own = (points[blocked] + distance[blocked][:, None] * towards - item.origin) @ item.turn
                blocked[blocked] = item.solid.keep(own)
            free[blocked] = 0.0
    return free
