"""Errors that a user can act on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from common.environment import prepare

TELEMETRY_OFF = {"DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "GX_ANALYTICS_ENABLED": "false"}


class UserError(Exception):
    """One clear sentence that names the file and the way out; ends a command with exit code 1."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without its full stop, to stand inside a sentence; else its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def one_line(text: object) -> str:
    """A text with every run of white space, line breaks too, as one space."""
    return " ".join(str(text).split())


def run(main: Callable[[], None]) -> None:
    """Run a command's `main` with telemetry off; a UserError becomes its sentence on stderr and exit code 1."""
    os.environ.update(TELEMETRY_OFF)
    prepare()
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
