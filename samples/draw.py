"""Draw the embedded sample: `python -m samples.draw OUT [--seed N]`.

OUT/data/ holds labelled pictures, one folder a class, with metadata.csv; OUT/incoming/SITE_A and SITE_B hold later,
unlabelled batches (A like the training sites, B not); OUT/truth.csv says what is what. One seed, one machine: the same
bytes every time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from plumbline.common.errors import UserError, run
from plumbline.common.files import replacing_folder, write_table
from plumbline.common.progress import progress
from samples.camera import Pixels, encode, expose
from samples.plan import SIDE, Copy, Item, Shot, plan
from samples.scenery import draw_background, draw_look, occlude
from samples.solids import Floats, View, render
from samples.worker import build

if TYPE_CHECKING:
    import pandas as pd

SUPERSAMPLING = 2
NOT_AN_IMAGE = b"<!DOCTYPE html>\n<html><body><h1>502 Bad Gateway</h1></body></html>\n"


def draw_shot(shot: Shot) -> Pixels:
    """Return the picture (200, 200, 3) uint8 of one shot, as the camera made it and before any file format."""
    big = SIDE * SUPERSAMPLING
    look = draw_look(np.random.default_rng(shot.look_seed), shot.site)
    behind = np.random.default_rng(shot.background_seed)
    moment = np.random.default_rng(shot.moment_seed)
    canvas = draw_background(behind, shot.site, look, big, shot.unit * SUPERSAMPLING)
    if shot.burst is not None:
        canvas = _shaken(canvas, moment.normal(0, 1.5 * SUPERSAMPLING, 2))
    view = View(shot.x * SUPERSAMPLING, shot.y * SUPERSAMPLING, shot.head * SUPERSAMPLING, big)
    drawn, covered = render(build(shot.person, shot.pose, shot.gear), view, look.light)
    canvas = np.clip(canvas * (1 - covered[:, :, None]) + drawn * covered[:, :, None], 0, 1)
    occlude(moment, canvas, view, look.light)
    return expose(moment, canvas, look, shot.optics, SIDE)


def _shaken(canvas: Floats, by: Floats) -> Floats:
    """The same background after the camera moved a little."""
    matrix = np.array([[1, 0, by[0]], [0, 1, by[1]]])
    moved = cv2.warpAffine(canvas, matrix, canvas.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, dtype=float)


def copy_pixels(pixels: Pixels, copy: Copy, shot: Shot) -> Pixels:
    """Return `pixels` (200, 200, 3) as somebody else published them."""
    if copy.change == "mirrored":
        pixels = pixels[:, ::-1]
    if copy.change == "cropped":
        left, top, kept = crop_window(copy, shot)
        pixels = pixels[top : top + kept, left : left + kept]
    if copy.size != len(pixels):
        pixels = cv2.resize(pixels, (copy.size, copy.size), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def crop_window(copy: Copy, shot: Shot) -> tuple[int, int, int]:
    """Return left, top and side of what a crop keeps: `amount` of each side is lost, the head stays in."""
    kept = round(SIDE * (1 - copy.amount))
    reach = 0.72 * shot.head
    left, top = (
        int(np.clip(share * (SIDE - kept), min(middle + reach - kept, SIDE - kept), max(middle - reach, 0)))
        for share, middle in zip(copy.shift, (shot.x, shot.y), strict=True)
    )
    return max(left, 0), max(top, 0), kept


def file_bytes(item: Item) -> bytes:
    """Return what the file of `item` holds."""
    if item.broken == "not_an_image":
        return NOT_AN_IMAGE
    pixels = draw_shot(item.shot)
    if item.copy is not None:
        pixels = copy_pixels(pixels, item.copy, item.shot)
    data = encode(pixels, item.quality)
    return data[: len(data) * 2 // 5] if item.broken == "truncated" else data


def truth_table(items: list[Item]) -> pd.DataFrame:
    """Return the truth, one row per file: true and published label, what was planted, who belongs together."""
    import pandas as pd

    return pd.DataFrame([_truth(item) for item in items])


def _truth(item: Item) -> dict[str, Any]:
    shot, copy = item.shot, item.copy
    return {
        "batch": item.batch,
        "path": item.path,
        "label": shot.label,
        "published_label": item.published,
        "wrong_label": int(bool(item.published) and item.published != shot.label),
        "kind": item.broken or ("copy" if copy else "burst" if item.burst else "single"),
        "photo": item.photo,
        "group": item.group,
        "burst": item.burst,
        "copy_of": item.copy_of,
        "change": copy.change if copy else "",
        "cropped_share": round(copy.amount, 3) if copy else 0.0,
        "site": shot.site,
        "headgear": shot.gear.name,
        "colour": shot.gear.colour_name,
        "head_px": round(shot.head, 1),
        "yaw": round(shot.pose.yaw),
    }


def metadata_table(items: list[Item], labelled: bool) -> pd.DataFrame:
    """Return what a site would know about its pictures."""
    import pandas as pd

    rows = []
    for item in items:
        known: dict[str, Any] = {"path": item.path}
        if labelled:
            known |= {"label": item.published}
        known |= {"photo": item.photo}
        if labelled:
            known |= {"site": item.shot.site, "camera": item.camera}
        rows.append(known | {"captured_at": item.captured_at.isoformat()})
    return pd.DataFrame(rows)


def write_sample(out: Path, seed: int = 0, labelled: int = 600, incoming: int = 120) -> None:
    """Draw the sample into `out`; its data/ and incoming/ are replaced as wholes, so a killed run leaves no half.

    Raises UserError where `labelled` is too few to plant the truth in.
    """
    if labelled < 30 or incoming < 1:
        raise UserError(f"{out}: {labelled} labelled and {incoming} incoming pictures are too few: ask for 30 and 1.")
    items = plan(seed, labelled, incoming)
    with replacing_folder(out / "data") as data, replacing_folder(out / "incoming") as later:
        folders = {"data": data, "SITE_A": later / "SITE_A", "SITE_B": later / "SITE_B"}
        for item in progress(items, "drawing"):
            path = folders[item.batch] / item.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file_bytes(item))
        for batch, folder in folders.items():
            own = [item for item in items if item.batch == batch]
            write_table(folder / "metadata.csv", metadata_table(own, labelled=batch == "data"))
    write_table(out / "truth.csv", truth_table(items))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to fill: data/, incoming/ and truth.csv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labelled", type=int, default=600, help="pictures in data/")
    parser.add_argument("--incoming", type=int, default=120, help="pictures in each later batch")
    arguments = parser.parse_args()
    write_sample(arguments.out, arguments.seed, arguments.labelled, arguments.incoming)
    print(f"drawn: {arguments.out / 'data'}, {arguments.out / 'incoming'}, {arguments.out / 'truth.csv'}")


if __name__ == "__main__":
    run(main)
