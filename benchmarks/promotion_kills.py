"""Kill promotions with SIGKILL, hundreds of times, and look at what is left.

    python -m benchmarks.promotion_kills [--kills 260] [--whole 10] [--seed 0] [--json FILE]

Three scenes, each starting from the same registry every time:

- promote: a second version takes the champion's place;
- roll back: the champion gives way to the version before it;
- first: there is no registry yet (MLflow's database is made as well).

A child kills itself when it reaches a chosen line of our code for the first time, or is killed by a clock at a random
moment, which mostly falls inside MLflow, SQLite or a copy. Of the lines, those reached once the scene has begun to
write are taken first. The children are forked from a parent that has imported MLflow but never opened a database; only
the network's export (TensorFlow, which can't be forked) is done beforehand. `--whole` adds kills of complete new
processes, TensorFlow and all, at random moments.

After each kill, in new processes: `champion` must name a version whose files all match its manifest and which scores a
picture; the log must be whole; then the same command must complete, leaving one version per decision, no leftover
files, no run marked as running and every action in the log with its outcome. Anything else is reported and ends the
benchmark with exit code 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from plumbline.common.files import write_json
from plumbline.common.progress import progress
from plumbline.common.served import CHAMPION

REPOSITORY = Path(__file__).parent.parent
TRACED = tuple(
    str(REPOSITORY / name)
    for name in (
        "plumbline/registry/versions.py",
        "plumbline/registry/history.py",
        "plumbline/registry/bundle.py",
        "stages/promote.py",
        "plumbline/common/files.py",
    )
)
Line = tuple[str, int]


@dataclass(frozen=True)
class Scene:
    """A command to be killed: the registry it starts from, and what must hold when it has completed."""

    name: str
    start: Path | None
    command: Callable[[], str]
    champion_after: int
    previous_after: int | None
    versions_after: int


def main() -> None:
    """Run the kills and print what became of them."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="plumbline-kills-") as folder:
        base = Path(folder)
        _prepare(base)
        os.chdir(base)
        _import_what_children_need()
        table = []
        spread = {"promote": 0.6, "roll back": 0.25, "first": 0.15}
        for scene in _scenes(base):
            kills = round(arguments.kills * spread[scene.name])
            table.append(_run_scene(scene, base, kills, random.Random(arguments.seed)))
        if arguments.whole:
            table.append(_run_whole(_scenes(base)[0], base, arguments.whole, random.Random(arguments.seed)))
    _print(table)
    if arguments.json:
        write_json(arguments.json, table)
    if any(row["problems"] for row in table):
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=260)
    parser.add_argument("--whole", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=lambda given: Path(given).absolute())  # the scenes change the folder
    return parser.parse_args()


