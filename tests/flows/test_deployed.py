"""Server and workers as processes of their own, deployments from prefect.yaml, runs asked for through the API."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from flows import sites
from flows.children import guarded
from flows.serve import environment

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("flows", "monitoring", "plumbline", "stages", "prefect.yaml")


def wait_until(condition, seconds=90.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)
    return value


class Stack:
    """A Prefect server in a process, and workers in theirs."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.env = {**os.environ, **environment(folder, port), "PREFECT_HOME": str(folder / "prefect")}
        self.env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        self.log = (folder / "log").open("ab")
        self.processes = []
        self.start("server", "start", "--host", "127.0.0.1", "--port", str(port))
        wait_until(lambda: self.api("GET", "/health") is True)

    def start(self, *command, **env):
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *command],
            env={**self.env, **env},
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def worker(self, pool, workspace, *options):
        return self.start("worker", "start", "--pool", pool, *options, PLUMBLINE_WORKSPACE=str(workspace))

    def api(self, method, path, **body):
        import httpx

        try:
            answer = httpx.request(method, self.env["PREFECT_API_URL"] + path, json=body or None, timeout=30)
        except httpx.HTTPError:
            return None
        if answer.status_code == 503:  # SQLite is busy
            return None
        assert answer.status_code < 400, answer.text
        return answer.json() if answer.content else None

    def deploy(self, workspace):
        for command in (["flows.setup"], ["prefect", "--no-prompt", "deploy", "--all"]):
            whole = [sys.executable, "-m", *command]
            done = subprocess.run(whole, cwd=workspace, env=self.env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        # Here only what the test asks for may run: a keeper of the schedule would take the picking up from it.
        for deployment in wait_until(lambda: self.api("POST", "/deployments/filter")):
            self.api("POST", f"/deployments/{deployment['id']}/pause_deployment")

    def run(self, deployment, **parameters):
        found = wait_until(lambda: self.api("GET", f"/deployments/name/{deployment}"))
        ask = f"/deployments/{found['id']}/create_flow_run"
        return wait_until(lambda: self.api("POST", ask, parameters=parameters))["id"]

    def type_of(self, run):
        found = self.api("GET", f"/flow_runs/{run}")
        return found["state"]["type"] if found else "NO ANSWER"

    def ended(self, run, seconds=150.0):
        def done():
            found = self.api("GET", f"/flow_runs/{run}")
            state = found["state"] if found else {"type": "NO ANSWER"}
            return state if state["type"] in ("COMPLETED", "FAILED", "CANCELLED") else None

        return wait_until(done, seconds)

    def stop(self):
        for process in reversed(self.processes):
            kill_tree(process.pid)
            process.wait()
        self.log.close()


def kill_tree(pid):
    """SIGKILL a process and everything it started, as a power cut would."""
    try:
        root = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    for process in [*root.children(recursive=True), root]:
        with_suppressed(process)


def with_suppressed(process):
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("stack"))
    yield stack
    stack.stop()


@pytest.fixture
def place(project):
    """The small project with this code in it, so that prefect.yaml's entry points are there."""
    for name in ROOMS:
        (project.root / name).symlink_to(REPOSITORY / name)
    (project.root / ".git" / "info" / "exclude").write_text("\n".join(ROOMS) + "\n")
    return project


def test_prefect_yaml_names_the_sites_of_params_yaml():
    text = (REPOSITORY / "prefect.yaml").read_text()
    listed = sites.load_sections("sites", sites.Site, REPOSITORY / "params.yaml")
    assert sites.rewritten(text, listed) == text
    entries = {entry["name"]: entry for entry in yaml.safe_load(text)["deployments"]}
    assert {f"monitor-{name}" for name in listed} == {name for name in entries if name.startswith("monitor-")}
    for name, site in listed.items():
        assert entries[f"monitor-{name}"]["schedules"][0]["timezone"] == site.timezone


