"""The training flow: every stage of dvc.yaml as a Prefect task, with the dependencies that DVC knows.

    python -m flows.training [--side-by-side 2] [--elsewhere 'train@*']    in the folder of a pipeline

What runs is a task run of its own. What DVC finds up to date is not: all that it finds so at one moment is one task run
that ends as Cached, and its log names the stages. A failed member of a group (`train@x`) fails itself; what depends on
the whole group goes on with the others. Retries are for failures that can pass; a killed run, started again, repeats
only unfinished stages, because DVC has the others' results.
"""

from __future__ import annotations

import argparse
import queue
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import State, flow, get_run_logger, task  # State: Prefect evaluates the flow's signature for its schema
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import allow_failure
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from flows import elsewhere as remote
from flows import graph, news, report, workspace
from flows.children import Children, Stopped, guarded
from flows.command import run_dvc
from flows.graph import Node, Outlook
from flows.outcomes import StageFailed, may_pass
from flows.server import run_flow
from flows.switch import recover
from plumbline.common import artefacts, interrupted
from plumbline.common.errors import UserError, run

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture

Ending = Literal["cached", "ran", "failed", "not run"]


class TrainingRun:
    """What the tasks of one run share. Not a dataclass: Prefect copies those on their way into a task."""

    def __init__(self, root: Path, children: Children, outlook: Outlook, elsewhere: Sequence[str]) -> None:
        self.root, self.children, self.nodes = root, children, outlook.nodes
        self.elsewhere, self.sent = elsewhere, remote.Sent()
        self.stale = outlook.due  # DVC's answer when it was last asked
        self.since: set[str] = set()  # what ran or failed since then
        self.endings: dict[str, Ending] = {}

    def due(self, names: Sequence[str], waiting: Mapping[str, Node]) -> set[str]:
        """Return those of `names`, whose upstream stages have all ended, that DVC would run now.

        Asking DVC opens the project, a second or more: its last answer holds for what rests on nothing that ran since,
        and it is asked about all that is `waiting` at once, but for what rests on what is due.
        """
        if any(self.nodes[name].upstream & self.since for name in names):
            asked = self._at_rest(waiting)
            try:
                due = graph.due(self.root, {name: self.nodes[name] for name in asked})
            except UserError as error:  # each of them, run, fails with DVC's own words or turns out to be up to date
                get_run_logger().warning("DVC can't say what is up to date: %s", error)
                due = set(asked)
            self.stale = self.stale.difference(asked) | due
            self.since.clear()
        return self.stale.intersection(names)

    def _at_rest(self, waiting: Mapping[str, Node]) -> list[str]:
        """Those of `waiting` that rest on no stage that runs now: DVC would read what is being written."""
        moving: set[str] = set()
        for name, node in self.nodes.items():  # dependencies first
            if name not in self.endings and (name not in waiting or node.upstream & moving):
                moving.add(name)
        return [name for name in waiting if name not in moving]

    def end(self, name: str, ending: Ending) -> None:
        """Note how a stage ended. The old output of a failed part goes, or its reader would take it for this run's.

        DVC has it in its cache, and removes it itself before a stage runs.
        """
        self.endings[name] = ending
        if ending != "cached":
            self.since.add(name)
        if ending in ("failed", "not run") and any(name in node.upstream - node.needed for node in self.nodes.values()):
            _remove([self.root / out for out in self.nodes[name].outs])


@task(task_run_name="{name}", cache_policy=NO_CACHE, retry_condition_fn=may_pass, retry_jitter_factor=0.5)
def stage(name: str, current: TrainingRun) -> State[Any]:
    """Run one stage; ends Restored (from DVC's cache), Completed, or raises StageFailed."""
    node = current.nodes[name]
    if decides(node):
        news.expect_decision(current.root)
    if any(fnmatch(name, pattern) for pattern in current.elsewhere):
        return remote.run_there(name, current.root, current.children, current.sent)
    command = ["pull", name] if node.source and not _in_place(node, current.root) else ["repro", "-s", name]
    return run_dvc(name, command, current.root, current.children)


@task(task_run_name="up to date: {what}", cache_policy=NO_CACHE)
def up_to_date(what: str, names: Sequence[str]) -> State[Any]:
    """Stand for stages that need nothing, because a task run for each costs a tenth of a second; the log names them."""
    groups: dict[str, list[str]] = {}
    for name in names:
        group, _, member = name.partition("@")
        groups.setdefault(group, []).extend([member] if member else [])
    log = get_run_logger().info
    for group, members in groups.items():
        log("%s", f"{group}: {', '.join(sorted(members))}" if members else group)
    return Completed(name="Cached", message="Nothing they depend on has changed.")


