"""`python -m flows.serve` in a clone with every room in it, as a person sees it: nothing stands in for a part.

The interpreter is started by its path, without its folder on PATH, behind a proxy that leads nowhere.
"""

import csv
import os
import subprocess
import sys
import time

import pytest

from benchmarks import small_project
from benchmarks.served import Served, listening, wait_until

# Three minutes of them are the machine's own: what a schedule and a silence take. The rest is for a busy one.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SITES = {
    "NO": {"timezone": "UTC", "cron": "59 23 31 12 *"},
    "Hall #3": {"timezone": "Europe/Berlin", "cron": "* * * * *"},
}


@pytest.fixture(scope="module")
def webhook():
    with listening() as server:
        yield server


@pytest.fixture(scope="module")
def served(tmp_path_factory, webhook):
    """The project with its first champion and a few pictures of a site, too few to judge; then served."""
    root = tmp_path_factory.mktemp("served") / "project"
    small_project.make(root, SITES, drift={"label_first": 5, "label_random": 3})
    served = Served(root, f"http://127.0.0.1:{webhook.server_address[1]}/")
    small_project.send(root / "incoming" / "Hall #3", 1000, 3, dark=0.4)
    own = os.pathsep.join([os.path.dirname(sys.executable), served.env["PATH"]])
    command = [sys.executable, "-m", "dvc", "repro", "--quiet"]
    done = subprocess.run(
        command, cwd=root, env={**served.env, "PATH": own}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for command in (["add", "-A"], ["commit", "-q", "-m", "the first champion"]):
        subprocess.run(["git", *command], cwd=root, env=served.env, check=True)
    try:
        served.start()
        yield served
    finally:
        served.power_cut()


def test_a_schedule_fires_by_itself_and_drift_is_told(served, webhook):
    small_project.send(served.root / "incoming" / "Hall #3", 1003, 40, dark=0.4)

    def judged():
        return [run for run in served.runs("monitor-Hall #3") if run["state"]["name"] == "Drift"]

    started = time.monotonic()
    wait_until(lambda: served.runs("monitor-Hall #3"), 60, f"a scheduled run: {served.text()[-2000:]}")
    (run, *_) = wait_until(judged, 400, f"a verdict: {served.text()[-4000:]}")
    print(f"drift after {time.monotonic() - started:.0f} s")
    assert run["auto_scheduled"]
    assert run["state"]["message"].startswith("Hall #3: DRIFT in window 0001, champion version 1 (")
    only = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    artifacts = {found["key"]: found["data"] for found in served.api("POST", "/artifacts/filter", **only)}
    assert artifacts["drift-hall-3"].startswith("# Hall #3: DRIFT")
    assert "label incoming/Hall #3/to_label/0001 first" in artifacts["drift-hall-3"]
    assert artifacts["drift-hall-3-tests"]
    events = {"filter": {"event": {"name": ["plumbline.drift"]}}, "limit": 50}
    (event,) = wait_until(lambda: (served.api("POST", "/events/filter", **events) or {}).get("events"), 60, "an event")
    assert event["resource"]["prefect.resource.id"] == "plumbline.site.Hall #3"
    assert event["resource"]["plumbline.new-labels"] == "no"
    (message,) = [one for one in webhook.received if one["what"] == "drift"]
    assert message["subject"] == "Drift at Hall #3"
    assert message["id"] == event["id"]
    page = (served.root / "reports" / "drift" / "index.html").read_text()
    assert "Hall #3" in page
    assert "DRIFT" in page
    assert (served.root / "reports" / "drift" / "Hall #3" / "0001.html").stat().st_size > 10_000


def test_a_run_whose_machine_died_is_picked_up_and_a_batch_is_trained_on(served, webhook):
    """A power cut in the middle of training; after it, the labelled images of the drifted window are taken in."""
    params = served.root / "params.yaml"
    params.write_text(params.read_text().replace("seed: 0\n  folds", "seed: 1\n  folds"))
    killed = served.ask("training/train", side_by_side=1)
    wait_until(lambda: "Running stage 'train@" in served.text(), 400, "training to begin")
    served.power_cut()
    assert served.root.joinpath("build/decision.json").is_file()
    served.start()
    assert served.state(killed)["type"] == "RUNNING"

    window = served.root / "incoming" / "Hall #3" / "to_label" / "0001"
    with (window / "labels.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 8
    with (window / "labels.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "label": small_project.CLASSES[int(row["path"].split("-")[0]) % 2]} for row in rows)
    subprocess.run(["git", "commit", "-qam", "another seed"], cwd=served.root, env=served.env, check=True)
    taken = served.ended(served.ask("intake/intake", batch="incoming/Hall #3/to_label/0001"))
    assert taken["type"] == "COMPLETED", taken["message"]
    assert taken["message"].startswith("8 pictures added as data version ")

    def dead():
        lost = served.api("GET", f"/flow_runs/{killed}")
        return lost and lost["start_time"] and time.time() > served.died + 100

    wait_until(dead, 120, "the silence of the killed run")
    # The keeper comes by itself every five minutes; asked for here, it is refused while another is at work.
    asked = 0

    def picked_up():
        nonlocal asked
        found = served.api("GET", f"/flow_runs/{killed}")
        if found and found["run_count"] == 2:
            return True
        if time.monotonic() > asked + 60:
            served.ask("keeper/keeper")
            asked = time.monotonic()
        return False

    wait_until(picked_up, 400, f"the keeper: {served.text()[-4000:]}")
    again = served.ended(killed)
    assert again["type"] == "COMPLETED", again["message"]
    # Intake asked for training, by an event: a run of its own, on the new version.
    runs = wait_until(
        lambda: [run for run in served.runs("train") if run["id"] != killed and run["state"]["type"] == "COMPLETED"],
        600,
        f"the training that intake asked for: {served.text()[-4000:]}",
    )
    version = taken["message"].split("data version ")[1][:7]
    assert any(f"data:{version}" in run["tags"] for run in [*runs, served.api("GET", f"/flow_runs/{killed}")])
    import pandas as pd

    splits = pd.read_parquet(served.root / "build" / "splits.parquet")
    assert len(splits) == 68
    assert [one["what"] for one in webhook.received].count("intake") == 1
    # The new champion may judge a window of its own: each window is told once.
    told = [one["id"] for one in webhook.received if one["what"] == "drift"]
    assert len(told) == len(set(told)) >= 1
