"""A dvc.lock as kills, people and Git leave it, in a real project whose stages start as this project's do."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows.mend import mend
from plumbline.common import interrupted
from plumbline.common.errors import UserError

pytestmark = pytest.mark.slow

TOP = Path(__file__).resolve().parents[3]
STAGE = """
import sys
from pathlib import Path
from plumbline.common.errors import run

def main():
    name, needs = sys.argv[1], sys.argv[2:]
    Path("calls").open("a").write(name + "\\n")
    if name != "look":
        Path(name).write_text(name + "".join(Path(need).read_text() for need in needs))

run(main)
"""
PIPELINE = """
stages:
  look: {cmd: python -m stages.work look, deps: [stages], always_changed: true, outs: []}
  first: {cmd: python -m stages.work first, deps: [stages], outs: [first]}
  part:
    foreach: [a, b, c]
    do: {cmd: "python -m stages.work part-${item} first", deps: [first], outs: ["part-${item}"]}
  last: {cmd: python -m stages.work last part-a, deps: [part-a], outs: [last]}
"""


class Project:
    """The project and what a user types there."""

    def __init__(self, root):
        self.root, self.lock = root, root / "dvc.lock"

    def sh(self, *command, code=0, **more):
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(TOP),
            "DVC_NO_ANALYTICS": "1",
            **more,
            **{f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }
        done = subprocess.run(
            command, cwd=self.root, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert (done.returncode == 0) == (code == 0), done.stdout
        return done.stdout

    def repro(self, code=0):
        """`dvc repro`: what it says, and the stages that did their work, in order."""
        (self.root / "calls").unlink(missing_ok=True)
        said = self.sh("dvc", "repro", code=code)
        return said, (self.root / "calls").read_text().split() if (self.root / "calls").exists() else []

    def commit(self):
        self.sh("git", "add", "-A")
        self.sh("git", "commit", "-qm", "c", "--allow-empty")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """The project after a first `dvc repro`, its dvc.lock not in Git."""
    project = Project(tmp_path_factory.mktemp("template") / "project")
    (project.root / "stages").mkdir(parents=True)
    (project.root / "stages" / "work.py").write_text(STAGE)
    (project.root / "stages" / "__init__.py").touch()
    (project.root / "dvc.yaml").write_text(PIPELINE)
    (project.root / ".gitignore").write_text("/calls\n__pycache__\n")
    (project.root / ".dvcignore").write_text("__pycache__\n")
    project.sh("git", "init", "-q")
    project.sh("dvc", "init", "-q")
    project.commit()
    assert project.repro()[1] == ["look", "first", "part-a", "part-b", "part-c", "last"]
    project.repro()  # the last stage of the first run left the copy without itself
    return project.root


@pytest.fixture
def project(template, tmp_path):
    shutil.copytree(template, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def cut_after(text, beginning):
    """The lock up to the end of the line that begins so."""
    return text[: text.index("\n", text.index(beginning)) + 1]


@pytest.mark.parametrize("stage", ["look", "part-b"])
def test_cut_at_the_end_of_a_line_it_is_noticed_before_anything_runs_and_put_back(project, stage):
    whole = project.lock.read_text()
    project.lock.write_text(cut_after(whole, f"    cmd: python -m stages.work {stage}"))
    os.utime(project.lock, (0, 0))  # nobody is still writing it
    said, ran = project.repro(code=1)
    assert ran == []
    assert "dvc.lock lacks stages that it had (" in said
    assert f"`{interrupted.MEND}` puts it back" in said
    assert "put back as the last stage found it" in project.sh(sys.executable, "-m", "flows.mend")
    assert project.lock.read_text() == whole
    assert project.repro()[1] == ["look"], "nothing is done again"


def test_the_last_stage_cut_short_is_noticed_and_one_that_was_changed_is_not(project):
    interrupted.keep(project.root)
    whole = project.lock.read_text()
    start = whole.rindex("    cmd:")
    ends = [place for place, letter in enumerate(whole, 1) if letter == "\n" and start < place < len(whole)]
    for length in ends:
        project.lock.write_text(whole[:length])
        assert interrupted.lock_fault(project.root) is not None, whole[length - 40 : length]
    pipeline = project.root / "dvc.yaml"
    (name,) = interrupted.stage_names(whole)[-1:]
    project.lock.write_text(whole[: whole.rindex("    outs:")])
    assert name in interrupted.lock_fault(project.root)
    pipeline.write_text(pipeline.read_text().replace(", outs: [last]}", "}"))
    assert interrupted.lock_fault(project.root) is None, "dvc.yaml has no outs for it any more"


def test_wherever_it_is_cut_no_more_than_the_last_stage_is_lost_in_silence(project):
    whole = project.lock.read_text()
    names = interrupted.stage_names(whole)
    ends = [place for place, letter in enumerate(whole, 1) if letter == "\n" and place < len(whole)]
    for length in sorted({*ends, *range(0, len(whole), 41)}):
        project.lock.write_text(whole[:length])
        if interrupted.lock_fault(project.root) is None:
            assert interrupted.stage_names(whole[:length]) == names
            continue
        said = mend(project.root)
        assert len(said) == 1
        assert project.lock.read_text() == whole


def test_a_stage_by_hand_warns_and_does_its_work(project):
    project.lock.write_text(project.lock.read_text()[:100])
    os.utime(project.lock, (0, 0))
    said = project.sh(sys.executable, "-m", "stages.work", "first")
    assert said.startswith("warning: ")
    assert f"`{interrupted.MEND}` puts it back" in said


def test_a_lock_that_is_being_written_is_waited_for(project):
    """Stages side by side: DVC writes the file for one of them while another starts."""
    whole = project.lock.read_text()
    project.lock.write_text(whole[:200])
    writer = threading.Timer(1.0, project.lock.write_text, [whole])
    writer.start()
    said = project.sh(sys.executable, "-m", "stages.work", "first", DVC_STAGE="first")
    writer.join()
    assert said == ""


def test_conflict_markers_are_called_by_name_and_left_to_a_person(project):
    whole = project.lock.read_text()
    torn = f"<<<<<<< HEAD\n{whole}=======\n{whole}>>>>>>> other\n"
    project.lock.write_text(torn)
    with pytest.raises(UserError, match=r"has Git's conflict markers \(line 1\): take one side whole"):
        mend(project.root)
    assert project.lock.read_text() == torn
    said = project.sh(sys.executable, "-m", "flows.mend", code=1)
    assert "conflict markers" in said
    assert "torn" not in said


def test_without_a_copy_it_comes_from_git_and_without_that_the_cache_is_left(project):
    interrupted.copy_of(project.root).unlink()
    whole = project.lock.read_text()
    project.lock.write_text("")
    with pytest.raises(UserError, match="no copy of it: delete it, and `dvc repro` takes what it can from its cache"):
        mend(project.root)
    project.lock.write_text(whole)
    project.commit()
    project.lock.write_text(whole[:-50])
    assert "from Git's last commit" in mend(project.root)[0]
    assert project.lock.read_text() == whole


def test_a_lock_that_somebody_removed_is_not_missed(project):
    project.lock.unlink()
    said, ran = project.repro()
    assert ran[0] == "look"
    assert "lacks" not in said
    assert mend(project.root) == []


def test_a_version_that_git_knows_was_not_cut(project):
    whole = project.lock.read_text()
    project.lock.write_text(cut_after(whole, "  part@b:").rpartition("  part@b:")[0])
    project.commit()
    project.lock.write_text(whole)
    project.commit()
    project.repro()
    project.sh("git", "checkout", "-q", "HEAD~1")
    assert "lacks" not in project.repro()[0]


def test_stages_taken_out_are_not_missed_and_others_when_somebody_says_so(project):
    whole = project.lock.read_text()
    pipeline = project.root / "dvc.yaml"
    project.lock.write_text(whole.partition("  last:")[0])
    assert "lacks stages that it had (last)" in interrupted.lock_fault(project.root)
    text = pipeline.read_text()
    pipeline.write_text(text.partition("  last:")[0])
    assert interrupted.lock_fault(project.root) is None
    pipeline.write_text(text)
    assert "dvc.lock is taken as it is" in project.sh(sys.executable, "-m", "flows.mend", "--as-it-is")
    assert mend(project.root) == []
    assert project.lock.read_text() == whole.partition("  last:")[0]
    project.repro()


def test_nothing_is_mended_while_something_is_at_work(project):
    import fcntl

    project.lock.write_text("")
    with (project.root / ".dvc" / "tmp" / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"at work in .*: wait for its end"):
            mend(project.root)
    assert mend(project.root)


def test_a_pipeline_in_a_folder_below_is_mended_there(project):
    inner = Project(project.root / "inner")
    inner.root.mkdir()
    shutil.copytree(project.root / "stages", inner.root / "stages")
    (inner.root / "dvc.yaml").write_text("stages: {first: {cmd: python -m stages.work first, outs: [first]}}\n")
    inner.repro()
    inner.sh(sys.executable, "-m", "stages.work", "first", DVC_STAGE="first")  # a later run's stage keeps the copy
    whole, above = inner.lock.read_text(), project.lock.read_text()
    inner.lock.write_text(whole[:30])
    os.utime(inner.lock, (0, 0))
    assert interrupted.lock_fault(project.root) is None
    assert "was torn by a kill" in inner.repro(code=1)[0] or "plumbline mend" in interrupted.lock_fault(inner.root)
    assert "put back as the last stage found it" in inner.sh(sys.executable, "-m", "flows.mend")
    assert (inner.lock.read_text(), project.lock.read_text()) == (whole, above)
    assert not (inner.root / ".dvc").exists()
