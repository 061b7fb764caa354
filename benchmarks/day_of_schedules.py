"""A day of schedules in minutes: training, two sites' monitors, intake and the keeper, disturbed, then counted.

    python -m benchmarks.day_of_schedules [--minutes 16] [--seed 0] [--out FILE]      at least so long, every fault once

In a small project (benchmarks/small_project.py) served by `flows.serve`, sites send pictures every half minute and are
judged every minute, training is due every five, labelled batches are taken in, and in between, one after the other and
at random moments (FAULTS): the worker and all it runs are killed; everything is, as in a power cut, and started again;
the server is stopped for half a minute and goes on; it is killed alone; the clock of all that runs is set an hour
ahead and, later, back again. That needs a C compiler (benchmarks/set_clock.c): where there is none, the benchmark says
so, loudly and in its result, and plays the rest. Then nothing more is sent, and once all
is quiet is counted: every picture once, in one window; every window told, each under one id; every batch in one
commit, told once, with all its pictures, trained on; no run left undecided.

Prefect fires each due time once: for the hour by which a clock was set back, no schedule fires. A person would ask for
runs by hand in that hour, and so does this.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks import small_project
from benchmarks.clones import call
from benchmarks.served import Served, listening, wait_until
from monitoring.site_state import SiteState
from plumbline.common.errors import UserError, run
from plumbline.common.files import write_json, write_text

SITES = {"NORTH": 1.0, "SOUTH": 0.4}  # the light there, against that of the pictures trained on
WORKER, POWER, STOPPED, SERVER = "worker killed", "power cut", "server stopped for 30 s", "server killed"
AHEAD, BACK = "clock set an hour ahead", "clock set back an hour"
FAULTS = (STOPPED, WORKER, AHEAD, POWER, BACK, SERVER)
HOUR = 3600
EVERY = {"train": "*/5 * * * *", "keeper": "* * * * *"}
PICTURES = 60
BATCH = 6


def play(folder: Path, minutes: float, chance: random.Random) -> dict[str, Any]:
    """Play the day in a new project under `folder`; return what was counted at its end."""
    root = folder / "project"
    small_project.make(root, {name: {"timezone": "UTC", "cron": "* * * * *"} for name in SITES}, PICTURES)
    _reschedule(root)
    sent: dict[str, int] = dict.fromkeys(SITES, 0)
    batches: list[Path] = []
    played: list[str] = []
    with listening() as webhook:
        day = Served(root, f"http://127.0.0.1:{webhook.server_address[1]}/")
        _repro(day)
        _git(day, "add", "--all")
        _git(day, "commit", "--quiet", "--message", "the first champion")
        clock = _own_clock(day, folder / "clock")
        faults = cycle(fault for fault in FAULTS if clock or fault not in (AHEAD, BACK))
        day.start()
        try:
            end = time.monotonic() + 60 * minutes
            turn = 0
            while time.monotonic() < end or len(played) < len(FAULTS):
                _send(root, sent)
                turn += 1
                if turn % 5 == 2:
                    batches.append(_batch(root, len(batches)))
                    day.ask("intake/intake", batch=str(batches[-1]))
                if BACK in played:
                    _ask_for_all(day)
                if turn % 2 == 0:
                    fault = next(faults)
                    time.sleep(chance.uniform(0, 15))
                    disturb(day, fault, clock)
                    played.append(fault)
                    print(f"{fault}; {sum(sent.values())} pictures sent, {len(batches)} batches", flush=True)
                time.sleep(max(0.0, min(30.0, end - time.monotonic())))
            disturb(day, POWER, clock)
            played.append(POWER)
            for batch in batches:  # asked for once more, as a person would who saw a run cut off: nothing enters twice
                wait_until(partial(_taken, day, batch), 900, f"{batch} to be taken in")
            wait_until(partial(_quiet, day), 1800, "all to be quiet")
            figures = count(day, sent, len(batches), webhook.received)  # type: ignore[attr-defined]
        finally:
            day.power_cut()
    return {"minutes": minutes, "disturbed": dict(Counter(played)), "clock set": bool(clock), **figures}


def disturb(day: Served, fault: str, clock: Path | None) -> None:
    """Do one of FAULTS to what runs, and bring it up again as a person would."""
    if fault in (AHEAD, BACK):
        assert clock is not None
        with clock.open("r+b") as file:  # in place: whoever runs has it mapped
            file.write(struct.pack("<q", HOUR if fault == AHEAD else 0))
        return
    server = [process for process in day.processes() if {"prefect", "server", "start"} <= set(_words_of(process))]
    assert server, "no server was found"
    if fault == STOPPED:
        for process in server:
            process.send_signal(signal.SIGSTOP)
        time.sleep(30)
        for process in server:
            process.send_signal(signal.SIGCONT)
        return
    if fault == WORKER:
        for process in day.processes():
            if "worker" in _words_of(process):
                for one in [*process.children(recursive=True), process]:
                    with suppress(psutil.NoSuchProcess):
                        one.kill()
    if fault == SERVER:
        for process in server:
            process.kill()
    if fault in (WORKER, SERVER):  # serve ends when a part of it does
        wait_until(lambda: day.process is None or day.process.poll() is not None, 60, "serve to end")
    day.power_cut()
    day.start()


def _words_of(process: psutil.Process) -> list[str]:
    """Its command line; empty where it has ended since it was listed."""
    with suppress(psutil.NoSuchProcess):
        return [str(word) for word in process.cmdline()]
    return []


def count(day: Served, sent: dict[str, int], batches: int, received: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of the day; `wrong` lists what should not be."""
    import pandas as pd

    wrong: list[str] = []
    windows: dict[str, int] = {}
    drifted = 0
    for site, number in sent.items():
        store = SiteState(day.root / "drift", site)
        windows[site] = len(store.windows())
        waiting = store.pending()
        tables = [store.images(name) for name in store.windows()] + ([waiting.table] if waiting is not None else [])
        # A new champion looks at the last window's pictures again, if they are still there: once under each.
        seen = Counter(
            (path, key.rsplit("|", 1)[1])
            for table in tables
            for path, key in zip(table["path"], table["key"], strict=True)
        )
        missing = {f"{place:05d}.jpg" for place in range(number)} - {path for path, _ in seen}
        twice = [path for path, times in seen.items() if times > 1]
        wrong += [f"{site}: {len(missing)} pictures in no window"] if missing else []
        wrong += [f"{site}: {len(twice)} pictures twice"] if twice else []
        wrong += [f"{site}: not told of {name}" for name in store.unannounced()]
        drifted += sum(store.result(name)["verdict"] == "DRIFT" for name in store.windows())
    told = Counter(one["id"] for one in received if one["what"] == "drift")
    if len(told) != drifted:
        wrong.append(f"{len(told)} windows told of, {drifted} drifted")
    events = day.api("POST", "/events/filter", filter={"event": {"name": ["plumbline.drift"]}}, limit=50)
    if len({one["id"] for one in events["events"]}) != len(events["events"]):
        wrong.append("an event twice")
    intakes = [one for one in received if one["what"] == "intake"]
    if len({one["text"] for one in intakes}) != batches:
        wrong.append(f"{len({one['text'] for one in intakes})} messages of {batches} batches taken in")
    commits = _git(day, "log", "--format=%s").count("Take in ")
    splits = len(pd.read_parquet(day.root / "build" / "manifest.parquet"))
    wrong += [f"{commits} commits for {batches} batches"] if commits != batches else []
    expected = PICTURES + BATCH * batches
    wrong += [f"trained on {splits} pictures, not {expected}"] if splits != expected else []
    return {
        "pictures": sum(sent.values()),
        "windows": windows,
        "drifted windows": drifted,
        "messages of drift": sum(told.values()),
        "of these again, under the same id": sum(told.values()) - len(told),
        "events of drift": len(events["events"]),
        "batches": batches,
        "messages of batches": len(intakes),
        "training pictures": splits,
        "runs": {name: dict(Counter(one["state"]["name"] for one in day.runs(name))) for name in _deployments()},
        "wrong": wrong,
    }


