"""`python -m flows.serve` in a small project, started, asked, stopped and killed.

The interpreter is started by its path, without its folder on PATH, behind a proxy that leads nowhere.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import psutil


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return what `condition` returns once that is true; AssertionError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.5)
    return value


class Webhook(BaseHTTPRequestHandler):
    """Keeps what it is sent in the server's list."""

    def do_POST(self) -> None:
        """Keep a message."""
        length = int(self.headers["Content-Length"])
        cast(Any, self.server).received.append(json.loads(self.rfile.read(length)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Served:
    """The project, and `flows.serve` running in it."""

    def __init__(self, root: Path, webhook: str) -> None:
        self.root = root
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
        self.env = {
            **kept,
            "PATH": "/usr/bin:/bin",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
            "PLUMBLINE_NOTIFY": webhook,
            "PYTHONPATH": "",
            "DVC_NO_ANALYTICS": "1",
            "PLUMBLINE_OFFLINE": "1",
            "GIT_AUTHOR_NAME": "T",
            "GIT_AUTHOR_EMAIL": "t@example.com",
            "GIT_COMMITTER_NAME": "T",
            "GIT_COMMITTER_EMAIL": "t@example.com",
        }
        for name in ("PREFECT_API_URL", "PREFECT_HOME", "PLUMBLINE_WORKSPACE", "NO_PROXY", "no_proxy"):
            self.env.pop(name, None)
        self.log = root.parent / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.died = 0.0

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "flows.serve", "--port", str(self.port)]
            process = subprocess.Popen(command, cwd=self.root, env=self.env, stdout=log, stderr=log)
        before = self.text().count("Train now")
        wait_until(lambda: self.text().count("Train now") > before or process.poll() is not None, 600, "serve")
        self.process = process
        if process.poll() is not None:
            raise AssertionError(self.text()[-3000:])

    def text(self) -> str:
        """What it has printed since the first start."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def power_cut(self) -> None:
        """SIGKILL to everything that serve started, at once."""
        self.died = time.time()
        process, self.process = self.process, None
        if process is None:
            return
        for one in self.processes():
            with suppress(psutil.NoSuchProcess):
                one.kill()
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def processes(self) -> list[psutil.Process]:
        """Return what serve started and what that started, wherever it hangs in the tree of processes now."""
        return [one for one in psutil.process_iter(["environ"]) if self._is_ours(one)]

    def _is_ours(self, process: psutil.Process) -> bool:
        environ = process.info["environ"] or {}
        return bool(environ.get("PLUMBLINE_WORKSPACE") == str(self.root))

    def api(self, method: str, path: str, **body: Any) -> Any:
        """Ask Prefect's server; None where it does not answer or its database is busy."""
        import httpx

        with httpx.Client(trust_env=False, timeout=30) as client:
            try:
                answer = client.request(method, f"http://127.0.0.1:{self.port}/api{path}", json=body or None)
            except httpx.HTTPError:
                return None
        if answer.status_code == 503:  # SQLite is busy
            return None
        if answer.status_code >= 400:
            raise AssertionError(answer.text)
        return answer.json() if answer.content else None

    def ask(self, deployment: str, **parameters: Any) -> str:
        """Ask for a run of a deployment; return its id."""
        found = wait_until(lambda: self.api("GET", f"/deployments/name/{deployment}"), 300, deployment)
        path = f"/deployments/{found['id']}/create_flow_run"
        return str(wait_until(lambda: self.api("POST", path, parameters=parameters), 300, "a run asked for")["id"])

    def state(self, run: str) -> dict[str, Any]:
        """Return a run's state."""
        found = self.api("GET", f"/flow_runs/{run}")
        return dict(found["state"]) if found else {"type": "NO ANSWER", "name": ""}

    def ended(self, run: str, seconds: float = 600) -> dict[str, Any]:
        """Return the state in which a run ended, once it has."""

        def final() -> dict[str, Any] | None:
            state = self.state(run)
            return state if state["type"] in ("COMPLETED", "FAILED", "CANCELLED") else None

        return dict(wait_until(final, seconds, f"the end of a run: {self.text()[-4000:]}"))

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """Return the runs of a deployment, the oldest first."""
        only = {"deployments": {"name": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
        return self.api("POST", "/flow_runs/filter", **only) or []


@contextmanager
def listening() -> Iterator[ThreadingHTTPServer]:
    """Yield a web server on this machine whose `received` lists the messages sent to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    server.received = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
