"""How much of a `dvc repro` is start-up rather than work.

    python -m benchmarks.fixed_costs [--results build/benchmarks/fixed_costs.json]

Runs this repository's HEAD twice in clones under /tmp, from nothing: as it is on the embedded sample, and with the same
stages and candidates where there is next to nothing to do (60 pictures, the smallest inputs the networks take, one
epoch). What the second run takes is start-up: DVC itself, processes, imports, building and tracing networks; the
little work left in it counts as start-up too, so the share is an upper bound.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from common.errors import TELEMETRY_OFF, UserError, run
from common.files import write_json, write_text

HERE = Path(__file__).resolve().parents[1]
SMALLEST = {"alexnet": 67, "inception_v3": 75}
USUAL = 32


def emptied(params: dict[str, Any]) -> dict[str, Any]:
    """The same candidates and backbones with next to nothing to do."""
    candidates = {
        name: {**entry, "epochs": 1, "early_stopping_patience": 0} for name, entry in params["candidates"].items()
    }
    wanted = {entry["backbone"]: SMALLEST.get(entry["architecture"], 0) for entry in candidates.values()}
    backbones = {}
    for name, entry in params["backbones"].items():
        side = max(SMALLEST.get(entry.get("network", name), USUAL), wanted.get(name, 0))
        backbones[name] = {**entry, "image_size": side} | ({"views": 1} if entry.get("views") else {})
    return {**params, "candidates": candidates, "backbones": backbones}


def seconds_of_a_run(folder: Path, empty: bool) -> float:
    """Seconds of `dvc repro` in a new clone of HEAD in `folder`, on the sample, or with next to nothing to do."""
    call(["git", "clone", "--quiet", str(HERE), str(folder)], HERE)
    if empty:
        params = emptied(yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8")))
        write_text(folder / "params.yaml", yaml.safe_dump(params, sort_keys=False))
        call([sys.executable, "-m", "samples.draw", ".", "--labelled", "60", "--incoming", "4"], folder)
        call([sys.executable, "-m", "dvc", "add", "--quiet", "data", "incoming"], folder)
    else:
        call([sys.executable, "-m", "dvc", "pull", "--quiet", "data.dvc", "incoming.dvc"], folder)
    start = time.perf_counter()
    call([sys.executable, "-m", "dvc", "repro"], folder)
    return time.perf_counter() - start


def call(command: list[str], folder: Path) -> None:
    """Run a command in `folder`; UserError with its last lines where it fails."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **TELEMETRY_OFF, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed in {folder}: {(done.stdout + done.stderr)[-2000:]}")


def main() -> None:
    """Time both runs, print and write the share."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("build/benchmarks/fixed_costs.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        empty = seconds_of_a_run(Path(folder) / "empty", empty=True)
        print(f"next to nothing to do: {empty:.0f} s", flush=True)
        full = seconds_of_a_run(Path(folder) / "full", empty=False)
    write_json(arguments.results, {"empty_seconds": empty, "full_seconds": full, "share": empty / full})
    print(f"dvc repro on the sample: {full:.0f} s, of which start-up at most {100 * empty / full:.0f}%")


if __name__ == "__main__":
    run(main)
