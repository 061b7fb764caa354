"""The monitoring flow: one site's new images, judged by `python -m monitoring.drift SITE`.

    python -m flows.monitoring SITE

A thin flow: what is tested and how lies in monitoring/. Each window is announced once, before its pages are drawn: an
artifact, and for DRIFT the event `plumbline.drift`. A window whose run was killed is announced by the next run.
The deployment `train` starts on that event only where training could help, which takes labels that the champion has
not seen, and at most once in its cool-down (prefect.yaml). Where there are none, the images to label first are named.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect import State, flow, get_run_logger  # State: Prefect evaluates the flow's signature for its schema
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.events import emit_event
from prefect.states import Completed

from flows import graph, report, workspace
from flows.children import guarded
from flows.notify import notify
from flows.outcomes import failure, percent
from flows.server import run_flow
from monitoring.result import Result
from monitoring.settings import DriftParams, SiteName, checked_site, site_names
from monitoring.site_state import SiteState
from plumbline.common import artefacts
from plumbline.common.errors import TELEMETRY_OFF, UserError, run
from plumbline.common.files import text_digest
from plumbline.common.params import PARAMS, load_section

DRIFT = "plumbline.drift"
NEW_LABELS = "plumbline.new-labels"


@flow(name="monitor", flow_run_name="monitor {site}", persist_result=False, retries=2, retry_delay_seconds=60)
def monitor(site: SiteName) -> State[Any]:
    """Judge the new images of `site`; ends Ok, Watch, Drift or Not Enough Images, fails where it can't be judged."""
    root = workspace.find_root()
    state = root / load_section("drift", DriftParams, root / PARAMS).state
    try:
        verdict = judged(site, root)
    finally:  # what was judged is told, whatever went wrong after it
        announce(SiteState(state, site), root)
    why_not = undrawn(site, root)
    note = f". Its pages were not drawn: {why_not}" if why_not else ""
    return Completed(name=verdict["verdict"].title(), message=verdict["said"] + note)


def judged(site: str, root: Path) -> dict[str, Any]:
    """Run `python -m monitoring.drift` and return what it wrote of `site`; raises StageFailed where it wrote nothing.

    The verdict comes as data in a file; the printed lines are for people and go to the log.
    """
    with tempfile.TemporaryDirectory(prefix="plumbline-monitor-") as scratch:
        result = Path(scratch) / "result.json"
        code, lines = _run_drift(root, "--pages", "later", "--result", str(result), "--", site)
        if not result.is_file():
            raise failure(site, code, lines)
        return dict(json.loads(result.read_text(encoding="utf-8"))["sites"][site])


def undrawn(site: str, root: Path) -> str | None:
    """Draw the site's pages; return None, or why that failed. The next run draws what is missing."""
    code, lines = _run_drift(root, "--pages", "only", "--", site)
    if not code:
        return None
    why = str(failure(site, code, lines))
    get_run_logger().warning("Not drawn: %s", why)
    return why


def _run_drift(root: Path, *arguments: str) -> tuple[int, list[str]]:
    """Run `python -m monitoring.drift` with what it prints in this run's log; return its exit code and last lines."""
    logger = get_run_logger()
    last: deque[str] = deque(maxlen=200)

    def on_line(line: str) -> None:
        last.append(line)
        logger.log(logging.DEBUG if percent(line) is not None else logging.INFO, "%s", line)

    with guarded() as children:
        code = children.run([sys.executable, "-m", "monitoring.drift", *arguments], root, on_line, TELEMETRY_OFF)
    return code, list(last)


