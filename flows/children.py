"""Child processes that never outlive the run that started them, however it ends.

Each child leads a process group of its own. A guardian, one small process per run, reads from a pipe which groups are
alive; when the pipe closes, because the run ended or was killed outright, it ends what is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

GRACE = 5.0  # seconds between SIGTERM and SIGKILL

_GUARDIAN = """
import os, signal, sys, time
alive = set()
for line in sys.stdin:
    (alive.add if line[0] == "+" else alive.discard)(int(line[1:]))
def send(sign):
    for group in list(alive):
        try: os.killpg(group, sign)
        except OSError: alive.discard(group)
send(signal.SIGTERM)
end = time.monotonic() + float(sys.argv[1])
while alive and time.monotonic() < end:
    time.sleep(0.05)
    send(0)
send(signal.SIGKILL)
"""


class Stopped(Exception):
    """The run is being stopped, and this child with it."""


class Guardian:
    """A small process that ends the process groups it watches when this process ends, or calls `close`.

    The file descriptors `hold` stay open in it: a file lock held through them is free once nothing watched is left.
    """

    def __init__(self, hold: Sequence[int] = ()) -> None:
        self._hold, self._groups = tuple(hold), set[int]()
        self._begin()

    def _begin(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARDIAN, str(GRACE)],
            stdin=subprocess.PIPE,
            text=True,
            pass_fds=self._hold,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._pipe = self._process.stdin

    def watch(self, group: int) -> None:
        """End this process group when this process is over."""
        self._groups.add(group)
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Don't end this group: it has ended."""
        self._groups.discard(group)
        self._tell(f"-{group}\n")

    def _tell(self, lines: str) -> None:
        if self._pipe.closed:  # it has ended what was left
            return
        try:
            self._pipe.write(lines)
            self._pipe.flush()
        except BrokenPipeError:
            print("The process that ends this run's children was killed: another takes over.", file=sys.stderr)
            with suppress(BrokenPipeError):
                self._pipe.close()
            self._process.wait()
            self._begin()
            self._tell("".join(f"+{known}\n" for known in self._groups))

    def close(self) -> None:
        """End what is left, and wait for that."""
        self._pipe.close()
        self._process.wait()


class Children:
    """The child processes of one run; see `guarded`."""

    def __init__(self, guardian: Guardian) -> None:
        self._guardian = guardian
        self._alive: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._stopping = False

    def run(
        self, command: Sequence[str], folder: Path, on_line: Callable[[str], None], env: Mapping[str, str] | None = None
    ) -> int:
        """Run `command` in `folder`, hand over each line it prints (either stream) as it comes; return its exit code.

        Raises Stopped when the run is being stopped.
        """
        child = self._start(command, folder, env)
        try:
            for line in _lines(child.stdout):
                on_line(line)
            code = child.wait()
        except BaseException:
            _end([child])
            raise
        finally:
            self._forget(child)
        if self._stopping:
            raise Stopped(command[0])
        return code

    def stop(self) -> None:
        """End every child: SIGTERM to its group, SIGKILL to what is left after a while; none can be started after."""
        with self._lock:
            self._stopping = True
            alive = list(self._alive.values())
        _end(alive)

    @property
    def stopping(self) -> bool:
        """Is the run being stopped?"""
        return self._stopping

    def _start(self, command: Sequence[str], folder: Path, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopping:
                raise Stopped(command[0])
            child = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._alive[child.pid] = child
            self._guardian.watch(child.pid)
            return child

    def _forget(self, child: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._alive.pop(child.pid, None)
            self._guardian.forget(child.pid)


@contextmanager
def guarded(hold: Sequence[int] = ()) -> Iterator[Children]:
    """Yield Children; on leaving, for whatever reason, every child is ended.

    The file descriptors `hold` stay open in the guardian: a file lock held through them is free only once nothing of
    this run is left.
    """
    guardian = Guardian(hold)
    children = Children(guardian)
    try:
        yield children
    finally:
        children.stop()
        guardian.close()


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        _signal_group(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while any(_signal_group(child.pid, 0) for child in children) and time.monotonic() < deadline:
        for child in children:
            child.poll()
        time.sleep(0.05)
    for child in children:
        _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, sign: int) -> bool:
    try:
        os.killpg(group, sign)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _lines(stream: IO[bytes] | None) -> Iterator[str]:
    """Yield each line that ends in a newline or in the carriage return of a progress bar; blank ones are skipped."""
    assert stream is not None
    rest = b""
    while block := stream.read1(65536):  # type: ignore[attr-defined]
        *ended, rest = (rest + block).replace(b"\r", b"\n").split(b"\n")
        yield from (text for line in ended if (text := line.decode("utf-8", "replace").rstrip()))
    if text := rest.decode("utf-8", "replace").rstrip():
        yield text