@flow(
    name="training",
    flow_run_name="training",
    task_runner=ThreadPoolTaskRunner(max_workers=64),  # type: ignore[arg-type]
    persist_result=False,
)
def training(
    side_by_side: PositiveInt = 2,
    retries: NonNegativeInt = 3,
    retry_seconds: NonNegativeFloat = 10.0,
    elsewhere: list[str] | None = None,
) -> State[Any]:
    """Bring every stage of dvc.yaml up to date, at most `side_by_side` at a time.

    A stage that failed for a passing reason is retried `retries` times, first after about `retry_seconds`, then after
    twice as long each time. Stages whose name matches a pattern in `elsewhere` run on other machines (docs/scale.md).
    """
    logger = get_run_logger()
    root = workspace.find_root()
    if elsewhere and root != workspace.project(root):
        raise UserError(f"other machines know the pipeline at the project's top only: run {root} here, all of it.")
    with workspace.sole_run(root, logger.warning) as lock, guarded([lock]) as children:
        recover(root, logger.warning)
        news.tell_of_batches(root, logger.warning)
        interrupted.keep(root)
        outlook = graph.look(root)
        nodes, current = outlook.nodes, TrainingRun(root, children, outlook, elsewhere or [])
        _label(root, outlook.data_version)
        again = stage.with_options(retries=retries, retry_delay_seconds=exponential_backoff(retry_seconds))
        states = run_graph(
            nodes,
            current,
            side_by_side,
            again.submit,
            up_to_date.submit,
            report.Progress("training", "Stages that ended", logger.warning),
        )
        if any(nodes[name].source and ending == "ran" for name, ending in current.endings.items()):
            _label(root, graph.data_version(root))  # what lay in data/ was no version before
        report.publish_results(root)
        return conclude(nodes, current, states)


def run_graph(
    nodes: Mapping[str, Node],
    current: TrainingRun,
    limit: int,
    submit: Callable[..., PrefectFuture[Any]],
    submit_calm: Callable[..., PrefectFuture[Any]],
    progress: report.Progress,
) -> dict[str, State[Any]]:
    """Submit each stage that must run once what it depends on has ended, at most `limit` at a time, to `submit`.

    What is up to date goes to `submit_calm`, as many stages at once as can be. Returns the final states of the former.
    """
    futures: dict[str, PrefectFuture[Any]] = {}
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    waiting = dict(nodes)
    running: set[str] = set()
    states: dict[str, State[Any]] = {}
    progress.report(0.0)
    while waiting or running:
        if calm := take_calm(waiting, current):
            before = sorted({other for name in calm for other in nodes[name].upstream if other not in calm})
            what = calm[0] if len(calm) == 1 else f"{len(calm)} stages"
            future = submit_calm(what, calm, wait_for=[allow_failure(futures[other]) for other in before])
            futures.update(dict.fromkeys(calm, future))
        for name in ready(waiting, current.endings):
            node = waiting[name]
            if may_run(node, current.endings) and len(running) >= limit:
                continue
            del waiting[name]
            # Prefect itself marks a stage whose needed inputs failed as not ready, and draws the edge.
            upstream = [
                futures[other] if other in node.needed else allow_failure(futures[other])
                for other in sorted(node.upstream)
            ]
            if not may_run(node, current.endings):
                upstream = [futures[other] for other in sorted(node.upstream)]
            futures[name] = submit(name, current, wait_for=upstream)
            futures[name].add_done_callback(lambda _future, name=name: ended.put(name))  # type: ignore[misc]
            running.add(name)
        if running and (last := _next(ended)) is not None:
            running.discard(last)
            futures[last].wait()  # its final state, not what the server knows so far
            states[last] = futures[last].state
            current.end(last, _ending(states[last]))
        progress.report(round(100 * len(current.endings) / len(nodes), 1))
    for future in futures.values():
        future.wait()
    return states


def take_calm(waiting: dict[str, Node], current: TrainingRun) -> list[str]:
    """Take out of `waiting` all that is up to date, whatever of it rests on what else, and note it as cached."""
    taken: list[str] = []
    while True:
        able = [name for name in ready(waiting, current.endings) if may_run(waiting[name], current.endings)]
        due = current.due(able, waiting)
        new = [name for name in able if name not in due]
        if not new:
            return taken
        for name in new:
            del waiting[name]
            current.end(name, "cached")
        taken += new


