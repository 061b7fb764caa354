"""What will be drawn, decided before a pixel is: photographs, bursts, labels, copies, mistakes, broken files.

Everything but the headgear is drawn from streams that never see the class, so that nothing else can tell it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from samples.camera import Optics, draw_optics
from samples.paint import Rng
from samples.scenery import LIGHTS, NEW_SITE, TRAINING_SITES
from samples.worker import Gear, Person, Pose, draw_gear, draw_person, draw_pose

CLASSES = {True: "with_helmet", False: "without_helmet"}
BATCHES = ("data", "SITE_A", "SITE_B")
SIDE = 200


@dataclass(frozen=True)
class Shot:
    """One picture to draw: a worker at one moment in one photograph's light. Lengths in pixels of the picture."""

    photo: int
    burst: int | None
    site: str
    camera: str
    captured_at: datetime
    look_seed: int
    background_seed: int
    moment_seed: int
    person: Person
    pose: Pose
    gear: Gear
    optics: Optics
    unit: float
    head: float
    x: float
    y: float

    @property
    def label(self) -> str:
        """The true class."""
        return CLASSES[self.gear.name == "helmet"]


@dataclass(frozen=True)
class Copy:
    """How a published picture was changed: re-encoded at `quality` and `size`, `cropped` by a share, or mirrored."""

    change: str
    amount: float
    shift: tuple[float, float]
    size: int
    quality: int


@dataclass(frozen=True)
class Item:
    """One file: a shot, perhaps copied or broken, under the label it is published with."""

    batch: str
    path: str
    photo: str
    camera: str
    captured_at: datetime
    shot: Shot
    group: str
    published: str
    burst: str = ""
    copy: Copy | None = None
    copy_of: str = ""
    broken: str = ""
    quality: int = 0


def plan(seed: int = 0, labelled: int = 600, incoming: int = 120) -> list[Item]:
    """Return every file of the sample: `labelled` in data/, `incoming` in each of the two later batches."""
    streams = np.random.SeedSequence(seed).spawn(3)
    sites: tuple[tuple[str, ...], ...] = (TRAINING_SITES, TRAINING_SITES, (NEW_SITE,))
    starts = (datetime(2025, 3, 3, 7), datetime(2025, 9, 1, 7), datetime(2025, 9, 1, 7))
    items: list[Item] = []
    for batch, stream, own, start in zip(BATCHES, streams, sites, starts, strict=True):
        rng = np.random.default_rng(stream)
        if batch == "data":
            items += _labelled(rng, own, start, labelled)
        else:
            items += _unlabelled(rng, batch, own, start, incoming)
    return items


