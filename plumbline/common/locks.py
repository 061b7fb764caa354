"""One run at a time on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plumbline.common.errors import UserError


@contextmanager
def held(lock: Path, timeout: float, what: str) -> Iterator[None]:
    """Hold the file lock `lock`, waiting up to `timeout` seconds, with a message; the kernel frees it if we are killed.

    `what` says what the holder does; in messages "by another run" follows. Raises UserError when the time is up.
    """
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    mine = FileLock(lock)
    try:
        mine.acquire(timeout=0)
    except Timeout:
        print(f"{what} by another run: waiting for it, {timeout:g} seconds at most", file=sys.stderr, flush=True)
        try:
            mine.acquire(timeout=timeout)
        except Timeout:
            raise UserError(
                f"{what} by another run, which has held {lock} for {timeout:.0f} seconds: wait for it to end, or end "
                "it, and run again."
            ) from None
    try:
        yield
    finally:
        mine.release()
