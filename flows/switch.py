"""Bring a workspace's data from one version to the next in a way that survives a kill at any line.

The new version is complete in DVC's cache and in a Git commit before the workspace hears of it. A journal says that
the switch is on; whoever holds the workspace next finishes it, or finds that it never began.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from flows.children import Children
from plumbline.common.errors import UserError
from plumbline.common.files import write_json


def switch(root: Path, commit: str, source: str, children: Children, say: Callable[[str], None]) -> None:
    """Make `commit` (a child of HEAD that changes only the data source `source`) the workspace's version."""
    write_json(_journal(root), {"commit": commit, "source": source})
    try:
        git(root, "merge", "--ff-only", "--quiet", commit)
    except UserError:
        _journal(root).unlink()
        raise
    recover(root, children, say)


def recover(root: Path, children: Children, say: Callable[[str], None]) -> None:
    """Finish a switch that was begun; forget one that never reached Git. Call it with the workspace held alone."""
    if not _journal(root).exists():
        return
    journal = json.loads(_journal(root).read_text(encoding="utf-8"))
    if _is_in_history(root, journal["commit"]):
        lines: list[str] = []
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "checkout", "--force", journal["source"]]
        if children.run(command, root, lines.append):
            raise UserError(f"{root}: `dvc checkout {journal['source']}` failed: {' '.join(lines[-3:])}")
        say(f"{journal['source']} is now the version of commit {journal['commit'][:7]}.")
    _journal(root).unlink()


def git(root: Path, *arguments: str) -> str:
    """Run Git in `root` and return what it prints; UserError with its words where it fails."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().replace("\n", " ")
        raise UserError(f"{root}: `git {' '.join(arguments[:2])}` failed: {words}")
    return done.stdout.strip()


def _is_in_history(root: Path, commit: str) -> bool:
    command = ["git", "merge-base", "--is-ancestor", commit, "HEAD"]
    return subprocess.run(command, cwd=root, capture_output=True, check=False).returncode == 0


def _journal(root: Path) -> Path:
    return root / ".dvc" / "tmp" / "plumbline-switch.json"
