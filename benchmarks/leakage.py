"""The numbers of the leakage room, side by side in one run on one machine.

    python -m benchmarks.leakage [--shared ../shared] [--peer imagededup=/tmp/peers/bin/python ...] [--only PART ...]

Parts: helmet (re-published photographs), planted (copies and fixed cameras, peers beside us), search (the self-join
against faiss, plotted). Weights are looked for in SHARED/weights. Results go to build/benchmarks/leakage.json and .png.
Peers are installed by the reader in environments of their own: pip install imagededup, cleanvision, fastdup.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.planted import COPIES, plant
from plumbline.common.files import replacing, write_json
from plumbline.imaging.collection import DataParams, load_rgb
from plumbline.imaging.manifest import Ingested, IngestParams, ingest
from plumbline.leakage.conflicts import conflicting_pairs
from plumbline.leakage.copies import Joined
from plumbline.leakage.groups import Grouped, GroupParams, describe_pictures, grey_reader, group_images
from plumbline.leakage.hash_search import pairs_within

RESULTS = Path("build/benchmarks")
# Photographs of scenes/ that are re-publications of one another, seen by eye: not strangers.
REPUBLISHED = {"p004477": "p002634", "p004826": "p004044"}
BASES, SHOTS = 100, 4
FAISS_LIMIT = 100_000  # its flat index takes 400 s for a million


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, dict[str, float]]:
    """Return a result with the seconds it took and the processors' seconds, all threads and processes together.

    On a machine that others use, the second figure is the one to compare.
    """
    start, used = time.perf_counter(), processor_seconds()
    result = function(*arguments)
    return result, {"seconds": time.perf_counter() - start, "cpu_seconds": processor_seconds() - used}


def processor_seconds() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def group_folder(
    data: DataParams, found: Ingested, params: GroupParams, vectors: NDArray[np.floating[Any]] | None
) -> Grouped:
    """Group what ingest found, as the stage does."""
    grey = grey_reader(data, found.manifest["path"].to_numpy())
    return group_images(
        found.manifest, describe_pictures(found.manifest, found.fingerprints, found.thumbnails, grey, vectors), params
    )


def embed(data: DataParams, paths: Iterable[str]) -> NDArray[np.floating[Any]] | None:
    """MobileNetV2 embeddings where the weights lie on this machine."""
    from plumbline.commands.audit import embeddings

    vectors, said = embeddings(pd.DataFrame({"path": list(paths)}), lambda path: load_rgb(data, path))
    print(f"  embeddings: {said}")
    return vectors


# ---------------------------------------------------------------------------------------------------------- helmet/


def score_reposts(manifest: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Count the re-published groups whose photographs the pairs connect, and the pairs between different groups."""
    row = {path: i for i, path in enumerate(manifest["path"])}
    repost = manifest["repost_group"].to_numpy()
    joined, false = Joined(len(manifest)), 0
    for rows in manifest.groupby("photo").indices.values():
        for other in rows[1:]:
            joined.union(int(rows[0]), int(other))
    for a, b in pairs:
        false += int(repost[row[a]] != repost[row[b]])
        joined.union(row[a], row[b])
    part = pd.Series(joined.labels())
    shown = pd.DataFrame({"repost": repost, "photo": manifest["photo"], "part": part})
    sets = shown.groupby("repost").filter(lambda g: g["photo"].nunique() > 1).groupby("repost")["part"].nunique()
    return {"groups": len(sets), "connected": int((sets == 1).sum()), "false_pairs": false}


