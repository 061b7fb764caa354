"""Where promotion may happen: real repositories, as Git and DVC leave them."""

from __future__ import annotations

import subprocess

import pytest

from plumbline.registry.place import Place, experiment, is_newer, why_not_here, why_older

ANY = Place()


def git(root, *arguments):
    names = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    done = subprocess.run(["git", *names, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Three commits on `main`; the folder and their ids."""
    for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    commits = []
    for number in range(3):
        git(root, "commit", "-q", "--allow-empty", "-m", str(number))
        commits.append(git(root, "rev-parse", "HEAD"))
    return root, commits


def test_on_a_branch_in_the_project_it_may(repository):
    root, _ = repository
    assert why_not_here(root, ANY) is None
    (root / "sub").mkdir()
    assert why_not_here(root / "sub", ANY) is None


@pytest.mark.parametrize("variable", ["DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"])
def test_not_inside_an_experiment_in_the_workspace(repository, monkeypatch, variable):
    root, _ = repository
    monkeypatch.setenv(variable, "x")
    assert why_not_here(root, ANY).startswith("This is a DVC experiment, which promotes nothing: ")
    assert why_not_here(root, Place(workspace="any")) is None


def test_not_inside_an_experiments_own_folder(repository):
    root, _ = repository
    folder = root / ".dvc" / "tmp" / "exps" / "tmpabc"
    folder.mkdir(parents=True)
    assert experiment(folder)
    assert not experiment(root / ".dvc" / "tmp")
    assert "DVC experiment" in why_not_here(folder, ANY)


def test_not_from_a_detached_older_commit(repository):
    root, commits = repository
    git(root, "checkout", "-q", commits[0])
    why = why_not_here(root, ANY)
    assert why.startswith(f"This is the detached commit {commits[0][:7]}, no branch's last")
    assert why.endswith("to insist, `plumbline promote --here --reason TEXT`.")
    assert "\n" not in why
    assert why_not_here(root, Place(commit="any")) is None
    git(root, "checkout", "-q", "--detach", "main")
    assert why_not_here(root, ANY) is None, "build machines check out a branch's last commit without the branch"


def test_not_from_a_commit_older_than_the_champions_on_a_branch_either(repository):
    root, commits = repository
    git(root, "checkout", "-q", "-b", "back", commits[0])
    assert why_not_here(root, ANY) is None
    assert why_older(root, ANY, commits[2]).startswith(
        f"This commit, {commits[0][:7]}, is older than the champion's, {commits[2][:7]}: "
    )
    assert why_older(root, Place(commit="any"), commits[2]) is None
    git(root, "commit", "-q", "--allow-empty", "-m", "mended")
    assert why_older(root, ANY, commits[2]) is None, "a line of its own is not older"
    git(root, "switch", "-q", "main")
    for champion in (commits[2], commits[0], None, "0" * 40):
        assert why_older(root, ANY, champion) is None


def test_newer_is_what_builds_on_it(repository):
    root, commits = repository
    assert is_newer(root, commits[0])
    for commit in (commits[2], None, "0" * 40):
        assert not is_newer(root, commit)
    git(root, "checkout", "-q", "-b", "back", commits[0])
    assert not is_newer(root, commits[2])


def test_only_the_branch_and_the_workspace_that_are_named(repository, tmp_path):
    root, _ = repository
    assert why_not_here(root, Place(branch="main")) is None
    git(root, "switch", "-q", "-c", "try")
    assert "Only branch main promotes (promote.place.branch), and this is branch try" in why_not_here(
        root, Place(branch="main")
    )
    git(root, "checkout", "-q", "--detach")
    assert "the detached commit" in why_not_here(root, Place(branch="main"))
    git(root, "switch", "-q", "main")
    assert why_not_here(root, Place(workspace=str(root))) is None
    assert "Only /elsewhere promotes (promote.place.workspace)" in why_not_here(root, Place(workspace="/elsewhere"))


def test_without_git_only_a_named_branch_forbids(tmp_path, monkeypatch):
    for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert why_not_here(tmp_path, ANY) is None
    assert why_older(tmp_path, ANY, "0" * 40) is None
    assert "There is no Git here" in why_not_here(tmp_path, Place(branch="main"))