def ready(waiting: Mapping[str, Node], endings: Mapping[str, Ending]) -> list[str]:
    """Return the stages all of whose upstream stages have ended, well or badly."""
    return [name for name, node in waiting.items() if all(upstream in endings for upstream in node.upstream)]


def may_run(node: Node, endings: Mapping[str, Ending]) -> bool:
    """Whether all it needs succeeded, and at least one part of each folder to which several stages contribute."""
    well = {name for name in node.upstream if endings[name] in ("cached", "ran")}
    parts = node.upstream - node.needed
    return node.needed <= well and (not parts or bool(parts & well))


def conclude(nodes: Mapping[str, Node], current: TrainingRun, states: Mapping[str, State[Any]]) -> State[Any]:
    """Return the run's final state, and send the messages people asked for.

    Where only members of a group (`train@x`) failed, the run is completed, named Partly; anything else fails it.
    """
    failed = {name: _message(states[name]) for name, ending in current.endings.items() if ending == "failed"}
    missing = sorted(name for name, ending in current.endings.items() if ending == "not run")
    counts = {kind: sum(ending == kind for ending in current.endings.values()) for kind in ("ran", "cached")}
    summary = f"{counts['ran']} {'stage' if counts['ran'] == 1 else 'stages'} ran, {counts['cached']} cached"
    warn = get_run_logger().warning
    for name, why in failed.items():
        news.send("failure", f"{name} failed", why, warn)
    news.tell_decision(
        current.root, any(current.endings[node.name] == "ran" for node in nodes.values() if decides(node)), warn
    )
    if not failed:
        return Completed(message=summary + ".")
    names = "; ".join(why.rstrip(".") for why in failed.values()) + (
        f". Not run: {', '.join(missing)}" if missing else ""
    )
    if all("@" in name for name in [*failed, *missing]):
        return Completed(name="Partly", message=f"{summary}; failed: {names}.")
    return Failed(message=f"{names}. {summary}.")


def decides(node: Node) -> bool:
    """Whether this is the stage that decides PROMOTE, HOLD or REJECT."""
    return bool({artefacts.DECISION.name, artefacts.DETECTION_DECISION.name} & set(node.outs))


def _remove(paths: Sequence[Path]) -> None:
    import shutil

    for path in paths:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _ending(state: State[Any]) -> Ending:
    if state.is_completed():
        return "ran"
    return "not run" if state.is_pending() else "failed"


def _message(state: State[Any]) -> str:
    error = state.result(raise_on_failure=False)
    return str(error) if isinstance(error, (StageFailed, UserError, Stopped)) else str(state.message)


def _next(ended: queue.SimpleQueue[str]) -> str | None:
    try:
        # A timeout, so that a signal gets through to the main thread.
        return ended.get(timeout=1.0)
    except queue.Empty:
        return None


def _in_place(node: Node, root: Path) -> bool:
    return all((root / out).exists() for out in node.outs)


def _label(root: Path, version: str) -> None:
    commit = workspace.commit(root)
    report.label_run(f"training data {version} commit {commit}", [f"data:{version}", f"commit:{commit}"])


def main() -> None:
    """Run the training flow here; exit code 1 where it failed."""
    parser = argparse.ArgumentParser(prog="python -m flows.training", description="Run the pipeline through Prefect.")
    parser.add_argument("--side-by-side", type=int, default=2, help="stages at a time (2)")
    parser.add_argument("--retries", type=int, default=3, help="further tries for failures that can pass (3)")
    parser.add_argument("--retry-seconds", type=float, default=10.0, help="wait before the first of them (10)")
    parser.add_argument("--elsewhere", action="append", metavar="PATTERN", help="stages for other machines: 'train@*'")
    given = parser.parse_args()
    if given.side_by_side < 1:
        parser.error("--side-by-side: 1 or more")
    if given.retries < 0 or not given.retry_seconds >= 0:
        parser.error("--retries, --retry-seconds: 0 or more")
    state = run_flow(training, given.side_by_side, given.retries, given.retry_seconds, given.elsewhere)
    if not state.is_completed():
        raise UserError(_message(state))
    print(state.message)


if __name__ == "__main__":
    run(main)
