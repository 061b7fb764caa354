"""What Prefect costs beside plain `dvc repro`, and what killing its runs does to their results.

    python -m benchmarks.orchestration overhead [--candidates simple_cnn,...] [--out FILE]
    python -m benchmarks.orchestration kills [--count 100] [--out FILE]

Both work on clones of this repository's HEAD under /tmp, on the embedded sample or (kills) on one of 60 pictures drawn
for it, against a Prefect server of their own. Wall time and processor time, because a machine may be shared.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.clones import HERE, call, clone_head, search_path
from plumbline.common.errors import TELEMETRY_OFF, UserError, run
from plumbline.common.files import write_json, write_text

SMALL = {"image_size": 32, "views": 2}
QUIET = {**TELEMETRY_OFF, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_LOGGING_LEVEL": "WARNING"}


def clone(folder: Path, candidates: list[str] | None = None, small: bool = False) -> Path:
    """Clone HEAD into `folder`/project with its data in place; `candidates` leaves only those in params.yaml."""
    root = folder / "project"
    clone_head(root)
    identity = ["-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost"]
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    if candidates:
        params["candidates"] = {name: params["candidates"][name] for name in candidates}
        used = {"pixels", *(entry["backbone"] for entry in params["candidates"].values())}
        params["backbones"] = {name: entry for name, entry in params["backbones"].items() if name in used}
        params["leakage"]["features"] = params["group"]["embedding"] = next(iter(used))
        params["ensembles"] = {}
        params |= {"ablations": {}, "compressed": {}, "students": {}}
    if small:
        for entry in params["backbones"].values():
            entry.update({key: value for key, value in SMALL.items() if key in entry})
        for entry in params["candidates"].values():
            entry["epochs"] = 2
    if candidates or small:
        write_text(root / "params.yaml", yaml.safe_dump(params, sort_keys=False))
    if small:
        call([sys.executable, "-m", "samples.draw", ".", "--labelled", "60", "--incoming", "4"], root)
        call([sys.executable, "-m", "dvc", "add", "--quiet", "data", "incoming"], root)
    else:
        call([sys.executable, "-m", "dvc", "pull", "--quiet", "data.dvc"], root)
    call(["git", *identity, "commit", "--quiet", "--allow-empty", "-am", "Benchmark"], root)
    return root


@contextmanager
def server(folder: Path) -> Iterator[dict[str, str]]:
    """A Prefect server of its own; yields the environment that finds it."""
    import httpx

    port = 14000 + os.getpid() % 1000
    env = {**os.environ, **QUIET, "PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": search_path(HERE)}
    env["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    with (folder / "server.log").open("wb") as log:
        start = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(start, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 120
            while not _answers(httpx, env["PREFECT_API_URL"] + "/health"):
                if time.monotonic() > deadline:
                    raise UserError(f"{folder}/server.log: the Prefect server does not come up.")
                time.sleep(0.3)
            yield env
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def overhead(candidates: list[str] | None, side_by_side: int) -> dict[str, Any]:
    """Time plain `dvc repro` and the training flow on the sample: cold, then with nothing to do."""
    with tempfile.TemporaryDirectory(prefix="plumbline-orchestration-") as name:
        folder = Path(name)
        plain, flow = [sys.executable, "-m", "dvc", "repro", "--quiet"], [sys.executable, "-m", "flows.training"]
        flow += ["--side-by-side", str(side_by_side)]
        figures: dict[str, Any] = {"candidates": candidates or "all", "side_by_side": side_by_side}
        with server(folder) as env:
            for what, command in (("dvc repro", plain), ("flow", flow)):
                (folder / what).mkdir()
                root = clone(folder / what, candidates)
                mine = {**env, "PYTHONPATH": search_path(root)}
                figures[f"{what}, cold"] = timed(command, root, mine)
                figures[f"{what}, nothing to do"] = timed(command, root, mine)
    for measure in ("wall", "processor"):
        figures[f"cold, flow over dvc repro, {measure}"] = round(
            figures["flow, cold"][measure] / figures["dvc repro, cold"][measure], 3
        )
    return figures


def kills(count: int, seed: int) -> dict[str, Any]:
    """Kill runs of a small set at random moments until `count` kills are done; compare every finished run's decision.

    A round starts cold and is run again after each kill until it is through, so that kills hit every stage; each comes
    within a third of an undisturbed run's time, so that there are several a round. Victims: the flow's process, a
    process of the stage at work, or everything at once as in a power cut.
    """
    chance = random.Random(seed)
    victims: dict[str, int] = {"flow": 0, "stage": 0, "everything": 0}
    wrong: list[str] = []
    rounds = runs = 0
    with tempfile.TemporaryDirectory(prefix="plumbline-kills-") as name:
        folder = Path(name)
        template = clone(folder, ["simple_cnn", "custom_cnn"], small=True)
        with server(folder) as env:
            root = folder / "round"
            shutil.copytree(template, root, symlinks=True)
            command = [sys.executable, "-m", "flows.training", "--retry-seconds", "0.5"]
            mine = {**env, "PYTHONPATH": search_path(root)}
            length = timed(command, root, mine)["wall"]
            wanted = _result(root)
            print(f"undisturbed: {length} s", flush=True)
            while sum(victims.values()) < count:
                shutil.rmtree(root)
                shutil.copytree(template, root, symlinks=True)
                rounds += 1
                through = False
                while not through:
                    runs += 1
                    more = sum(victims.values()) < count
                    moment = chance.uniform(0, length / 3) if more else float("inf")
                    victim = chance.choice(list(victims)) if more else ""
                    killed, through = _run_and_kill(command, root, mine, moment, victim, chance)
                    victims[victim] = victims.get(victim, 0) + killed if killed else victims.get(victim, 0)
                problem = _compare(root, wanted)
                if problem:
                    wrong.append(f"round {rounds}: {problem}")
                print(f"{sum(victims.values())} kills, {runs} runs, {rounds} rounds, {len(wrong)} wrong", flush=True)
    victims.pop("", None)
    return {"kills": victims, "runs": runs, "rounds": rounds, "undisturbed": length, "wrong": wrong, "seed": seed}


def _run_and_kill(
    command: list[str], root: Path, env: dict[str, str], moment: float, victim: str, chance: random.Random
) -> tuple[int, bool]:
    """Run, kill `victim` after `moment` seconds; return (kills done, whether the run went through)."""
    import psutil

    with (root.parent / "flow.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=root, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            return 0, process.wait(timeout=min(moment, 3600.0)) == 0
        except subprocess.TimeoutExpired:
            flow = psutil.Process(process.pid)
            below = flow.children(recursive=True)
            # The guardian dies with everything else or not at all: it is what is to be shown.
            working = [child for child in below if "-I" not in child.cmdline()[:2]]
            chosen = {"flow": [flow], "everything": [flow, *below]}.get(victim) or chance.sample(
                working, min(1, len(working))
            )
            for one in chosen:
                one.kill()
            code = process.wait()
            return int(bool(chosen)), code == 0


def timed(command: list[str], root: Path, env: dict[str, str]) -> dict[str, float]:
    """Run a command to its end; return seconds of wall and of processor time, its children's included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise UserError(f"{' '.join(command[1:4])} failed: {(done.stdout + done.stderr)[-2000:]}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": round(wall, 1), "processor": round(processor, 1)}


