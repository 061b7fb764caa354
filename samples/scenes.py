"""Draw whole photographs with several workers each: `python -m samples.scenes OUT [--seed N]`.

OUT/data/ holds the photographs, YOLO Darknet's boxes beside them (`helmet`, `head`; around the head and what it
carries, where it can be seen) and metadata.csv; OUT/scenes.csv says what is what: sequences, re-publications, a broken
file. One seed, one machine: the same bytes every time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from plumbline.common.errors import UserError, run
from plumbline.common.files import replacing_folder, write_table, write_text
from plumbline.common.progress import progress
from samples.camera import Optics, Pixels, draw_optics, encode, expose
from samples.paint import Rng
from samples.scenery import LIGHTS, TRAINING_SITES, draw_background, draw_look, occlude
from samples.solids import Floats, View, render
from samples.worker import Gear, Person, Pose, build, build_head, draw_gear, draw_person, draw_pose

if TYPE_CHECKING:
    import pandas as pd

CLASSES = ("helmet", "head")
WIDTH, HEIGHT = 480, 360
SUPERSAMPLING = 2
SEEN = 0.3  # share of a head that must be visible for it to have a box
Edges = tuple[float, float, float, float]


@dataclass(frozen=True)
class Figure:
    """A worker: who, how they stand, what the head carries; head height and the head's centre in pixels."""

    person: Person
    pose: Pose
    gear: Gear
    head: float
    x: float
    y: float


@dataclass(frozen=True)
class Scene:
    """One photograph to draw; `figures` from far to near."""

    site: str
    camera: str
    captured_at: datetime
    look_seed: int
    background_seed: int
    moment_seed: int
    optics: Optics
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Copy:
    """How somebody else published a photograph: `cropped` to the edges `kept`, `mirrored` or `reencoded`."""

    change: str
    kept: Edges
    width: int
    quality: int


@dataclass(frozen=True)
class Item:
    """One file: a scene, perhaps copied or broken."""

    path: str
    scene: Scene
    photo: str
    group: str
    video: str = ""
    copy: Copy | None = None
    copy_of: str = ""
    broken: bool = False


@dataclass(frozen=True)
class Label:
    """A box in shares of the photograph, and its class."""

    name: str
    edges: Edges


