"""Work on all cores; results come in order, and only a little is computed in advance."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from threading import Thread
from typing import Any, TypeVar

from plumbline.common.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int = 4, workers: int | None = None
) -> Iterator[Result]:
    """Yield function(item) in the items' order, computed on a thread per core (or `workers`), `ahead` each in advance.

    For work that releases the interpreter lock, such as Pillow's decoding and resizing: nothing is copied between
    processes, and nothing is forked with TensorFlow loaded.
    """
    workers = workers or cores()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    try:
        yield from _drain(pool, function, items, workers * ahead)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_ahead(items: Iterable[Item], ahead: int = 1) -> Iterator[Item]:
    """Yield `items` in order, the next `ahead` of them made on a thread of their own while one is worked on."""
    source, end = iter(items), object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        waiting: deque[Future[Any]] = deque(pool.submit(next, source, end) for _ in range(ahead))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, source, end))
            yield item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_order_by_processes(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int = 4
) -> Iterator[Result]:
    """As `in_order`, on a process per core: for work that holds the interpreter lock, with small results.

    `function`, items and results are pickled between our own processes. Raises UserError where a process dies.
    """
    workers = cores()
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield from _drain(pool, function, items, workers * ahead)
    except BrokenProcessPool:
        raise UserError(
            "a process that read pictures died: its error is above, else memory ran out (lower data.max_pixels)."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _drain(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], limit: int) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= limit:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _start_worker() -> None:
    """Use one thread for matrix products, and end this process when the parent is killed."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # Its queue does not close by itself: without this the workers of a killed stage would wait for ever.
        Thread(target=lambda: (wait_for([parent.sentinel]), os._exit(1)), daemon=True).start()
