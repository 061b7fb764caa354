"""The Prefect server of a command started by hand: the one PREFECT_API_URL names, or a temporary one of its own.

A temporary server never outlives the command: a guardian (flows.children) ends it when the command is over, after
Prefect's last messages are out, and when it was killed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flows.children import Guardian
from flows.graph import read_graph
from flows.workspace import find_root
from plumbline.common.errors import UserError, first_line

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

# What Prefect gives its own temporary servers: no UI, and only the services that one run needs.
EPHEMERAL = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
PATIENCE = 10.0  # seconds for a server that is there to answer
START = 300.0  # seconds for a temporary one to come up; Prefect's own 20 are too few on a busy machine


def run_flow(flow: Callable[..., Any], *arguments: Any) -> State[Any]:
    """Run a flow here and return its final state; UserError where there is no Prefect server, or it is lost."""
    import httpx

    ensure_server()
    try:
        state: State[Any] = flow(*arguments, return_state=True)
    except httpx.TransportError as error:
        raise UserError(
            f"Prefect's server at {server_url()} was lost during the run ({first_line(error)}): see to the server and "
            "run it again; only what was not finished is done again."
        ) from None
    return state


def ensure_server() -> None:
    """See that there is a server to talk to, before a flow begins; UserError in one sentence where there is none."""
    if server_url():
        check_server()
    else:
        start_temporary_server()


def server_url() -> str:
    """Return what PREFECT_API_URL or Prefect's profile says, without a password in it; empty where nothing does."""
    from prefect._internal.urls import strip_auth_from_url
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    return strip_auth_from_url(url) if url else ""


def check_server() -> None:
    """UserError where the server that the settings name can't be reached, is none, or lets nobody in."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        client = get_client(sync_client=True, httpx_settings={"timeout": PATIENCE})
        try:
            client.api_version()
        except Exception as error:  # A dead port, a page that is no API, a wrong password: each its own exception.
            raise UserError(
                f"PREFECT_API_URL={server_url()}: no Prefect server can be used there ({_reason(error)}). Start it, "
                "correct the setting, or unset it for a temporary server."
            ) from None


def start_temporary_server() -> None:
    """Start a server as Prefect's clients would by themselves, and make it the one this process talks to.

    They would import the whole server into this process for that, two seconds of work, and leave it running when this
    process is killed.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    port = _free_port()
    print(f"Starting Prefect's temporary server on http://127.0.0.1:{port}", file=sys.stderr, flush=True)
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    app = ["uvicorn", "--factory", "prefect.server.api.server:create_app", "--log-level", "error", "--lifespan", "on"]
    guardian = Guardian()
    process = subprocess.Popen(
        [sys.executable, "-m", *app, "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, **EPHEMERAL, **settings},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    guardian.watch(process.pid)
    # What the flow needs next is imported, and DVC's schemas compiled, while the server imports what it needs.
    import fastapi  # noqa: F401  Prefect's client asks for it when a flow begins

    with suppress(UserError):
        read_graph(find_root())
    url = f"http://127.0.0.1:{port}/api"
    _wait_for(url, process)
    os.environ["PREFECT_API_URL"] = url
    refresh_global_settings_context()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    import httpx

    deadline = time.monotonic() + START
    with httpx.Client(timeout=PATIENCE) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if client.get(url + "/health").status_code == httpx.codes.OK:
                    return
            time.sleep(0.05)
    raise UserError("Prefect's temporary server did not start: read its lines above, or start one (make serve-flows).")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
