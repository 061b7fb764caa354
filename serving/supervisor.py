"""`plumbline serve`: opens the socket, starts the workers, replaces those that die, follows the registry."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from prometheus_client import multiprocess

from plumbline.common.errors import UserError, run
from plumbline.common.params import load_section, parse_section
from plumbline.registry.versions import registry_uri
from serving.keeper import Keeper
from serving.keys import read_keys
from serving.settings import Promoted, ServingParams
from serving.worker_status import KEEPER, answer_on

LOOK_SECONDS = 0.1
STEADY_SECONDS = 5.0  # a worker that lives as long is started again at once when it dies
LONGEST_PAUSE = 10.0
GRACE_SECONDS = 25.0


class Workers:
    """The worker processes."""

    def __init__(self, params: ServingParams, model: str, listening: socket.socket, folder: Path) -> None:
        self._params, self._model, self._listening, self._folder = params, model, listening, folder
        self._parent, self._ours = os.pipe()
        self._running: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self._again: dict[int, float] = {}
        self._pause: dict[int, float] = {}

    def look(self) -> None:
        """Start whoever is missing."""
        for number in range(self._params.processes):
            running = self._running.get(number)
            if running is not None:
                process, since = running
                if process.poll() is None:
                    continue
                del self._running[number]
                multiprocess.mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
                lived = time.monotonic() - since
                pause = 0.0 if lived > STEADY_SECONDS else min(LONGEST_PAUSE, 2 * self._pause.get(number, 0.25))
                self._pause[number] = pause
                self._again[number] = time.monotonic() + pause
                print(f"worker {number} ended ({process.returncode}): it is started again", file=sys.stderr, flush=True)
            if time.monotonic() >= self._again.get(number, 0):
                self._running[number] = (self._start(number), time.monotonic())

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        arguments = [str(self._listening.fileno()), str(self._parent), str(number), str(self._folder), self._model]
        return subprocess.Popen(
            [sys.executable, "-m", "serving.worker", *arguments, self._params.model_dump_json()],
            pass_fds=(self._listening.fileno(), self._parent),
            # glibc's default, eight arenas a core, keeps memory of threads that came and went.
            env={"MALLOC_ARENA_MAX": "2", **os.environ, "OMP_NUM_THREADS": "1"},
        )

    def stop(self) -> None:
        """Let them finish what they began, then end them."""
        for process, _ in self._running.values():
            process.terminate()
        until = time.monotonic() + GRACE_SECONDS
        for process, _ in self._running.values():
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for end in (self._parent, self._ours):
            os.close(end)


def open_socket(params: ServingParams) -> socket.socket:
    """Return the socket that clients connect to; UserError where it can't be had."""
    family = socket.AF_INET6 if ":" in params.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((params.host, params.port))
        listening.listen(2048)
    except (OSError, TypeError) as error:  # TypeError: a name that IDNA has no form for
        listening.close()
        why = error.strerror if isinstance(error, OSError) else "this is no name of a machine"
        raise UserError(
            f"{params.host} port {params.port} can't be listened on ({why}): choose another with --host or --port."
        ) from None
    listening.setblocking(False)
    return listening


def check_openness(params: ServingParams) -> None:
    """UserError where anybody on the network could ask, and nobody said that they may."""
    if params.keys is not None:
        if not read_keys(params.keys) and not params.only_here:
            raise UserError(
                f"{params.keys} holds no key, so nobody could ask: `python -m serving.keys NAME` makes one."
            )
    elif not params.only_here and not params.open:
        raise UserError(
            f"{params.host} can be reached from other machines, and no key is asked for: name a file of keys "
            "(serving.keys in params.yaml), or say that anybody may ask (--open)."
        )


async def watch(workers: Workers, keeper: Keeper, folder: Path) -> None:
    """Run until a signal says stop."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    async def status() -> dict[str, object]:
        return keeper.status()

    server = await answer_on(folder / KEEPER, status)
    following = loop.create_task(keeper.follow())
    told: str | None = None
    while not stop.is_set():
        workers.look()
        if keeper.trouble != told:
            told = keeper.trouble
            print(f"serving: {told or 'the registry is well again'}", file=sys.stderr, flush=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
    following.cancel()
    server.close()


def serve(params: ServingParams, model: str, uri: str) -> None:
    """Serve until a signal says stop; UserError where it can't begin."""
    check_openness(params)
    params.state.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="plumbline-serving-"))  # a socket's path has 108 bytes at most
    try:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder / "metrics")
        (folder / "metrics").mkdir()
        with open_socket(params) as listening:
            host = f"[{params.host}]" if ":" in params.host else params.host
            print(f"serving on http://{host}:{listening.getsockname()[1]}", flush=True)
            workers = Workers(params, model, listening, folder)
            try:
                asyncio.run(watch(workers, Keeper(params, model, uri), folder))
            finally:
                workers.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Read the settings and serve."""
    parser = argparse.ArgumentParser(prog="plumbline serve", description="Serve the champion over HTTP.")
    parser.add_argument("--host", help="where to listen; default: serving.host")
    parser.add_argument("--port", type=int, help="default: serving.port; 0: any that is free")
    parser.add_argument("--workers", type=int, help="processes; default: serving.workers")
    parser.add_argument("--open", action="store_true", default=None, help="let anybody ask, from other machines too")
    given = {key: value for key, value in vars(parser.parse_args()).items() if value is not None}
    params = load_section("serving", ServingParams, optional=True)
    params = parse_section("serving", {**params.model_dump(), **given}, ServingParams, Path("plumbline serve"))
    params = params.model_copy(update={"state": params.state.absolute(), "pictures": params.pictures.absolute()})
    serve(params, load_section("promote", Promoted, optional=True).model, registry_uri())


if __name__ == "__main__":
    run(main)
