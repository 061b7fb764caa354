"""Server, UI, worker and report pages on this machine: python -m flows.serve (make serve-flows). Ctrl-C ends all."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from flows.children import Children, Stopped, guarded
from flows.setup import POOLS
from flows.workspace import find_root
from plumbline.common import artefacts
from plumbline.common.errors import TELEMETRY_OFF, UserError, first_line, run

AT_ONCE = 8  # runs that the worker starts; after a clock was set ahead, or an outage, many are late at once
DATABASE = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")


def environment(root: Path, port: int) -> dict[str, str]:
    """Return what server, worker and runs need to know of each other."""
    home = Path(os.environ.get("PREFECT_HOME") or root / ".dvc" / "tmp" / "prefect")
    return {
        **TELEMETRY_OFF,
        **database(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_HOME": str(home),
        # Leases in memory would be forgotten, and their slots taken for ever, when the server is started again.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # With the usual 5 (+10), requests that hold a connection and wait for another one lock each other out when a
        # hundred runs are late at once.
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "20",
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_MAX_OVERFLOW": "40",
        "PLUMBLINE_WORKSPACE": str(root),
        "PLUMBLINE_REPORTS_URL": f"http://127.0.0.1:{port + 1}",
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }


def database(home: Path) -> dict[str, str]:
    """Return the setting for Prefect's database where its path holds a `?`: Prefect would cut the path there."""
    if "?" not in str(home) or any(os.environ.get(name) for name in DATABASE):
        return {}
    return {DATABASE[0]: f"sqlite+aiosqlite:///file:{quote(str(home / 'prefect.db'))}?uri=true"}


def serve(root: Path, port: int, ready: threading.Event | None = None) -> None:
    """Run all of it until stopped; UserError when the server doesn't come up or a part ends by itself."""
    env = environment(root, port)
    prefect = [sys.executable, "-m", "prefect"]
    ended: list[str] = []
    (root / artefacts.REPORTS).mkdir(exist_ok=True)
    with guarded() as children:
        start = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
        _background("server", [*prefect, *start], root, env, children, ended)
        _background("pages", [sys.executable, "-m", "flows.pages", str(port + 1)], root, env, children, ended)
        _wait_for(env["PREFECT_API_URL"] + "/health", ended)
        _once("setup", [sys.executable, "-m", "flows.setup"], root, env, children, ended)
        _once("deploy", [*prefect, "--no-prompt", "deploy", "--all"], root, env, children, ended)
        worker = ["worker", "start", "--pool", POOLS[0], "--limit", str(AT_ONCE)]
        _background("worker", [*prefect, *worker], root, env, children, ended)
        print(f"Prefect: http://127.0.0.1:{port}   reports: {env['PLUMBLINE_REPORTS_URL']}   (Ctrl-C ends both)")
        print("Train now: prefect deployment run training/train, with PREFECT_API_URL=" + env["PREFECT_API_URL"])
        sys.stdout.flush()
        if ready:
            ready.set()
        while not ended:
            time.sleep(0.5)
        raise UserError(f"The {ended[0]} ended: read its last lines above.")


def _background(
    name: str, command: list[str], root: Path, env: Mapping[str, str], children: Children, ended: list[str]
) -> None:
    def work() -> None:
        try:
            # One write, line end included, so that lines of several threads don't mix.
            children.run(command, root, lambda line: print(f"{name:>6} | {line}\n", end="", flush=True), env)
        except Stopped:
            return
        ended.append(name)

    threading.Thread(target=work, name=name, daemon=True).start()


def _once(
    name: str,
    command: list[str],
    root: Path,
    env: Mapping[str, str],
    children: Children,
    ended: list[str],
    seconds: float = 300.0,
) -> None:
    """Run what may be run any number of times until it succeeds: once more in any case, and while the server is busy.

    After a power cut it answers nobody for a while: it sees to all runs that came due meanwhile.
    """
    deadline, tries = time.monotonic() + seconds, 0
    while True:
        lines: list[str] = []
        if not children.run(command, root, lines.append, env):
            return
        tries += 1
        if ended or time.monotonic() > deadline or (tries > 1 and _answers(env["PREFECT_API_URL"] + "/admin/version")):
            raise UserError(f"{name} failed: {' '.join(lines[-10:])}")
        print(f"{name:>6} | failed, and is tried again: {' '.join(lines[-1:])}\n", end="", flush=True)
        time.sleep(1)


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(url, timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _wait_for(url: str, ended: list[str], seconds: float = 300.0) -> None:
    import httpx

    deadline, said = time.monotonic() + seconds, "nothing"
    while time.monotonic() < deadline and not ended:
        try:
            answer = httpx.get(url, timeout=2)
            if answer.status_code == httpx.codes.OK:
                return
            said = f"status {answer.status_code}"
        except httpx.HTTPError as error:
            said = f"{type(error).__name__}: {first_line(error)}"
        time.sleep(0.3)
    raise UserError(f"{url} does not answer ({said}): read the lines above; --port chooses another port.")


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description="Prefect on this machine.")
    parser.add_argument("--port", type=int, default=4200, help="the server's; the report pages take the next (4200)")
    port = parser.parse_args().port
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve(find_root(), port)
    except KeyboardInterrupt:
        print("Stopped.\n", end="")


if __name__ == "__main__":
    run(main)
