"""Put right what a kill left in a workspace: a torn dvc.lock, DVC's lock table, an intake half done.

    plumbline mend [--as-it-is]         of the pipeline in this folder: the top one, or detection/

Flows do this themselves when they start; this command is for people who use `dvc repro`.
"""

from __future__ import annotations

import argparse
import fcntl
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows import workspace
from flows.switch import recover
from plumbline.common.errors import UserError, run


def mend(root: Path, as_it_is: bool = False) -> list[str]:
    """Mend the workspace and return what was done, a sentence each; UserError while something runs in it."""
    said: list[str] = []
    with _alone(root):
        workspace.mend(root, said.append, as_it_is)
        recover(root, said.append)
    return said


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the locks of flows and of DVC, so that neither starts anything; UserError where one is running."""
    folder = workspace.project(root) / ".dvc" / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        for name in ("plumbline-run.lock", "lock"):
            lock = held.enter_context((folder / name).open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"a run is at work in {root}: wait for its end.") from None
        if workspace.dvc_at_work(root):
            raise UserError(f"`dvc` is at work in {root}: wait for its end.")
        yield


def main(arguments: Sequence[str] | None = None) -> None:
    """Mend the current workspace, saying what was done; exit code 1 where a person has to decide."""
    parser = argparse.ArgumentParser(prog="python -m flows.mend", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--as-it-is", action="store_true", help="a dvc.lock that lacks stages it had is meant")
    given = parser.parse_args(arguments)
    said = mend(workspace.find_root(), given.as_it_is)
    print("\n".join(said) or "Nothing to mend.", file=sys.stderr if said else sys.stdout)


if __name__ == "__main__":
    run(main)