def plan(seed: int = 0, count: int = 120) -> list[Item]:
    """Return all photographs of the sample by path: single ones, sequences, empty ones, re-publications, one broken."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 17)))
    copies, empty, sequences = round(count / 12), round(count / 20), max(1, round(count / 40))
    scenes: list[tuple[Scene, str]] = []
    for number in range(sequences):
        scenes += [(scene, f"V{number + 1:02d}") for scene in _sequence(rng, int(rng.integers(3, 5)))]
    while len(scenes) < count - copies:
        workers = 0 if empty > 0 else int(rng.choice(6, p=_CROWDS)) + 1
        empty -= 1
        scenes.append((_scene(rng, workers), ""))
    order = rng.permutation(count)
    items = [
        Item(_path(order[k]), scene, f"S{order[k] + 1:04d}", video or f"S{order[k] + 1:04d}", video)
        for k, (scene, video) in enumerate(scenes)
    ]
    single = [k for k, item in enumerate(items) if not item.video and item.scene.figures]
    chosen = rng.permutation(single)[: copies + 1].tolist()
    for n, k in enumerate(chosen[:copies]):
        items.append(_republished(rng, items[k], order[len(scenes) + n], n))
    items[chosen[copies]] = replace(items[chosen[copies]], broken=True)
    return sorted(items, key=lambda item: item.path)


_CROWDS = (0.22, 0.28, 0.20, 0.14, 0.10, 0.06)  # of one to six workers


def _path(number: int) -> str:
    return f"site_{number + 1:04d}.jpg"


def _seed(rng: Rng) -> int:
    return int(rng.integers(2**31))


def _scene(rng: Rng, workers: int) -> Scene:
    site = str(rng.choice(TRAINING_SITES))
    at = datetime(2025, 3, 3, 7) + timedelta(days=int(rng.integers(170)), seconds=int(rng.integers(10 * 3600)))
    return Scene(
        site=site, camera=f"{site}_{rng.integers(1, 4)}", captured_at=at, look_seed=_seed(rng),
        background_seed=_seed(rng), moment_seed=_seed(rng), optics=draw_optics(rng, False),
        figures=_figures(rng, workers, float(rng.uniform(*LIGHTS[site].camera_pitch))),
    )  # fmt: skip


def _figures(rng: Rng, workers: int, camera_pitch: float) -> tuple[Figure, ...]:
    """Workers on one ground: the nearer, the larger, and the lower in the picture the higher the camera hangs."""
    horizon, drop = rng.uniform(0.15, 0.40) * HEIGHT, rng.uniform(-0.3, 1.6)
    figures: list[Figure] = []
    for _ in range(40 * workers):
        if len(figures) == workers:
            break
        head = float(18 + 62 * rng.beta(1.2, 2.0))
        x, y = rng.uniform(-0.02, 1.02) * WIDTH, horizon + (drop + rng.normal(0, 0.35)) * head
        if not 0.35 * head < y < HEIGHT - 0.25 * head or any(_in_the_way(one, head, x, y) for one in figures):
            continue
        person = draw_person(rng)
        pose = draw_pose(rng, camera_pitch)
        gear = draw_gear(np.random.default_rng(_seed(rng)), bool(rng.random() < 0.65), person)
        figures.append(Figure(person, pose, gear, head, float(x), float(y)))
    return tuple(sorted(figures, key=lambda one: one.head))


def _in_the_way(one: Figure, head: float, x: float, y: float) -> bool:
    """Would these two heads cover each other, or the nearer one's body the other's head?"""
    near, far = (one, (x, y)) if one.head > head else (None, (one.x, one.y))
    at = (near.x, near.y, near.head) if near else (x, y, head)
    beside = abs(at[0] - far[0]) > 0.62 * (one.head + head)
    return not beside and far[1] > at[1] - 0.75 * (one.head + head)


def _sequence(rng: Rng, frames: int) -> list[Scene]:
    """Moments of one scene: the same people a little further on."""
    first = _scene(rng, int(rng.integers(2, 5)))
    scenes, at = [], first.captured_at
    for _ in range(frames):
        moved = tuple(
            replace(one, x=one.x + float(rng.normal(0, 6)), pose=replace(one.pose, yaw=one.pose.yaw + rng.normal(0, 8)))
            for one in first.figures
        )
        scenes.append(replace(first, figures=moved, moment_seed=_seed(rng), captured_at=at))
        at += timedelta(seconds=int(rng.integers(2, 60)))
    return scenes


def _republished(rng: Rng, original: Item, number: int, turn: int) -> Item:
    change = ("cropped", "reencoded", "mirrored")[turn % 3]
    left, right = (float(rng.uniform(0, 0.14)) for _ in range(2))
    top, bottom = (float(rng.uniform(0, 0.10)) for _ in range(2))
    kept = (left, top, 1 - right, 1 - bottom) if change == "cropped" else (0.0, 0.0, 1.0, 1.0)
    width = WIDTH if change == "cropped" else int(rng.choice([WIDTH, 400, 320]))
    later = original.scene.captured_at + timedelta(days=int(rng.integers(3, 60)))
    scene = replace(original.scene, captured_at=later, camera=f"phone_{rng.integers(1, 5)}")
    copy = Copy(change, kept, width, int(rng.integers(45, 86)))
    return replace(
        original, path=_path(number), scene=scene, photo=f"S{number + 1:04d}", copy=copy, copy_of=original.path
    )


# --------------------------------------------------------------------------------------------------------- drawing


def draw_scene(scene: Scene) -> tuple[Pixels, list[Label]]:
    """Return the photograph (HEIGHT, WIDTH, 3) uint8 as its camera made it, and its boxes.

    It is drawn as a square, of which the middle rows are kept.
    """
    big, cut = WIDTH * SUPERSAMPLING, (WIDTH - HEIGHT) // 2
    look = draw_look(np.random.default_rng(scene.look_seed), scene.site)
    moment = np.random.default_rng(scene.moment_seed)
    nearest = max((one.head for one in scene.figures), default=50.0)
    canvas = draw_background(
        np.random.default_rng(scene.background_seed), scene.site, look, big, 0.8 * nearest * SUPERSAMPLING
    )
    heads: list[tuple[str, Floats]] = []
    for one in scene.figures:
        view = View(one.x * SUPERSAMPLING, (one.y + cut) * SUPERSAMPLING, one.head * SUPERSAMPLING, big)
        drawn, covered = render(build(one.person, one.pose, one.gear), view, look.light)
        canvas = np.clip(canvas * (1 - covered[:, :, None]) + drawn * covered[:, :, None], 0, 1)
        heads = [(name, np.where(covered > 0, -np.abs(mask), mask)) for name, mask in heads]
        _, head = render(build_head(one.person, one.pose, one.gear), view, look.light)
        heads.append((CLASSES[0] if one.gear.name == "helmet" else CLASSES[1], head))
    if scene.figures:
        occlude(moment, canvas, view, look.light)
    pixels = expose(moment, canvas, look, scene.optics, WIDTH)[cut : cut + HEIGHT]
    labels = [_label(name, mask[cut * SUPERSAMPLING : (cut + HEIGHT) * SUPERSAMPLING], mask) for name, mask in heads]
    return np.ascontiguousarray(pixels), [label for label in labels if label is not None]


def _label(name: str, mask: Floats, whole: Floats) -> Label | None:
    """The box around what is seen of a head: `mask` is 1 there, -1 where it is covered; None where too little is."""
    rows, columns = np.nonzero(mask > 0)
    if len(rows) < SEEN * np.count_nonzero(whole) or not len(rows):
        return None
    high, wide = mask.shape
    edges = (columns.min() / wide, rows.min() / high, (columns.max() + 1) / wide, (rows.max() + 1) / high)
    return Label(name, (float(edges[0]), float(edges[1]), float(edges[2]), float(edges[3])))


def published(pixels: Pixels, labels: Sequence[Label], copy: Copy) -> tuple[Pixels, list[Label]]:
    """Return a photograph and its boxes as somebody else published them."""
    high, wide = pixels.shape[:2]
    left, top, right, bottom = (round(edge * size) for edge, size in zip(copy.kept, (wide, high) * 2, strict=True))
    pixels = pixels[top:bottom, left:right]
    kept = [_within(one, left / wide, top / high, right / wide, bottom / high) for one in labels]
    found = [one for one in kept if one is not None]
    if copy.change == "mirrored":
        pixels = pixels[:, ::-1]
        found = [Label(n, (1 - right, top, 1 - left, bottom)) for n, (left, top, right, bottom) in _pairs(found)]
    if copy.width != pixels.shape[1] and copy.change != "cropped":
        size = (copy.width, round(copy.width * pixels.shape[0] / pixels.shape[1]))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return np.ascontiguousarray(pixels), found


def _pairs(labels: Sequence[Label]) -> list[tuple[str, Edges]]:
    return [(one.name, one.edges) for one in labels]


def _within(one: Label, left: float, top: float, right: float, bottom: float) -> Label | None:
    """A box after a crop; None where less than SEEN of it is left."""
    a, b, c, d = one.edges
    inside = max(a, left), max(b, top), min(c, right), min(d, bottom)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        return None
    if (inside[2] - inside[0]) * (inside[3] - inside[1]) < SEEN * (c - a) * (d - b):
        return None
    wide, high = right - left, bottom - top
    edges = (
        (inside[0] - left) / wide,
        (inside[1] - top) / high,
        (inside[2] - left) / wide,
        (inside[3] - top) / high,
    )
    return Label(one.name, edges)


def picture_of(item: Item) -> tuple[bytes, list[Label]]:
    """Return what the file of `item` holds, and its boxes."""
    pixels, labels = draw_scene(item.scene)
    if item.copy is not None:
        pixels, labels = published(pixels, labels, item.copy)
    data = encode(pixels, item.copy.quality if item.copy else item.scene.optics.quality)
    return (data[: len(data) * 2 // 5] if item.broken else data), labels


def as_darknet(labels: Sequence[Label]) -> str:
    """Return boxes as YOLO Darknet writes them: class, centre x, centre y, width, height."""
    lines = []
    for name, (left, top, right, bottom) in _pairs(labels):
        values = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        lines.append(" ".join([str(CLASSES.index(name)), *(f"{value:.6f}" for value in values)]) + "\n")
    return "".join(lines)


# ---------------------------------------------------------------------------------------------------------- writing


def truth_table(items: Sequence[Item], labels: Sequence[Sequence[Label]]) -> pd.DataFrame:
    """Return the truth, one row per photograph: what was planted, who belongs together, how many boxes of a class."""
    import pandas as pd

    return pd.DataFrame([_truth(item, some) for item, some in zip(items, labels, strict=True)])


def _truth(item: Item, labels: Sequence[Label]) -> dict[str, Any]:
    kind = "broken" if item.broken else "copy" if item.copy else "sequence" if item.video else "single"
    return {
        "path": item.path,
        "kind": kind if item.scene.figures else "empty",
        "group": item.group,
        "video": item.video,
        "copy_of": item.copy_of,
        "change": item.copy.change if item.copy else "",
        "site": item.scene.site,
        **{name: sum(one.name == name for one in labels) for name in CLASSES},
    }


def metadata_table(items: Sequence[Item]) -> pd.DataFrame:
    """Return what a site would know about its photographs."""
    import pandas as pd

    rows = [
        {
            "path": item.path,
            "video": item.video,
            "site": item.scene.site,
            "camera": item.scene.camera,
            "captured_at": item.scene.captured_at.isoformat(),
        }
        for item in items
    ]
    return pd.DataFrame(rows)


def write_scenes(out: Path, seed: int = 0, count: int = 120) -> None:
    """Draw the sample into `out`; its data/ is replaced as a whole. UserError where `count` is too small."""
    if count < 24:
        raise UserError(f"{out}: {count} photographs are too few to plant the truth in: ask for 24 or more.")
    items = plan(seed, count)
    found = []
    with replacing_folder(out / "data") as data:
        for item in progress(items, "drawing"):
            content, labels = picture_of(item)
            (data / item.path).write_bytes(content)
            write_text((data / item.path).with_suffix(".txt"), as_darknet(labels))
            found.append(labels)
        write_text(data / "obj.names", "".join(f"{name}\n" for name in CLASSES))
        write_table(data / "metadata.csv", metadata_table(items))
    write_table(out / "scenes.csv", truth_table(items, found))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to fill: data/ and scenes.csv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=120, help="photographs")
    arguments = parser.parse_args()
    write_scenes(arguments.out, arguments.seed, arguments.count)
    print(f"drawn: {arguments.out / 'data'}, {arguments.out / 'scenes.csv'}")


if __name__ == "__main__":
    run(main)