def announce(site_state: SiteState, root: Path) -> None:
    """Announce every window that was not announced yet, and note each one.

    A run killed between the two announces that window again, under the same id: Prefect drops the second event, and
    who receives the message can do so too.
    """
    logger = get_run_logger()
    for window in site_state.unannounced():
        result = site_state.result(window)
        key = key_of(site_state.site, site_names(root / PARAMS))
        create_markdown_artifact(as_markdown(result, root), key=key, description=result["verdict"])
        create_table_artifact(table_of(result), key=f"{key}-tests", description=f"Tests of window {window}")
        if result["verdict"] == "DRIFT":
            labels, name = new_labels(result, root), identity(result, root)
            emit_event(
                DRIFT,
                resource={
                    "prefect.resource.id": f"plumbline.site.{site_state.site}",
                    NEW_LABELS: "yes" if labels else "no",
                },
                payload={part: result[part] for part in ("window", "reasons", "basis", "counts")},
                id=name,
            )
            words = "\n".join([*result["reasons"], advice(result, labels)])
            why_not = notify("drift", f"Drift at {site_state.site}", words, str(name))
            if why_not:
                logger.warning("The message could not be sent: %s", why_not)
        site_state.announced([window])


def key_of(site: str, listed: Sequence[str]) -> str:
    """Return the key of a site's artifacts, with a digest where no letter is left of its name or others share it."""
    key = report.artifact_key(f"drift {site}")
    shared = any(other != site and report.artifact_key(f"drift {other}") == key for other in listed)
    return f"{key}-{text_digest(site)[:8]}" if shared or key == "drift" else key


def identity(result: Result, root: Path) -> UUID:
    """Return an id for a judged window, the same however often it is announced."""
    return uuid5(NAMESPACE_URL, f"{workspace.identity(root)}/{result['site']}/{result['window']}/{result['judged_at']}")


def new_labels(result: Result, root: Path) -> bool:
    """Whether data/ holds another version than the champion was made of: only then can training change anything."""
    known = result["champion"]["data_md5"]
    return known is None or str(known)[:7] not in graph.data_version(root).split("+")


def advice(result: Result, labels: bool) -> str:
    """Return what to do about drift, in one sentence."""
    if labels:
        return "Labels came in since the champion was made: training is asked for."
    first = result.get("to_label") or "some images"
    return f"Training anew on the same labels would change nothing: label {first} first."


def as_markdown(result: Result, root: Path) -> str:
    """Return a window's result as Markdown, with links to its pages."""
    lines = [
        f"# {result['site']}: {result['verdict']}",
        "",
        f"Window {result['window']} rests on {result['basis']}.",
        "",
    ]
    lines += [f"- {reason}" for reason in result["reasons"]]
    if result["accuracy"]:
        figure = result["accuracy"]
        between = f"{figure['low']:.2f} to {figure['high']:.2f}"
        lines.append(f"- expected accuracy {figure['value']:.2f} ({between}), from confidence alone")
    if result["verdict"] == "DRIFT":
        lines += ["", advice(result, new_labels(result, root))]
    home = root / artefacts.DRIFT_PAGES
    pages = {"every site": home / "index.html", "this window": home / result["site"] / f"{result['window']}.html"}
    lines += ["", *(f"- {report.link(what, page, root)}" for what, page in pages.items())]
    return "\n".join(lines)


def table_of(result: Result) -> report.Table:
    """Return the tests as rows of an artifact."""
    return [
        {
            "test": test["name"],
            "corrected p": round(test["adjusted"], 4),
            "p": round(test["p"], 4),
            "found": test["words"],
        }
        if test["adjusted"] <= result["level"]
        else {"test": test["name"], "corrected p": round(test["adjusted"], 4), "p": round(test["p"], 4), "found": ""}
        for test in result["tests"]
    ]


def main() -> None:
    """Judge one site here; exit code 1 where it could not be judged."""
    parser = argparse.ArgumentParser(prog="python -m flows.monitoring", description="Judge a site's new images.")
    parser.add_argument("site")
    state = run_flow(monitor, checked_site(parser.parse_args().site))
    if not state.is_completed():
        raise UserError(str(state.message))
    print(f"{state.name}: {state.message}")


if __name__ == "__main__":
    run(main)
