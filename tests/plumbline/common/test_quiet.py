"""TensorFlow's own lines are silent unless asked for; what a crash says is not."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from plumbline.common.quiet import VERBOSE, hush, without_future_warnings

TOP = Path(__file__).resolve().parents[3]
OURS = (VERBOSE, "TF_CPP_MIN_LOG_LEVEL", "PYTHONFAULTHANDLER")
COMPUTES = """
from plumbline.common.quiet import hush
hush()
import os, tensorflow as tf
os.write(2, b"said afterwards\\n")
tf.nn.conv2d(tf.ones((1, 8, 8, 3)), tf.ones((3, 3, 3, 4)), 1, "SAME")
"""
# A module called tensorflow that says what TensorFlow says, and something of its own.
SAYS = """
import os
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
os.write(2, b"I0000 00:00:1795917447.899518    3836 port.cc:153] oneDNN custom operations are on.\\n")
os.write(2, b"E0000 00:00:1795917447.899518    3836 port.cc:153] something is wrong\\n")
"""


def said(code, folder, **environment):
    env = {key: value for key, value in os.environ.items() if key not in OURS}
    path = os.pathsep.join([str(folder), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**env, "PYTHONPATH": path, **environment}, capture_output=True, text=True
    )
    return done.returncode, done.stderr


@pytest.mark.slow
def test_tensorflow_is_loaded_and_used_without_a_line_of_its_own(tmp_path):
    assert said(COMPUTES, tmp_path) == (0, "said afterwards\n")


HUSHED = "from plumbline.common.quiet import hush\nhush()\nimport tensorflow"


def test_errors_pass_and_everything_does_where_it_is_asked_for(tmp_path):
    (tmp_path / "tensorflow.py").write_text(SAYS)
    code, quiet = said(HUSHED, tmp_path)
    assert (code, quiet.splitlines()) == (0, [quiet.strip()])
    assert quiet.endswith("something is wrong\n")
    assert len(said(HUSHED, tmp_path, **{VERBOSE: "1"})[1].splitlines()) == 3


def test_the_last_words_of_a_crash_are_not_lost(tmp_path):
    (tmp_path / "tensorflow.py").write_text(SAYS + 'os.write(2, b"compiled to use AVX\\n")\nos.abort()\n')
    code, words = said(HUSHED, tmp_path)
    assert code == -6
    assert words.endswith("compiled to use AVX\n")


def test_a_process_begun_meanwhile_holds_nobody_up(tmp_path):
    begins = 'import subprocess\nsubprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)\n'
    (tmp_path / "tensorflow.py").write_text(begins)
    began = "import time\nbegan = time.monotonic()\n"
    held = "\nimport os\nos.write(1, b'held' if time.monotonic() - began > 10 else b'free')\nos._exit(0)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", began + HUSHED + held],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, timeout=30,
    )  # fmt: skip
    assert done.stdout == b"free"  # and who reads its output got to the end of it


def test_a_level_that_is_set_is_left_alone():
    env = {"TF_CPP_MIN_LOG_LEVEL": "0"}
    hush(env)
    assert env["TF_CPP_MIN_LOG_LEVEL"] == "0"
    empty: dict[str, str] = {}
    hush(empty)
    assert empty["TF_CPP_MIN_LOG_LEVEL"] == "2"


def test_warnings_of_what_will_change_are_for_developers(monkeypatch):
    monkeypatch.delenv(VERBOSE, raising=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with without_future_warnings():
            warnings.warn("will change", FutureWarning, stacklevel=1)
            warnings.warn("is wrong", UserWarning, stacklevel=1)
        monkeypatch.setenv(VERBOSE, "1")
        with without_future_warnings():
            warnings.warn("will change", FutureWarning, stacklevel=1)
    assert [one.category for one in caught] == [UserWarning, FutureWarning]


HANDS_OVER = {"plumbline/cli.py", "stages/drift.py"}
"""Run others' mains, which run so."""
WITHOUT_NETWORKS = {"serving/fetch.py"}


def test_every_command_that_people_or_stages_call_is_hushed():
    """They all begin by `plumbline.common.errors.run`, which hushes; what begins otherwise hushes by itself."""
    loud = []
    for room in ("plumbline", "stages", "monitoring", "flows", "serving"):
        for path in (TOP / room).rglob("*.py"):
            name, text = path.relative_to(TOP).as_posix(), path.read_text(encoding="utf-8")
            begins = 'if __name__ == "__main__":' in text and name not in HANDS_OVER | WITHOUT_NETWORKS
            if begins and not re.search(r"^ +(return )?run\(|^ +hush\(\)", text, re.M):
                loud.append(name)
    assert loud == []
