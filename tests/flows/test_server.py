"""The server that PREFECT_API_URL names: shown without its password, and missed in one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server import check_server, run_flow, server_url
from plumbline.common.errors import UserError

pytestmark = pytest.mark.slow

DEAD = "http://user:secret@127.0.0.1:9/api"


def test_the_address_is_shown_without_its_password():
    with temporary_settings({PREFECT_API_URL: DEAD}):
        assert server_url() == "http://127.0.0.1:9/api"
    with temporary_settings({PREFECT_API_URL: None}):
        assert server_url() == ""


def test_a_server_that_is_away_is_missed_before_the_flow_begins():
    def never(*_, **__):
        raise AssertionError("the flow began")

    with temporary_settings({PREFECT_API_URL: DEAD}):
        with pytest.raises(UserError) as error:
            check_server()
        with pytest.raises(UserError, match="no Prefect server can be used there"):
            run_flow(never)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "setting",
    ["PREFECT_API_URL=http://[::1", "PREFECT_API_REQUEST_TIMEOUT=soon", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY=x"],
)
def test_settings_that_prefect_can_not_read_are_a_sentence(setting):
    name, value = setting.split("=")
    done = subprocess.run(
        [sys.executable, "-m", "flows.monitoring", "NORTH"],
        cwd=Path(__file__).parents[2], env={**os.environ, name: value}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: Prefect can't read its settings (")
    assert f"correct or unset {name} or its profile" in done.stderr
    assert "Traceback" not in done.stderr


NOBODY = """
import pwd, runpy, sys
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
sys.argv = ["flows.training", "--help"]
runpy.run_module("flows.training", run_name="__main__")
"""


def test_a_user_id_that_the_system_does_not_know_can_start_a_flow():
    env = {key: value for key, value in os.environ.items() if key not in ("HOME", "USER", "LOGNAME", "LNAME")}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", NOBODY], cwd=root, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.usefixtures("server")
def test_a_server_that_is_lost_during_the_run_is_a_sentence():
    import httpx

    def lost(site, return_state):
        raise httpx.ConnectError("connection refused")

    with pytest.raises(UserError, match=r"was lost during the run \(connection refused\): see to the server"):
        run_flow(lost, "GATE")


@pytest.mark.usefixtures("server")
def test_the_flows_final_state_comes_back():
    from prefect import flow
    from prefect.states import Completed

    @flow(persist_result=False)
    def judge(site):
        return Completed(name="Ok", message=f"{site} is fine")

    state = run_flow(judge, "GATE")
    assert (state.name, state.message) == ("Ok", "GATE is fine")
