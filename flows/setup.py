"""What the deployments need on a Prefect server besides themselves: work pools, and an automation for runs that died.

    python -m flows.setup

Before the first `prefect deploy --all`, which refuses work pools that don't exist. Doing it again changes nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from plumbline.common.errors import run

POOLS = ("plumbline", "plumbline-elsewhere")
if TYPE_CHECKING:
    from prefect.automations import Automation

# Prefect sends no more than one heartbeat in 30 s; three in a row may get lost.
SILENCE = timedelta(seconds=90)
LOST = "Plumbline: a run that is silent has crashed"


def create_pools() -> None:
    """Make the process work pools that are missing."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        for name in POOLS:
            try:
                client.create_work_pool(WorkPoolCreate(name=name, type="process"))
            except ObjectAlreadyExists:
                continue


def create_automation() -> None:
    """Make the automation anew by which a run that is silent becomes Crashed."""
    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    runs = ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]})
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    heartbeat = "prefect.flow-run.heartbeat"
    lost = Automation(
        name=LOST,
        trigger=EventTrigger(
            after={heartbeat},
            # A run that ended in a state with a name of its own is terminal: Prefect refuses to crash it.
            expect={heartbeat, *ends},
            match=runs,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name=None, force=False, message="No sign of life for 90 seconds."
            )
        ],
    )
    _replace(lost)


def _replace(automation: Automation) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for old in client.read_automations_by_name(automation.name):
            client.delete_automation(old.id)
    automation.create()


def main() -> None:
    """Set a server up."""
    create_pools()
    create_automation()


if __name__ == "__main__":
    run(main)