def _deployments() -> list[str]:
    return ["train", "intake", "keeper", *(f"monitor-{site}" for site in SITES)]


def _reschedule(root: Path) -> None:
    """Make training and the keeper due as often as a day of minutes asks for."""
    path = root / "prefect.yaml"
    project = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in project["deployments"]:
        if entry["name"] in EVERY:
            entry["schedules"] = [{"cron": EVERY[entry["name"]], "timezone": "UTC"}]
    write_text(path, yaml.safe_dump(project, sort_keys=False))


def _repro(day: Served) -> None:
    own = os.pathsep.join([str(Path(sys.executable).parent), day.env["PATH"]])
    command = [sys.executable, "-m", "dvc", "repro", "--quiet"]
    done = subprocess.run(
        command, cwd=day.root, env={**day.env, "PATH": own}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"dvc repro failed: {(done.stdout + done.stderr)[-2000:]}")


def _git(day: Served, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=day.root, env=day.env, check=True, capture_output=True, text=True
    ).stdout


def _send(root: Path, sent: dict[str, int], each: int = 8) -> None:
    for place, (site, light) in enumerate(SITES.items()):
        folder = root / "incoming" / site
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(sent[site], sent[site] + each):
            # Written beside and renamed: a picture arrives whole.
            temporary = folder / f".{number}"
            temporary.write_bytes(small_project.picture(10_000 * (place + 1) + number, number % 2, light))
            os.replace(temporary, folder / f"{number:05d}.jpg")
        sent[site] += each


