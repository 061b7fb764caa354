"""The Prefect server of a command started by hand: the one PREFECT_API_URL names, or a temporary one of its own.

The temporary server is Prefect's; ours is only that it never outlives the command. A guardian (flows.children) ends it
when the command is over, after Prefect's own last messages are out, and when it was killed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from common.errors import UserError, first_line
from flows.children import Guardian

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

PATIENCE = 10.0  # seconds for a server that is there to answer
START = 120.0  # seconds for a temporary one to come up; Prefect's own 20 are too few on a busy machine


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
    """Start Prefect's temporary server where Prefect's clients look for it; does nothing where there is one already."""
    from prefect.server.api.server import SubprocessASGIServer

    class Temporary(SubprocessASGIServer):
        def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
            process = super()._run_uvicorn_command()
            guardian.watch(process.pid)
            return process

        def stop(self) -> None:
            """The guardian does it, later: Prefect calls this while its last logs and events are still on the way."""

    if None in SubprocessASGIServer._instances:
        return
    guardian = Guardian()
    server = Temporary()
    try:
        server.start(timeout=int(START))
    except RuntimeError as error:
        raise UserError(f"Prefect's temporary server did not start: {_reason(error)}.") from None


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
