"""Which thread of a worker goes first: what scores pictures, then what talks to clients, then what opens versions.

In overload a worker says "no" hundreds of times a second. Were all of its threads alike, these refusals would take half
of the processor from the answers that were promised. Linux gives priorities by thread; elsewhere nothing is done.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

TALKS = 5  # how much nicer the event loop is: it has a third of the weight of what scores
OPENS = 19  # ... and what opens and warms a version
NICEST = 19


def step_back(by: int) -> None:
    """Make the present thread, and those that it begins from now on, so much nicer than it was."""
    if sys.platform == "linux":
        own = threading.get_native_id()
        with suppress(OSError):  # a sandbox may forbid it: then all threads stay alike
            os.setpriority(os.PRIO_PROCESS, own, min(NICEST, os.getpriority(os.PRIO_PROCESS, own) + by))


def begun(threads: int, name: str) -> ThreadPoolExecutor:
    """Return a pool whose threads run already: one begun on demand would have the priority of who asks for it."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    met = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(met.wait)
    met.wait()
    return pool
