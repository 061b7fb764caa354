"""What every command's children inherit: this environment's programs, and no proxy on the way to this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def prepare(env: MutableMapping[str, str] = os.environ) -> None:
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
