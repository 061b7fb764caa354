"""What scores pictures goes before what talks to clients, and that before what opens versions."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.priority import NICEST, OPENS, TALKS, begun, step_back

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives priorities by thread")


def niceness():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_threads_that_ran_before_keep_their_priority_and_those_begun_later_do_not():
    def worker():
        before = niceness()
        scores = begun(2, "scores")
        step_back(TALKS)
        later = ThreadPoolExecutor(1)
        opens = ThreadPoolExecutor(1, initializer=lambda: step_back(OPENS))
        found = [pool.submit(niceness).result() for pool in (scores, later, opens)]
        for pool in (scores, later, opens):
            pool.shutdown()
        return found, [before, niceness(), NICEST], before + TALKS

    with ThreadPoolExecutor(1) as apart:  # a test leaves its process as it was
        found, wanted, talks = apart.submit(worker).result()
    assert found == wanted
    assert found[1] == talks


def test_all_threads_of_a_pool_have_begun():
    pool = begun(3, "three")
    assert len(pool._threads) == 3
    assert pool.submit(lambda: "works").result() == "works"
    pool.shutdown()
