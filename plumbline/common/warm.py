"""Run a stage in a process that has TensorFlow imported already: `python -m plumbline.common.warm train NAME`.

It does what `python -m stages.train NAME` does, in a child forked from a server that imported the heavy libraries once.
The first such stage of a `dvc repro` starts the server; it ends by itself when nobody asked for IDLE seconds. Nothing
is shared between stages but imports: each child begins before TensorFlow has opened its context, with this process's
environment, folder and standard streams. A server belongs to one folder, environment and state of the code; where
there is none to be had (no fork, no pidfd, PLUMBLINE_WARM=0, any error before the child starts) the stage runs cold.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

IDLE = 30.0
START = 60.0
LARGEST_REQUEST = 1 << 20
ROOMS = ("plumbline", "stages")
# what differs from stage to stage and from shell to shell without a meaning for what the stage computes
VOLATILE = frozenset({"_", "SHLVL", "PWD", "OLDPWD", "DVC_STAGE", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"})
PRELOADED = (
    "tensorflow",
    "keras",
    "pandas",
    "pyarrow.parquet",
    "yaml",
    "cv2",
    "h5py",
    "tqdm",
    "stages.train",
    "stages.featurize",
)


def main(arguments: list[str]) -> int:
    """Run stage `arguments[0]` with the other arguments; returns its exit code."""
    if arguments[:1] == ["--serve"]:
        serve(Path(arguments[1]))
        return 0
    connection = connect()
    if connection is None:
        os.execv(sys.executable, [sys.executable, "-m", f"stages.{arguments[0]}", *arguments[1:]])
    with connection:
        return ask(connection, arguments)


def connect() -> socket.socket | None:
    """Return a connection to this folder's server, started if need be; None where the stage must run cold."""
    if os.environ.get("PLUMBLINE_WARM") == "0" or not hasattr(os, "pidfd_open") or not hasattr(os, "fork"):
        return None
    try:
        address = address_here()
        connection = _connected(address)
        if connection is None:
            server = subprocess.Popen(
                [sys.executable, "-m", "plumbline.common.warm", "--serve", str(address)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            end = time.monotonic() + START
            while connection is None and time.monotonic() < end and server.poll() in (None, 0):
                time.sleep(0.05)
                connection = _connected(address)
        return connection
    except OSError:
        return None


def address_here() -> Path:
    """The socket of the server for this folder, interpreter, environment and state of the code; private to the user."""
    folder = Path(tempfile.gettempdir()) / f"plumbline-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise OSError(f"{folder} is not private")
    code = [
        (str(path), path.stat().st_mtime_ns, path.stat().st_size)
        for room in ROOMS
        for path in sorted(Path(room).glob("**/*.py"))
    ]
    environment = sorted((key, value) for key, value in os.environ.items() if key not in VOLATILE)
    key = json.dumps([os.getcwd(), sys.executable, environment, code])
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.sock"


def _connected(address: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(address))
        return connection
    except OSError:
        connection.close()
        return None


def ask(connection: socket.socket, arguments: list[str]) -> int:
    """Hand the stage and this process's streams to the server and wait for the exit code.

    Once asked there is no second way: a stage that may have begun must not run twice at a time.
    """
    asked = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}
    request = json.dumps(asked).encode()
    socket.send_fds(connection, [len(request).to_bytes(4, "big")], [0, 1, 2])
    connection.sendall(request)
    try:
        answer = connection.recv(16)
    except KeyboardInterrupt:
        return 130  # the server sees the connection close and ends the child
    if not answer:
        print(f"error: the process running stage {arguments[0]} was lost: run `dvc repro` again.", file=sys.stderr)
        return 1
    return int(answer)


def serve(address: Path) -> None:
    """Listen at `address`, import what stages need, fork a child per request until nobody asks for IDLE seconds."""
    import fcntl
    import gc
    import importlib

    lock = address.with_suffix(".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # another client's server came first
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, contextlib.suppress(FileNotFoundError):
        address.unlink(missing_ok=True)
        listener.bind(str(address))
        listener.listen(64)
        try:
            for name in PRELOADED:
                importlib.import_module(name)
            # What was imported stays: a child's collections would look at all of it again, and copy its pages for that.
            gc.collect()
            gc.freeze()
            _loop(listener)
        finally:
            address.unlink(missing_ok=True)
            Path(lock.name).unlink(missing_ok=True)


def _loop(listener: socket.socket) -> None:
    watched = selectors.DefaultSelector()
    watched.register(listener, selectors.EVENT_READ)
    children: dict[int, tuple[int, int, socket.socket]] = {}  # by pidfd, and again by the connection's descriptor
    while True:
        events = watched.select(None if children else IDLE)
        if not events and not children:
            return
        for key, _ in events:
            if key.fileobj is listener:
                connection, _ = listener.accept()
                child = _start(connection, listener)
                if child is None:
                    connection.close()
                    continue
                pid_descriptor = os.pidfd_open(child)
                for descriptor in (pid_descriptor, connection.fileno()):
                    children[descriptor] = (child, pid_descriptor, connection)
                    watched.register(descriptor, selectors.EVENT_READ)
            elif key.fd in children:
                child, pid_descriptor, connection = children[key.fd]
                if key.fd != pid_descriptor:  # the client went away: its stage must not go on
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child, signal.SIGKILL)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                with contextlib.suppress(OSError):
                    connection.sendall(str(code if code >= 0 else 128 - code).encode())
                for descriptor in (pid_descriptor, connection.fileno()):
                    watched.unregister(descriptor)
                    del children[descriptor]
                os.close(pid_descriptor)
                connection.close()


def _start(connection: socket.socket, listener: socket.socket) -> int | None:
    """Read a request and fork the child that carries it out; returns its process id, None for a broken request."""
    connection.settimeout(5)
    try:
        head, streams, _, _ = socket.recv_fds(connection, 4, 3)
        size = int.from_bytes(head, "big")
        body = b""
        while len(body) < size <= LARGEST_REQUEST:
            piece = connection.recv(size - len(body))
            if not piece:
                return None
            body += piece
        request: dict[str, Any] = json.loads(body)
    except (OSError, ValueError):
        return None
    connection.settimeout(None)
    if len(streams) != 3:
        return None
    child = os.fork()
    if child:
        for descriptor in streams:
            os.close(descriptor)
        # The child does this too; whichever comes first, it is a group of its own before anybody may want to end it.
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
        return child
    code = 1
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        listener.close()
        connection.close()
        code = _carry_out(request, streams)
    finally:
        os._exit(code)


def _carry_out(request: dict[str, Any], streams: list[int]) -> int:
    """In the child: take over the client's streams and environment and run the stage as `python -m` would."""
    import runpy
    import traceback

    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.environ.clear()
    os.environ.update(request["environment"])
    stage, *arguments = request["arguments"]
    sys.argv = [stage, *arguments]
    # The module was imported to have its imports; run it as `python -m` does, from a clean slate.
    sys.modules.pop(f"stages.{stage}", None)
    try:
        os.chdir(request["folder"])  # the server's own may have been deleted, and made again under the same name
        runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
