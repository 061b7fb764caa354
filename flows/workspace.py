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

from plumbline.common import interrupted
from plumbline.common.errors import UserError
from plumbline.common.files import write_json, write_text

LEASE = 60.0  # seconds after which Prefect frees the slot of a run that no longer says it is alive; its minimum
PATIENCE = 3.0  # seconds for a busy server to give a slot that is free


def find_root() -> Path:
    """Return the workspace: PLUMBLINE_WORKSPACE, or the current folder.

    It is the top of a DVC project, or the folder of another pipeline in one. UserError where that is neither.
    """
    root = Path(os.environ.get("PLUMBLINE_WORKSPACE") or Path.cwd()).resolve()
    if not (root / ".dvc").is_dir() and not (interrupted.project_of(root) and (root / "dvc.yaml").is_file()):
        raise UserError(f"{root} is no DVC project: run from the project's top folder, or set PLUMBLINE_WORKSPACE.")
    return root


def project(root: Path) -> Path:
    """Return the DVC project of a workspace: all its pipelines share DVC's locks, so one runs at a time."""
    return interrupted.project_of(root) or root


def identity(root: Path) -> str:
    """Return a name for this workspace that Prefect takes as a concurrency limit, one per machine and folder."""
    place = f"{socket.gethostname()}:{project(root)}"
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
    locks = project(root) / ".dvc" / "tmp"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / "plumbline-run.lock").open("w") as lock:
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
    """Hold Prefect's slot; where it does not come in time and `say` is given, go on without it, under the file lock."""
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


def mend(root: Path, say: Callable[[str], None], as_it_is: bool = False) -> None:
    """Put right what DVC can't by itself after a kill: a torn lock table, a torn dvc.lock.

    Called with the workspace held alone. DVC writes both files in place, so a kill at that moment leaves half of one.
    `as_it_is` takes a dvc.lock that lacks stages as meant.
    """
    _mend_table(root, say)
    put_back(root, say, as_it_is)


def put_back(root: Path, say: Callable[[str], None], as_it_is: bool = False) -> None:
    """Put dvc.lock back from the copy, or from Git, if it was cut off; UserError where neither is whole.

    `as_it_is` keeps a dvc.lock that only lacks stages, and forgets that it ever had more.
    """
    path = root / interrupted.LOCK
    text = interrupted.read(path)
    fault = interrupted.lock_fault(root)
    if text is None or fault is None:
        return
    if interrupted.CONFLICT.search(text):
        raise UserError(fault)
    if as_it_is and interrupted.stage_names(text) is not None:
        write_text(interrupted.copy_of(root), text)
        say(f"{path} is taken as it is.")
        return
    kept, committed = (
        interrupted.read(interrupted.copy_of(root)),
        interrupted.ask_git(root, "show", f"HEAD:./{interrupted.LOCK}"),
    )
    for source, whole in (("as the last stage found it", kept), ("from Git's last commit", committed)):
        if whole and interrupted.stage_names(whole) is not None:
            write_text(path, whole)
            say(f"{path} was torn by a kill: put back {source}; what finished since is done again.")
            return
    raise UserError(
        f"{path} was torn by a kill and there is no copy of it: delete it, and `dvc repro` takes what it can from its "
        "cache."
    )


def dvc_at_work(root: Path) -> bool:
    """Does a DVC process of this workspace run a stage now? An unreadable lock table names none."""
    return any(map(_is_alive, _entries(_table(root)) or []))


def _mend_table(root: Path, say: Callable[[str], None]) -> None:
    """Drop entries of processes that are gone, or whose number now belongs to something that isn't DVC."""
    path = _table(root)
    entries = _entries(path)
    if entries is None:
        say(f"{path} was torn by a kill: removed, nothing else works in this workspace.")
        path.unlink()
    elif entries and not any(map(_is_alive, entries)):
        write_json(path, {"read": {}, "write": {}})


def _table(root: Path) -> Path:
    return project(root) / ".dvc" / "tmp" / "rwlock"


def _entries(path: Path) -> list[dict[str, Any]] | None:
    """The processes that DVC's lock table names; None where it was torn."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        readers = [entry for entries in table.get("read", {}).values() for entry in entries]
        return [*readers, *table.get("write", {}).values()]
    except FileNotFoundError:
        return []
    except (ValueError, AttributeError, TypeError):
        return None


def _is_alive(entry: dict[str, Any]) -> bool:
    import psutil

    try:
        return any("dvc" in word for word in psutil.Process(int(entry["pid"])).cmdline())
    except psutil.Error:
        return False