def measure_helmet(shared: Path) -> dict[str, Any]:
    """Re-publications in helmet/, `photo` given: ours with and without embeddings, and the simple ways."""
    data = DataParams.model_validate({"root": shared / "data/helmet"})
    found, seconds = timed(ingest, data, IngestParams.model_validate({}))
    manifest = found.manifest
    paths = manifest["path"].to_numpy()
    results: dict[str, Any] = {"ingest": seconds}

    def simple(first: NDArray[np.int64], second: NDArray[np.int64]) -> dict[str, int]:
        photo = manifest["photo"].to_numpy()
        apart = photo[first] != photo[second]
        return score_reposts(manifest, zip(paths[first[apart]], paths[second[apart]], strict=True))

    near = pairs_within(manifest["phash"].to_numpy(np.uint64), 10)
    results["pHash <= 10"] = simple(near.first, near.second)
    vectors = embed(data, paths)
    if vectors is not None:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        results["MobileNetV2 cosine >= 0.87"] = simple(*np.nonzero(np.triu(unit @ unit.T >= 0.87, 1)))
    for name, given in (("ours, hashes alone", None), ("ours, with embeddings", vectors)):
        if name.endswith("alone") or given is not None:
            grouped, seconds = timed(group_folder, data, found, GroupParams(max_share=1), given)
            edges = grouped.edges[grouped.edges["verified"] & ~grouped.edges["kind"].isin(["photo"])]
            pairs = zip(edges["path_a"], edges["path_b"], strict=True)
            results[name] = {**score_reposts(manifest, pairs), **seconds, "looked_at": grouped.looked_at}
    return results


# --------------------------------------------------------------------------------------------------- planted copies


