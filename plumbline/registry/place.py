"""Where promotion may happen: from which branch, commit and workspace, because all share the champion."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from plumbline.common.interrupted import ask_git
from plumbline.common.params import Section

INSIST = "to insist, `plumbline promote --here --reason TEXT`"


class Place(Section):
    """params.yaml `promote.place`.

    `branch`: only there; null: on any. `commit`: `newest` is a branch's last commit, not older than the champion's;
    `any` also detached or older ones. `workspace`: `project` is any folder but a DVC experiment's; `any`; or the path
    of the one folder that promotes.
    """

    branch: str | None = None
    commit: Literal["newest", "any"] = "newest"
    workspace: str = "project"


def why_not_here(root: Path, place: Place) -> str | None:
    """Return why no model may be promoted from the project at `root`, in one sentence; None where it may."""
    if place.workspace == "project":
        if experiment(root):
            return (
                "This is a DVC experiment, which promotes nothing: apply it (`dvc exp apply`), commit, and "
                f"`dvc repro`; {INSIST}."
            )
    elif place.workspace != "any" and root.resolve() != Path(place.workspace).expanduser().resolve():
        return f"Only {place.workspace} promotes (promote.place.workspace), and this is {root.resolve()}; {INSIST}."
    commit = git(root, "rev-parse", "HEAD")
    if not commit:
        missing = f"There is no Git here to have a branch {place.branch} (promote.place.branch); {INSIST}."
        return missing if place.branch is not None else None
    branch = git(root, "symbolic-ref", "--short", "-q", "HEAD")
    if place.branch is not None and branch != place.branch:
        where = f"branch {branch}" if branch else f"the detached commit {commit[:7]}"
        return f"Only branch {place.branch} promotes (promote.place.branch), and this is {where}; {INSIST}."
    last_of = git(root, "for-each-ref", "--points-at", "HEAD", "refs/heads", "refs/remotes")
    if place.commit == "newest" and not branch and not last_of:
        return f"This is the detached commit {commit[:7]}, no branch's last: `git switch BRANCH` first; {INSIST}."
    return None


def why_older(root: Path, place: Place, champions_commit: str | None) -> str | None:
    """Return why the commit at `root` is too old to promote from, None where it is not or can't be determined."""
    commit = git(root, "rev-parse", "HEAD")
    if place.commit == "any" or not commit or not champions_commit or commit == champions_commit:
        return None
    if git(root, "merge-base", commit, champions_commit) != commit:
        return None
    return (
        f"This commit, {commit[:7]}, is older than the champion's, {champions_commit[:7]}: "
        f"`plumbline rollback` goes back; {INSIST}."
    )


def is_newer(root: Path, commit: str | None) -> bool:
    """Whether the commit at `root` builds on `commit`; False where that can't be determined."""
    head = git(root, "rev-parse", "HEAD")
    return bool(head and commit and head != commit and git(root, "merge-base", head, commit) == commit)


def experiment(root: Path) -> bool:
    """Whether this runs inside `dvc exp run`: in the workspace (DVC says so) or in a folder of its own."""
    if os.environ.get("DVC_EXP_NAME") or os.environ.get("DVC_EXP_BASELINE_REV"):
        return True
    parts = root.resolve().parts
    return any(parts[place : place + 3] == (".dvc", "tmp", "exps") for place in range(len(parts)))


def git(root: Path, *arguments: str) -> str:
    """Return what Git prints; empty where it fails, or there is no repository or no Git."""
    return (ask_git(root, *arguments) or "").strip()
