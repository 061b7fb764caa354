"""A stage on another machine, which shares nothing with this one but the DVC remote and Prefect's API.

Here: push the stage's inputs, request a run of the deployment `stage/elsewhere`, take the result from DVC's run cache.
There: write this side's dvc.yaml, params.yaml and dvc.lock, check that the code is the same, pull, run, push.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect import flow, get_run_logger

from flows import graph, workspace
from flows.children import Children, Stopped, guarded
from flows.command import run_dvc
from flows.outcomes import Passing, StageFailed
from plumbline.common.errors import UserError
from plumbline.common.files import write_text

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

DEPLOYMENT = "stage/elsewhere"


class Sent:
    """The paths that this run has pushed: candidates read the same features, and one push is enough."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.lock = threading.Lock()


def run_there(name: str, root: Path, children: Children, sent: Sent) -> State[Any]:
    """Run stage `name` on whichever worker takes it, and bring its result here.

    Raises Passing where the worker or the way to it failed, StageFailed where the stage did.
    """
    with sent.lock:
        new = [path for path in graph.made_dependencies(root, name) if path not in sent.paths]
        if new:
            run_dvc(name, ["push", *new], root, children)
            sent.paths.update(new)
    state = _wait(_ask(name, root), children)
    if not state.is_completed():
        kind = Passing if state.is_crashed() or "Passing: " in (state.message or "") else StageFailed
        raise kind(f"{name} on another machine: {state.message}")

    def refuse_to_run(line: str) -> None:
        if line.startswith("Running stage"):
            raise StageFailed(f"{name}: what came back is of other inputs than those here; nothing was overwritten.")

    return run_dvc(name, ["repro", "--pull", "-s", name], root, children, refuse_to_run)


@flow(name="stage", flow_run_name="{name}", persist_result=False)
def stage_for_another(name: str, files: dict[str, str], code: dict[str, str], asked_by: str) -> None:
    """Run stage `name` in this worker's own workspace, as the run that asked describes it.

    `files`: text of dvc.yaml, params.yaml, dvc.lock and the .dvc files there; `code`: path -> hash of what the stage
    reads and no stage makes. Raises UserError where this worker's checkout differs, before anything runs.
    """
    logger = get_run_logger()
    if not os.environ.get("PLUMBLINE_WORKSPACE"):
        raise UserError("Set PLUMBLINE_WORKSPACE to a clone for this worker alone: its dvc.lock will be overwritten.")
    root = workspace.find_root()
    if workspace.identity(root) == asked_by:
        raise UserError(f"{root} is the workspace that asked: give this worker a clone of its own.")
    with workspace.sole_run(root, logger.warning) as lock, guarded([lock]) as children:
        for path, text in files.items():
            write_text(root / path, text)
        mine = graph.outside_dependencies(root, name)
        other = sorted(path for path in {*mine, *code} if mine.get(path) != code.get(path))
        if other:
            raise UserError(f"{root} holds another version of {', '.join(other)}: check out the commit that runs.")
        run_dvc(name, ["pull", *graph.made_dependencies(root, name)], root, children)
        run_dvc(name, ["repro", "-s", name], root, children)
        run_dvc(name, ["push", "--run-cache", name], root, children)


def _ask(name: str, root: Path) -> UUID:
    from prefect.deployments import run_deployment

    paths = [root / "dvc.yaml", root / "params.yaml", root / "dvc.lock", *root.glob("*.dvc")]
    parameters = {
        "name": name,
        "files": {path.name: path.read_text(encoding="utf-8") for path in paths if path.is_file()},
        "code": graph.outside_dependencies(root, name),
        "asked_by": workspace.identity(root),
    }
    # timeout=0: we wait ourselves, so that a stopped run can cancel its request.
    asked = run_deployment(DEPLOYMENT, parameters=parameters, timeout=0, tags=[f"stage:{name}"])
    return UUID(str(asked.id))  # type: ignore[union-attr]


def _wait(run_id: UUID, children: Children) -> State[Any]:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    with get_client(sync_client=True) as client:
        while True:
            if children.stopping:
                client.set_flow_run_state(run_id, Cancelling(message="The run that asked was stopped."))
                raise Stopped(str(run_id))
            state = client.read_flow_run(run_id).state
            if state is not None and state.is_final():
                return state
            time.sleep(1.0)