def _batch(root: Path, number: int) -> Path:
    folder = root.parent / "batches" / f"{number:03d}"
    small_project.write_labelled(folder, 50_000 + BATCH * number, BATCH)
    return folder


def _taken(day: Served, batch: Path) -> bool:
    state = day.ended(day.ask("intake/intake", batch=str(batch)), 600)
    return bool(state["type"] == "COMPLETED")


def _quiet(day: Served) -> bool:
    """Whether nothing runs, training has nothing to do, and every site was looked at once more."""
    runs = [day.runs(name) for name in _deployments() if name != "keeper"]
    if any(_is_busy(one, of_one) for of_one in runs for one in of_one):
        day.ended(day.ask("keeper/keeper"), 600)
        return False
    trained = day.ended(day.ask("training/train"), 900)
    if trained["type"] != "COMPLETED" or not str(trained["message"]).startswith(("0 stages", "1 stage ")):
        return False
    return all(day.ended(day.ask(f"monitor/monitor-{site}"), 600)["type"] == "COMPLETED" for site in SITES)


def _is_busy(one: dict[str, Any], runs: list[dict[str, Any]]) -> bool:
    """Whether a run is at work, or crashed and no later one did its work: that one the keeper leaves."""
    if one["state"]["type"] != "CRASHED":
        return one["state"]["type"] in ("RUNNING", "PENDING", "CANCELLING")
    done = [other for other in runs if other["state"]["type"] == "COMPLETED"]
    later = [other for other in done if other["start_time"] and other["start_time"] > one["end_time"]]
    return not any(other["parameters"] == one["parameters"] for other in later)


def _ask_for_all(day: Served) -> None:
    for name in ("keeper/keeper", *(f"monitor/monitor-{site}" for site in SITES)):
        day.ask(name)


def _own_clock(day: Served, folder: Path) -> Path | None:
    """Let what `day` starts from now on go by a clock that the file returned sets; None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("THE CLOCK IS NOT SET: there is no C compiler (apt-get install gcc).", file=sys.stderr)
        return None
    folder.mkdir()
    library, clock = folder / "set_clock.so", folder / "ahead"
    call(
        [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(Path(__file__).with_name("set_clock.c"))], folder
    )
    clock.write_bytes(struct.pack("<q", 0))
    day.env.update(LD_PRELOAD=str(library), SET_CLOCK=str(clock))
    return clock


def main() -> None:
    """Play, print, and fail where something was lost or done twice."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.day_of_schedules", description="A day, disturbed.")
    parser.add_argument("--minutes", type=float, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="plumbline-day-"))
    figures = play(folder, given.minutes, random.Random(given.seed))
    print(json.dumps(figures, indent=2))
    if given.out:
        write_json(given.out, figures)
    if figures["wrong"]:
        raise UserError(f"{'; '.join(figures['wrong'])}: see {folder}.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    run(main)
