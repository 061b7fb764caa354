"""How much of a `dvc repro` is imports and start-up rather than work.

    python -m benchmarks.fixed_costs [--photographs ../shared/data/helmet] [--results build/benchmarks/fixed_costs.json]

Runs `dvc repro` of this repository's HEAD from nothing in a clone under /tmp, on the embedded sample or on a folder of
photographs. A `sitecustomize` on the stages' path notes of every process of a stage when it began, when it ended and
how long it spent in import statements. What a stage does between, tracing its networks included, is work; the rest of
the wall time is start-up: interpreters, imports, DVC itself and the way to the warm process and back. `by kind` sums
the items of a stage: seconds, and how many processors were busy meanwhile.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.clones import HERE, call, clone_head
from plumbline.common.errors import run
from plumbline.common.files import write_json

NOTES = "PLUMBLINE_BENCHMARK_NOTES"
OBSERVER = f'''
import atexit, builtins, json, os, resource, sys, time

notes, original, leave = os.environ.get("{NOTES}"), builtins.__import__, os._exit
state = {{"began": time.time(), "imports": 0.0, "depth": 0}}

def timed_import(*arguments, **named):
    state["depth"] += 1
    start = time.perf_counter()
    try:
        return original(*arguments, **named)
    finally:
        state["depth"] -= 1
        if not state["depth"]:
            state["imports"] += time.perf_counter() - start

def write():
    used = resource.getrusage(resource.RUSAGE_SELF)
    note = {{"ended": time.time(), "processor": used.ru_utime + used.ru_stime, "arguments": sys.argv}}
    with open(notes, "a") as file:
        file.write(json.dumps({{**state, **note}}) + "\\n")

def write_and_leave(code):
    write()
    leave(code)

if notes:
    builtins.__import__ = timed_import
    atexit.register(write)
    os._exit = write_and_leave
    os.register_at_fork(after_in_child=lambda: state.update(began=time.time(), imports=0.0, depth=0))
'''


def observed_run(folder: Path, photographs: Path | None) -> dict[str, Any]:
    """Run `dvc repro` in a new clone of HEAD under `folder`; returns its seconds and what the observer noted."""
    clone, observer, notes = folder / "clone", folder / "observer", folder / "notes.jsonl"
    clone_head(clone)
    if photographs is None:
        call([sys.executable, "-m", "dvc", "pull", "--quiet", "data.dvc", "incoming.dvc"], clone)
    else:
        (clone / "data.dvc").unlink()
        call(["cp", "-r", str(photographs.resolve()), str(clone / "data")], clone)
        call([sys.executable, "-m", "dvc", "add", "--quiet", "data"], clone)
    observer.mkdir()
    (observer / "sitecustomize.py").write_text(OBSERVER, encoding="utf-8")
    start = time.perf_counter()
    call([sys.executable, "-m", "dvc", "repro"], clone, {"PYTHONPATH": str(observer), NOTES: str(notes)})
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "notes": [json.loads(line) for line in notes.read_text().splitlines()]}


def shares(observed: dict[str, Any]) -> dict[str, Any]:
    """Split the wall time: `work` is the life of the processes that ran a stage, less what they spent importing."""
    stages = [note for note in observed["notes"] if is_stage(note)]
    work = {
        " ".join([Path(note["arguments"][0]).stem, *note["arguments"][1:2]]): note["ended"]
        - note["began"]
        - note["imports"]
        for note in stages
    }
    by_kind: dict[str, list[float]] = {}
    for note in stages:
        spent = by_kind.setdefault(Path(note["arguments"][0]).stem, [0.0, 0.0])
        spent[0] += note["ended"] - note["began"]
        spent[1] += note["processor"]
    working, imports = sum(work.values()), sum(note["imports"] for note in stages)
    return {
        "seconds": observed["seconds"],
        "work": working,
        "imports": imports,
        "rest of start-up": observed["seconds"] - working - imports,
        "start-up share": 1 - working / observed["seconds"],
        "stages": len(stages),
        "by kind": {
            kind: {"seconds": round(wall, 1), "processors": round(processor / wall, 2)}
            for kind, (wall, processor) in sorted(by_kind.items(), key=lambda item: -item[1][0])
        },
        "longest": dict(sorted(work.items(), key=lambda item: -item[1])[:12]),
    }


def is_stage(note: dict[str, Any]) -> bool:
    """Whether a process ran a stage: started as one, or forked for one by the warm process."""
    name = Path(note["arguments"][0])
    started = name.parent.name in ("stages", "monitoring") and name.stem != "warm"
    return started or (name.suffix == "" and (HERE / "stages" / f"{name}.py").is_file())


def main() -> None:
    """Run, print and write the shares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photographs", type=Path, help="a data folder in place of the embedded sample")
    parser.add_argument("--results", type=Path, default=Path("build/benchmarks/fixed_costs.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = shares(observed_run(Path(folder), arguments.photographs))
    write_json(arguments.results, found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    run(main)