def score_copies(truth: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Share of copies that end in their original's group, by kind; strangers merged; sequences kept whole."""
    row = {path: i for i, path in enumerate(truth["path"])}
    joined = Joined(len(truth))
    for a, b in pairs:
        joined.union(row[a], row[b])
    table = truth.assign(part=joined.labels(), scene=truth["base"].replace(REPUBLISHED))
    original = table[table["kind"] == "original"].set_index("base")["part"]
    copies = table[table["kind"].isin(list(COPIES))]
    hit = copies["part"] == copies["base"].map(original)
    shots = table[table["kind"] == "sequence"].groupby("base")["part"].nunique()
    return {
        "copies_found": float(hit.mean()),
        "by_kind": {str(k): float(v) for k, v in hit.groupby(copies["kind"]).mean().items()},
        "strangers_merged": int((table.groupby("part")["scene"].nunique() - 1).sum()),
        "sequences_whole": float((shots == 1).mean()),
    }


def run_peer(name: str, python: Path, folder: Path, truth: pd.DataFrame) -> dict[str, Any]:
    """Run another tool in its own environment; one that fails is reported with its last words."""
    script = Path(__file__).with_name("peers.py")
    command = [str(python), str(script), name, str(folder)]
    done, used = timed(lambda: subprocess.run(command, capture_output=True, text=True, check=False))
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    return {**score_copies(truth, answer["pairs"]), "seconds": answer["seconds"], "cpu_seconds": used["cpu_seconds"]}


def measure_planted(shared: Path, peers: dict[str, Path]) -> dict[str, Any]:
    """Planted copies and fixed cameras: ours with and without embeddings, and the peers."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = sorted((shared / "data/scenes").glob("*.jpg"))
        workers = sorted((shared / "data/helmet").glob("*/*.jpg"))
        truth = pd.DataFrame(plant(scenes, workers, folder, BASES, SHOTS))
        results["images"] = len(truth)
        for peer, python in peers.items():
            results[peer] = run_peer(peer, python, folder, truth)
        data = DataParams.model_validate({"root": folder})
        found, decoding = timed(ingest, data, IngestParams.model_validate({}))
        vectors = embed(data, found.manifest["path"])
        for title, given in (("ours, hashes alone", None), ("ours, with embeddings", vectors)):
            if title.endswith("alone") or given is not None:
                grouped, seconds = timed(group_folder, data, found, GroupParams(max_share=1), given)
                edges = grouped.edges[grouped.edges["verified"]]
                scores = score_copies(truth, zip(edges["path_a"], edges["path_b"], strict=True))
                results[title] = {
                    **scores,
                    **{k: decoding[k] + seconds[k] for k in seconds},
                    "of_which_ingest": decoding,
                }
        results["fixed_cameras"] = measure_fixed_cameras(data, found.manifest, truth, edges)
    return results


def measure_fixed_cameras(
    data: DataParams, manifest: pd.DataFrame, truth: pd.DataFrame, edges: pd.DataFrame
) -> dict[str, Any]:
    """Give every second shot of a sequence the other label: how many pairs would be called a label conflict?"""
    shots = truth[truth["kind"] == "sequence"]["path"]
    here = edges[edges["path_a"].isin(shots) & edges["path_b"].isin(shots)]
    number = manifest["path"].str.extract(r"_shot(\d)", expand=False).fillna("0").astype(int)
    labelled = manifest.assign(label=np.where(number % 2, "with_helmet", "without_helmet"))
    label = dict(zip(labelled["path"], labelled["label"], strict=True))
    opposite = here[here["path_a"].map(label) != here["path_b"].map(label)]
    sample = opposite.iloc[:: max(1, len(opposite) // 100)]
    called = conflicting_pairs(labelled, sample, grey_reader(data, labelled["path"].to_numpy()))
    return {"opposite_pairs": len(sample), "called_a_conflict": len(called)}


# --------------------------------------------------------------------------------------------------------- the search


def measure_search(sizes: Iterable[int]) -> list[dict[str, Any]]:
    """The exact self-join at radius 10 against faiss' flat binary index (range_search is strict: radius 11)."""
    import faiss

    rng = np.random.default_rng(0)
    pairs_within(rng.integers(0, 2**64, 5_000, dtype=np.uint64), 10)  # compiled, or read from numba's cache
    rows = []
    for size in sizes:
        hashes = rng.integers(0, 2**64, size, dtype=np.uint64)
        near = hashes[: size // 10] ^ (np.uint64(1) << rng.integers(0, 64, size // 10, dtype=np.uint64))
        hashes[-len(near) :] = near
        found, seconds = timed(pairs_within, hashes, 10)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        row: dict[str, Any] = {"hashes": size, "pairs": len(found), **seconds, "peak_memory_gb": memory}
        if size <= FAISS_LIMIT:
            packed = hashes.view(np.uint8).reshape(-1, 8)
            index = faiss.IndexBinaryFlat(64)
            index.add(packed)
            (limits, _, ids), used = timed(index.range_search, packed, 11)
            row |= {f"faiss_{k}": v for k, v in used.items()}
            queries = np.repeat(np.arange(size), np.diff(limits.astype(np.int64)))
            theirs = {(int(a), int(b)) for a, b in zip(queries, ids, strict=True) if a < b}
            row["identical_to_faiss"] = theirs == set(zip(found.first.tolist(), found.second.tolist(), strict=True))
        rows.append(row)
        print(f"  {row}")
    return rows


def plot_search(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw seconds against the number of hashes, both on logarithmic scales."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.loglog([r["hashes"] for r in rows], [r["cpu_seconds"] for r in rows], "o-", label="multi-index hashing (ours)")
    flat = [r for r in rows if "faiss_seconds" in r]
    axes.loglog([r["hashes"] for r in flat], [r["faiss_cpu_seconds"] for r in flat], "s--", label="faiss, flat index")
    axes.set(xlabel="64-bit hashes", ylabel="processor seconds", title="All pairs within 10 bits, exact")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


# ------------------------------------------------------------------------------------------------------------ command


def read_peers(given: list[str]) -> dict[str, Path]:
    """Return {"imagededup": python, ...} from NAME=PYTHON arguments."""
    pairs = [one.partition("=") for one in given]
    return {name: Path(python) for name, _, python in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="where data/ and weights/ lie")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--only", nargs="+", choices=["helmet", "planted", "search"], default=None)
    options = parser.parse_args()
    parts = options.only or ["helmet", "planted", "search"]
    if (options.shared / "weights").is_dir():
        os.environ.setdefault("PLUMBLINE_WEIGHTS", str(options.shared / "weights"))
    if {"helmet", "planted"} & set(parts) and not (options.shared / "data/helmet").is_dir():
        sys.exit(f"error: {options.shared}/data/helmet is missing: name the folder of photographs with --shared.")
    results: dict[str, Any] = {"machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}
    if "search" in parts:
        results["search"] = measure_search([10_000, 100_000, 1_000_000])
        plot_search(results["search"], RESULTS / "leakage.png")
    if "helmet" in parts:
        results["helmet"] = measure_helmet(options.shared)
    if "planted" in parts:
        results["planted"] = measure_planted(options.shared, read_peers(options.peer))
    write_json(RESULTS / "leakage.json", results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
