"""Colours and surfaces: what the ellipsoids of `solids.py` are painted with. Colours are (3,) RGB in 0..1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from samples.solids import Floats, Paint

Rng = np.random.Generator

# Helmets and what is worn instead of them share the first six: a bright colour alone must not tell the class.
GEAR = {
    "white": (0.93, 0.93, 0.91),
    "yellow": (0.96, 0.79, 0.09),
    "orange": (0.95, 0.44, 0.07),
    "red": (0.80, 0.10, 0.09),
    "blue": (0.11, 0.31, 0.72),
    "green": (0.13, 0.50, 0.24),
}
GEAR_SHARES = (0.17, 0.24, 0.18, 0.16, 0.16, 0.09)
DULL = {
    "black": (0.07, 0.07, 0.08),
    "grey": (0.36, 0.37, 0.39),
    "navy": (0.08, 0.10, 0.22),
    "olive": (0.28, 0.29, 0.17),
    "maroon": (0.32, 0.09, 0.11),
}
HAIR = {
    "black": (0.05, 0.045, 0.05),
    "brown": (0.18, 0.11, 0.07),
    "chestnut": (0.30, 0.17, 0.09),
    "blond": (0.80, 0.62, 0.28),
    "ginger": (0.70, 0.31, 0.10),
    "grey": (0.52, 0.51, 0.50),
    "white": (0.88, 0.87, 0.84),
    "red": (0.62, 0.08, 0.10),
    "blue": (0.14, 0.28, 0.62),
    "green": (0.20, 0.48, 0.26),
}
HAIR_SHARES = (0.34, 0.25, 0.15, 0.09, 0.05, 0.05, 0.04, 0.01, 0.01, 0.01)
SKIN = ((0.93, 0.74, 0.62), (0.86, 0.64, 0.50), (0.76, 0.53, 0.38), (0.60, 0.40, 0.27), (0.43, 0.28, 0.19))
# Working clothes, mostly dull; high-visibility vests come on top.
CLOTH = (
    (0.13, 0.16, 0.26),
    (0.25, 0.27, 0.30),
    (0.24, 0.32, 0.44),
    (0.40, 0.40, 0.40),
    (0.46, 0.40, 0.32),
    (0.62, 0.61, 0.57),
    (0.26, 0.31, 0.24),
    (0.34, 0.20, 0.17),
    (0.10, 0.10, 0.11),
    (0.55, 0.26, 0.10),
)


def pick(
    rng: Rng, table: dict[str, tuple[float, float, float]], shares: Sequence[float] | Floats
) -> tuple[str, Floats]:
    """Draw a named colour, slightly varied."""
    name = str(rng.choice(list(table), p=np.asarray(shares) / np.sum(shares)))
    return name, vary(rng, table[name])


def vary(rng: Rng, colour: Sequence[float] | Floats, by: float = 0.05) -> Floats:
    """Return a colour near `colour`: a little lighter or darker, a little off in hue."""
    varied: Floats = np.clip(np.asarray(colour) * rng.uniform(1 - 2 * by, 1 + 2 * by) + rng.normal(0, by / 2, 3), 0, 1)
    return varied


class Ripples:
    """Smooth noise in space: a sum of sine waves; about -1..1."""

    def __init__(self, rng: Rng, waves_per_unit: float, waves: int = 6, stretch: Sequence[float] = (1, 1, 1)) -> None:
        directions = rng.normal(size=(waves, 3)) * np.asarray(stretch)
        self.vectors = directions * waves_per_unit * 2 * np.pi / np.sqrt(3)
        self.phases = rng.uniform(0, 2 * np.pi, waves)

    def __call__(self, points: Floats) -> Floats:
        """Return (N,) heights at points (N, 3)."""
        total: Floats = np.sin(points @ self.vectors.T + self.phases).sum(axis=1) / np.sqrt(len(self.phases))
        return total


def plain(colour: Floats) -> Paint:
    """Even paint, as on plastic."""
    return lambda points: np.broadcast_to(colour, (len(points), 3)).copy()


def cloth(rng: Rng, colour: Floats, folds: float = 0.14, weave: float = 0.05) -> Paint:
    """Cloth: broad folds and a fine weave."""
    broad, fine = Ripples(rng, 1.6, stretch=(1.2, 0.6, 1.2)), Ripples(rng, 14)
    return lambda points: tint(colour, 1 + folds * broad(points) + weave * fine(points))


def skin(rng: Rng, colour: Floats) -> Paint:
    """Bare skin without features: arms, ears, a bald skull."""
    blotches = Ripples(rng, 2.0)
    return lambda points: tint(colour, 1 + 0.04 * blotches(points))


def strands(rng: Rng, colour: Floats, curl: float) -> Paint:
    """Hair: thin streaks that run down from the crown, bent by `curl`, with darker roots between locks."""
    bend, locks = Ripples(rng, 2.2), Ripples(rng, 3.0, stretch=(1.3, 0.3, 1.3))
    many, phase = float(rng.uniform(26, 40)), float(rng.uniform(0, 6))

    def paint(points: Floats) -> Floats:
        around = np.arctan2(points[:, 0], points[:, 2] + 0.12)
        streaks = np.sin(many * around + phase + 5 * curl * bend(points) + 9 * points[:, 1])
        fine = np.sin(2.7 * many * around + 3 * bend(points))
        return tint(colour, 0.92 + 0.20 * streaks + 0.10 * fine + 0.16 * locks(points))

    return paint


def tint(colour: Floats, by: Floats) -> Floats:
    """Return `colour` (3,) made lighter or darker point by point (N,): (N, 3)."""
    tinted: Floats = colour * np.clip(by, 0.15, 1.8)[:, None]
    return tinted


def over(base: Floats, where: Floats, colour: Sequence[float] | Floats, strength: float = 1.0) -> Floats:
    """Paint `colour` over base (N, 3) where the mask (N,) 0..1 says."""
    amount = np.clip(where * strength, 0, 1)[:, None]
    painted: Floats = base * (1 - amount) + np.asarray(colour) * amount
    return painted


def spot(points: Floats, x: float, y: float, width: float, height: float) -> Floats:
    """Return a soft-edged elliptical mask (N,) on the x-y plane."""
    far = np.hypot((points[:, 0] - x) / width, (points[:, 1] - y) / height)
    mask: Floats = np.clip((1.15 - far) / 0.3, 0, 1)
    return mask
