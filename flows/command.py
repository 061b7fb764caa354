"""DVC commands inside a Prefect run: their output is streamed and watched for progress, their failures classified."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger
from prefect.states import Completed

from flows import report
from flows.children import Children
from flows.outcomes import failure, percent
from plumbline.common import interrupted
from plumbline.common.errors import TELEMETRY_OFF

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

FROM_CACHE = "is cached - skipping run"
# DVC's advice for people at a terminal, six lines after each stage.
_ADVICE = (
    "To track the changes with git",
    "\tgit add",
    "To enable auto staging",
    "\tdvc config core.auto",
    "Use `dvc push`",
)


def run_dvc(
    name: str, command: Sequence[str], root: Path, children: Children, watch: Callable[[str], None] | None = None
) -> State[Any]:
    """Run a DVC command for stage `name`, its output in Prefect's log, its bars as a progress artifact.

    `watch` sees every line too and may raise to end the command. Raises StageFailed, or Passing where a retry may help.
    """
    logger = get_run_logger()
    progress = report.Progress(f"progress-{name}", f"Stage {name}", logger.warning)
    last: deque[str] = deque(maxlen=200)

    def on_line(line: str) -> None:
        last.append(line)
        if watch:
            watch(line)
        done = percent(line)
        logger.log(logging.DEBUG if done is not None or line.startswith(_ADVICE) else logging.INFO, "%s", line)
        if done is not None:
            progress.report(float(done))

    whole = [sys.executable, "-m", "dvc", "--wait-for-lock", *command]
    code = children.run(whole, root, on_line, {**TELEMETRY_OFF, "PYTHONUNBUFFERED": "1"})
    if code:
        raise failure(name, code, list(last))
    progress.finish()
    interrupted.keep(root)
    if any(FROM_CACHE in line for line in last):
        return Completed(name="Restored", message="DVC had this result in its cache.")
    return Completed(message="Done.")
