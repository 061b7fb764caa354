"""The keeper flow: runs whose process or machine died are picked up again, the same run, by any worker of the pool.

An automation (flows.setup) marks a silent run as crashed. This flow asks the server for crashed runs instead of
waiting for an event to tell it, because events get lost when the server's database is busy.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.states import Completed, Scheduled

from plumbline.common.errors import run

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

MOST_RESTARTS = 10  # a run whose process died this often is left to people
OLDEST = timedelta(days=1)
# Not `elsewhere`: the run that asked for such a stage asks again itself.
KEPT = ("train", "intake", "monitor-")


@flow(name="keeper", persist_result=False)
def keeper() -> State[Any]:
    """Schedule every run again that crashed in the last day and that no later run of its deployment made good."""
    logger = get_run_logger()
    again = lost_runs()
    with get_client(sync_client=True) as client:
        for lost in again:
            client.set_flow_run_state(lost.id, Scheduled(name="AwaitingRetry", message="Its process died."))
            logger.warning("%s is picked up again, for the %d. time.", lost.name, lost.run_count)
    return Completed(message=f"{len(again)} runs picked up again.")


def lost_runs() -> list[FlowRun]:
    """Return the crashed runs of the kept deployments that nothing has made good since."""
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterName,
        FlowRunFilter,
        FlowRunFilterStartTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    states = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CRASHED, StateType.COMPLETED]))
    since = FlowRunFilterStartTime(after_=cast(Any, datetime.now(UTC) - OLDEST))
    with get_client(sync_client=True) as client:
        names = [found.name for found in client.read_deployments() if found.name.startswith(KEPT)]
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=states, start_time=since),
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=names)),
        )
    return [lost for lost in runs if _is_lost(lost, runs)]


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


def main() -> None:
    """Look once."""
    keeper()


if __name__ == "__main__":
    run(main)
