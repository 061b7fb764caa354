"""The keeper flow: a run whose process or machine died is started again, as the same run, by any worker of the pool.

A run that a worker has taken and that shows no sign of life is marked as crashed. The server is asked every time: an
automation forgets the runs it watched when it is created again, and never hears of one whose worker died before it
began.

Its deployment has no concurrency limit, unlike the others: a dead run keeps its slot until the keeper finds it (the
slot's lease may end an hour late, where the clock was set back), so a keeper that waited for the slot of a dead keeper
would never run again. It looks itself whether another keeper is at work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Crashed, Scheduled

from flows.server import run_flow
from plumbline.common.errors import run

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

MOST_RESTARTS = 10  # after so many deaths a run is left to people
OLDEST = timedelta(days=1)
SILENCE = timedelta(seconds=90)  # a run says it is alive every 30 s (flows/__init__.py); three in a row may get lost
LISTEN = 40.0  # seconds in which a living run reports once more
START = timedelta(minutes=5)  # from a worker's taking a run to its first line, on a busy machine
# Not `elsewhere`: the run that requested such a stage requests it again itself.
FLOWS = ("training", "intake", "monitor", "keeper", "stage")
KEPT = ("train", "intake", "monitor-")
PAGE = 200  # the most that Prefect lists at once
HEARTBEAT = "prefect.flow-run.heartbeat"


@flow(name="keeper", persist_result=False)
def keeper() -> State[Any]:
    """Mark dead runs as crashed, then reschedule runs that crashed in the last day and were not superseded."""
    logger = get_run_logger()
    with get_client(sync_client=True) as client:
        earlier = earlier_keeper(client, flow_run.id, datetime.now(UTC))
        if earlier:
            return Completed(message=f"Left to {earlier.name}, which began earlier and is at work.")
        silent = dead_runs(client, datetime.now(UTC))
        if silent:  # the clock may have been changed, or the server be late: listen for another sign
            logger.info("Silent: %s.", ", ".join(run.name for run in silent))
            heard = {run.id: signs_of_life(client, run) for run in silent}
            time.sleep(LISTEN)
            still = {run.id for run in dead_runs(client, datetime.now(UTC))}
            silent = [run for run in silent if run.id in still and signs_of_life(client, run) == heard[run.id]]
        for dead in silent:
            end = Cancelled if dead.state_type is not None and dead.state_type.value == "CANCELLING" else Crashed
            client.set_flow_run_state(dead.id, end(message="No sign of life: its process or machine died."))
            logger.warning("%s shows no sign of life.", dead.name)
        again = lost_runs(client)
        for lost in again:
            client.set_flow_run_state(lost.id, Scheduled(name="AwaitingRetry", message="Its process died."))
            logger.warning("%s is picked up again, for the %d. time.", lost.name, max(lost.run_count, 1))
    return Completed(message=f"{len(again)} {'run' if len(again) == 1 else 'runs'} picked up again.")


def earlier_keeper(client: SyncPrefectClient, own: str | None, now: datetime) -> FlowRun | None:
    """Return a living keeper that began before the run `own`; None where it is this one's turn."""
    running = _runs(client, ["RUNNING"], of=("keeper",))
    mine = [_beginning(run) for run in running if str(run.id) == own]
    return next((run for run in running if mine and _beginning(run) < mine[0] and _is_alive(client, run, now)), None)


def _beginning(run: FlowRun) -> tuple[datetime, str]:
    """Return when a run began to run, and its id, which decides between two that began at once."""
    assert run.state is not None, "a run that is listed as running has a state"
    return run.state.timestamp, str(run.id)


def dead_runs(client: SyncPrefectClient, now: datetime) -> list[FlowRun]:
    """Return runs of Plumbline's flows, deployed or started by hand, that have been silent for too long."""
    taken = _runs(client, ["PENDING", "RUNNING", "CANCELLING"])
    return [run for run in taken if str(run.id) != flow_run.id and not _is_alive(client, run, now)]


def _is_alive(client: SyncPrefectClient, run: FlowRun, now: datetime) -> bool:
    """Whether a run gave a sign of life lately; one from the future, given before the clock was set back, is none."""
    if run.state is None:
        return True
    age = abs(now - run.state.timestamp)
    if run.state.is_pending():
        return age < START
    return age < SILENCE or bool(_beats(client, run, now - SILENCE, now + SILENCE))


def signs_of_life(client: SyncPrefectClient, run: FlowRun) -> int:
    """Return how many signs a run gave so far, by whatever clock: one more, and it lives."""
    now = datetime.now(UTC)
    return _beats(client, run, now - OLDEST, now + OLDEST)


def _beats(client: SyncPrefectClient, run: FlowRun, since: datetime, until: datetime) -> int:
    from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter

    wanted = EventFilter(
        occurred=EventOccurredFilter(since=cast(Any, since), until=cast(Any, until)),
        event=EventNameFilter(name=[HEARTBEAT]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
    )
    return client.read_events(wanted, limit=1).total


def lost_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Return the crashed runs of the kept deployments that no later run has superseded."""
    kept = {found.id for found in _pages(client.read_deployments) if found.name.startswith(KEPT)}
    runs = _runs(client, ["CRASHED", "COMPLETED"], datetime.now(UTC) - OLDEST)
    return [lost for lost in runs if lost.deployment_id in kept and _is_lost(lost, runs)]


def _is_lost(candidate: FlowRun, runs: list[FlowRun]) -> bool:
    if candidate.state_type is None or candidate.state_type.value != "CRASHED" or candidate.run_count > MOST_RESTARTS:
        return False
    return not any(
        other.deployment_id == candidate.deployment_id
        and other.parameters == candidate.parameters
        and other.state_type is not None
        and other.state_type.value == "COMPLETED"
        and other.start_time is not None
        and candidate.end_time is not None
        and other.start_time > candidate.end_time
        for other in runs
    )


def _runs(
    client: SyncPrefectClient, states: list[str], since: datetime | None = None, of: tuple[str, ...] = FLOWS
) -> list[FlowRun]:
    """Return every run of these flows in one of these states that was due since then."""
    from prefect.client.schemas.filters import (
        FlowFilter,
        FlowFilterName,
        FlowRunFilter,
        FlowRunFilterExpectedStartTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    types = FlowRunFilterStateType(any_=[StateType(name) for name in states])
    due = FlowRunFilterExpectedStartTime(after_=cast(Any, since)) if since else None
    wanted = FlowRunFilter(state=FlowRunFilterState(type=types), expected_start_time=due)
    ours = FlowFilter(name=FlowFilterName(any_=list(of)))
    return _pages(partial(client.read_flow_runs, flow_filter=ours, flow_run_filter=wanted))


def _pages(read: Callable[..., list[Any]]) -> list[Any]:
    """Return everything that a client's method lists, PAGE entries at a time."""
    found: list[Any] = []
    while True:
        page = read(limit=PAGE, offset=len(found))
        found += page
        if len(page) < PAGE:
            return found


def main() -> None:
    """Look once."""
    print(run_flow(keeper).message)


if __name__ == "__main__":
    run(main)
