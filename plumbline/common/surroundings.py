"""One address for all that a process takes from where and how it was started: equal ones can share a warm server."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

ROOMS = ("plumbline", "stages")
# What differs from stage to stage and from shell to shell, and does not matter to what a stage computes.
VOLATILE = ("_", "SHLVL", "PWD", "OLDPWD", "DVC_STAGE", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")
# Beginnings of lines of /proc/self/limits, cgroup and status that say what children inherit.
INHERITED = ("Max ", "0::", "Umask", "Groups", "CapEff", "NoNewPrivs", "Seccomp", "Cpus_allowed", "Mems_allowed")


def address_here() -> Path:
    """The socket of the server that may run this process's stage (plumbline.common.warm); private to the user."""
    folder = Path(tempfile.gettempdir()) / f"plumbline-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid() or folder.lstat().st_mode & 0o077:
        raise OSError(f"{folder} is not private")
    # Of the working folder, whose modules come first, and of this project: a pipeline may run in a folder below it.
    rooms = sorted({(top / room).resolve() for top in (Path(), Path(__file__).parents[2]) for room in ROOMS})
    code = [(str(p), p.stat().st_mtime_ns, p.stat().st_size) for room in rooms for p in sorted(room.glob("**/*.py"))]
    environment = sorted((key, value) for key, value in os.environ.items() if key not in VOLATILE)
    lines = [Path("/proc/self", name).read_text().splitlines() for name in ("limits", "cgroup", "status")]
    inherited = [line for part in lines for line in part if line.startswith(INHERITED)]
    niceness = [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)]
    key = json.dumps([os.getcwd(), sys.executable, environment, code, inherited, niceness])
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.sock"