@pytest.mark.slow
def test_a_deployed_run_goes_through_and_a_killed_one_is_picked_up_again(stack, place):
    stack.deploy(place.root)
    place.misbehave("train@p", "test $(wc -l < calls/train@p) -gt 1 || sleep 60.25")
    worker = stack.worker("plumbline", place.root)
    run = stack.run("training/train", side_by_side=2)
    wait_until(lambda: place.calls("train@p"))
    lock = place.root / "dvc.lock"
    wait_until(lambda: lock.exists() and all(f"train@{name}:" in lock.read_text() for name in "qr"))
    before = {name: place.calls(name) for name in ("ingest", "features@x", "features@y", "train@q", "train@r")}
    engines = [
        child for child in psutil.Process(worker.pid).children(recursive=True) if "engine" in " ".join(child.cmdline())
    ]
    sleeping = [child.pid for child in psutil.process_iter(["cmdline"]) if child.info["cmdline"] == ["sleep", "60.25"]]
    assert engines
    for engine in engines:
        with_suppressed(engine)
    wait_until(lambda: stack.type_of(run) == "CRASHED", 150)
    stack.run("keeper/keeper")
    assert stack.ended(run)["name"] == "Completed"
    assert stack.api("GET", f"/flow_runs/{run}")["run_count"] == 2
    assert {name: place.calls(name) for name in before} == before, "only what was not finished is done again"
    assert place.calls("train@p") == 2
    assert not any(psutil.pid_exists(pid) for pid in sleeping)
    # Nothing changed: the next run is over at once.
    again = stack.run("training/train")
    assert stack.ended(again)["message"] == "0 stages ran, 9 cached."
    # Cancelling ends the children too.
    (place.root / "work.sh").write_text((place.root / "work.sh").read_text() + "# again\n")
    place.misbehave("ingest", "echo $$ > ../pid; sleep 60")
    cancelled = stack.run("training/train")
    wait_until((place.root.parent / "pid").exists)
    stack.api("POST", f"/flow_runs/{cancelled}/set_state", state={"type": "CANCELLING"})
    assert stack.ended(cancelled)["type"] == "CANCELLED"
    wait_until(lambda: not psutil.pid_exists(int((place.root.parent / "pid").read_text())), 20)
    kill_tree(worker.pid)


@pytest.mark.slow
def test_candidates_train_on_two_other_machines_that_share_only_the_remote(stack, place):
    stack.deploy(place.root)
    workers = []
    others = [place.root.parent / name for name in ("second", "third")]
    for other in others:
        subprocess.run(["git", "clone", "-q", str(place.root), str(other)], check=True)
        (other / "misbehave").mkdir()
        for name in "pqr":
            (other / "misbehave" / f"train@{name}").write_text("sleep 4")
        for name in ROOMS:
            (other / name).symlink_to(REPOSITORY / name)
        workers.append(stack.worker("plumbline-elsewhere", other, "--limit", "1"))
    # Not in the clones' history: it reaches them as text through Prefect, and the data through the remote.
    text = (place.root / "dvc.yaml").read_text()
    (place.root / "dvc.yaml").write_text(text.replace("{p: x, q: y, r: y}", "{p: x, q: y, r: x}"))
    place.misbehave("train@p", "echo 'error: trained at home'; exit 1")
    workers.append(stack.worker("plumbline", place.root))
    run = stack.run("training/train", side_by_side=2, elsewhere=["train@*"])
    state = stack.ended(run, 240)
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state["message"]
    trained = {
        other.name: sum(path.name.startswith("train@") for path in (other / "calls").iterdir()) for other in others
    }
    assert sum(trained.values()) == 3
    assert min(trained.values()) >= 1
    assert not any(place.calls(f"train@{name}") for name in "pqr")
    assert (place.root / "build" / "candidates" / "r" / "score").read_text().startswith("x\n")
    assert place.dvc("status").strip() == "Data and pipelines are up to date."
    # A machine with other code says so instead of handing in something else.
    (others[0] / "work.sh").write_text("echo old code\n")
    shutil.copy(others[0] / "work.sh", others[1] / "work.sh")
    (place.root / "work.sh").write_text((place.root / "work.sh").read_text() + "# newer\n")
    state = stack.ended(stack.run("training/train", elsewhere=["train@*"]), 240)
    assert state["type"] == "FAILED"
    assert "holds another version of work.sh" in state["message"]
    for worker in workers:
        kill_tree(worker.pid)


@pytest.mark.slow
def test_serving_ends_with_everything_it_started(place, tmp_path):
    with guarded() as children:
        lines = []
        env = {"PREFECT_HOME": str(tmp_path / "home"), "PLUMBLINE_WORKSPACE": str(place.root)}

        def on_line(line):
            lines.append(line)
            if "worker |" in line and "started!" in line:
                os.kill(next(iter(children._alive)), signal.SIGTERM)

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        code = children.run([sys.executable, "-m", "flows.serve", "--port", str(port)], place.root, on_line, env)
    assert (code, lines[-1]) == (0, "Stopped.")
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(port) in (p.info["cmdline"] or [])]
