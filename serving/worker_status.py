"""Is everybody well? Each worker, and the keeper that follows the registry, answers on a socket of its own.

A worker's answer is what its network makes of a picture that was drawn for the question, through the same queue as
clients' pictures: a worker whose queue is stuck, or whose network is gone, can't give it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from serving.problems import ProblemError

PATIENCE = 5.0
KEEPER = "keeper.sock"
ADDRESS = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"`]+")
PATH = re.compile(r"[^\s'\"`(]*/[^\s'\"`,;:)]+")
Answer = Callable[[], Awaitable[dict[str, Any]]]


def worker_socket(folder: Path, number: int) -> Path:
    """Return where worker `number` answers."""
    return folder / f"worker-{number}.sock"


async def answer_on(path: Path, answer: Answer) -> asyncio.Server:
    """Answer whoever connects to `path` with one line of JSON."""

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(json.dumps(await answer()).encode() + b"\n")
            await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)
    return await asyncio.start_unix_server(handle, str(path))


async def ask(path: Path) -> dict[str, Any]:
    """Return what answers at `path`, or `trouble` where nothing does."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                content: dict[str, Any] = json.loads(await reader.readline())
                return content
            finally:
                writer.close()
    except (OSError, ValueError, TimeoutError):
        return {"trouble": "does not answer"}


class WorkerStatus:
    """Asks everybody."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._folder, self._workers = folder, workers

    async def everybody(self) -> tuple[dict[str, Any], bool]:
        """Return what each worker and the keeper say, and whether clients can be served."""
        sockets = [worker_socket(self._folder, number) for number in range(self._workers)]
        found = await asyncio.gather(*map(ask, sockets), ask(self._folder / KEEPER))
        *workers, keeper = [without_places(said) for said in found]
        versions = {worker.get("version") for worker in workers}
        ready = all(worker.get("answered") for worker in workers)
        content = {
            "status": "ready" if ready else "not ready",
            "version": next(iter(versions)) if len(versions) == 1 else None,
            "workers": workers,
            "registry": keeper,
        }
        if not ready:
            content["detail"] = _why(workers, keeper)
        return content, ready


def without_places(said: dict[str, Any]) -> dict[str, Any]:
    """Return what somebody said for those who may ask without a key: no folder, no address. The log has the whole."""
    return {key: _without_places(value) if isinstance(value, str) else value for key, value in said.items()}


def _without_places(text: str) -> str:
    return PATH.sub(lambda found: PurePosixPath(found[0]).name, ADDRESS.sub("the registry's address", text))


def _why(workers: list[dict[str, Any]], keeper: dict[str, Any]) -> str:
    if all(worker.get("version") is None and "nothing" in worker for worker in workers):
        return str(keeper.get("trouble") or workers[0]["nothing"])
    silent = sum(not worker.get("answered") for worker in workers)
    return f"{silent} of {len(workers)} workers give no answer."


async def real_answer(answer_itself: Callable[[], Awaitable[int]], status: dict[str, Any]) -> dict[str, Any]:
    """Return a worker's status with what it just answered."""
    try:
        async with asyncio.timeout(PATIENCE - 1):
            return {**status, "answered": True, "version": await answer_itself()}
    except ProblemError as error:
        return {**status, "answered": False, "nothing": error.detail}
    except Exception as error:  # whatever ails the network: the one who asks wants to know
        return {**status, "answered": False, "trouble": f"can't answer ({type(error).__name__})"}
