"""What the deployments need on a Prefect server: work pools, and none of an earlier version's automation.

    python -m flows.setup

Before the first `prefect deploy --all`, which refuses work pools that don't exist. Doing it again changes nothing.
"""

from __future__ import annotations

from flows.server import ensure_server
from plumbline.common.errors import run

POOLS = ("plumbline", "plumbline-elsewhere")
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


def drop_automation() -> None:
    """Remove an earlier version's automation that marked silent runs as Crashed; flows.keeper does that now."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for old in client.read_automations_by_name(LOST):
            client.delete_automation(old.id)


def main() -> None:
    """Set a server up."""
    ensure_server()
    create_pools()
    drop_automation()


if __name__ == "__main__":
    run(main)