def _result(root: Path) -> tuple[Any, int]:
    decision = json.loads((root / "build/decision.json").read_text(encoding="utf-8"))
    decision["rules"] = [rule for rule in decision["rules"] if "latency" not in rule["name"]]
    return decision, _versions(root)


def _compare(root: Path, wanted: tuple[Any, int]) -> str | None:
    """Return how a finished run differs from the undisturbed one, None where it doesn't."""
    try:
        decision, versions = _result(root)
    except Exception as error:  # Any way of being unreadable is a finding.
        return f"{type(error).__name__}: {error}"
    if decision != wanted[0]:
        return "another decision"
    return None if versions == wanted[1] else f"{versions} versions in the registry, not {wanted[1]}"


def _versions(root: Path) -> int:
    """How many versions the registry holds; 0 where nothing was ever promoted. Fails on a damaged registry."""
    import sqlite3

    file = root / "registry" / "mlflow.db"
    if not file.exists():
        return 0
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(database.execute("SELECT count(*) FROM model_versions").fetchone()[0])


def _answers(httpx: Any, url: str) -> bool:
    try:
        return bool(httpx.get(url, timeout=2).status_code == 200)
    except httpx.HTTPError:
        return False


def main() -> None:
    """Measure and print; `--out` keeps the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration", description="What orchestration costs.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    first = kinds.add_parser("overhead")
    first.add_argument("--candidates", help="only these, separated by commas (all)")
    first.add_argument("--side-by-side", type=int, default=2)
    second = kinds.add_parser("kills")
    second.add_argument("--count", type=int, default=100)
    second.add_argument("--seed", type=int, default=0)
    for kind in (first, second):
        kind.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.kind == "overhead":
        figures = overhead(given.candidates.split(",") if given.candidates else None, given.side_by_side)
    else:
        figures = kills(given.count, given.seed)
    print(json.dumps(figures, indent=2))
    if given.out:
        write_json(given.out, figures)
    if figures.get("wrong"):
        raise UserError(f"{len(figures['wrong'])} runs ended otherwise than undisturbed: see above.")


if __name__ == "__main__":
    run(main)
