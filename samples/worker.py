"""A worker: head, face, body and clothes as solids; who it is and how they stand are drawn apart from the headgear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from samples import headgear
from samples.paint import (
    CLOTH,
    DULL,
    GEAR,
    GEAR_SHARES,
    HAIR,
    HAIR_SHARES,
    SKIN,
    Rng,
    cloth,
    over,
    pick,
    plain,
    skin,
    spot,
    vary,
)
from samples.solids import Floats, Mask, Paint, Placed, Solid, place, rotation

NECK = np.array([0.0, -0.5, -0.05])


@dataclass(frozen=True)
class Person:
    """Who is in the picture; the same for all moments of a burst."""

    seed: int
    skin: Floats
    hair_name: str
    hair: Floats
    jacket: Floats
    trousers: Floats
    vest: bool
    stripes: bool
    beard: float
    glasses: str
    ear_muffs: bool


@dataclass(frozen=True)
class Pose:
    """How they stand; degrees."""

    yaw: float
    pitch: float
    roll: float
    body_yaw: float
    camera_pitch: float
    arms: tuple[float, float, float, float]


@dataclass(frozen=True)
class Gear:
    """What the head carries."""

    name: str
    colour_name: str
    colour: Floats
    seed: int


def draw_person(rng: Rng) -> Person:
    """Draw a person; nothing here depends on the class."""
    hair_name, hair = pick(rng, HAIR, HAIR_SHARES)
    return Person(
        seed=int(rng.integers(2**31)),
        skin=vary(rng, SKIN[int(rng.integers(len(SKIN)))], 0.04),
        hair_name=hair_name,
        hair=hair,
        jacket=vary(rng, CLOTH[int(rng.integers(len(CLOTH)))]),
        trousers=vary(rng, CLOTH[int(rng.integers(2, len(CLOTH)))]),
        vest=bool(rng.random() < 0.18),
        stripes=bool(rng.random() < 0.6),
        beard=float(rng.choice([0.0, 0.0, 0.35, 0.85])),
        glasses=str(rng.choice(["", "", "", "clear", "dark"])),
        ear_muffs=bool(rng.random() < 0.10),
    )


def draw_pose(rng: Rng, camera_pitch: float) -> Pose:
    """Draw a pose: mostly half towards the camera, at times in profile or from behind."""
    facing = str(rng.choice(["front", "side", "back"], p=[0.70, 0.22, 0.08]))
    centre = {"front": 0.0, "side": 80.0, "back": 165.0}[facing]
    yaw = float(rng.choice([-1, 1]) * centre + rng.normal(0, 24))
    return Pose(
        yaw=yaw,
        pitch=float(np.clip(rng.normal(4, 9), -14, 28)),
        roll=float(rng.normal(0, 6)),
        body_yaw=yaw * 0.75 + float(rng.normal(0, 18)),
        camera_pitch=camera_pitch,
        arms=(float(rng.normal(8, 8)), float(rng.normal(8, 8)), float(rng.uniform(0, 70)), float(rng.uniform(0, 70))),
    )


def draw_gear(rng: Rng, with_helmet: bool, person: Person) -> Gear:
    """Draw the headgear: hair has the person's colour; of caps, beanies, hoods one in seven has a helmet's."""
    shares = headgear.BARE_SHARES
    name = "helmet" if with_helmet else str(rng.choice(list(shares), p=np.array(list(shares.values()))))
    colour_name, colour = pick(rng, GEAR, GEAR_SHARES)
    if not with_helmet and rng.random() < 0.85:
        colour_name, colour = pick(rng, DULL, np.ones(len(DULL)))
    if name in ("hair", "bald"):
        colour_name, colour = person.hair_name, person.hair
    return Gear(name, colour_name, colour, int(rng.integers(2**31)))


def build(person: Person, pose: Pose, gear: Gear) -> list[Placed]:
    """Return the worker as placed solids around the head's centre (head heights)."""
    body_turn = rotation(pitch=pose.camera_pitch) @ rotation(pose.body_yaw)
    neck = _head_turn(pose) @ NECK
    body = place(_body(np.random.default_rng(person.seed), person, pose), body_turn, neck - body_turn @ NECK)
    return build_head(person, pose, gear) + body


