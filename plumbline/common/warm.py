"""Run a stage in a process that has TensorFlow imported already: `python -m plumbline.common.warm train NAME`.

It does what `python -m stages.train NAME` does, in a child forked from a server that imported the heavy libraries once:
that saves each such stage four seconds of a processor. The first one starts the server, which ends when nobody asked
for IDLE seconds. A server is for one folder, environment and state of the code, and for the umask, processors, niceness
and limits it was started under: who asks under others gets another. Where there is none to be had, stderr says why and
the stage runs by itself, as it does with PLUMBLINE_WARM=0.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import hashlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from plumbline.common.quiet import hush

IDLE = 30.0
ROOMS = ("plumbline", "stages")
# what differs from stage to stage and from shell to shell without a meaning for what the stage computes
VOLATILE = ("_", "SHLVL", "PWD", "OLDPWD", "DVC_STAGE", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")
# lines of /proc/self/limits, cgroup and status that say what a process hands down to its children
INHERITED = ("Max ", "0::", "Umask", "Groups", "CapEff", "NoNewPrivs", "Seccomp", "Cpus_allowed", "Mems_allowed")
PRELOADED = ("tensorflow", "keras", "pandas", "pyarrow.parquet", "cv2", "h5py", "stages.train", "stages.featurize")


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
    """Have a server run the stage, return its exit code; OSError where it surely never began, to be run elsewhere."""
    with connect(address_here()) as connection:
        request = json.dumps([arguments, dict(os.environ), os.getcwd()])
        socket.send_fds(connection, [request.encode()], [0, 1, 2])
        if not connection.recv(1):
            raise OSError("the process that had it loaded went away")
        # From here on it may be at work, and must not run twice at a time.
        answer = connection.recv(16)
        if not answer:
            print(f"error: the process of stage {arguments[0]} was lost: run `dvc repro` again.", file=sys.stderr)
        return int(answer or 1)


def connect(address: Path) -> socket.socket:
    """Return a connection to the server at `address`, started if need be; OSError says why there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Stages side by side wait here for one server, instead of loading one each.
    with address.with_suffix(".lock").open("w") as lock, tempfile.TemporaryFile() as words:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):
            connection.connect(str(address))
            return connection
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "plumbline.common.warm", "--serve", str(address), str(writing)]
        nothing = subprocess.DEVNULL
        server = subprocess.Popen(
            command, stdin=nothing, stdout=nothing, stderr=words, pass_fds=[writing], start_new_session=True
        )
        os.close(writing)
        with open(reading, "rb") as pipe:
            if not pipe.read(1):
                words.seek(0)
                sys.stderr.write(words.read().decode("utf-8", "replace"))
                raise OSError(f"the process that was to load it for all stages ended with exit code {server.wait()}")
        connection.connect(str(address))
        return connection


def address_here() -> Path:
    """The socket of the server that may run this process's stage; private to the user."""
    folder = Path(tempfile.gettempdir()) / f"plumbline-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid() or folder.lstat().st_mode & 0o077:
        raise OSError(f"{folder} is not private")
    code = [(str(p), p.stat().st_mtime_ns, p.stat().st_size) for r in ROOMS for p in sorted(Path(r).glob("**/*.py"))]
    environment = sorted((key, value) for key, value in os.environ.items() if key not in VOLATILE)
    lines = [Path("/proc/self", name).read_text().splitlines() for name in ("limits", "cgroup", "status")]
    inherited = [line for part in lines for line in part if line.startswith(INHERITED)]
    niceness = [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)]
    key = json.dumps([os.getcwd(), sys.executable, environment, code, inherited, niceness])
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.sock"


def serve(address: Path, ready: int) -> None:
    """Import what stages need, tell `ready`, fork for everyone who asks until nobody did for IDLE seconds."""
    hush()
    for name in PRELOADED:
        importlib.import_module(name)
    # What was imported stays: a child's collections would look at all of it again, and copy its pages for that.
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
                with contextlib.suppress(ChildProcessError):  # no stage is at work: it is not needed any more
                    while os.waitpid(-1, os.WNOHANG) != (0, 0):
                        pass
                    continue
                return address.unlink(missing_ok=True)
            if not os.fork():
                break
            connection.close()
    guard(connection)


def guard(connection: socket.socket) -> None:
    """Run the stage in a child, end it when who asked is gone, whatever becomes of the server; answer its exit code."""
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
    os.chdir(folder)  # the server's own may have been deleted, and made again under the same name
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
    # The module was imported to have its imports; run it as `python -m` does, from a clean slate.
    sys.modules.pop(f"stages.{stage}", None)
    sys.argv = [stage, *arguments]
    runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
    # It ended well. The interpreter would take another sixth of a second to tidy TensorFlow away.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