def _labelled(rng: Rng, sites: tuple[str, ...], start: datetime, count: int) -> list[Item]:
    """Shots with labels, then the planted truth: copies, wrong labels, two broken files."""
    copies = round(count / 15)
    conflicts = min(2, copies)
    wrong = max(1, round(count / 100) - conflicts)
    shots = _shots(rng, sites, start, count - copies, days=170)
    broken = dict(zip(rng.permutation(len(shots))[:2].tolist(), ("truncated", "not_an_image"), strict=True))
    sound = [k for k in rng.permutation(len(shots)).tolist() if k not in broken]
    mistaken, copied = set(sound[:wrong]), sound[wrong : wrong + copies]
    pictures = set(sound[wrong + copies : wrong + copies + max(1, count // 60)])
    order = rng.permutation(count)
    items = [
        Item(
            batch="data", path=_path(shot, order[k], png=k in pictures, wrong=k in mistaken), photo=str(shot.photo),
            camera=shot.camera, captured_at=shot.captured_at, shot=shot, group="",
            published=_published(shot, k in mistaken),
            burst="" if shot.burst is None else f"burst_{shot.burst:02d}", broken=broken.get(k, ""),
            quality=0 if k in pictures else shot.optics.quality,
        )
        for k, shot in enumerate(shots)
    ]  # fmt: skip
    photos = 1 + max(shot.photo for shot in shots)
    for n, k in enumerate(copied):
        # The first copies contradict their originals: the same picture under two labels.
        conflict = n < conflicts
        elsewhere = conflict or n % 5 < 3
        path = _path(items[k].shot, order[len(shots) + n], png=False, wrong=conflict)
        photo = str(photos + n) if elsewhere else items[k].photo
        items.append(_copied(rng, items[k], path, photo, elsewhere, conflict, n))
    return _named(rng, items, photos + copies)


def _unlabelled(rng: Rng, batch: str, sites: tuple[str, ...], start: datetime, count: int) -> list[Item]:
    shots = _shots(rng, sites, start, count, days=6)
    order = rng.permutation(count)
    items = [
        Item(
            batch=batch, path=f"{batch[-1].lower()}{order[k] + 1:04d}.jpg", photo=str(shot.photo), camera=shot.camera,
            captured_at=shot.captured_at, shot=shot, group="", published="",
            burst="" if shot.burst is None else f"burst_{shot.burst:02d}", quality=shot.optics.quality,
        )
        for k, shot in enumerate(shots)
    ]  # fmt: skip
    return _named(rng, items, 1 + max(shot.photo for shot in shots))


def _named(rng: Rng, items: list[Item], photos: int) -> list[Item]:
    """Give photographs names that say nothing (copies mixed among the rest) and groups the name of their first."""
    prefix = {"data": "P", "SITE_A": "A", "SITE_B": "B"}[items[0].batch]
    names = {str(k): f"{prefix}{name + 1:04d}" for k, name in enumerate(rng.permutation(photos).tolist())}
    named = [replace(item, photo=names[item.photo], group=names[str(item.shot.photo)]) for item in items]
    return sorted(named, key=lambda item: item.path.rsplit("/", 1)[-1])


def _published(shot: Shot, wrong: bool) -> str:
    return CLASSES[(shot.label == CLASSES[True]) != wrong]


def _path(shot: Shot, number: int, png: bool, wrong: bool) -> str:
    return f"{_published(shot, wrong)}/img_{number + 1:04d}.{'png' if png else 'jpg'}"


def _copied(rng: Rng, original: Item, path: str, photo: str, elsewhere: bool, wrong: bool, number: int) -> Item:
    """A copy of `original`: under another photograph's name, later and by another device, if published elsewhere."""
    change = ("cropped", "reencoded", "mirrored")[number % 3]
    amount = float(rng.uniform(0.05, 0.20)) if change == "cropped" else 0.0
    size = int(rng.choice([SIDE, SIDE, 160, 180])) if change != "cropped" else SIDE
    if change == "cropped" and rng.random() < 0.5:
        size = round(SIDE * (1 - amount))
    copy = Copy(change, amount, (float(rng.random()), float(rng.random())), size, int(rng.integers(40, 86)))
    later = original.captured_at + timedelta(days=int(rng.integers(3, 60)), minutes=int(rng.integers(0, 600)))
    return replace(
        original, path=path, photo=photo, published=_published(original.shot, wrong), copy=copy, copy_of=original.path,
        burst=original.burst, camera=f"phone_{rng.integers(1, 5)}" if elsewhere else original.camera,
        captured_at=later if elsewhere else original.captured_at, quality=copy.quality,
    )  # fmt: skip


def _shots(rng: Rng, sites: tuple[str, ...], start: datetime, count: int, days: int) -> list[Shot]:
    """Photographs with one to three workers, and one burst of 3 to 6 moments for every forty pictures."""
    labels = rng.permutation(np.arange(count) % 2 == 0)
    shots: list[Shot] = []
    bursts_left, photo = round(count / 40), 0
    while len(shots) < count:
        is_burst = bursts_left > 0 and rng.random() < 0.04
        bursts_left -= is_burst
        wanted = int(rng.integers(3, 7)) if is_burst else int(rng.choice([1, 2, 3], p=[0.80, 0.15, 0.05]))
        size = min(wanted, count - len(shots))
        own = labels[len(shots) : len(shots) + size]
        shots += _photo(rng, str(rng.choice(sites)), start, days, photo, is_burst, own)
        photo += 1
    numbers = {p: n for n, p in enumerate(dict.fromkeys(s.photo for s in shots if s.burst is not None))}
    return [s if s.burst is None else replace(s, burst=numbers[s.photo]) for s in shots]


def _photo(
    rng: Rng, site: str, start: datetime, days: int, photo: int, is_burst: bool, labels: Iterable[bool]
) -> list[Shot]:
    """The pictures of one photograph: crops of several workers, or moments of one scene."""
    camera = f"{site}_{rng.integers(1, 4)}"
    at = start + timedelta(days=int(rng.integers(days)), seconds=int(rng.integers(0, 10 * 3600)))
    look_seed, background_seed = _seed(rng), _seed(rng)
    person, unit = draw_person(rng), _head(rng)
    x, y = _position(rng, unit)
    camera_pitch = float(rng.uniform(*LIGHTS[site].camera_pitch))
    shots = []
    for with_helmet in labels:
        if not is_burst:
            background_seed, person, unit = _seed(rng), draw_person(rng), _head(rng)
            x, y = _position(rng, unit)
        head = float(np.clip(unit * rng.uniform(0.95, 1.05), 25, 110))
        drift = rng.normal(0, 6, 2) if is_burst else np.zeros(2)
        shots.append(
            Shot(
                photo=photo, burst=photo if is_burst else None, site=site, camera=camera, captured_at=at,
                look_seed=look_seed, background_seed=background_seed, moment_seed=_seed(rng), person=person,
                pose=draw_pose(rng, camera_pitch), gear=draw_gear(_fork(rng), bool(with_helmet), person),
                optics=draw_optics(rng, site == NEW_SITE), unit=unit, head=head,
                x=float(x + drift[0]), y=float(max(y + drift[1], _lowest(head))),
            )
        )  # fmt: skip
        if is_burst:
            at += timedelta(seconds=int(rng.integers(2, 90)))
    return shots


def _head(rng: Rng) -> float:
    """Return a head height: far workers and near ones, more near than far."""
    return float(40 + 70 * rng.beta(2.0, 1.25))


def _position(rng: Rng, head: float) -> tuple[float, float]:
    """Return where the head's centre falls: near the middle, in the upper part, with room for any headgear."""
    return float(rng.normal(SIDE / 2, 6)), float(max(rng.normal(0.43 * SIDE, 5), _lowest(head)))


def _lowest(head: float) -> float:
    return 0.70 * head + 3


def _seed(rng: Rng) -> int:
    return int(rng.integers(2**31))


def _fork(rng: Rng) -> Rng:
    """Return a stream of its own: how much the headgear draws must not shift what is drawn after it."""
    return np.random.default_rng(_seed(rng))
