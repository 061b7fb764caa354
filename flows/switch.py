"""Move a workspace's data to the next version in a way that survives a kill at any line.

The new version is complete in DVC's cache and in a Git commit before the workspace changes, and the files that it adds
are ready to be moved. The steps: write a journal; put a data.dvc in place that DVC refuses, with a sentence on what to
run; move each file in one step; put the old data.dvc back; merge. So `dvc repro` sees the old data, or all of the new
(which it takes for a change by hand and trains on), or it stops. The next run in the workspace finishes what the
journal says.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plumbline.common.errors import UserError
from plumbline.common.files import write_json, write_text
from plumbline.common.interrupted import ADDED, MEND, SWITCH

LOCKED = re.compile(r"Unable to create '(.+\.lock)': File exists")
PATIENCE = 10.0  # seconds that a lock of Git's is left to whoever made it
MARKER = Path(".dvc/tmp/plumbline-marker")
# The content of data.dvc meanwhile: DVC does not know this field, so it stops and shows it.
STOP = f"an intake that was killed while it changed this data: `{MEND}` finishes it"


def lay_ready(root: Path, added: Path) -> None:
    """Move `added`, the new files as they go into the data folder (or all of it), to where `switch` finds them."""
    shutil.rmtree(root / ADDED, ignore_errors=True)
    shutil.move(added, root / ADDED)  # a copy, where they lie on another disk; before a journal names them


def switch(root: Path, commit: str, source: str, folder: str, say: Callable[[str], None]) -> None:
    """Make `commit` the workspace's version; it changes only the data source `source` (data.dvc) of `folder` (data).

    What was laid ready are the files that the version in `folder` lacks, or every file where there is no `folder`.
    """
    journal = {
        "commit": commit,
        "source": source,
        "folder": folder,
        "whole": not (root / folder).exists(),
        "before": git(root, "rev-parse", f"HEAD:{source}"),
    }
    write_json(root / SWITCH, journal)
    recover(root, say)


def recover(root: Path, say: Callable[[str], None]) -> None:
    """Finish a switch that was begun. The caller must hold the workspace."""
    if (root / SWITCH).exists():
        _finish(root, json.loads((root / SWITCH).read_text(encoding="utf-8")), say)
        (root / SWITCH).unlink()
    shutil.rmtree(root / ADDED, ignore_errors=True)


def _finish(root: Path, journal: dict[str, Any], say: Callable[[str], None]) -> None:
    commit, source, folder = journal["commit"], journal["source"], root / journal["folder"]
    now = git(root, "rev-parse", f"HEAD:{source}")
    if now == git(root, "rev-parse", f"{commit}:{source}"):
        return
    if now == journal["before"]:
        if journal["whole"] and not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.replace(root / ADDED, folder)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _place(root, source, folder)
        elif folder.exists():
            _place(root, source, folder)
        # At this moment DVC sees the new data as a change by hand.
        git(root, "checkout", "HEAD", "--", source)
        git(root, "merge", "--quiet", "--no-edit", commit)
        say(f"{source} is now the version of commit {commit[:7]}.")
    else:
        git(root, "checkout", "HEAD", "--", source)
        say(f"{source} got another version in Git while an intake was unfinished: take its batch in again.")


def _place(root: Path, source: str, folder: Path) -> None:
    """Move the prepared files that are left into the data folder; DVC stops meanwhile.

    Onto another disk a file is copied, and its original goes last: what a kill cuts off is copied again.
    """
    left = [path for path in (root / ADDED).rglob("*") if path.is_file()]
    if left:
        # Written elsewhere: DVC would take a temporary file beside data.dvc for another data source.
        write_text(root / MARKER, json.dumps({STOP: True}) + "\n")
        os.replace(root / MARKER, root / source)
    for path in left:
        target = folder / path.relative_to(root / ADDED)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)


def git(root: Path, *arguments: str) -> str:
    """Run Git in `root` and return what it prints; UserError with its words where it fails.

    A lock that a killed Git left is removed first: where none works here and it is older than any Git needs.
    """
    done = _git(root, arguments)
    if done.returncode and (left := LOCKED.search(done.stderr)) and _unlock(root, Path(left[1])):
        done = _git(root, arguments)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().replace("\n", " ")
        raise UserError(f"{root}: `git {' '.join(arguments[:2])}` failed: {words}")
    return done.stdout.strip()


def _git(root: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    english = {**os.environ, "LC_ALL": "C"}  # as LOCKED expects it
    return subprocess.run(["git", *arguments], cwd=root, env=english, capture_output=True, text=True, check=False)


def _unlock(root: Path, lock: Path) -> bool:
    """Remove a lock in this repository's Git folder that nobody holds any more; say whether it was."""
    import psutil

    end = time.monotonic() + PATIENCE
    while lock.exists() and time.monotonic() < end:
        time.sleep(0.2)
    if not lock.exists():
        return True
    home = (root / git(root, "rev-parse", "--git-common-dir")).resolve()
    at_work = [one for one in psutil.process_iter(["name", "cwd"]) if one.info["name"] == "git" and one.info["cwd"]]
    if any(Path(one.info["cwd"]).is_relative_to(root.resolve()) for one in at_work):
        return False
    if not lock.resolve().is_relative_to(home):
        return False
    lock.unlink(missing_ok=True)
    return True
