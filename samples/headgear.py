"""What a head carries: hard hats, and everything that is not one. Frame: origin mid-head, y up, z out of the face.

The skull reaches y = 0.5 and the chin y = -0.52; lengths are head heights.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from samples.paint import GEAR, GEAR_SHARES, Ripples, Rng, cloth, over, pick, plain, spot, strands, tint, vary
from samples.solids import Floats, Keep, Mask, Paint, Solid, rotation

NAMES = ("helmet", "hair", "bald", "cap", "beanie", "hood", "headscarf", "turban")
BARE_SHARES = {"hair": 0.59, "bald": 0.07, "cap": 0.11, "beanie": 0.09, "hood": 0.07, "headscarf": 0.05, "turban": 0.02}


def helmet(rng: Rng, colour: Floats) -> list[Solid]:
    """A hard hat: glossy shell well above the skull, ridges, rim all round, brim in front."""
    base = float(rng.uniform(0.13, 0.18))
    height, wide, long = rng.uniform(0.46, 0.52), rng.uniform(0.45, 0.48), rng.uniform(0.52, 0.56)
    shell = (float(wide), float(height), float(long))
    gloss = float(rng.uniform(0.7, 1.0))
    lip = vary(rng, colour * 0.94, 0.02)
    parts = [
        Solid((0, base, -0.02), shell, _shell_paint(rng, colour), keep=lambda q: q[:, 1] > base, gloss=gloss),
        Solid((0, base, 0.0), (wide + 0.05, 0.045, long + 0.05), plain(lip), gloss=gloss),
        *_brim(rng, base, wide, long, lip, gloss),
        *_ridges(rng, base, shell, colour, gloss),
    ]
    if rng.random() < 0.4:
        parts.append(_chin_strap(rng))
    if rng.random() < 0.12:
        parts.append(
            Solid((0, base + 0.22, long - 0.03), (0.10, 0.09, 0.09), plain(np.array([0.9, 0.9, 0.8])), gloss=1)
        )
    return parts


def _shell_paint(rng: Rng, colour: Floats) -> Paint:
    """Plastic with, at times, a badge in front, scuffs or a stripe round the shell."""
    badge, stripe = rng.random() < 0.45, rng.random() < 0.15
    ink = vary(rng, [(0.08, 0.1, 0.3), (0.7, 0.1, 0.1), (0.95, 0.95, 0.95)][int(rng.integers(3))])
    scuffs, dirt = Ripples(rng, 5.0, 8), float(rng.choice([0.0, 0.0, 0.10]))

    def paint(points: Floats) -> Floats:
        colours = tint(colour, 1 - dirt * np.clip(scuffs(points), 0, 1))
        if badge:
            colours = over(colours, spot(points, 0, 0.40, 0.11, 0.08) * (points[:, 2] > 0), ink)
        if stripe:
            colours = over(colours, ((points[:, 1] > 0.27) & (points[:, 1] < 0.32)).astype(float), ink)
        return colours

    return paint


def _brim(rng: Rng, base: float, wide: float, long: float, colour: Floats, gloss: float) -> list[Solid]:
    """A peak in front or, one time in five, a brim all round."""
    if rng.random() < 0.2:
        return [Solid((0, base - 0.01, 0), (wide + 0.17, 0.04, long + 0.19), plain(colour), gloss=gloss)]
    out = float(rng.uniform(0.30, 0.40))
    droop = rotation(pitch=float(rng.uniform(6, 16)))
    return [
        Solid(
            (0, base - 0.02, 0.34), (wide - 0.05, 0.045, out + 0.12), plain(colour),
            keep=lambda q: q[:, 2] > 0.22, tilt=droop, gloss=gloss,
        )
    ]  # fmt: skip


def _ridges(rng: Rng, base: float, shell: tuple[float, float, float], colour: Floats, gloss: float) -> list[Solid]:
    """One or three raised bands from front to back."""
    lighter = np.clip(colour * 1.10 + 0.04, 0, 1)
    offsets = [(0.0,), (-0.15, 0.0, 0.15)][int(rng.integers(2))]
    half = float(rng.uniform(0.03, 0.055))

    def band(at: float) -> Keep:
        return lambda q: (np.abs(q[:, 0] - at) < half) & (q[:, 1] > base + 0.12)

    radii = (shell[0] + 0.02, shell[1] + 0.045, shell[2] + 0.04)
    return [Solid((0, base, -0.02), radii, plain(lighter), keep=band(at), gloss=gloss) for at in offsets]


def _chin_strap(rng: Rng) -> Solid:
    colour = vary(rng, [(0.08, 0.08, 0.09), (0.85, 0.85, 0.8), (0.5, 0.5, 0.5)][int(rng.integers(3))])

    def keep(points: Floats) -> Mask:
        kept: Mask = (np.abs(points[:, 2] - 0.10 + 0.25 * points[:, 1]) < 0.035) & (points[:, 1] < 0.2)
        return kept

    return Solid((0, -0.08, 0.03), (0.355, 0.47, 0.42), plain(colour), keep=keep, casts=False)


def hair(rng: Rng, colour: Floats) -> list[Solid]:
    """A head of hair: short, long, curly, tied or shaved at the sides."""
    style = str(rng.choice(["short", "short", "long", "curly", "tied", "crest"]))
    front, curl = float(rng.uniform(0.22, 0.34)), float(rng.uniform(0.2, 1.0))
    paint = strands(rng, colour, curl)
    puff = 0.10 if style == "curly" else float(rng.uniform(0.0, 0.035))
    ragged = Ripples(rng, 5.5, 8)
    roughness = 0.05 if style == "curly" else 0.03

    def keep(points: Floats) -> Mask:
        line = np.where(points[:, 2] > 0.0, front - 0.5 * np.clip(0.22 - points[:, 2], 0, 0.5), front - 0.42)
        kept: Mask = points[:, 1] + roughness * ragged(points) > line
        return kept

    parts = [Solid((0, 0.09, -0.04), (0.385 + puff, 0.445 + puff, 0.46 + puff), paint, keep=keep, gloss=0.10)]
    if style == "long":
        length = float(rng.uniform(0.5, 0.85))
        parts.append(
            Solid((0, 0.50 - length, -0.22), (0.41, length, 0.30), paint, keep=lambda q: q[:, 2] < 0.05, gloss=0.1)
        )
    if style == "tied":
        high = bool(rng.random() < 0.5)
        at = (0.0, 0.52, -0.22) if high else (0.0, 0.08, -0.58)
        parts.append(Solid(at, (0.17, 0.16, 0.16) if high else (0.12, 0.34, 0.13), paint, gloss=0.1))
    if style == "crest":
        parts.append(Solid((0, 0.2, -0.05), (0.12, 0.50, 0.46), paint, keep=lambda q: q[:, 1] > 0.3, gloss=0.1))
    return parts


def fringe(rng: Rng, colour: Floats) -> list[Solid]:
    """The ring of hair that a bald head, a helmet or a cap leaves to be seen."""
    paint, top = strands(rng, colour, 0.3), float(rng.uniform(0.10, 0.2))

    def keep(points: Floats) -> Mask:
        kept: Mask = (points[:, 1] < top) & (points[:, 1] > -0.22) & (points[:, 2] < 0.02 + 0.4 * (points[:, 1] - top))
        return kept

    return [Solid((0, 0.07, -0.04), (0.372, 0.44, 0.455), paint, keep=keep, gloss=0.05)]


def bald(rng: Rng, colour: Floats) -> list[Solid]:
    """No hair on top; often a ring of it."""
    return fringe(rng, colour) if rng.random() < 0.5 else []


def cap(rng: Rng, colour: Floats) -> list[Solid]:
    """A baseball cap: cloth close to the skull, six seams, a button, a peak in front (or behind) and no rim."""
    panels, weave, seam = cloth(rng, colour, 0.08, 0.08), Ripples(rng, 16), float(rng.uniform(0, 1))
    other = vary(rng, GEAR[pick(rng, GEAR, GEAR_SHARES)[0]]) if rng.random() < 0.4 else colour
    mesh = rng.random() < 0.3

    def paint(points: Floats) -> Floats:
        around = np.arctan2(points[:, 0], points[:, 2] + 0.02)
        seams = np.abs(np.sin(3 * around + seam)) < 0.09
        colours = over(panels(points), seams.astype(float), colour * 0.55)
        back = (points[:, 2] < 0.05).astype(float) if mesh else np.zeros(len(points))
        return over(colours, back, other * (0.85 + 0.15 * float(np.mean(weave(points)))))

    backwards = rng.random() < 0.15
    turn = rotation(yaw=180.0 if backwards else 0.0) @ rotation(pitch=float(rng.uniform(8, 20)))
    sign = -1 if backwards else 1
    return [
        Solid((0, 0.12, -0.03), (0.39, 0.42, 0.465), paint, keep=lambda q: q[:, 1] > 0.15 + 0.06 * q[:, 2]),
        Solid((0, 0.54, -0.03), (0.03, 0.02, 0.03), plain(other * 0.8)),
        Solid(
            (0, 0.17, sign * 0.36), (0.29, 0.028, 0.34), cloth(rng, other, 0.03, 0.05),
            keep=lambda q: sign * q[:, 2] > 0.28, tilt=turn,
        ),
    ]  # fmt: skip


def beanie(rng: Rng, colour: Floats) -> list[Solid]:
    """A knitted cap: matte ribs, a folded cuff, at times a bobble or stripes."""
    ribs, fuzz = float(rng.integers(16, 26)), Ripples(rng, 10)
    band = vary(rng, GEAR[pick(rng, GEAR, GEAR_SHARES)[0]]) if rng.random() < 0.35 else colour

    def knit(points: Floats) -> Floats:
        around = np.arctan2(points[:, 0], points[:, 2] + 0.04)
        colours = tint(colour, 0.92 + 0.16 * np.sin(ribs * around) + 0.08 * fuzz(points))
        return over(colours, ((points[:, 1] > 0.32) & (points[:, 1] < 0.42)).astype(float), band, 0.8)

    tall = float(rng.uniform(0.42, 0.52))
    low = float(rng.uniform(0.08, 0.16))

    def cuff(points: Floats) -> Mask:
        kept: Mask = (points[:, 1] > low) & (points[:, 1] < low + 0.15)
        return kept

    parts = [
        Solid((0, 0.13, -0.04), (0.395, tall, 0.465), knit, keep=lambda q: q[:, 1] > low),
        Solid((0, 0.13, -0.04), (0.425, 0.50, 0.495), knit, keep=cuff),
    ]
    if rng.random() < 0.25:
        parts.append(Solid((0, 0.13 + tall, -0.06), (0.10, 0.09, 0.10), tufted(rng, band)))
    return parts


def tufted(rng: Rng, colour: Floats) -> Paint:
    """Wool ends, speckled."""
    speckle = Ripples(rng, 16)
    return lambda points: tint(colour, 0.9 + 0.3 * speckle(points))


def hood(rng: Rng, colour: Floats) -> list[Solid]:
    """A hood drawn up: cloth shell in folds, the face in its opening, a cape on the shoulders."""
    paint = cloth(rng, colour, 0.20, 0.06)
    wide, low = float(rng.uniform(0.29, 0.34)), float(rng.uniform(-0.10, -0.04))

    def keep(points: Floats) -> Mask:
        opening = np.hypot(points[:, 0] / wide, (points[:, 1] - low) / 0.43) < 1
        kept: Mask = ~(opening & (points[:, 2] > 0.05)) & (points[:, 1] > -0.62)
        return kept

    point = float(rng.uniform(0.0, 0.12))
    return [
        Solid((0, 0.0, -0.06), (0.45, 0.60, 0.52), paint, keep=keep),
        Solid((0, 0.2 + point, -0.30), (0.26, 0.34, 0.30), paint),
        Solid((0, -0.62, -0.03), (0.50, 0.22, 0.42), paint),
    ]


def headscarf(rng: Rng, colour: Floats) -> list[Solid]:
    """A scarf round head and neck, or a kerchief tied at the back; plain or dotted."""
    base, dots = cloth(rng, colour, 0.18, 0.05), Ripples(rng, 4.5, 3)
    patterned = rng.random() < 0.4

    def paint(points: Floats) -> Floats:
        mask = (dots(points) > 0.9).astype(float) if patterned else np.zeros(len(points))
        return over(base(points), mask, (0.95, 0.94, 0.9), 0.8)

    if rng.random() < 0.5:

        def round_face(points: Floats) -> Mask:
            opening = np.hypot(points[:, 0] / 0.27, (points[:, 1] + 0.07) / 0.36) < 1
            kept: Mask = ~(opening & (points[:, 2] > 0))
            return kept

        return [
            Solid((0, 0.0, -0.04), (0.41, 0.535, 0.475), paint, keep=round_face),
            Solid((0, -0.55, 0.0), (0.36, 0.30, 0.36), paint),
        ]

    def kerchief(points: Floats) -> Mask:
        kept: Mask = points[:, 1] > 0.16 + 0.30 * points[:, 2]
        return kept

    return [
        Solid((0, 0.09, -0.03), (0.385, 0.445, 0.462), paint, keep=kerchief),
        Solid((0.05, -0.02, -0.50), (0.08, 0.08, 0.08), paint),
        Solid((0.08, -0.22, -0.50), (0.07, 0.20, 0.05), paint),
    ]


def turban(rng: Rng, colour: Floats) -> list[Solid]:
    """Cloth wound round the head: as big as a helmet, but soft, in bands, without rim or brim."""
    slope, wraps = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 0.8)), float(rng.uniform(24, 34))
    folds = Ripples(rng, 2.5)

    def paint(points: Floats) -> Floats:
        across = points[:, 1] + slope * points[:, 0]
        return tint(colour, 0.9 + 0.22 * np.sin(wraps * across + 1.2 * folds(points)))

    return [Solid((0, 0.27, -0.04), (0.46, 0.36, 0.51), paint, keep=lambda q: q[:, 1] > 0.09 + 0.08 * np.abs(q[:, 0]))]


MAKERS: dict[str, Callable[[Rng, Floats], list[Solid]]] = {
    "helmet": helmet, "hair": hair, "bald": bald, "cap": cap,
    "beanie": beanie, "hood": hood, "headscarf": headscarf, "turban": turban,
}  # fmt: skip
