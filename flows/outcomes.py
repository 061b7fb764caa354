"""Read a stage's output: how far it is, and, if it failed, why and whether a retry could help."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

_PERCENT = re.compile(r"(?:^|\s)(\d{1,3})%\|")
# A stage prints "error: ..." (plumbline.common.errors). DVC's own line has the reason only where no stage ran.
_SENTENCE = re.compile(r"^(?:error|ERROR): (?!failed to reproduce)(.*)")
_OF_DVC = re.compile(r"^ERROR: failed to reproduce '[^']*': (?!failed to run)(.*)")
_EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt|Exit)\b.*")
_EXIT = re.compile(r"failed to run: .*exited with (-?\d+)")
# Messages of the network, remote storage, the registry or DVC's locks after which a retry may succeed.
_PASSING = re.compile(
    "|".join(
        [
            r"Unable to acquire lock",
            r"is busy, it is being blocked by",
            r"database is locked",
            r"Connection(?:Refused|Reset|Aborted)?Error\b",
            r"Connection (?:refused|reset|aborted|timed out)",
            r"(?:Connect|Read|Write|Pool)?Time(?:d )?out(?:Error)?\b",
            r"Max retries exceeded",
            r"Temporary failure in name resolution",
            r"Name or service not known",
            r"Network is unreachable",
            r"No route to host",
            r"Remote end closed connection",
            r"\b(?:502 Bad Gateway|503 Service Unavailable|504 Gateway Timeout|429 Too Many Requests)\b",
            r"(?:SlowDown|RequestTimeout|ServiceUnavailable|EndpointConnectionError)\b",
            r"[Ff]ailed to (?:push|pull|fetch)\b",
            r"Stale file handle",
        ]
    )
)
# Signals and exit codes that come from outside the stage: terminated, killed (also for want of memory).
_ENDED_FROM_OUTSIDE = {-15, -9, 137, 143}


class StageFailed(Exception):
    """A stage failed and would fail again: its data, its parameters or its code are to blame."""


class Passing(StageFailed):
    """A stage failed for a reason that may be gone at the next try."""


def percent(line: str) -> int | None:
    """Return how far a progress bar's line says the stage is, 0 to 100; None for any other line."""
    found = _PERCENT.search(line)
    return min(int(found[1]), 100) if found else None


def failure(name: str, code: int, lines: Sequence[str]) -> StageFailed:
    """Return the exception for stage `name` that ended with `code`; `lines` are the last that it printed."""
    text = "\n".join(lines)
    sentence = _why(lines) or f"ended with exit code {code}; its log has no error line"
    killed = code in _ENDED_FROM_OUTSIDE or any(int(found[1]) in _ENDED_FROM_OUTSIDE for found in _EXIT.finditer(text))
    kind = Passing if killed or _PASSING.search(text) else StageFailed
    return kind(f"{name}: {sentence}")


def may_pass(_task: object, _run: object, state: State[Any]) -> bool:
    """Whether Prefect should try a failed task again."""
    return isinstance(state.result(raise_on_failure=False), Passing)


def _why(lines: Sequence[str]) -> str | None:
    for pattern in (_SENTENCE, _EXCEPTION, _OF_DVC):
        found = [line for line in lines if pattern.match(line) and not _EXIT.search(line)]
        if found:
            match = pattern.match(found[-1])
            assert match
            return found[-1] if pattern is _EXCEPTION else match[1]
    exited = [match[0] for line in lines if (match := _EXIT.search(line))]
    return exited[-1] if exited else None
