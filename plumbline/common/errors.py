"""Errors that a user can act on, and what every command does before anything else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path

TELEMETRY_OFF = {"DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "GX_ANALYTICS_ENABLED": "false"}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


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
    prepare_environment()
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def prepare_environment(env: MutableMapping[str, str] = os.environ) -> None:
    """Let child processes find this environment's `python`, `dvc` and `prefect`, and reach servers on this machine.

    People start commands by the interpreter's path (`.venv/bin/python -m flows.training`) without its folder on PATH,
    while the commands of dvc.yaml say `python`; and with HTTP_PROXY set but not NO_PROXY.
    """
    own = str(Path(sys.executable).parent)
    others = [folder for folder in env.get("PATH", os.defpath).split(os.pathsep) if folder != own]
    env["PATH"] = os.pathsep.join([own, *others])
    # Libraries read one spelling or the other, and the small one where both are set.
    names = [name for text in _no_proxy(env) for name in text.split(",") if name.strip()]
    if any(name.strip() == "*" for name in names):
        return  # no proxy at all; some libraries know `*` only where it stands alone
    value = ",".join(dict.fromkeys([*(name.strip() for name in names), *LOOPBACK]))
    env["NO_PROXY"] = env["no_proxy"] = value


def _no_proxy(env: MutableMapping[str, str]) -> list[str]:
    return [env[name] for name in ("no_proxy", "NO_PROXY") if name in env]
