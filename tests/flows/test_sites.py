"""Site names of any kind reach Prefect as they are written in params.yaml."""

from pathlib import Path

import pytest
import yaml

from flows import monitoring, sites
from flows.sites import Site
from plumbline.common.errors import UserError
from plumbline.common.params import load_sections

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = [
    "NO",
    "007",
    "Hall #3",
    "North: gate",
    "y",
    "null",
    "~",
    "1e3",
    "2026-01-01",
    "- a",
    "'x'",
    'a "b"',
    "Tür 北 😀",
]


def test_names_are_read_back_as_they_are():
    listed = {name: Site(timezone="Europe/Berlin", cron="*/5 * * * *") for name in NAMES}
    text = sites.rewritten((REPOSITORY / "prefect.yaml").read_text(), listed)
    entries = [entry for entry in yaml.safe_load(text)["deployments"] if entry["name"].startswith("monitor-")]
    assert [entry["name"] for entry in entries] == [f"monitor-{name}" for name in NAMES]
    assert [entry["parameters"] for entry in entries] == [{"site": name} for name in NAMES]
    assert {entry["schedules"][0]["cron"] for entry in entries} == {"*/5 * * * *"}
    assert sites.rewritten(text, listed) == text


def test_names_that_prefect_refuses_get_a_deployment_all_the_same():
    names = ["R&D", "R-D", "R%D", "50% <hall>"]
    listed = {name: Site(timezone="UTC") for name in names}
    text = sites.rewritten((REPOSITORY / "prefect.yaml").read_text(), listed)
    entries = [entry for entry in yaml.safe_load(text)["deployments"] if "site" in (entry.get("parameters") or {})]
    known = {entry["name"]: entry["parameters"]["site"] for entry in entries}
    assert list(known.values()) == names
    assert len(known) == len(names)
    assert "monitor-R-D" in known
    assert all(name.startswith("monitor-") and not set(name) & set("/%&<>") for name in known)


def test_artifacts_of_two_sites_are_never_under_one_key():
    names = ["Hall #3", "Hall 3", "門", "北", "GATE"]
    keys = [monitoring.key_of(name, names) for name in names]
    assert len(set(keys)) == len(names)
    assert keys[-1] == "drift-gate"
    assert monitoring.key_of("Hall #3", ["Hall #3", "GATE"]) == "drift-hall-3"


@pytest.mark.parametrize(("key", "read"), [("NO", "False"), ("007", "7"), ("1.5", "1.5"), ("2026-01-01", "datetime")])
def test_a_name_that_yaml_takes_for_something_else_is_refused(tmp_path, key, read):
    (tmp_path / "params.yaml").write_text(f"sites:\n  {key}: {{timezone: UTC}}\n")
    with pytest.raises(UserError, match=f"sites: YAML reads .*{read}.* write the name in quotes"):
        load_sections("sites", Site, tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text(f'sites:\n  "{key}": {{timezone: UTC}}\n')
    assert list(load_sections("sites", Site, tmp_path / "params.yaml")) == [key]


def test_every_entry_point_is_a_module():
    """Of a file, Prefect makes a module by its bare name: flows/monitoring.py would hide the package `monitoring`."""
    from prefect.flows import Flow, load_flow_from_entrypoint

    entries = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    for entry in entries:
        assert ":" not in entry["entrypoint"]
        assert isinstance(load_flow_from_entrypoint(entry["entrypoint"]), Flow)
