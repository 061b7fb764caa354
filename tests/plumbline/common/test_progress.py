"""Progress hands on every item, draws a bar on a terminal, and elsewhere prints a line now and then."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

from flows.outcomes import percent
from plumbline.common import progress as module
from plumbline.common.progress import Progress, progress


def test_every_item_comes_through_in_order_and_short_work_prints_nothing(capsys):
    assert list(progress(iter("abc"), "reading letters", total=3, unit="letter")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_long_work_prints_whole_lines_that_a_flow_can_read(capsys, monkeypatch):
    monkeypatch.setattr(module, "EVERY", 0.0)
    assert list(progress("abc", "reading letters", unit="letter")) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert [percent(line) for line in lines] == [33, 67, 100]
    assert lines[-1].startswith("reading letters: 100%")


def test_a_line_says_what_stands_beside_it_and_how_long_it_will_take():
    shown = Progress("train x", 10, "epoch")
    shown.step("validation loss 0.200")
    line = shown.line(3.0)
    assert "1/10 [00:03<00:27" in line
    assert "validation loss 0.200" in line


def test_on_a_terminal_there_is_a_bar_that_is_taken_away():
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    code = "from plumbline.common.progress import progress; list(progress('abc', 'reading letters'))"
    subprocess.run([sys.executable, "-c", code], stderr=follower, check=True)
    written = os.read(leader, 4096).decode()
    os.close(follower)
    os.close(leader)
    assert "reading letters:" in written
    assert "\n" not in written
