"""The keeper against a real server: who is dead, who is not, who is picked up again."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.states import Cancelling, Completed, Crashed, Pending, Running, Scheduled

from flows import keeper

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]


@flow(name="monitor")
def monitor(site: str = "x"):
    return site


@flow(name="somebody else's")
def stranger():
    return None


def deployment(client, name, of=monitor):
    return client.create_deployment(flow_id=client.create_flow(of), name=name, entrypoint="flows.monitoring.monitor")


def begun(client, deployed, state, parameters=None):
    """Return a run of a deployment whose state is `state`."""
    run = client.create_flow_run_from_deployment(deployed, parameters=parameters or {})
    client.set_flow_run_state(run.id, state, force=True)
    return client.read_flow_run(run.id)


def test_the_silent_are_dead_and_the_others_are_not():
    with get_client(sync_client=True) as client:
        deployed = deployment(client, "monitor-a")
        running, beating = begun(client, deployed, Running()), begun(client, deployed, Running())
        pending, stopping = begun(client, deployed, Pending()), begun(client, deployed, Running())
        client.update_flow_run(stopping.id, infrastructure_pid="elsewhere:1")  # without one it is cancelled at once
        client.set_flow_run_state(stopping.id, Cancelling(), force=True)
        waiting = begun(client, deployed, Scheduled(name="AwaitingRetry"))
        other = begun(client, deployment(client, "monitor-b", stranger), Running())
        ours = {run.id for run in (running, beating, pending, stopping, waiting, other)}

        def dead(after):
            at = datetime.now(UTC) + after
            return {run.id for run in keeper.dead_runs(client, at)} & ours

        assert dead(timedelta(seconds=60)) == set(), "three signs of life may get lost"
        assert dead(timedelta(seconds=100)) == {running.id, beating.id, stopping.id}
        assert dead(timedelta(minutes=6)) == {running.id, beating.id, stopping.id, pending.id}
        back = timedelta(hours=-1)
        assert dead(back) == {running.id, beating.id, stopping.id, pending.id}, "an hour ahead: the clock was set back"
        assert keeper.signs_of_life(client, beating) == 0
        sign = datetime.now(UTC) + timedelta(seconds=60)
        emit_event(keeper.HEARTBEAT, resource={"prefect.resource.id": f"prefect.flow-run.{beating.id}"}, occurred=sign)
        for _ in range(100):
            if dead(timedelta(seconds=100)) == {running.id, stopping.id}:
                break
            time.sleep(0.2)  # the server takes an event in when it comes to it
        assert dead(timedelta(seconds=100)) == {running.id, stopping.id}
        assert beating.id in dead(back)
        assert keeper.signs_of_life(client, beating) == 1, "and one more while the keeper listens keeps it alive"


def test_one_keeper_works_and_a_dead_one_holds_nobody_up():
    with get_client(sync_client=True) as client:
        deployed = deployment(client, "keeper", flow(name="keeper")(stranger.fn))
        now = datetime.now(UTC)
        first, second = (begun(client, deployed, Running(timestamp=now + timedelta(seconds=n))) for n in (0, 1))
        assert keeper.earlier_keeper(client, str(first.id), now) is None
        assert keeper.earlier_keeper(client, str(second.id), now).id == first.id
        later = now + timedelta(seconds=100)
        assert keeper.earlier_keeper(client, str(second.id), later) is None, "the first gave no sign of life"
        assert first.id in {run.id for run in keeper.dead_runs(client, later)}


def test_a_keeper_deployed_with_a_limit_by_an_earlier_version_has_none_any_more():
    """What `prefect deploy` does with an entry of prefect.yaml that names no limit."""
    with get_client(sync_client=True) as client:
        of = client.create_flow(monitor)
        ours = {"flow_id": of, "name": "monitor-limited", "entrypoint": "flows.monitoring.monitor"}
        entries = yaml.safe_load(Path("prefect.yaml").read_text(encoding="utf-8"))["deployments"]
        assert [one["name"] for one in entries if "concurrency_limit" not in one] == ["keeper", "elsewhere"]
        limited = client.create_deployment(**ours, concurrency_limit=1)
        assert client.read_deployment(limited).global_concurrency_limit.limit == 1
        assert client.create_deployment(**ours) == limited
        assert client.read_deployment(limited).global_concurrency_limit is None


def test_what_crashed_is_picked_up_also_where_it_never_began(monkeypatch):
    """Among more runs than Prefect lists at once; one made good by a later run is left, and one of another's making."""
    monkeypatch.setattr(keeper, "PAGE", 3)
    with get_client(sync_client=True) as client:
        deployed, unkept = deployment(client, "monitor-c"), deployment(client, "hand-made")
        many = [begun(client, deployed, Completed(), {"site": str(number)}) for number in range(8)]
        never_began = begun(client, deployed, Crashed(), {"site": "first"})
        good = begun(client, deployed, Crashed(), {"site": "second"})
        begun(client, deployed, Running(), {"site": "second"})
        client.set_flow_run_state(begun(client, deployed, Running(), {"site": "second"}).id, Completed(), force=True)
        left = begun(client, unkept, Crashed(), {"site": "third"})
        lost = {run.id for run in keeper.lost_runs(client)}
        assert never_began.id in lost
        assert not lost & {good.id, left.id, *(run.id for run in many)}
