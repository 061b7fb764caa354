"""The audit of CIFAR-10, 50,000 pictures against 10,000, beside a public list that people judged.

    PLUMBLINE_CIFAR10=/path/to/folder python -m benchmarks.cifar_audit [--only PART ...]

The folder holds train/CLASS/*.jpg and test/CLASS/*.jpg, numbered within the class in the order of the data set, and the
list duplicates_cifar10.csv of ciFAIR (Barz and Denzler 2020; github.com/cvjena/cifair, folder meta). Where they are
missing it is said, and nothing is measured. Parts:

audit: `plumbline audit` without embeddings: seconds, pairs, how many of the judged pairs are found, and two contact
    sheets to judge strangers by eye, of 100 pairs drawn at random and of 100 test pictures with their likeliest
    twin (build/benchmarks/, not in Git: the photographs are not ours to show).
scale: the search and its verification alone at 10,000, 60,000 and 200,000 pictures, for what a million would take. Of
    200,000, 140,000 are blends of two pictures each: as textured as photographs, and copies of nothing.

Labels, which the list's numbers need to become file names, are in cifar10_order.txt: a digit for each picture.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.leakage import processor_seconds, timed
from plumbline.common.files import replacing, write_json
from plumbline.leakage.copies import CopyParams, Joined, _prove, _Search, _Ways
from plumbline.leakage.groups import describe_pictures

RESULTS = Path("build/benchmarks")
ORDER = Path(__file__).with_name("cifar10_order.txt")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LIST = "duplicates_cifar10.csv"
JUDGMENTS = {0: "exact", 1: "near-duplicates", 2: "very similar"}
SAMPLE, COLUMNS, SIDE = 100, 10, 72
SIZES = (10_000, 60_000, 200_000)
LOOKED_AT = 20_000  # candidate pairs that are verified to measure how long one takes


def what_is_missing(folder: Path) -> str | None:
    """Say what the benchmark lacks, None where all is there."""
    for side, images in (("train", 50_000), ("test", 10_000)):
        found = sum(1 for _ in (folder / side).glob("*/*.jpg"))
        if found != images:
            return f"{folder / side} holds {found} pictures CLASS/*.jpg, not {images}"
    return None if (folder / LIST).is_file() else f"{folder / LIST} is missing"


def paths_in_order(folder: Path) -> dict[str, list[str]]:
    """Return for train and test the pictures' paths in the order of the data set, as SIDE/CLASS/NAME."""
    paths = {}
    for line in ORDER.read_text().splitlines():
        side, digits = line.split()
        files = {name: iter(sorted((folder / side / name).glob("*.jpg"))) for name in CLASSES}
        paths[side] = [f"{side}/{(one := next(files[CLASSES[int(d)]])).parent.name}/{one.name}" for d in digits]
    return paths


def judged_pairs(folder: Path) -> pd.DataFrame:
    """Return train, test (paths) and judgment of the list's pairs."""
    listed = pd.read_csv(folder / LIST)
    paths = paths_in_order(folder)
    return pd.DataFrame(
        {
            "train": [paths["train"][i] for i in listed["TrainID"]],
            "test": [paths["test"][i] for i in listed["TestID"]],
            "judgment": listed["Judgment"].map(JUDGMENTS),
        }
    )