def _prepare(base: Path) -> None:
    """Make, in a process of its own, two exported candidates and the registries that scenes start from.

    base/old and base/new: projects with one candidate each; base/one: a registry with the first as version 1; base/two:
    one with both.
    """
    code = (
        "from benchmarks import promotion_kills as kills; from pathlib import Path; "
        f"kills._prepare_here(Path({str(base)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, env=_quiet_environment())


def _prepare_here(base: Path) -> None:
    from benchmarks.tiny_project import export_project, exported_project, write_project
    from plumbline.registry.promotion import PromoteParams, Wish, promote

    os.chdir(base)
    params = PromoteParams(minimum_unseen_groups=3)
    for name, seed, registry in (("old", 0, "one"), ("new", 1, "two")):
        write_project(base / name, seed=seed)
        export_project(base / name)
        promote(params, Wish(), exported_project(base / name))
        shutil.copytree("registry", registry)


def _quiet_environment() -> dict[str, str]:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    return {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"} | quiet


def _import_what_children_need() -> None:
    os.environ.update(_quiet_environment())
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    for name in (
        "h5py",
        "mlflow.artifacts",
        "mlflow.store.artifact.local_artifact_repo",
        "mlflow.store.model_registry.sqlalchemy_store",
        "mlflow.store.tracking.sqlalchemy_store",
        "onnxruntime",
        "pyarrow.parquet",
        "plumbline.evidence.rules",
        "plumbline.registry.promotion",
    ):
        importlib.import_module(name)


def _scenes(base: Path) -> list[Scene]:
    def promote_new() -> str:
        from benchmarks.tiny_project import exported_project
        from plumbline.registry.promotion import PromoteParams, Wish, promote

        project = exported_project(base / "new")
        return str(promote(PromoteParams(minimum_unseen_groups=3), Wish(), project).outcome)

    def roll_back() -> str:
        from plumbline.common.errors import UserError
        from plumbline.registry.promotion import PromoteParams, rollback

        try:
            return rollback(PromoteParams(), 1, "killed on purpose", False)
        except UserError as error:
            if "champion already" in str(error):
                return str(error)
            raise

    return [
        Scene("promote", base / "one", promote_new, champion_after=2, previous_after=1, versions_after=2),
        Scene("roll back", base / "two", roll_back, champion_after=1, previous_after=2, versions_after=2),
        Scene("first", None, promote_new, champion_after=1, previous_after=None, versions_after=1),
    ]


def _run_scene(scene: Scene, base: Path, kills: int, chance: random.Random) -> dict[str, Any]:
    """Two thirds of the kills at lines of ours, the rest by the clock."""
    _restore(scene, base)
    lines, writing, seconds = _in_child(lambda: _lines_of(scene.command))
    reading, writing = [tuple(line) for line in lines[:writing]], [tuple(line) for line in lines[writing:]]
    wanted = kills * 2 // 3
    chosen = chance.sample(writing, min(len(writing), wanted))
    chosen += chance.sample(reading, min(len(reading), wanted - len(chosen)))
    deaths = [partial(_die_at_line, scene.command, line) for line in chosen]
    moments = [chance.uniform(0, seconds) for _ in range(kills - len(chosen))]
    deaths += [partial(_die_after, scene.command, moment) for moment in moments]
    result = _tally(scene, base, deaths)
    return {"scene": scene.name, "lines of ours": len(lines), "killed at a line": len(chosen), **result}


def _run_whole(scene: Scene, base: Path, kills: int, chance: random.Random) -> dict[str, Any]:
    """Kill complete processes: interpreter, TensorFlow, export, registry."""
    code = (
        "from pathlib import Path; from benchmarks.tiny_project import whole_project; "
        "from plumbline.registry.promotion import *; "
        f"promote(PromoteParams(minimum_unseen_groups=3), Wish(), whole_project(Path({str(base / 'new')!r})))"
    )
    environment = _quiet_environment() | {"PYTHONPATH": str(REPOSITORY)}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)

    _restore(scene, base)
    began = time.monotonic()
    if start().wait():
        raise RuntimeError("the whole process does not even complete undisturbed")
    seconds = time.monotonic() - began

    def die(after: float) -> bool:
        process = start()
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
        return process.wait() == -signal.SIGKILL

    # Before a quarter of its time such a process is only importing.
    deaths = [partial(die, chance.uniform(seconds / 4, seconds)) for _ in range(kills)]
    return {"scene": "whole process", "lines of ours": 0, "killed at a line": 0, **_tally(scene, base, deaths)}


def _tally(scene: Scene, base: Path, deaths: Sequence[Callable[[], bool]]) -> dict[str, Any]:
    killed = moved = 0
    problems: list[str] = []
    for number, die in enumerate(progress(deaths, f"kills: {scene.name}", unit="kill")):
        _restore(scene, base)
        died = die()
        killed += died
        try:
            after = _in_child(lambda: _look(scene))
            moved += died and after == scene.champion_after
            _in_child(scene.command)
            _in_child(lambda: _look_completed(scene))
        except RuntimeError as error:
            problems.append(f"kill {number}: {error}")
    return {"kills": killed, "finished first": len(deaths) - killed, "alias had moved": moved, "problems": problems}


def _restore(scene: Scene, base: Path) -> None:
    """Put the registry back to where the scene starts: at the same path, since MLflow stores absolute ones."""
    shutil.rmtree(base / "registry", ignore_errors=True)
    if scene.start:
        shutil.copytree(scene.start, base / "registry")


def _look(scene: Scene) -> int | None:
    """Whatever the moment of the kill: the champion, if there was one, is whole and scores a picture."""
    import numpy as np

    from plumbline.common.errors import UserError
    from plumbline.models.export import OnnxModel
    from plumbline.registry import history as journal
    from plumbline.registry import versions as registry

    try:
        version = registry.load_version()
    except UserError:
        if scene.start is None:
            return None
        raise
    probabilities, _ = OnnxModel(version.onnx, threads=1)(np.zeros((1, 16, 16, 3)))
    assert abs(float(probabilities.sum()) - 1) < 1e-5
    opened = registry.open_registry()
    assert journal.broken_links(opened) == []
    return version.version


def _look_completed(scene: Scene) -> None:
    from plumbline.registry import history as journal
    from plumbline.registry import versions as registry

    opened = registry.open_registry()
    champion = registry.number(registry.find(opened, CHAMPION))
    previous = registry.number(registry.find(opened, registry.PREVIOUS))
    versions = opened.client.search_model_versions(f"name = '{opened.model}'")
    assert (champion, previous) == (scene.champion_after, scene.previous_after), f"aliases {champion}, {previous}"
    assert len(versions) == scene.versions_after, f"{len(versions)} versions"
    for record in versions:
        registry.fetch(opened, record)
        withdrawn = registry.WITHDRAWN_TAG in record.tags
        assert withdrawn == (scene.name == "roll back" and record.version == 2), f"{record.version}: {withdrawn}"
    folders = list(Path("registry/artifacts/models").iterdir())
    assert len(folders) == scene.versions_after, f"{len(folders)} folders of files"
    place = opened.client.get_experiment_by_name(opened.model).experiment_id
    running = opened.client.search_runs([place], "attributes.status = 'RUNNING'")
    assert not running, f"{len(running)} runs still marked as running"
    log = journal.entries(opened)
    settled = {entry.settles for entry in log}
    assert all(journal.digest(entry) in settled for entry in log if entry.outcome == "begun"), (
        "an action without outcome"
    )
    assert journal.champions(log)[-1] == scene.champion_after, "the log names another champion"
    assert journal.broken_links(opened) == []


def _lines_of(command: Callable[[], Any]) -> tuple[list[Line], int, float]:
    """Run the command; return the lines of ours that it reached, in order of their first time, the place of the first
    after it began to write, and its duration in seconds."""
    reached: dict[Line, None] = {}
    writing: list[int] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(TRACED):
            return None
        if event == "line":
            reached.setdefault((frame.f_code.co_filename, frame.f_lineno))
            if frame.f_code.co_name in ("register", "carry_out", "_create_sqlite") and not writing:
                writing.append(len(reached))
        return trace

    began = time.monotonic()
    sys.settrace(trace)
    command()
    sys.settrace(None)
    return list(reached), writing[0] - 1, time.monotonic() - began


def _die_at_line(command: Callable[[], Any], line: Line) -> bool:
    def suicidal() -> None:
        def trace(frame: FrameType, event: str, _: Any) -> Any:
            if not frame.f_code.co_filename.startswith(TRACED):
                return None
            if event == "line" and (frame.f_code.co_filename, frame.f_lineno) == line:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        command()

    return _killed(_fork(suicidal)[0])


def _die_after(command: Callable[[], Any], seconds: float) -> bool:
    process, _ = _fork(command)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    return _killed(process)


def _killed(process: int) -> bool:
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _in_child(task: Callable[[], Any]) -> Any:
    """Return the task's result (as JSON) from a forked child; RuntimeError with its traceback if it failed."""
    process, answer = _fork(task)
    with os.fdopen(answer) as pipe:
        text = pipe.read()
    os.waitpid(process, 0)
    result = json.loads(text) if text else {"error": "the process died without an answer"}
    if "error" in result:
        raise RuntimeError(result["error"])
    return result["value"]


def _fork(task: Callable[[], Any]) -> tuple[int, int]:
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    os.close(reading)
    try:
        answer = {"value": task()}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    with os.fdopen(writing, "w") as pipe:
        pipe.write(json.dumps(answer))
    os._exit(0)


def _print(table: list[dict[str, Any]]) -> None:
    columns = ["scene", "kills", "killed at a line", "lines of ours", "finished first", "alias had moved", "problems"]
    print("  ".join(f"{column:>16}" for column in columns))
    for row in table:
        shown = {**row, "problems": len(row["problems"])}
        print("  ".join(f"{shown[column]!s:>16}" for column in columns))
    for row in table:
        for problem in row["problems"]:
            print(f"{row['scene']}: {problem}")


if __name__ == "__main__":
    main()
