"""Run a stage in a process that has TensorFlow imported already: `python -m plumbline.common.warm train NAME`.

It does what `python -m stages.train NAME` does, in a child forked from a server that imported the heavy libraries
once: that saves each such stage four seconds of a processor. The first stage starts the server, which ends after IDLE
seconds without a request. It belongs to one folder, environment and state of the code, and to the umask, processors,
niceness and limits it was started under; other requests get another. If none can be started, stderr says why and the
stage runs on its own, as it does with PLUMBLINE_WARM=0.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
from pathlib import Path
from subprocess import DEVNULL, Popen

from plumbline.common.quiet import hush
from plumbline.common.surroundings import address_here

IDLE = 30.0
PRELOADED = (
    "tensorflow",
    "keras",
    "pandas",
    "pyarrow.parquet",
    "cv2",
    "h5py",
    "jinja2",
    "scipy.optimize",
    "stages.train",
    "stages.featurize",
)


def main(arguments: list[str]) -> None:
    """Run stage `arguments[0]` with the other arguments; ends the process as the stage ends."""
    if arguments[0] == "--serve":
        return serve(Path(arguments[1]), int(arguments[2]))
    if os.environ.get("PLUMBLINE_WARM") != "0" and hasattr(os, "pidfd_open"):
        try:
            sys.exit(ask(arguments))
        except OSError as error:
            print(f"stage {arguments[0]} loads TensorFlow itself: {error}", file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, "-m", f"stages.{arguments[0]}", *arguments[1:]])


def ask(arguments: list[str]) -> int:
    """Let a server run the stage and return its exit code; OSError only where the stage has certainly not begun."""
    with connect(address_here()) as connection:
        request = json.dumps([arguments, dict(os.environ), os.getcwd()])
        socket.send_fds(connection, [request.encode()], [0, 1, 2])
        if not connection.recv(1):
            raise OSError("the process that had it loaded went away")
        # From here on the stage may be running and must not be started a second time.
        answer = connection.recv(16)
        if not answer:
            print(f"error: the process of stage {arguments[0]} was lost: run `dvc repro` again.", file=sys.stderr)
        return int(answer or 1)


def connect(address: Path) -> socket.socket:
    """Return a connection to the server at `address`, started if need be; OSError says why there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Stages started side by side wait here for one server instead of starting one each.
    with address.with_suffix(".lock").open("w") as lock, tempfile.TemporaryFile() as words:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):
            connection.connect(str(address))
            return connection
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "plumbline.common.warm", "--serve", str(address), str(writing)]
        server = Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=words, pass_fds=[writing], start_new_session=True)
        os.close(writing)
        with open(reading, "rb") as pipe:
            if not pipe.read(1):
                sys.stderr.write(os.pread(words.fileno(), 1 << 20, 0).decode("utf-8", "replace"))
                raise OSError(f"the process that was to load it for all stages ended with exit code {server.wait()}")
        connection.connect(str(address))
        return connection


def serve(address: Path, ready: int) -> None:
    """Import what stages need, write to the pipe `ready`, and fork for each request, until IDLE seconds without one."""
    hush()
    for name in PRELOADED:
        importlib.import_module(name)
    # Imported objects stay: otherwise every child's garbage collections would visit them and copy their pages.
    gc.collect()
    gc.freeze()
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(address))
        listener.listen(64)
        listener.settimeout(IDLE)
        os.write(ready, b"+")
        os.close(ready)
        while True:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                with contextlib.suppress(ChildProcessError):  # no stage is running: the server is not needed any more
                    while os.waitpid(-1, os.WNOHANG) != (0, 0):
                        pass
                    continue
                return address.unlink(missing_ok=True)
            if not os.fork():
                break
            connection.close()
    guard(connection)


def guard(connection: socket.socket) -> None:
    """Run the stage in a child, end it if the client goes away, even without the server; send its exit code."""
    request, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    (stage, *arguments), environment, folder = json.loads(request)
    connection.sendall(b"+")
    guardian, child = os.getpid(), os.fork()
    if child:
        ended = os.pidfd_open(child)
        if ended not in select.select([ended, connection.fileno()], [], [])[0]:
            os.killpg(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(str(code if code >= 0 else 128 - code).encode())
        os._exit(0)
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the stage does not outlive its guardian
    if os.getppid() != guardian:
        os._exit(1)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)  # the server's own folder may have been deleted and created again under the same name
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
    # The module was imported for its imports; run it afresh, as `python -m` does.
    sys.modules.pop(f"stages.{stage}", None)
    sys.argv = [stage, *arguments]
    runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
    # It succeeded. A normal exit would take another sixth of a second to unload TensorFlow.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
