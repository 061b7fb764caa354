"""The monitoring flow on a real Prefect server: each window told once, training asked for only where it could help."""

import json

import pandas as pd
import pytest
from prefect.client.orchestration import get_client

from flows import monitoring
from monitoring.store import Store
from plumbline.common.errors import UserError

pytestmark = pytest.mark.usefixtures("server")

JUDGE = """
import json, pathlib, sys
script = json.loads(pathlib.Path("script.json").read_text())
print("\\n".join(script["lines"]))
sys.exit(script["code"])
"""


def result(window, verdict, data_md5):
    return {
        "site": "GATE",
        "window": window,
        "verdict": verdict,
        "reasons": ["darker (brightness 41 against 87 to 160)"],
        "basis": "100 images of 60 independent photographs or videos",
        "counts": {"new": 100},
        "champion": {"version": 1, "data_md5": data_md5, "digest": "d"},
        "accuracy": {"value": 0.83, "low": 0.71, "high": 0.91},
        "level": 0.0025,
        "tests": [{"name": "brightness", "p": 0.0001, "adjusted": 0.001, "words": "darker"}],
        "to_label": "incoming/GATE/to_label/0001",
    }


@pytest.fixture
def site(project, monkeypatch):
    """The small project, with a judge in place of monitoring.drift that says what it is told to."""
    (project.root / "params.yaml").write_text("data: {}\ndrift: {}\n")
    (project.root / "monitoring").mkdir()
    (project.root / "monitoring" / "__init__.py").write_text("")
    (project.root / "monitoring" / "drift.py").write_text(JUDGE)
    project.events = []
    monkeypatch.setattr(monitoring, "emit_event", lambda name, **event: project.events.append((name, event)))
    project.store = Store(project.root / "drift", "GATE")

    def judges(code, lines):
        (project.root / "script.json").write_text(json.dumps({"code": code, "lines": lines}))

    project.judges = judges
    return project


def monitor():
    return monitoring.monitor.with_options(retries=0)("GATE", return_state=True)


def artifacts(state):
    with get_client(sync_client=True) as client:
        only = {"flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}}
        found = client._client.post("/artifacts/filter", json={"artifacts": only}).json()
    return {artifact["key"]: artifact["data"] for artifact in found}


def test_drift_is_told_once_and_training_asked_for_only_with_new_labels(site):
    known = next(line.split()[-1] for line in (site.root / "data.dvc").read_text().splitlines() if "md5:" in line)
    site.store.close_window("0001", pd.DataFrame({"key": ["a"]}), result("0001", "DRIFT", known))
    site.judges(1, ["GATE: DRIFT in window 0001, champion version 1 (x)"])
    state = monitor()
    assert (state.name, state.is_completed()) == ("Drift", True), state.message
    found = artifacts(state)
    assert "darker (brightness 41 against 87 to 160)" in found["drift-gate"]
    assert "label incoming/GATE/to_label/0001 first" in found["drift-gate"]
    assert "darker" in str(found["drift-gate-tests"])
    ((name, event),) = site.events
    assert (name, event["resource"]["plumbline.new-labels"]) == ("plumbline.drift", "no")
    # The window is told; a later one, by a champion of older data than there is now, asks for training.
    site.judges(2, ["GATE: NOT ENOUGH IMAGES, champion version 1 (x)"])
    assert monitor().name == "Not Enough Images"
    assert len(site.events) == 1
    site.store.close_window("0002", pd.DataFrame({"key": ["b"]}), result("0002", "DRIFT", "0000000older.dir"))
    site.judges(1, ["GATE: DRIFT in window 0002, champion version 1 (x)"])
    monitor()
    assert site.events[1][1]["resource"]["plumbline.new-labels"] == "yes"


def test_a_watched_site_completes_and_a_failure_is_no_drift(site):
    site.judges(0, ["GATE: WATCH in window 0001, champion version 1 (x)"])
    assert monitor().name == "Watch"
    site.judges(1, ["Traceback (most recent call last):", "ValueError: no"])
    state = monitor()
    assert state.is_failed()
    assert "ValueError: no" in state.message
    assert site.events == []


@pytest.mark.parametrize("name", ["../..", "", "/etc", "a\\b", "evidently"])
def test_a_name_that_leads_elsewhere_fails_at_once_and_judges_nothing(site, name, monkeypatch, capsys):
    before = sorted(site.root.rglob("*"))
    state = monitoring.monitor(name, return_state=True)  # with its own retries: none is waited for
    assert state.is_failed()
    assert "can't be a site's name" in state.message
    monkeypatch.setattr("sys.argv", ["monitoring", name])
    with pytest.raises(UserError, match="can't be a site's name"):
        monitoring.main()
    assert sorted(site.root.rglob("*")) == before


def test_prefects_pages_know_that_the_name_is_text():
    from prefect.utilities.callables import parameter_schema

    assert parameter_schema(monitoring.monitor).properties["site"]["type"] == "string"
