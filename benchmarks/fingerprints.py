"""What fingerprints cost beside decoding alone, in one process on one thread: `python -m benchmarks.fingerprints [N]`.

The N (100) pictures are 1280x960 JPEGs (quality 85) drawn here: coarse shapes, edges and grain, so that a file weighs
about what a photograph's does. All rows read the same bytes from memory and are timed in turns, in CPU seconds; each
row's best of five turns counts, as whatever else runs on the machine only ever adds.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from typing import Any

# Before NumPy is loaded: one process means one thread.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import imagehash
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from plumbline.common.progress import progress
from plumbline.imaging.collection import Picture
from plumbline.imaging.decode import decode_image, decode_small_grey
from plumbline.imaging.hashing import fingerprint, phash, thumbnail
from plumbline.imaging.manifest import measure

TURNS = 5
SIZE = (1280, 960)


def draw_photograph(seed: int) -> bytes:
    """Draw a picture with large shapes, sharp edges and grain, as JPEG."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(60):
        x, y, width, height = (int(value) for value in rng.integers(0, (*SIZE, 300, 300)))
        pen.ellipse((x, y, x + width, y + height), fill=tuple(int(value) for value in rng.integers(0, 256, 3)))
    soft = image.filter(ImageFilter.GaussianBlur(1))
    grainy = np.asarray(soft, np.int16) + rng.normal(0, 6, (SIZE[1], SIZE[0], 1)).astype(np.int16)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def decode_eighth(data: bytes) -> None:
    """The yardstick: Pillow's decoder at 1/8, grey, nothing else."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("L", (SIZE[0] // 8, SIZE[1] // 8))
        image.load()


def with_windows(data: bytes) -> Any:
    """Scaled decode and all 74 hashes."""
    return fingerprint(decode_small_grey(data))


def with_thumbnail(data: bytes) -> Any:
    """The same and the thumbnail that candidates are verified on."""
    grey = decode_small_grey(data)
    return fingerprint(grey), thumbnail(grey)


def one_hash(data: bytes) -> Any:
    """Scaled decode and the pHash alone."""
    return phash(Image.fromarray(decode_small_grey(data)))


def imagehash_plainly(data: bytes) -> Any:
    """What a user of imagehash writes."""
    with Image.open(io.BytesIO(data)) as image:
        return imagehash.phash(image)


def whole_ingest(data: bytes) -> Any:
    """Everything a row of the manifest takes: whole decode, both sha256, pHash, windows, four measures."""
    image = decode_image(data)
    return measure(Picture("p.jpg", image, "", len(data), "JPEG"), 8)


ROWS: dict[str, Callable[[bytes], Any]] = {
    "decoding alone at 1/8": decode_eighth,
    "recipe: decode, 37 windows, mirrors": with_windows,
    "recipe and thumbnail": with_thumbnail,
    "decode and one pHash": one_hash,
    "imagehash.phash used plainly": imagehash_plainly,
    "a whole row of ingest": whole_ingest,
}


def fastest_turns(pictures: list[bytes]) -> dict[str, float]:
    """Return CPU seconds per picture of each row's best turn; the rows take turns on the same pictures."""
    best = dict.fromkeys(ROWS, float("inf"))
    for work in ROWS.values():
        work(pictures[0])
    for _ in progress(range(TURNS), "turns", total=TURNS, unit="turn"):
        for name, work in ROWS.items():
            start = time.process_time()
            for data in pictures:
                work(data)
            best[name] = min(best[name], (time.process_time() - start) / len(pictures))
    return best


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    pictures = [draw_photograph(seed) for seed in range(count)]
    weight = sum(map(len, pictures)) / count / 1000
    best = fastest_turns(pictures)
    alone = best["decoding alone at 1/8"]
    print(f"{count} JPEGs of 1280x960, {weight:.0f} kB each; best of {TURNS} turns, one process")
    print(f"{'':38}{'ms':>8}{'images/CPU-s':>15}{'of decoding alone':>20}")
    for name, seconds in best.items():
        print(f"{name:38}{seconds * 1000:8.2f}{1 / seconds:15.0f}{alone / seconds:20.2f}")
    reached = alone / best["recipe: decode, 37 windows, mirrors"]
    print(f"aim 0.60 of decoding alone with all windows: {reached:.2f}, {'reached' if reached >= 0.6 else 'missed'}")


if __name__ == "__main__":
    main()
