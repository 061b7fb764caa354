"""The monitoring flow on a real Prefect server, a real registry and the real judge: each window told once."""

import resource
import shutil
import time

import pytest
from prefect.client.orchestration import get_client

from flows import monitoring
from monitoring.site_state import SiteState
from plumbline.common.errors import UserError
from plumbline.common.files import write_json
from plumbline.registry import bundle
from tests.monitoring import made_up

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]


@pytest.fixture(scope="module")
def champion(template, tmp_path_factory):
    """A registry with a champion made of the data that the small project holds; copied, never changed."""
    folder = tmp_path_factory.mktemp("champion")
    lines = (template / "project" / "data.dvc").read_text().splitlines()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        promote(folder / "first", next(line.split()[-1] for line in lines if "md5:" in line))
    return folder / "registry"


@pytest.fixture
def site(project, champion):
    """The small project with that champion, and a site."""
    (project.root / "params.yaml").write_text(made_up.PARAMS)
    shutil.copytree(champion, project.root / "registry")
    return made_up.Site(project.root)


def promote(folder, data_md5, first_seed=0):
    made_up.write_version(folder, first_seed)
    write_json(folder / bundle.HOME / "provenance.json", {"data_md5": data_md5})
    made_up.promote(folder)


def monitor(site="GATE"):
    return monitoring.monitor.with_options(retries=0)(site, return_state=True)


def artifacts(state):
    with get_client(sync_client=True) as client:
        only = {"flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}}
        found = client._client.post("/artifacts/filter", json={"artifacts": only}).json()
    return {artifact["key"]: artifact["data"] for artifact in found}


def events(site, at_least=0):
    """Return the drift events of a site on the server, the newest first, once there are so many."""
    only = {"event": {"name": ["plumbline.drift"]}, "resource": {"id": [f"plumbline.site.{site}"]}}
    deadline = time.monotonic() + 30
    while True:
        with get_client(sync_client=True) as client:
            found = client._client.post("/events/filter", json={"filter": only, "limit": 50}).json()["events"]
        if len(found) >= at_least:
            return found
        assert time.monotonic() < deadline, "the event did not arrive"
        time.sleep(0.3)


def test_drift_is_told_once_and_training_asked_for_only_with_new_labels(site, messages, tmp_path):
    site.send_many("GATE", 1000, 120, dark=0.4)
    state = monitor()
    assert (state.name, state.is_completed()) == ("Drift", True), state.message
    assert state.message == "GATE: DRIFT in window 0001, champion version 1 (halves)"
    found = artifacts(state)
    assert "darker" in found["drift-gate"]
    assert "label incoming/GATE/to_label/0001 first" in found["drift-gate"]
    assert "darker" in str(found["drift-gate-tests"])
    (event,) = events("GATE", 1)
    assert event["resource"]["plumbline.new-labels"] == "no"
    assert [(one["what"], one["subject"], one["id"]) for one in messages] == [("drift", "Drift at GATE", event["id"])]
    # Nothing new: nothing is told again.
    assert monitor().name == "Not Enough Images"
    assert (len(messages), len(events("GATE"))) == (1, 1)
    # Killed after the message, before that was noted: it comes again, and is known by its id.
    (site.root / "drift" / "GATE" / "announced.json").unlink()
    monitor()
    assert [one["id"] for one in messages] == [event["id"]] * 2
    time.sleep(1)
    assert len(events("GATE")) == 1
    # A later window, by a champion of older data than there is now, asks for training.
    promote(tmp_path / "second", "0000000older.dir", first_seed=500)
    site.send_many("GATE", 2000, 120, dark=0.4)
    assert monitor().name == "Drift"
    assert events("GATE", 2)[0]["resource"]["plumbline.new-labels"] == "yes"
    assert len(messages) == 3


def test_drift_is_told_where_a_full_disk_stops_the_drawing(site, messages):
    """Evidently's page has 4 MB; the flow's children may write files of 2, as on a disk that is nearly full."""
    site.send_many("YARD", 1000, 120, dark=0.4)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        state = monitor("YARD")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (state.name, state.is_completed()) == ("Drift", True), state.message
    assert state.message.startswith(
        "YARD: DRIFT in window 0001, champion version 1 (halves). Its pages were not drawn: "
    )
    assert "reports/drift/YARD/0001.html can't be written (File too large)" in state.message
    assert artifacts(state)["drift-yard"].startswith("# YARD: DRIFT")
    assert len(events("YARD", 1)) == 1
    assert [one["subject"] for one in messages] == ["Drift at YARD"]
    page = site.root / "reports" / "drift" / "YARD" / "0001.html"
    assert not page.exists()
    assert monitor("YARD").message.startswith("YARD: NOT ENOUGH IMAGES")
    assert page.is_file(), "the next run draws it"
    assert len(messages) == 1


def test_each_window_is_noted_when_it_is_told(site):
    """Two windows wait to be told and the run dies between them: the first is not told again."""
    store = SiteState(site.root / "drift", "GATE")
    for window in ("0001", "0002", "0003"):
        (site.root / "drift" / "GATE" / "windows" / window).mkdir(parents=True)
        write_json(site.root / "drift" / "GATE" / "windows" / window / "result.json", {})
    store.announced(["0002"])
    assert store.unannounced() == ["0001", "0003"]
    store.announced(["0001"])
    assert store.unannounced() == ["0003"]


@pytest.mark.parametrize("name", ["007", "-x", "North gate"])
def test_a_site_of_any_name_is_data_for_the_judge(site, name):
    site.send_many(name, 1000, 3)
    state = monitor(name)
    assert (state.name, state.is_completed()) == ("Not Enough Images", True), state.message
    assert state.message.startswith(f"{name}: NOT ENOUGH IMAGES")


def test_a_failure_is_no_verdict(site, messages):
    state = monitor("NOBODY")
    assert state.is_failed()
    assert "NOBODY: incoming/NOBODY is missing" in state.message
    site.send_many("GATE", 1000, 120, dark=0.4)
    (site.root / "drift").mkdir(exist_ok=True)
    (site.root / "drift" / "GATE").write_text("in the way")
    assert monitor().is_failed()
    assert messages == []


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
