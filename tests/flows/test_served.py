"""`python -m flows.serve` in a clone with every room in it, as a person sees it: nothing stands in for a part.

The interpreter is started by its path, without its folder on PATH, behind a proxy that leads nowhere.
"""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from benchmarks import small_project

# Three minutes of them are the machine's own: what a schedule and a silence take. The rest is for a busy one.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SITES = {
    "NO": {"timezone": "UTC", "cron": "59 23 31 12 *"},
    "Hall #3": {"timezone": "Europe/Berlin", "cron": "* * * * *"},
}


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.5)
    return value


class Webhook(BaseHTTPRequestHandler):
    """Keeps what it is sent in the server's list."""

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.received.append(json.loads(self.rfile.read(length)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        return


class Served:
    """The project, and `flows.serve` running in it."""

    def __init__(self, root, webhook):
        self.root = root
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
        self.env = {
            **kept,
            "PATH": "/usr/bin:/bin",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
            "PLUMBLINE_NOTIFY": webhook,
            "PYTHONPATH": "",
            "DVC_NO_ANALYTICS": "1",
            "PLUMBLINE_OFFLINE": "1",
            "GIT_AUTHOR_NAME": "T",
            "GIT_AUTHOR_EMAIL": "t@example.com",
            "GIT_COMMITTER_NAME": "T",
            "GIT_COMMITTER_EMAIL": "t@example.com",
        }
        for name in ("PREFECT_API_URL", "PREFECT_HOME", "PLUMBLINE_WORKSPACE", "NO_PROXY", "no_proxy"):
            self.env.pop(name, None)
        self.log = root.parent / "serve.log"
        self.process = None

    def start(self):
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "flows.serve", "--port", str(self.port)]
            self.process = subprocess.Popen(command, cwd=self.root, env=self.env, stdout=log, stderr=log)
        before = self.text().count("Train now")
        wait_until(lambda: self.text().count("Train now") > before or self.process.poll() is not None, 180, "serve")
        assert self.process.poll() is None, self.text()[-3000:]

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def power_cut(self):
        """SIGKILL to everything that serve started, at once."""
        self.died = time.time()
        everything = [self.process.pid, *(p.pid for p in psutil.process_iter(["environ"]) if self._is_ours(p))]
        for pid in everything:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _is_ours(self, process):
        environ = process.info["environ"] or {}
        return environ.get("PLUMBLINE_WORKSPACE") == str(self.root)

    def api(self, method, path, **body):
        import httpx

        with httpx.Client(trust_env=False, timeout=30) as client:
            try:
                answer = client.request(method, f"http://127.0.0.1:{self.port}/api{path}", json=body or None)
            except httpx.HTTPError:
                return None
        if answer.status_code == 503:  # SQLite is busy
            return None
        assert answer.status_code < 400, answer.text
        return answer.json() if answer.content else None

    def ask(self, deployment, **parameters):
        """Ask for a run of a deployment; return its id."""
        found = wait_until(lambda: self.api("GET", f"/deployments/name/{deployment}"), 60, deployment)
        path = f"/deployments/{found['id']}/create_flow_run"
        return wait_until(lambda: self.api("POST", path, parameters=parameters), 60, "a run asked for")["id"]

    def state(self, run):
        found = self.api("GET", f"/flow_runs/{run}")
        return found["state"] if found else {"type": "NO ANSWER", "name": ""}

    def ended(self, run, seconds=240):
        final = ("COMPLETED", "FAILED", "CANCELLED")
        wait_until(lambda: self.state(run)["type"] in final, seconds, f"the end of a run: {self.text()[-4000:]}")
        return self.state(run)

    def runs(self, deployment):
        """Return the runs of a deployment, the oldest first."""
        only = {"deployments": {"name": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
        return self.api("POST", "/flow_runs/filter", **only) or []


@pytest.fixture(scope="module")
def webhook():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    server.received = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def served(tmp_path_factory, webhook):
    """The project with its first champion and a few pictures of a site, too few to judge; then served."""
    root = tmp_path_factory.mktemp("served") / "project"
    small_project.make(root, SITES, drift={"label_first": 8})
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
    (run, *_) = wait_until(judged, 200, f"a verdict: {served.text()[-4000:]}")
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
    wait_until(lambda: "Running stage 'train@" in served.text(), 150, "training to begin")
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

    wait_until(picked_up, 240, f"the keeper: {served.text()[-4000:]}")
    again = served.ended(killed)
    assert again["type"] == "COMPLETED", again["message"]
    # Intake asked for training, by an event: a run of its own, on the new version.
    runs = wait_until(
        lambda: [run for run in served.runs("train") if run["id"] != killed and run["state"]["type"] == "COMPLETED"],
        200,
        f"the training that intake asked for: {served.text()[-4000:]}",
    )
    version = taken["message"].split("data version ")[1][:7]
    assert any(f"data:{version}" in run["tags"] for run in [*runs, served.api("GET", f"/flow_runs/{killed}")])
    import pandas as pd

    splits = pd.read_parquet(served.root / "build" / "splits.parquet")
    assert len(splits) == 68
    assert [one["what"] for one in webhook.received].count("intake") == 1
    assert [one["what"] for one in webhook.received].count("drift") == 1
