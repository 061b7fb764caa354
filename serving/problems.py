"""What a client is told when it gets no answer: RFC 9457, `application/problem+json`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

MEDIA = "application/problem+json"


class ProblemError(Exception):
    """A request that is refused, with one sentence that says why and what to do."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def content(self, version: int | None = None) -> dict[str, Any]:
        """Return it as JSON, with the version that is served."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "version": version,
        }


SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "version"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "version": {"type": ["integer", "null"]},
    },
}


def busy(seconds: int) -> ProblemError:
    """Return the refusal of a full queue."""
    return ProblemError(429, f"The queue is full: try again in {seconds} s.", {"Retry-After": str(seconds)})


def no_champion() -> ProblemError:
    """Return the refusal where nothing was promoted yet."""
    return ProblemError(503, "There is no champion yet: promote a model (`dvc repro`), and it is served by itself.")
