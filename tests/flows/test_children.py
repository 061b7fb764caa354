"""No child outlives the run that started it."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from flows.children import Stopped, guarded

TREE = "sleep 300 & echo $!; echo $$; wait"  # a child and a grandchild


def wait_until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_lines_come_as_they_are_printed_and_bars_count_as_lines(tmp_path):
    seen = []
    script = r"import sys; sys.stdout.write('a\n b \nc\r 10%|\r 20%|\nlast')"
    with guarded() as children:
        code = children.run([sys.executable, "-c", script], tmp_path, seen.append)
    assert (code, seen) == (0, ["a", " b", "c", " 10%|", " 20%|", "last"])


def test_both_streams_and_the_exit_code_arrive(tmp_path):
    seen = []
    with guarded() as children:
        assert children.run(["sh", "-c", "echo out; echo err >&2; exit 3"], tmp_path, seen.append) == 3
    assert sorted(seen) == ["err", "out"]


@pytest.mark.slow
def test_stopping_ends_the_whole_tree_and_refuses_new_ones(tmp_path):
    seen, raised = [], []

    def work():
        try:
            children.run(["sh", "-c", TREE], tmp_path, seen.append)
        except Stopped as error:
            raised.append(error)

    with guarded() as children:
        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: len(seen) == 2)
        children.stop()
        thread.join(20)
        assert raised
        with pytest.raises(Stopped):
            children.run(["true"], tmp_path, seen.append)
    assert all(gone(int(pid)) for pid in seen)


@pytest.mark.slow
def test_what_ignores_sigterm_is_killed(tmp_path):
    seen = []
    stubborn = "trap '' TERM; echo $$; while :; do sleep 0.1; done"

    def work():
        with pytest.raises(Stopped):
            children.run(["sh", "-c", stubborn], tmp_path, seen.append)

    with guarded() as children:
        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: seen)
        children.stop()
        thread.join(20)
    assert gone(int(seen[0]))


RUN = f"""
import sys
from pathlib import Path
from flows.children import guarded
with guarded() as children:
    children.run(["sh", "-c", {TREE!r}], Path("."), lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_takes_its_children_along(tmp_path, sign):
    run = subprocess.Popen([sys.executable, "-c", RUN], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    pids = [int(run.stdout.readline()) for _ in range(2)]
    assert not any(map(gone, pids))
    os.kill(run.pid, sign)
    run.wait()
    wait_until(lambda: all(map(gone, pids)))
    run.stdout.close()


@pytest.mark.slow
def test_a_guardian_that_was_killed_is_replaced_and_watches_what_the_first_did(tmp_path, capfd):
    with guarded() as children:
        guardian = children._guardian
        first = subprocess.Popen(["sleep", "300"], start_new_session=True)
        guardian.watch(first.pid)
        for _ in range(2):
            guardian._process.kill()
            guardian._process.wait()
            assert children.run(["true"], tmp_path, print) == 0
    first.wait(timeout=15)
    assert first.returncode == -signal.SIGTERM
    assert capfd.readouterr().err.count("another takes over") == 2


@pytest.mark.slow
def test_an_error_while_reading_ends_the_child(tmp_path):
    def refuse(line):
        pids.append(int(line))
        raise ValueError("enough")

    pids = []
    with guarded() as children, pytest.raises(ValueError, match="enough"):
        children.run(["sh", "-c", "echo $$; sleep 300"], tmp_path, refuse)
    wait_until(lambda: gone(pids[0]))
