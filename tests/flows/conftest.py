"""A small real project to run: Git, DVC, a remote in a folder, stages that misbehave when a file tells them to."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.served import listening

REPOSITORY = Path(__file__).resolve().parents[2]

QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
    "GIT_AUTHOR_NAME": "T",
    "GIT_AUTHOR_EMAIL": "t@example.com",
    "GIT_COMMITTER_NAME": "T",
    "GIT_COMMITTER_EMAIL": "t@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}

# Counts its calls in calls/STAGE; `misbehave/STAGE` is sourced before the work.
WORK = """#!/bin/sh
set -e
mkdir -p calls misbehave build
echo x >> "calls/$1"
test ! -f "misbehave/$1" || . "misbehave/$1"
case $1 in
  ingest) cat data/*/* > build/manifest ;;
  features@*) mkdir -p build/features; { echo "${1#*@}"; cat build/manifest; } > "build/features/${1#*@}" ;;
  train@*) mkdir -p "build/candidates/${1#*@}"; cat "build/features/$2" > "build/candidates/${1#*@}/score" ;;
  evaluate) cat build/candidates/*/score > build/leaderboard ;;
  gate) mkdir -p build; rows=$(wc -l < build/leaderboard)
    printf '{"verdict": "%s", "candidate": "p", "reason": "%s rows", "rules": []}\\n' "${VERDICT:-PROMOTE}" "$rows" \\
      > build/decision.json ;;
esac
"""

PIPELINE = """
stages:
  ingest:
    cmd: sh work.sh ingest
    deps: [data, work.sh]
    outs: [build/manifest]
  features:
    foreach: {x: 1, y: 2}
    do:
      cmd: sh work.sh features@${key}
      deps: [build/manifest]
      outs: ["build/features/${key}"]
  train:
    foreach: {p: x, q: y, r: y}
    do:
      cmd: sh work.sh train@${key} ${item}
      deps: ["build/features/${item}", work.sh]
      outs: ["build/candidates/${key}"]
  evaluate:
    cmd: sh work.sh evaluate
    deps: [build/candidates]
    outs: [build/leaderboard]
  gate:
    cmd: sh work.sh gate
    deps: [build/leaderboard]
    outs: [build/decision.json]
"""

STAGES = ["data.dvc", "ingest", "features@x", "features@y", "train@p", "train@q", "train@r", "evaluate", "gate"]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PLUMBLINE_NOTIFY", raising=False)
    monkeypatch.delenv("PLUMBLINE_REPORTS_URL", raising=False)


@pytest.fixture(scope="session")
def server():
    """A real Prefect server in a process of its own, for the whole session."""
    from prefect.testing.utilities import prefect_test_harness

    os.environ.update(QUIET)
    # Below the 300 s of a test: other processes train meanwhile, and without a server every test of this one fails.
    with prefect_test_harness(server_startup_timeout=240):
        yield


class Project:
    """A workspace and what a user does in it."""

    def __init__(self, root):
        self.root = root

    def sh(self, *command, **kwargs):
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False, **kwargs)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def dvc(self, *arguments):
        return self.sh(sys.executable, "-m", "dvc", *arguments)

    def git(self, *arguments):
        return self.sh("git", *arguments)

    def misbehave(self, stage, script):
        path = self.root / "misbehave" / stage
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)

    def behave(self, stage):
        (self.root / "misbehave" / stage).unlink()

    def change(self, stage):
        """Give a stage, or a group of them, another command that does the same: only it runs again."""
        path = self.root / "dvc.yaml"
        text, changed = re.subn(rf"cmd: sh (\S*work\.sh {stage}\b)", r"cmd: sh ./\1", path.read_text())
        assert changed == 1
        path.write_text(text)

    def calls(self, stage):
        path = self.root / "calls" / stage
        return len(path.read_text().splitlines()) if path.exists() else 0

    def commit(self, message="change"):
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)


@pytest.fixture(scope="session")
def template(made_once):
    """The project as made once; tests work on copies."""
    os.environ.update(QUIET)

    def make(folder):
        project = Project(folder / "project")
        (folder / "remote").mkdir()
        (project.root / "data" / "with_helmet").mkdir(parents=True)
        (project.root / "data" / "with_helmet" / "1.txt").write_text("one\n")
        (project.root / "work.sh").write_text(WORK)
        (project.root / "dvc.yaml").write_text(PIPELINE)
        (project.root / "params.yaml").write_text("data: {}\n")
        (project.root / ".gitignore").write_text("/build/\n/calls/\n/misbehave/\n/data\n")
        project.git("init", "-q")
        project.dvc("init", "-q")
        project.dvc("remote", "add", "-q", "-d", "store", str(folder / "remote"))
        project.dvc("add", "-q", "data")
        project.dvc("push", "-q")
        project.commit("start")

    return made_once("template", make)


@pytest.fixture(scope="session")
def built_template(template, made_once):
    """The same after `dvc repro`."""
    return made_once("built", lambda folder: copy_of(template, folder).dvc("repro", "-q"))


@pytest.fixture
def project(template, tmp_path, monkeypatch):
    """A fresh copy with a remote of its own; the current folder."""
    return enter(copy_of(template, tmp_path / "copy"), monkeypatch)


@pytest.fixture
def built(built_template, tmp_path, monkeypatch):
    """A fresh copy in which every stage has run."""
    return enter(copy_of(built_template, tmp_path / "copy"), monkeypatch)


def copy_of(template, folder):
    """Copy a folder with a project and its remote."""
    shutil.copytree(template, folder, symlinks=True, dirs_exist_ok=True)
    project = Project(folder / "project")
    config = project.root / ".dvc" / "config"
    config.write_text(config.read_text().replace(str(template / "remote"), str(folder / "remote")))
    project.commit("another remote")
    return project


def enter(project, monkeypatch):
    """Make a project the current folder, as flows take it."""
    monkeypatch.chdir(project.root)
    monkeypatch.delenv("PLUMBLINE_WORKSPACE", raising=False)
    return project


@pytest.fixture
def messages(monkeypatch):
    """What a webhook of our own is sent."""
    with listening() as server:
        monkeypatch.setenv("PLUMBLINE_NOTIFY", f"http://127.0.0.1:{server.server_address[1]}/")
        yield server.received
