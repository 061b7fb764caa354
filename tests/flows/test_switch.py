"""The switch to a new version of the data, killed at every step: `dvc repro` never trains on a part of a batch."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows import graph
from flows.mend import mend
from flows.switch import ADDED, MEND, SWITCH, lay_ready, recover, switch
from tests.flows.conftest import Project

pytestmark = pytest.mark.slow

# SIGKILL before the given one of the steps that change anything: files moved, removed or written, Git called.
KILLED = """
import os, signal, sys
from pathlib import Path
from flows import switch
left = int(sys.argv[1])

def count(event, arguments):
    global left
    writes = event == "open" and arguments[1] in ("w", "wb") or event in ("os.rename", "os.remove", "subprocess.Popen")
    # What is written elsewhere, such as by coverage, is no step of the switch.
    if not writes or event != "subprocess.Popen" and not os.path.abspath(str(arguments[0])).startswith(os.getcwd()):
        return
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
switch.switch(Path.cwd(), sys.argv[2], "data.dvc", "data", print)
"""
OLD = {"with_helmet/1.txt": "one\n", "metadata.csv": "path\n"}
NEW = {
    **OLD,
    "with_helmet/2.txt": "two\n",
    "without_helmet/3.txt": "three\n",
    "metadata.csv": "path\nwith_helmet/2.txt\n",
}


@pytest.fixture(scope="module")
def ready(template, tmp_path_factory):
    """A project that ran on the old version, the commit of the next, and its new files laid ready."""
    folder = tmp_path_factory.mktemp("ready")
    shutil.copytree(template, folder / "copy", symlinks=True)
    project = Project(folder / "copy" / "project")
    write(project, OLD)
    project.dvc("add", "-q", "data")
    project.dvc("repro", "-q")
    project.commit("old")
    write(project, NEW)
    project.dvc("add", "-q", "data")
    project.commit("new")
    project.next = project.git("rev-parse", "HEAD").strip()
    project.git("reset", "-q", "--hard", "HEAD~1")
    project.dvc("checkout", "-q", "data.dvc")
    added = folder / "added"
    for name in NEW.keys() - OLD.keys() | {"metadata.csv"}:
        (added / name).parent.mkdir(parents=True, exist_ok=True)
        (added / name).write_text(NEW[name])
    lay_ready(project.root, added)
    return project


@pytest.fixture
def interrupted(ready, tmp_path, monkeypatch):
    """A fresh copy of it, the current folder."""
    shutil.copytree(ready.root, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    project.next = ready.next
    monkeypatch.chdir(project.root)
    return project


def write(project, files):
    for name, text in files.items():
        (project.root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / "data" / name).write_text(text)


def data(project):
    folder = project.root / "data"
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.*")}


def kill_at(project, step):
    """Run the switch and kill it before `step`; False if it came to its end before."""
    command = [sys.executable, "-c", KILLED, str(step), project.next]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def kill_half_way(project):
    """Kill it when a part of the batch is in place."""
    step = 0
    while data(project) in (OLD, NEW):
        assert kill_at(project, step), "it came to its end"
        step += 1
    assert MEND in (project.root / "data.dvc").read_text()


def repro(project):
    command = [sys.executable, "-m", "dvc", "repro"]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=False)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def is_switched(project):
    """HEAD, data.dvc and data/ are the new version, and nothing is left of the way there."""
    assert project.git("rev-parse", "HEAD").strip() == project.next
    assert project.git("status", "--porcelain", "data.dvc").strip() == ""
    assert data(project) == NEW
    assert not graph.changed(project.root, ["data.dvc"])
    assert not (project.root / SWITCH).exists()
    assert not (project.root / ADDED).exists()
    return True


@pytest.mark.timeout(900)
def test_killed_at_any_step_dvc_sees_one_version_or_stops_and_says_what_to_run(interrupted, tmp_path):
    seen = set()
    for step in range(100):
        folder = tmp_path / f"step-{step}"
        shutil.copytree(interrupted.root, folder, symlinks=True)
        project = Project(folder)
        project.next = interrupted.next
        if not kill_at(project, step):
            assert is_switched(project)
            break
        lies, begun = data(project), (project.root / SWITCH).exists()
        code, said = repro(project)
        if code:
            assert f"`{MEND}` finishes it" in said
            seen.add("stopped")
        else:
            assert lies in (OLD, NEW), "all of the batch or nothing of it"
            features = (project.root / "build" / "features" / "x").read_text()
            assert ("three" in features) == (lies == NEW)
            assert lies == NEW or project.git("rev-parse", "HEAD").strip() != project.next
            seen.add("old" if lies == OLD else "new")
        assert data(project) == lies, "and dvc takes nothing away"
        mend(project.root)
        assert is_switched(project) if begun else data(project) == OLD
    assert seen == {"old", "stopped", "new"}
    assert step > 8


def test_nobody_works_in_between_and_it_is_finished_by_the_next(interrupted):
    kill_half_way(interrupted)
    kill_at(interrupted, 5)
    recover(interrupted.root, print)
    assert is_switched(interrupted)


def test_a_commit_of_something_else_in_between_is_kept(interrupted):
    kill_half_way(interrupted)
    (interrupted.root / "note.txt").write_text("mine")
    interrupted.git("add", "note.txt")
    interrupted.git("commit", "-q", "-m", "mine")
    recover(interrupted.root, print)
    assert data(interrupted) == NEW
    assert interrupted.git("status", "--porcelain").strip() == ""
    assert {"mine", "new"} <= set(interrupted.git("log", "--format=%s").split("\n"))


def test_another_version_in_between_wins_and_the_batch_is_asked_for_again(interrupted):
    assert kill_at(interrupted, 4)
    assert (interrupted.root / SWITCH).exists()
    write(interrupted, {"with_helmet/mine.txt": "mine\n"})
    interrupted.dvc("add", "-q", "data")
    interrupted.commit("mine")
    said = []
    recover(interrupted.root, said.append)
    assert said == ["data.dvc got another version in Git while an intake was unfinished: take its batch in again."]
    assert data(interrupted) == {**OLD, "with_helmet/mine.txt": "mine\n"}
    assert not graph.changed(interrupted.root, ["data.dvc"])


def test_pictures_put_in_by_hand_in_between_are_not_lost(interrupted):
    kill_half_way(interrupted)
    write(interrupted, {"with_helmet/mine.txt": "mine\n"})
    recover(interrupted.root, print)
    assert data(interrupted) == {**NEW, "with_helmet/mine.txt": "mine\n"}


def test_without_the_data_in_place_all_of_it_comes_in_one_step(interrupted):
    shutil.rmtree(interrupted.root / "data")
    shutil.rmtree(interrupted.root / ADDED)
    for name, text in NEW.items():
        (interrupted.root / ADDED / name).parent.mkdir(parents=True, exist_ok=True)
        (interrupted.root / ADDED / name).write_text(text)
    switch(interrupted.root, interrupted.next, "data.dvc", "data", print)
    assert is_switched(interrupted)


@pytest.mark.parametrize("whole", [False, True])
def test_data_on_another_disk_is_copied_and_switched_all_the_same(interrupted, monkeypatch, tmp_path, whole):
    """Renaming from or to where files are laid ready is refused, as between two disks."""
    real = {name: getattr(os, name) for name in ("rename", "replace")}

    def apart(name):
        def refuse(source, target, **options):
            if (ADDED.name in Path(source).parts) != (ADDED.name in Path(target).parts):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(target))
            return real[name](source, target, **options)

        return refuse

    if whole:
        shutil.rmtree(interrupted.root / "data")
    added = tmp_path / "added"
    for name in NEW if whole else NEW.keys() - OLD.keys() | {"metadata.csv"}:
        (added / name).parent.mkdir(parents=True, exist_ok=True)
        (added / name).write_text(NEW[name])
    for name in real:
        monkeypatch.setattr(os, name, apart(name))
    lay_ready(interrupted.root, added)
    switch(interrupted.root, interrupted.next, "data.dvc", "data", print)
    assert is_switched(interrupted)
    assert not added.exists()


@pytest.mark.parametrize("name", ["index.lock", "HEAD.lock"])
def test_a_lock_that_a_killed_git_left_stops_nobody(interrupted, monkeypatch, name):
    monkeypatch.setattr("flows.switch.PATIENCE", 0.3)
    (interrupted.root / ".git" / name).touch()
    switch(interrupted.root, interrupted.next, "data.dvc", "data", print)
    assert interrupted.git("rev-parse", "HEAD").strip() == interrupted.next
    assert not (interrupted.root / ".git" / name).exists()
    assert data(interrupted) == NEW
