"""The training flow on a real Prefect server and a real Git and DVC project."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterTaskRunId
from prefect.client.schemas.sorting import LogSort, TaskRunSort

from flows import workspace
from flows.training import main, training
from plumbline.common import interrupted

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]

STAGES = ["data.dvc", "ingest", "features@x", "features@y", "train@p", "train@q", "train@r", "evaluate", "gate"]


def run(**parameters):
    return training(retry_seconds=0.1, return_state=True, **parameters)


def flow_run(state):
    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id)


def task_runs(state):
    with get_client(sync_client=True) as client:
        only = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        for _ in range(50):
            runs = client.read_task_runs(flow_run_filter=only, sort=TaskRunSort.END_TIME_DESC, limit=200)
            # The server learns of the last task states a moment after the flow's own.
            if runs and all(found.state and (found.state.is_final() or found.state.is_pending()) for found in runs):
                break
            time.sleep(0.2)
        return {found.name: found for found in runs}


def endings(state):
    return {name: found.state.name for name, found in task_runs(state).items()}


def artifacts(state):
    with get_client(sync_client=True) as client:
        # The client's own read_artifacts sends nulls that the server refuses.
        only = {"flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}}
        found = client._client.post("/artifacts/filter", json={"artifacts": only}).json()
    return {artifact["key"]: artifact["data"] for artifact in found}


def logged(state, name, until):
    """The log of the task run `name`, once it holds the line `until`: lines arrive a moment after they were said."""
    only = LogFilter(task_run_id=LogFilterTaskRunId(any_=[task_runs(state)[name].id]))
    with get_client(sync_client=True) as client:
        for _ in range(50):
            lines = [log.message for log in client.read_logs(log_filter=only, limit=200, sort=LogSort.TIMESTAMP_ASC)]
            if until in lines:
                break
            time.sleep(0.2)
    return lines


def test_every_stage_becomes_a_task_with_its_true_dependencies(project):
    state = run()
    assert state.is_completed(), state.message
    runs = task_runs(state)
    ran = {name: "Completed" for name in STAGES if name != "data.dvc"}
    assert endings(state) == ran | {"up to date: data.dvc": "Cached"}
    names = {found.id: name for name, found in runs.items()}
    edges = {
        (name, names[entry.id])
        for name, found in runs.items()
        for entries in found.task_inputs.values()
        for entry in entries
        if getattr(entry, "id", None) in names
    }
    assert ("train@p", "features@x") in edges
    assert ("evaluate", "train@r") in edges
    assert ("ingest", "up to date: data.dvc") in edges
    assert ("train@p", "features@y") not in edges
    assert project.dvc("status").strip() == "Data and pipelines are up to date."
    version = (project.root / "data.dvc").read_text().split("md5: ")[1][:7]
    commit = project.git("rev-parse", "--short=7", "HEAD").strip()
    assert flow_run(state).name == f"training data {version} commit {commit}"
    assert {f"data:{version}", f"commit:{commit}"} <= set(flow_run(state).tags)
    found = artifacts(state)
    assert float(found["training"]) == 100.0
    assert found["decision"].startswith("# PROMOTE: p")


def test_nothing_to_do_is_cached_and_a_change_runs_only_what_it_touches(built):
    project = built
    second = run()
    assert endings(second) == {"up to date: 9 stages": "Cached"}
    assert second.message == "0 stages ran, 9 cached."
    which = ["data.dvc", "ingest", "features: x, y", "train: p, q, r", "evaluate", "gate"]
    assert logged(second, "up to date: 9 stages", "gate")[: len(which)] == which
    text = (project.root / "dvc.yaml").read_text()
    (project.root / "dvc.yaml").write_text(
        text.replace("r: y", "r: x")
        + "  card: {cmd: cp build/decision.json build/card, deps: [build/decision.json], outs: [build/card]}\n"
    )
    third = endings(run())
    ran = {name for name, ending in third.items() if ending != "Cached"}
    assert ran == {"train@r", "evaluate", "gate", "card"}
    assert third.keys() - ran == {"up to date: 6 stages"}
    assert project.calls("ingest") == project.calls("train@p") == 1


def test_an_unchanged_result_stops_the_work_there(built):
    project = built
    path = project.root / "dvc.yaml"
    path.write_text(
        path.read_text().replace(
            "    cmd: sh work.sh ingest\n", "    cmd: sh work.sh ingest\n    always_changed: true\n"
        )
    )
    ended = endings(run())
    assert {name for name, ending in ended.items() if ending != "Cached"} == {"ingest"}
    assert ended.keys() - {"ingest"} == {"up to date: data.dvc", "up to date: 7 stages"}


def test_a_failed_candidate_fails_itself_and_the_others_go_on(built):
    project = built
    before = (project.root / "build" / "leaderboard").read_text()
    (project.root / "work.sh").write_text((project.root / "work.sh").read_text() + "# another version\n")
    project.misbehave("train@q", "echo 'error: q is not a number: lower its learning rate.'; exit 1")
    state = run()
    assert (state.type.value, state.name) == ("COMPLETED", "Partly")
    assert "train@q: q is not a number: lower its learning rate." in state.message
    ended = endings(state)
    assert (ended["train@q"], ended["train@r"], ended["gate"]) == ("Failed", "Completed", "Completed")
    assert project.calls("train@q") == 2, "bad data is not tried again"
    # q's result of the version before must not be taken for one of this version.
    assert (project.root / "build" / "leaderboard").read_text() != before
    assert not (project.root / "build" / "candidates" / "q").exists()


def test_what_needs_a_failed_stage_does_not_run(project):
    project.misbehave("features@y", "exit 1")
    state = run()
    ended = endings(state)
    assert state.name == "Partly"
    assert (ended["features@y"], ended["train@q"], ended["train@r"]) == ("Failed", "NotReady", "NotReady")
    assert (ended["train@p"], ended["evaluate"]) == ("Completed", "Completed")
    assert "Not run: train@q, train@r" in state.message


def test_stages_fail_by_name_where_dvc_can_no_longer_be_asked(project):
    project.misbehave("ingest", "echo 'stages: [' > dvc.yaml")
    state = run()
    ended = endings(state)
    assert (ended["ingest"], ended["features@x"], ended["gate"]) == ("Completed", "Failed", "NotReady")
    assert "features@x: ended with exit code 255" in state.message


def test_without_any_candidate_the_run_fails(project):
    project.misbehave("ingest", "echo 'error: data/ is empty: put pictures there.'; exit 1")
    state = run()
    assert state.is_failed()
    assert "ingest: data/ is empty: put pictures there." in state.message
    assert endings(state)["evaluate"] == "NotReady"


def test_what_can_pass_is_tried_again(built):
    project = built
    project.change("ingest")
    project.misbehave("ingest", "test $(wc -l < calls/ingest) -gt 3 || { echo 'ConnectionError: no route'; exit 1; }")
    state = run()
    assert state.is_completed()
    assert project.calls("ingest") == 1 + 3
    assert task_runs(state)["ingest"].run_count == 3


def test_a_refusal_is_a_result(built, monkeypatch):
    built.change("gate")
    monkeypatch.setenv("VERDICT", "REJECT")
    state = run()
    assert (state.type.value, state.name) == ("COMPLETED", "Completed")
    assert artifacts(state)["decision"].startswith("# REJECT: p")


KILLED_AFTER_THE_GATE = """
import os, signal
from flows import training
training.report.publish_results = lambda root: os.kill(os.getpid(), signal.SIGKILL)
training.training()
"""


def test_a_decision_is_told_once_though_the_run_that_made_it_was_killed(project, messages):
    from prefect.settings import PREFECT_API_URL

    env = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()}
    command = [sys.executable, "-c", KILLED_AFTER_THE_GATE]
    killed = subprocess.run(command, env=env, cwd=project.root, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert messages == []
    assert endings(run()) == {"up to date: 9 stages": "Cached"}
    assert [(one["what"], one["subject"]) for one in messages] == [("promotion", "PROMOTE: p")]
    assert run().is_completed()
    assert len(messages) == 1


def test_candidates_run_side_by_side_up_to_the_limit(built):
    """With a limit of two each waits for another to begin; with one they would overlap if they could."""
    project = built
    trace = project.root.parent / "trace"

    def most(limit, script):
        trace.unlink(missing_ok=True)
        project.change("train")
        for name in "pqr":
            project.misbehave(f"train@{name}", f"echo in >> ../trace; {script}; echo out >> ../trace")
        run(side_by_side=limit)
        inside = highest = 0
        for word in trace.read_text().split():
            inside += 1 if word == "in" else -1
            highest = max(highest, inside)
        return highest

    wait = "n=0; while [ $(grep -c in ../trace) -lt 2 ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done"
    assert most(2, wait) == 2
    assert most(1, "sleep 0.5") == 1


def test_a_limit_under_one_is_refused_before_anything_begins(built, capsys, monkeypatch):
    """By whoever asks: a deployment's form, the API, the command line."""
    from prefect.utilities.callables import parameter_schema

    assert parameter_schema(training).properties["side_by_side"]["exclusiveMinimum"] == 0
    state = training(side_by_side=0, return_state=True)
    assert state.is_failed()
    assert "side_by_side" in state.message
    monkeypatch.setattr(sys, "argv", ["training", "--side-by-side", "0"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--side-by-side: 1 or more" in capsys.readouterr().err


def test_output_is_streamed_and_bars_become_progress(built):
    project = built
    project.change("train")
    project.misbehave("train@p", r"printf 'hello from p\n 40%%|####  | 4/10\n'; sleep 2")
    state = run()
    assert "hello from p" in logged(state, "train@p", "hello from p")
    assert float(artifacts(state)["progress-train-p"]) == 100.0


def test_missing_data_is_pulled(project):
    import shutil

    shutil.rmtree(project.root / "data")
    shutil.rmtree(project.root / ".dvc" / "cache")
    state = run()
    assert state.is_completed(), state.message
    assert endings(state)["data.dvc"] == "Completed"


def test_one_run_at_a_time(built):
    project = built
    project.change("ingest")
    script = "echo in >> ../trace; sleep 2; echo out >> ../trace"
    project.misbehave("ingest", script)
    states = []
    threads = [threading.Thread(target=lambda: states.append(run())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(state.is_completed() for state in states)
    assert (project.root.parent / "trace").read_text().split() == ["in", "out"]
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name(workspace.identity(project.root))
    assert (limit.limit, limit.active_slots) == (1, 0)


def test_the_slot_of_a_dead_run_holds_nobody_up(built):
    project = built
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(workspace.identity(project.root), 1)
        client.increment_concurrency_slots_with_lease([workspace.identity(project.root)], 1, "concurrency", 60)
    started = time.monotonic()
    assert run().is_completed()
    assert time.monotonic() - started < 40


@pytest.mark.parametrize("text", ["", "{", '{"read": {}, "write": {"'])
def test_a_torn_lock_table_is_removed(project, text):
    path = project.root / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    said = []
    workspace.mend(project.root, said.append)
    project.dvc("repro", "-q", "-s", "ingest")


def test_a_lock_of_a_reused_process_number_is_dropped(project):
    entry = {"pid": os.getppid(), "cmd": "dvc repro"}
    path = project.root / ".dvc" / "tmp" / "rwlock"
    path.write_text(json.dumps({"read": {}, "write": {str(project.root / "build" / "manifest"): entry}}))
    if "dvc" in " ".join(__import__("psutil").Process(os.getppid()).cmdline()):
        pytest.skip("the parent process has dvc in its command line")
    workspace.mend(project.root, lambda _: None)
    assert json.loads(path.read_text())["write"] == {}


def test_a_torn_dvc_lock_is_put_back(built):
    project = built
    interrupted.keep(project.root)
    whole = (project.root / "dvc.lock").read_bytes()
    said = []
    for cut in range(0, len(whole), 37):
        (project.root / "dvc.lock").write_bytes(whole[:cut])
        workspace.mend(project.root, said.append)
        interrupted.keep(project.root)
        project_lock = (project.root / "dvc.lock").read_bytes()
        assert project_lock == whole or whole.startswith(project_lock)
        (project.root / "dvc.lock").write_bytes(whole)
        interrupted.keep(project.root)
    assert said


def test_a_pipeline_in_a_folder_below_is_trained_there(project, monkeypatch):
    inner = project.root / "inner"
    inner.mkdir()
    judge = "judge: {cmd: cp a build/detection_decision.json, deps: [a], outs: [build/detection_decision.json]}"
    (inner / "dvc.yaml").write_text(f"stages: {{a: {{cmd: 'mkdir -p build; echo {{}} > a', outs: [a]}}, {judge}}}\n")
    monkeypatch.chdir(inner)
    assert endings(run()) == {"a": "Completed", "judge": "Completed"}
    assert endings(run()) == {"up to date: 2 stages": "Cached"}
    assert (project.calls("ingest"), (inner / ".dvc").exists()) == (0, False)
    assert "other machines know the pipeline at the project's top only" in run(elsewhere=["a"]).message
