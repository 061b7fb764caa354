"""A day of schedules in minutes: training, two sites' monitors, intake and the keeper, disturbed, then counted.

    python -m benchmarks.day_of_schedules [--minutes 15] [--seed 0] [--faults worker,power,server,clock] [--out FILE]

In a small project (benchmarks/small_project.py) served by `flows.serve`, sites send pictures every half minute and are
judged every minute, training is due every five, labelled batches are taken in, and in between, at random moments: the
worker and all it runs are killed; everything is, as in a power cut, and started again; the server is stopped for half
a minute; everything is started again with its clock an hour ahead, then an hour back (needs Debian's libfaketime;
where that is missing, it says so and plays the others). Then nothing more is sent, and once all is quiet is counted:
every picture once, in one window; every window told, each under one id; every batch in one commit, with all its
pictures, trained on; no run left undecided.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from benchmarks import small_project
from benchmarks.served import Served, listening, wait_until
from monitoring.site_state import SiteState
from plumbline.common.errors import UserError, run
from plumbline.common.files import write_json, write_text

SITES = {"NORTH": 1.0, "SOUTH": 0.4}  # the light there, against that of the pictures trained on
FAULTS = ("worker", "power", "server", "clock")
EVERY = {"train": "*/5 * * * *", "keeper": "* * * * *"}
PICTURES = 60
BATCH = 6


def play(folder: Path, minutes: float, faults: list[str], chance: random.Random) -> dict[str, Any]:
    """Play the day in a new project under `folder`; return what was counted at its end."""
    root = folder / "project"
    small_project.make(root, {name: {"timezone": "UTC", "cron": "* * * * *"} for name in SITES}, PICTURES)
    _reschedule(root)
    sent: dict[str, int] = dict.fromkeys(SITES, 0)
    batches: list[Path] = []
    played: Counter[str] = Counter()
    with listening() as webhook:
        day = Served(root, f"http://127.0.0.1:{webhook.server_address[1]}/")
        _repro(day)
        _git(day, "add", "--all")
        _git(day, "commit", "--quiet", "--message", "the first champion")
        day.start()
        try:
            end = time.monotonic() + 60 * minutes
            turn = 0
            while time.monotonic() < end:
                _send(root, sent)
                turn += 1
                if turn % 5 == 2:
                    batches.append(_batch(root, len(batches)))
                    _ask(day, batches[-1])
                if turn % 4 == 3:
                    fault = chance.choice(faults)
                    time.sleep(chance.uniform(0, 15))
                    disturb(day, fault)
                    played[fault] += 1
                    print(f"{fault}; {sum(sent.values())} pictures sent, {len(batches)} batches", flush=True)
                time.sleep(max(0.0, min(30.0, end - time.monotonic())))
            day.env.pop("LD_PRELOAD", None)
            day.power_cut()
            day.start()
            for batch in batches:  # asked for once more, as a person would who saw a run cut off: nothing enters twice
                wait_until(lambda batch=batch: _taken(day, batch), 900, f"{batch} to be taken in")  # type: ignore[misc]
            wait_until(lambda: _quiet(day, sent), 1800, "all to be quiet")
            figures = count(day, sent, len(batches), webhook.received)  # type: ignore[attr-defined]
        finally:
            day.power_cut()
    return {"minutes": minutes, "faults": dict(played), **figures}


def disturb(day: Served, fault: str) -> None:
    """Do one of FAULTS to what runs, and bring it up again as a person would."""
    if fault == "server":
        server = [process for process in day.processes() if "uvicorn" in " ".join(process.cmdline())]
        for process in server:
            process.send_signal(signal.SIGSTOP)
        time.sleep(30)
        for process in server:
            if process.is_running():
                process.send_signal(signal.SIGCONT)
        return
    if fault == "worker":
        for process in day.processes():
            if "worker" in process.cmdline():
                for one in [*process.children(recursive=True), process]:
                    one.kill()
        wait_until(lambda: day.process is None or day.process.poll() is not None, 60, "serve to end with its worker")
    if fault == "clock":
        ahead = day.env.get("FAKETIME") == "+3600"
        day.env.update(LD_PRELOAD=_libfaketime(), FAKETIME="-0" if ahead else "+3600", FAKETIME_DONT_FAKE_MONOTONIC="1")
    day.power_cut()
    day.start()


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
        "training pictures": splits,
        "runs": dict(Counter(f"{one['state']['name']}" for name in _deployments() for one in day.runs(name))),
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


def _ask(day: Served, batch: Path) -> None:
    day.ask("intake/intake", batch=str(batch))


def _taken(day: Served, batch: Path) -> bool:
    state = day.ended(day.ask("intake/intake", batch=str(batch)), 600)
    return bool(state["type"] == "COMPLETED")


def _quiet(day: Served, sent: dict[str, int]) -> bool:
    """Whether nothing runs, training has nothing to do, and every site was looked at once more."""
    busy = ("RUNNING", "PENDING", "CRASHED", "CANCELLING")
    if any(one["state"]["type"] in busy for name in ("train", "intake") for one in day.runs(name)):
        time.sleep(5)
        return False
    trained = day.ended(day.ask("training/train"), 900)
    if trained["type"] != "COMPLETED" or not str(trained["message"]).startswith(("0 stages", "1 stage ")):
        return False
    return all(day.ended(day.ask(f"monitor/monitor-{site}"), 600)["type"] == "COMPLETED" for site in sent)


def _libfaketime() -> str:
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") + glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    return found[0] if found else ""


def main() -> None:
    """Play, print, and fail where something was lost or done twice."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.day_of_schedules", description="A day, disturbed.")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    faults = given.faults.split(",")
    if "clock" in faults and not _libfaketime():
        faults.remove("clock")
        print("The clock is not shifted: libfaketime is not installed (apt-get install libfaketime).", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="plumbline-day-"))
    figures = play(folder, given.minutes, faults, random.Random(given.seed))
    print(json.dumps(figures, indent=2))
    if given.out:
        write_json(given.out, figures)
    if figures["wrong"]:
        raise UserError(f"{'; '.join(figures['wrong'])}: see {folder}.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    run(main)
