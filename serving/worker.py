"""One worker: `python -m serving.worker`, started by `serving.supervisor` with an open socket. Not for people."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from plumbline.common.errors import run
from plumbline.common.served import RECORD
from serving.answers import Answering
from serving.api import Service
from serving.app import Crowded, make_app
from serving.engine import Engine
from serving.keys import Keys
from serving.links import Fetcher
from serving.record import Labels, Recorder
from serving.settings import ServingParams
from serving.shelf import Shelf
from serving.worker_status import WorkerStatus, answer_on, real_answer, worker_socket

HEAD_SECONDS = 15
GRACE_SECONDS = 20


class Protocol(HttpToolsProtocol):
    """As uvicorn's, but whoever connects and does not send a whole head in time is let go."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._patience: Any = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def on_message_begin(self) -> None:
        """A head begins, perhaps the next of a connection that was kept."""
        super().on_message_begin()
        self._patience.cancel()
        self._patience = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def on_headers_complete(self) -> None:
        """A head came: from here on the limits of the settings count."""
        self._patience.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._patience.cancel()
        super().connection_lost(exc)

    def _too_slow(self) -> None:
        self.transport.close()


def build(params: ServingParams, model: str, folder: Path, number: int) -> ASGIApp:
    """Return worker `number`'s application; `folder` is where all workers of this service meet."""
    engine = Engine(params, Shelf(params.state))
    record = params.state / RECORD
    status = WorkerStatus(folder, params.processes)
    recorder = Recorder(record) if params.record != "none" else None
    service = Service(
        params, Answering(engine, recorder), Keys(params.keys), Fetcher(params), Labels(record), status, model
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.look()

        async def answer() -> dict[str, Any]:
            return await real_answer(engine.answer_itself, {"pid": os.getpid(), **engine.status()})

        socket_of_ours = await answer_on(worker_socket(folder, number), answer)
        following = asyncio.get_running_loop().create_task(engine.follow())
        try:
            yield
        finally:
            following.cancel()
            socket_of_ours.close()
            engine.close()
            if recorder is not None:
                recorder.close()

    return Crowded(make_app(service, lifespan), service)


def _end_with(parent: int) -> None:
    """End when the supervisor does, however it ends: the other end of its pipe closes."""

    def wait() -> None:
        with suppress(OSError):
            os.read(parent, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="supervisor").start()


def main(arguments: list[str]) -> None:
    """Serve until told to stop. The settings come as JSON: every worker has those that the service began with."""
    listening, parent, number, folder, model, settings = arguments
    logging.basicConfig(format=f"%(levelname)s worker {number}: %(message)s", level=logging.INFO)
    params = ServingParams.model_validate_json(settings)
    _end_with(int(parent))
    app = build(params, model, Path(folder), int(number))
    config = uvicorn.Config(
        app,
        http=Protocol,
        loop="uvloop",
        access_log=False,
        server_header=False,
        log_level="warning",
        log_config=None,
        timeout_keep_alive=HEAD_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        proxy_headers=False,
    )
    asyncio_server = uvicorn.Server(config)
    with socket.socket(fileno=int(listening)) as sock:
        asyncio_server.run(sockets=[sock])


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
