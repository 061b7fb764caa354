"""One run at a time in a workspace, by Prefect's concurrency limits; what a killed run left is put right."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plumbline.common.errors import UserError
from plumbline.common.files import write_json

LEASE = 60.0  # seconds after which Prefect frees the slot of a run that no longer says it is alive; its minimum
PATIENCE = 3.0  # seconds for a busy server to give a slot that is free


def find_root() -> Path:
    """Return the workspace: PLUMBLINE_WORKSPACE, or the current folder; UserError where that is no DVC project."""
    root = Path(os.environ.get("PLUMBLINE_WORKSPACE") or Path.cwd()).resolve()
    if not (root / ".dvc").is_dir():
        raise UserError(f"{root} is no DVC project: run from the project's top folder, or set PLUMBLINE_WORKSPACE.")
    return root


def identity(root: Path) -> str:
    """Return a name for this workspace that Prefect takes as a concurrency limit, one per machine and folder."""
    place = f"{socket.gethostname()}:{root}"
    return f"plumbline-workspace-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def commit(root: Path) -> str:
    """Return the short Git commit of the workspace."""
    done = subprocess.run(
        ["git", "rev-parse", "--short=7", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"{root} has no Git commit: {done.stderr.strip()}.")
    return done.stdout.strip()


@contextmanager
def sole_run(root: Path, say: Callable[[str], None]) -> Iterator[int]:
    """Hold this workspace alone, in Prefect's limit and by a file lock; yield the lock's file descriptor.

    Prefect's limit makes others wait where people can see it. The file lock ends with the last process of a run, so
    whoever gets it at once knows that a slot still taken belongs to a run that was killed, and needn't wait for it.
    """
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency

    name = identity(root)
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, 1)
    (root / ".dvc" / "tmp").mkdir(parents=True, exist_ok=True)
    with (root / ".dvc" / "tmp" / "plumbline-run.lock").open("w") as lock:
        alone = _try_lock(lock.fileno())
        if not alone:
            say(f"Another run works in {root}: waiting for its slot of {name}.")
        slot = concurrency(
            name,
            strict=True,
            lease_duration=LEASE,
            timeout_seconds=PATIENCE if alone else None,
            raise_on_lease_renewal_failure=False,
        )
        with _taken(slot, say if alone else None):
            fcntl.flock(lock, fcntl.LOCK_EX)
            mend(root, say)
            yield lock.fileno()
            # Not unlocked here: the guardian shares the lock and lets go of it when nothing of the run is left.


@contextmanager
def _taken(slot: Any, say: Callable[[str], None] | None) -> Iterator[None]:
    """Hold Prefect's slot; where it does not come (`say` given), go on without, under the file lock."""
    from prefect.concurrency._asyncio import AcquireConcurrencySlotTimeoutError

    try:
        slot.__enter__()
    except AcquireConcurrencySlotTimeoutError:
        if say is None:
            raise
        say(
            f"Prefect gave no slot within {PATIENCE:g} s: it is slow, or keeps that of a killed run. "
            "This run goes on under the workspace's file lock."
        )
        yield
        return
    try:
        yield
    finally:
        slot.__exit__(None, None, None)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def mend(root: Path, say: Callable[[str], None]) -> None:
    """Put right what DVC can't by itself after a kill: a torn lock table, a torn dvc.lock.

    Called with the workspace held alone. DVC writes both files in place, so a kill at that moment leaves half of one.
    """
    _mend_table(root / ".dvc" / "tmp" / "rwlock", say)
    _mend_dvc_lock(root, say)


def keep(root: Path) -> None:
    """Remember dvc.lock as it is, whole, for `mend`."""
    if (root / "dvc.lock").exists():
        text = (root / "dvc.lock").read_text(encoding="utf-8")
        if _is_whole(text):
            from plumbline.common.files import write_text

            write_text(_kept(root), text)


def _mend_table(path: Path, say: Callable[[str], None]) -> None:
    """Drop entries of processes that are gone, or whose number now belongs to something that isn't DVC."""
    import psutil

    if not path.exists():
        return
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        readers = [entry for entries in table.get("read", {}).values() for entry in entries]
        entries = [*readers, *table.get("write", {}).values()]
    except (ValueError, AttributeError, TypeError):
        say(f"{path} was torn by a kill: removed, nothing else works in this workspace.")
        path.unlink()
        return

    def alive(entry: dict[str, Any]) -> bool:
        try:
            return any("dvc" in word for word in psutil.Process(int(entry["pid"])).cmdline())
        except psutil.Error:
            return False

    if entries and not any(map(alive, entries)):
        write_json(path, {"read": {}, "write": {}})


def _mend_dvc_lock(root: Path, say: Callable[[str], None]) -> None:
    path = root / "dvc.lock"
    if not path.exists() or _is_whole(path.read_text(encoding="utf-8", errors="replace")):
        return
    kept = _kept(root)
    if not kept.exists():
        raise UserError(f"{path} is damaged: restore it from Git (git checkout dvc.lock).")
    os.replace(kept, path)
    say(f"{path} was torn by a kill: put back as it was before; at most one finished stage is done again.")


def _kept(root: Path) -> Path:
    return root / ".dvc" / "tmp" / "plumbline-dvc.lock"


def _is_whole(text: str) -> bool:
    """A dvc.lock cut off anywhere either isn't YAML, or lacks its version line, or ends in the middle of a line."""
    import yaml

    try:
        value = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return False
    stages = value.get("stages") if isinstance(value, dict) else None
    return (
        text.endswith("\n")
        and isinstance(stages, dict)
        and all(isinstance(stage, dict) and "cmd" in stage for stage in stages.values())
        and all(
            entry.get("path") for stage in stages.values() for entry in [*stage.get("deps", []), *stage.get("outs", [])]
        )
    )