def build_head(person: Person, pose: Pose, gear: Gear) -> list[Placed]:
    """Return the head and what it carries alone: what a box is drawn around."""
    return place(_head(person, gear), _head_turn(pose))


def _head_turn(pose: Pose) -> Floats:
    turn: Floats = rotation(pitch=pose.camera_pitch) @ rotation(pose.yaw, pose.pitch, pose.roll)
    return turn


def build_hat(colour: Floats, seed: int, turn: Floats) -> list[Placed]:
    """Return a hard hat that nobody wears."""
    return place(headgear.helmet(np.random.default_rng(seed), colour), turn)


def _head(person: Person, gear: Gear) -> list[Solid]:
    rng = np.random.default_rng(person.seed + 1)
    face = _face(rng, person)
    bare = skin(rng, person.skin)
    parts = [
        Solid((0, 0.07, -0.03), (0.36, 0.43, 0.44), face, gloss=0.12),
        Solid((0, -0.20, 0.07), (0.265, 0.32, 0.31), face, gloss=0.08),
        Solid((0, -0.06, 0.42), (0.055, 0.11, 0.085), bare, tilt=rotation(pitch=-18), gloss=0.1),
        Solid((0.36, -0.03, -0.02), (0.045, 0.11, 0.07), bare),
        Solid((-0.36, -0.03, -0.02), (0.045, 0.11, 0.07), bare),
    ]
    if person.glasses:
        tone = np.array([0.06, 0.06, 0.07]) if person.glasses == "dark" else np.array([0.70, 0.76, 0.80])
        parts.append(
            Solid((0, 0.03, 0.05), (0.355, 0.12, 0.385), plain(tone), keep=lambda q: q[:, 2] > 0.18, gloss=0.7)
        )
    worn = np.random.default_rng(gear.seed)
    if gear.name in ("helmet", "cap", "beanie") and worn.random() < 0.8:
        parts += headgear.fringe(worn, person.hair)
    parts += headgear.MAKERS[gear.name](worn, gear.colour)
    if person.ear_muffs and gear.name not in ("hood", "headscarf"):
        parts += [
            Solid((x, -0.02, 0.0), (0.09, 0.15, 0.12), plain(np.array([0.75, 0.12, 0.10])), gloss=0.3)
            for x in (-0.42, 0.42)
        ]
    return parts


def _face(rng: Rng, person: Person) -> Paint:
    """Eyes, brows, mouth, cheeks and beard on the front of the head."""
    bare, brow = skin(rng, person.skin), np.minimum(person.hair, 0.35)
    stubble = person.hair * 0.8 + 0.1 * person.skin

    def paint(points: Floats) -> Floats:
        colours = bare(points)
        front = (points[:, 2] > 0.05).astype(float)
        jaw = np.clip((-0.16 - points[:, 1]) / 0.06, 0, 1) * (points[:, 2] > -0.05)
        colours = over(colours, jaw, stubble, person.beard)
        for side in (-1, 1):
            colours = over(colours, spot(points, side * 0.15, 0.035, 0.085, 0.055) * front, person.skin * 0.72, 0.7)
            colours = over(colours, spot(points, side * 0.15, 0.03, 0.058, 0.028) * front, (0.93, 0.92, 0.9))
            colours = over(colours, spot(points, side * 0.15, 0.03, 0.026, 0.028) * front, (0.10, 0.07, 0.06))
            colours = over(colours, spot(points, side * 0.15, 0.105, 0.085, 0.020) * front, brow)
            colours = over(colours, spot(points, side * 0.2, -0.12, 0.09, 0.08) * front, (0.85, 0.35, 0.3), 0.12)
        return over(colours, spot(points, 0, -0.29, 0.10, 0.026) * front, (0.58, 0.22, 0.20), 0.8)

    return paint


