"""Two processes share a warm server only where they were started alike."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plumbline.common import surroundings

SHOW = "from plumbline.common.surroundings import address_here; print(address_here())"
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def address(tmp_path, start=None, **more):
    env = {**os.environ, "PYTHONPATH": TOP, "TMPDIR": str(tmp_path), **more}
    command = [sys.executable, "-c", SHOW]
    done = subprocess.run(command, env=env, cwd=tmp_path, check=True, capture_output=True, text=True, preexec_fn=start)
    return done.stdout.strip()


@pytest.mark.slow
def test_what_means_something_is_told_apart_and_the_rest_is_not(tmp_path):
    plain = address(tmp_path)
    assert address(tmp_path, DVC_STAGE="train@x", SHLVL="9") == plain
    others = [
        address(tmp_path, SEED="1"),
        address(tmp_path, lambda: os.umask(0o027)),
        address(tmp_path, lambda: os.nice(1)),
    ]
    assert len({plain, *others}) == 4
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "new.py").write_text("")
    assert address(tmp_path) != plain, "the code is another"


def test_the_code_of_a_pipeline_that_runs_in_a_folder_below_counts(tmp_path):
    (tmp_path / "stages").mkdir()
    shutil.copytree(Path(TOP) / "plumbline" / "common", tmp_path / "plumbline" / "common")
    (tmp_path / "plumbline" / "__init__.py").touch()
    folder = tmp_path / "detection"
    folder.mkdir()
    before = address(folder, PYTHONPATH=str(tmp_path))
    assert address(folder, PYTHONPATH=str(tmp_path)) == before
    (tmp_path / "stages" / "new.py").write_text("")
    assert address(folder, PYTHONPATH=str(tmp_path)) != before


def test_a_folder_that_others_may_enter_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = surroundings.address_here().parent
    folder.chmod(0o755)
    with pytest.raises(OSError, match="is not private"):
        surroundings.address_here()
