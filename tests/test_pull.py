"""What `make run` begins with: the pictures that data.dvc names, without touching what a site sent."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent


@pytest.fixture
def clone(tmp_path):
    """A clone whose pictures lie at its remote only, with the project's Makefile and this environment."""
    root = tmp_path / "project"
    for folder in ("data", "incoming"):
        (root / folder / "SITE").mkdir(parents=True)
        (root / folder / "SITE" / "1.png").write_bytes(folder.encode())
    shutil.copy(TOP / "Makefile", root)
    (root / ".venv").symlink_to(sys.prefix)
    for command in (
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["dvc", "remote", "add", "-q", "--default", "there", str(tmp_path / "remote")],
        ["dvc", "add", "-q", "data", "incoming"],
        ["dvc", "push", "-q"],
    ):
        subprocess.run(command, cwd=root, env=environment(), check=True, capture_output=True)
    for folder in ("data", "incoming", ".dvc/cache"):
        shutil.rmtree(root / folder)
    return root


def environment():
    outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")  # `make test` is a make of its own: this one knows nothing of it
    mine = {name: value for name, value in os.environ.items() if name not in outer}
    return {**mine, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}


def pull(root):
    done = subprocess.run(["make", "pull"], cwd=root, env=environment(), capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_what_a_site_sent_since_stays_and_stops_nothing(clone):
    assert pull(clone) == (0, "")
    assert (clone / "incoming" / "SITE" / "1.png").read_bytes() == b"incoming"
    (clone / "incoming" / "SITE" / "2.png").write_bytes(b"new")
    (clone / "data" / "SITE" / "1.png").unlink()
    assert pull(clone) == (0, ""), "a pull that was cut off goes on"
    assert (clone / "data" / "SITE" / "1.png").read_bytes() == b"data"
    assert (clone / "incoming" / "SITE" / "2.png").read_bytes() == b"new"


@pytest.mark.slow
def test_pictures_added_to_data_stay_and_it_is_said_what_to_do(clone):
    pull(clone)
    (clone / "data" / "SITE" / "2.png").write_bytes(b"new")
    status, said = pull(clone)
    assert status != 0
    assert "keep pictures that you added with `dvc add data`" in said
    assert (clone / "data" / "SITE" / "2.png").read_bytes() == b"new"
