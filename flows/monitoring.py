"""The monitoring flow: one site's new images, judged by `python -m monitoring.drift SITE`.

    python -m flows.monitoring SITE

A thin flow: what is tested and how lies in monitoring/. Drift emits `plumbline.drift`, on which the deployment
`train` starts, at most once in its cool-down (prefect.yaml).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from prefect.states import Completed

from common.errors import TELEMETRY_OFF, UserError, run
from flows import report, workspace
from flows.children import guarded
from flows.notify import notify
from flows.outcomes import failure

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

DRIFT = "plumbline.drift"
# Exit codes of monitoring.drift.
VERDICTS = {0: "OK", 1: "DRIFT", 2: "NOT ENOUGH IMAGES"}


@flow(name="monitor", flow_run_name="monitor {site}", persist_result=False, retries=2, retry_delay_seconds=60)
def monitor(site: str) -> State[Any]:
    """Judge the new images of `site`; ends OK, DRIFT or NOT ENOUGH IMAGES, fails where they could not be judged."""
    logger = get_run_logger()
    root = workspace.find_root()
    last: deque[str] = deque(maxlen=200)

    def on_line(line: str) -> None:
        last.append(line)
        logger.info("%s", line)

    with guarded() as children:
        code = children.run([sys.executable, "-m", "monitoring.drift", site], root, on_line, TELEMETRY_OFF)
    verdict = VERDICTS.get(code)
    # Python ends with 1 on any error too: no drift without the word.
    if verdict is None or not any(verdict in line for line in last):
        raise failure(site, code, list(last))
    page = root / "reports" / "drift" / "index.html"
    words = list(last)[-20:]
    text = "\n".join(
        [f"# {site}: {verdict}", "", *words, "", report.link("report", page, root) if page.exists() else ""]
    )
    create_markdown_artifact(text, key=report.artifact_key(f"drift {site}"), description=verdict)
    if verdict == "DRIFT":
        emit_event(DRIFT, resource={"prefect.resource.id": f"plumbline.site.{site}"}, payload={"lines": words})
        why_not = notify("drift", f"Drift at {site}", "\n".join(words))
        if why_not:
            logger.warning("The message could not be sent: %s", why_not)
    return Completed(name=verdict.title(), message=words[-1] if words else verdict)


def main() -> None:
    """Judge one site here; exit code 1 where it could not be judged."""
    parser = argparse.ArgumentParser(prog="python -m flows.monitoring", description="Judge a site's new images.")
    parser.add_argument("site")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    state = monitor(parser.parse_args().site, return_state=True)
    if not state.is_completed():
        raise UserError(str(state.message))
    print(f"{state.name}: {state.message}")


if __name__ == "__main__":
    run(main)
