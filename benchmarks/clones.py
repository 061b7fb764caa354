"""Clones of this repository's HEAD for benchmarks, and commands run in them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from plumbline.common.errors import TELEMETRY_OFF, UserError

HERE = Path(__file__).resolve().parents[1]


def clone_head(folder: Path) -> None:
    """Clone HEAD into the new folder `folder`; data is not pulled yet."""
    call(["git", "clone", "--quiet", str(HERE), str(folder)], HERE)


def call(command: list[str], folder: Path, more: Mapping[str, str] | None = None) -> None:
    """Run a command in `folder`, with its code and this interpreter; UserError with its last words where it fails."""
    env = {**os.environ, **TELEMETRY_OFF, "PYTHONPATH": search_path(folder), **(more or {})}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command[:4])} failed in {folder}: {(done.stdout + done.stderr)[-2000:]}")


def search_path(folder: Path) -> str:
    """PYTHONPATH with `folder` before what is there."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