def _body(rng: Rng, person: Person, pose: Pose) -> list[Solid]:
    jacket = _jacket(rng, person)
    sleeve = cloth(rng, person.jacket, 0.16)
    legs = cloth(rng, person.trousers, 0.16)
    parts = [
        Solid((0, -0.58, -0.05), (0.19, 0.26, 0.20), skin(rng, person.skin)),
        Solid((0, -0.93, -0.06), (0.72, 0.22, 0.29), jacket, casts=False),
        Solid((0, -1.42, -0.04), (0.80, 0.70, 0.42), jacket),
        Solid((0, -2.15, -0.03), (0.68, 0.95, 0.40), jacket),
    ]
    for side, spread, bend in ((-1, pose.arms[0], pose.arms[2]), (1, pose.arms[1], pose.arms[3])):
        parts += _arm(rng, side, spread, bend, sleeve, person)
        parts.append(Solid((side * 0.32, -3.75, 0), (0.33, 1.25, 0.34), legs))
        parts.append(Solid((side * 0.34, -5.35, 0), (0.25, 1.15, 0.27), legs))
        parts.append(Solid((side * 0.36, -6.45, 0.15), (0.22, 0.20, 0.42), plain(np.array([0.16, 0.12, 0.09]))))
    return parts


def _arm(rng: Rng, side: int, spread: float, bend: float, sleeve: Paint, person: Person) -> list[Solid]:
    """Shoulder, upper arm hanging, forearm bent forwards by `bend` degrees, hand."""
    out = np.radians(spread)
    shoulder = np.array([side * 0.74, -1.06, -0.04])
    upper = np.array([side * np.sin(out), -np.cos(out), 0.0])
    elbow = shoulder + 1.15 * upper
    lift = np.radians(bend)
    fore = np.array([side * 0.1 * np.cos(lift), -np.cos(lift), np.sin(lift)])
    hand = elbow + 1.05 * fore
    turn = rotation(roll=side * spread)
    fore_turn = rotation(pitch=-bend)
    hand_paint = skin(rng, person.skin)
    return [
        Solid(_tuple(shoulder), (0.25, 0.20, 0.24), sleeve, casts=False),
        Solid(_tuple(shoulder + 0.50 * upper), (0.23, 0.76, 0.24), sleeve, tilt=turn),
        Solid(_tuple(elbow + 0.5 * fore), (0.17, 0.62, 0.18), sleeve, tilt=fore_turn),
        Solid(_tuple(hand), (0.13, 0.2, 0.14), hand_paint, tilt=fore_turn),
    ]


def _tuple(vector: Floats) -> tuple[float, float, float]:
    return float(vector[0]), float(vector[1]), float(vector[2])


def _jacket(rng: Rng, person: Person) -> Paint:
    """Jacket or shirt; over it, at times, a high-visibility vest with reflecting bands."""
    base = cloth(rng, person.jacket, 0.16)
    vest = cloth(rng, vary(rng, [(0.96, 0.45, 0.05), (0.80, 0.92, 0.12)][int(rng.integers(2))]), 0.10)

    def paint(points: Floats) -> Floats:
        x, y = np.abs(points[:, 0]), points[:, 1]
        colours = base(points)
        if person.vest:
            colours = np.where(((x < 0.62) & (y < -0.78))[:, None], vest(points), colours)
        opening = (x < 0.03) & (points[:, 2] > 0)
        collar = (x < 0.30 + 0.5 * (y + 1.0)) & (y > -1.15) & (points[:, 2] > 0)
        colours = over(colours, opening.astype(float), person.jacket * 0.45)
        colours = over(colours, collar.astype(float), person.trousers, 0.8 if not person.vest else 0.0)
        if person.stripes:
            colours = over(colours, _bands(x, y), (0.86, 0.88, 0.88), 0.95)
        return colours

    return paint


def _bands(x: Floats, y: Floats) -> Floats:
    across: Mask = (np.abs(y + 1.75) < 0.07) | (np.abs(y + 2.25) < 0.07)
    down: Mask = (np.abs(x - 0.42) < 0.07) & (y > -1.75)
    return (across | down).astype(float)
