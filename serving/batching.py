"""Pictures that wait for the network, scored together; a lone one is scored at once.

There is no waiting for a batch to fill: while one batch is being scored the next gathers, so a batch is as large as the
load makes it. Whoever asks is told "no" before anything of theirs is kept, once `room` pictures are inside.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Result = TypeVar("Result")
ResultOut = TypeVar("ResultOut", covariant=True)
FORGET = 0.1  # weight of the newest batch in the measured rate
FIRST_RATE = 20.0  # pictures a second, before any were measured
LONGEST_WAIT = 60


class Network(Protocol[ResultOut]):
    """What scores pictures (N, ...), one result each, in their order."""

    def score(self, pixels: NDArray[Any]) -> Sequence[ResultOut]: ...


class BusyError(Exception):
    """There is no room; `seconds` is when there should be."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"busy for {seconds} s")
        self.seconds = seconds


@dataclass
class _Waiting(Generic[Result]):
    network: Network[Result]
    pixels: NDArray[Any]
    future: asyncio.Future[Result]


class Batcher(Generic[Result]):
    """One queue and the one thread that scores it."""

    def __init__(self, most: int, room: int) -> None:
        """`most` pictures are scored at a time, `room` may be inside."""
        self.most, self.room = most, room
        self.inside = 0
        self.sizes: list[int] = []  # of batches, since whoever counts them last looked
        self._rate = FIRST_RATE
        self._queue: deque[_Waiting[Result]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._busy = False

    def check(self, count: int) -> None:
        """Raise BusyError where there is no room for `count` pictures."""
        if self.inside and self.inside + count > self.room:
            raise BusyError(self.wait(count))

    @contextmanager
    def admitted(self, count: int) -> Iterator[None]:
        """Hold room for `count` pictures; BusyError where there is none.

        More than `room` at once is let in when nobody else is inside: it would never be otherwise.
        """
        self.check(count)
        self.inside += count
        try:
            yield
        finally:
            self.inside -= count

    def wait(self, count: int) -> int:
        """Return after how many seconds there should be room for `count` pictures, by the rate that was measured."""
        over = max(1, self.inside + count - self.room)
        return max(1, min(LONGEST_WAIT, math.ceil(over / self._rate)))

    @property
    def waiting(self) -> int:
        """How many pictures wait to be scored, those of clients who went away not among them."""
        return sum(not item.future.done() for item in self._queue)

    async def score(self, network: Network[Result], pictures: Sequence[NDArray[Any]]) -> list[Result]:
        """Return the result of each picture, in order; what `network.score` raises is raised to all in its batch."""
        loop = asyncio.get_running_loop()
        items = [_Waiting(network, pixels, loop.create_future()) for pixels in pictures]
        self._queue.extend(items)
        self._go(loop)
        try:
            return list(await asyncio.gather(*(item.future for item in items)))
        finally:
            for item in items:  # whoever was cancelled is not scored any more
                item.future.cancel()

    def _go(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._busy:
            return
        batch = self._next()
        if not batch:
            return
        self._busy = True
        loop.run_in_executor(self._pool, _score, batch).add_done_callback(lambda done: self._done(loop, batch, done))

    def _next(self) -> list[_Waiting[Result]]:
        """Take the longest waiting picture and those behind it that are for the same network, in their order."""
        batch: list[_Waiting[Result]] = []
        others: deque[_Waiting[Result]] = deque()
        while self._queue and len(batch) < self.most:
            item = self._queue.popleft()
            if item.future.done():
                continue
            if batch and (item.network is not batch[0].network or item.pixels.shape != batch[0].pixels.shape):
                others.append(item)
            else:
                batch.append(item)
        self._queue.extendleft(reversed(others))
        return batch

    def _done(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting[Result]],
        done: asyncio.Future[tuple[Sequence[Result], float]],
    ) -> None:
        self._busy = False
        self._go(loop)  # the network has its next work before anybody is answered
        error = done.exception()
        if error is None:
            results, seconds = done.result()
            if len(results) == len(batch):
                self._rate += FORGET * (len(batch) / max(seconds, 1e-6) - self._rate)
                self.sizes.append(len(batch))
                for item, result in zip(batch, results, strict=True):
                    if not item.future.done():
                        item.future.set_result(result)
                return
            error = RuntimeError(f"{len(results)} answers to {len(batch)} pictures")
        for item in batch:
            if not item.future.done():
                item.future.set_exception(error)

    def close(self) -> None:
        """Let the thread go; what waits is not scored."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _score(batch: list[_Waiting[Result]]) -> tuple[Sequence[Result], float]:
    started = time.perf_counter()
    results = batch[0].network.score(np.stack([item.pixels for item in batch]))
    return results, time.perf_counter() - started