def measure_audit(folder: Path) -> dict[str, Any]:
    """Audit the two folders in a process of its own, and compare what it found with the list."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    table = RESULTS.absolute() / "cifar_pairs.parquet"
    page = RESULTS.absolute() / "cifar_audit.html"
    command = [sys.executable, "-m", "stages.group", "audit", str(folder / "train"), str(folder / "test")]
    start, used = time.perf_counter(), processor_seconds()
    done = subprocess.run([*command, "--no-embeddings", "--page", str(page), "--pairs", str(table)], check=False)
    seconds, cpu = time.perf_counter() - start, processor_seconds() - used
    if done.returncode != 1:
        raise SystemExit(f"the audit ended with exit code {done.returncode}, where 1 (leaks) was due.")
    pairs = pd.read_parquet(table)
    judged = judged_pairs(folder)
    found = set(zip(pairs["drop"], pairs["keep"], strict=True))
    hit = pd.Series([pair in found for pair in zip(judged["train"], judged["test"], strict=True)])
    counts = hit.groupby(judged["judgment"]).agg(["sum", "size"])
    draw_sheet(folder, pairs.sample(SAMPLE, random_state=14), RESULTS / "cifar_pairs.png")
    likeliest = pairs.sample(frac=1, random_state=3).sort_values("score", kind="stable").groupby("keep").tail(1)
    draw_sheet(folder, likeliest.sample(SAMPLE, random_state=15), RESULTS / "cifar_tests.png")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "pairs": len(pairs),
        "test_pictures": int(pairs["keep"].nunique()),
        "by_kind": {str(k): int(n) for k, n in pairs["kind"].value_counts().items()},
        "judged_pairs_found": {str(name): f"{row['sum']} of {row['size']}" for name, row in counts.iterrows()},
    }


def draw_sheet(folder: Path, pairs: pd.DataFrame, path: Path) -> None:
    """Draw pairs side by side, numbered, to be judged by eye."""
    import cv2

    tiles = []
    for number, (drop, keep, kind, score) in enumerate(
        pairs[["drop", "keep", "kind", "score"]].itertuples(index=False, name=None)
    ):
        tile = np.full((SIDE + 14, 2 * SIDE + 8, 3), 255, np.uint8)
        for place, name in enumerate((drop, keep)):
            picture = cv2.resize(read(folder / name)[:, :, ::-1], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            tile[14:, 2 + place * (SIDE + 2) :][:, :SIDE] = picture
        words = f"{number} {kind} {score:.2f}"
        cv2.putText(tile, words, (2, 11), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 200), 1, cv2.LINE_AA)
        tiles.append(tile)
    rows = [np.hstack(tiles[k : k + COLUMNS]) for k in range(0, len(tiles), COLUMNS)]
    with replacing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", np.vstack(rows))[1].tobytes())


def read(file: Path) -> NDArray[np.uint8]:
    """Return a picture's pixels, RGB."""
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def described(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Return fingerprints (N, 2, 37) and thumbnails (N, 81, 96) of small RGB pictures (N, H, W, 3)."""
    from PIL import Image

    from plumbline.imaging.hashing import fingerprint, stored_thumbnail

    prints, thumbs = [], []
    for pixels in pictures:
        image = Image.fromarray(pixels)
        grey = np.asarray(image.convert("L"))
        prints.append(fingerprint(grey))
        thumbs.append(stored_thumbnail(image, grey))
    return np.stack(prints), np.stack(thumbs)


def measure_scale(folder: Path, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Time the search among so many pictures, and what verifying one candidate takes, on as many as LOOKED_AT."""
    files = sorted(folder.glob("t*/*/*.jpg"))
    rng = np.random.default_rng(0)
    real = np.stack([read(files[i]) for i in rng.permutation(len(files))])
    prints, thumbs = described(real)
    rows = []
    for size in sizes:
        more = size - len(prints)
        if more > 0:
            a, b = rng.integers(len(real), size=(2, more))
            blended = (0.6 * real[a] + 0.4 * real[b]).astype(np.uint8)
            extra = described(blended)
            prints, thumbs = np.concatenate([prints, extra[0]]), np.concatenate([thumbs, extra[1]])
        rows.append(time_search(prints[:size], thumbs[:size]))
        print(f"  {rows[-1]}", flush=True)
    return rows


def time_search(prints: NDArray[np.uint64], thumbs: NDArray[np.uint8]) -> dict[str, Any]:
    """Search among pictures, and verify a sample of the candidates; seconds are those of the processors."""
    params = CopyParams()
    identity = pd.DataFrame({"path": np.arange(len(prints)).astype(str), "phash": prints[:, 0, 0]})
    pictures = describe_pictures(identity, prints, thumbs, lambda row: thumbs[row], None)
    search = _SearchAlone(pictures, Joined(len(prints)), params, merge=True, sides=None)
    _, searching = timed(search.run)
    total, pairs = _Ways.joined(search.candidates).by_pair(pictures.fingerprints.boxes)
    step = max(1, total // LOOKED_AT)
    sample = list(itertools.islice(pairs, 0, None, step))
    proofs, verifying = timed(lambda: [_prove(thumbs[p.a], thumbs[p.b], p.tries, params) for p in sample])
    each = verifying["cpu_seconds"] / max(len(sample), 1)
    return {
        "pictures": len(prints),
        "radius": search.radius,
        "search_cpu_seconds": searching["cpu_seconds"],
        "candidates": total,
        "verified": len(sample),
        "of_these_copies": sum(proof.found for proof in proofs),
        "cpu_seconds_a_candidate": each,
        "verify_cpu_seconds": each * total,
    }


class _SearchAlone(_Search):
    """Keeps the candidates instead of verifying them."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.candidates: list[_Ways] = []

    def run(self) -> None:
        self.whole()
        self.parts()

    def _verify(self, ways: _Ways) -> None:
        self.candidates.append(ways)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["audit", "scale"], default=["audit", "scale"])
    options = parser.parse_args()
    given = os.environ.get("PLUMBLINE_CIFAR10")
    lack = what_is_missing(Path(given)) if given else "PLUMBLINE_CIFAR10 names no folder"
    if given is None or lack:
        print(f"skipped: {lack}.")
        return
    folder = Path(given).absolute()
    results: dict[str, Any] = {"machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}
    if "audit" in options.only:
        results["audit"] = measure_audit(folder)
    if "scale" in options.only:
        results["scale"] = measure_scale(folder, SIZES)
    write_json(RESULTS / "cifar_audit.json", results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
