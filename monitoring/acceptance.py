"""What people said of a site's judged windows: that one is fine, or no longer.

Under STATE/SITE/statements a file each, numbered in the order in which they were said. None is ever rewritten or
removed: what counts of a window is what was said of it last.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from plumbline.common.errors import UserError
from plumbline.common.files import write_json
from plumbline.common.records import Record

ACCEPTED: Final = "accepted"
REVOKED: Final = "revoked"


class Statement(Record):
    """What one person said of one window.

    at: in UTC; by: the name of the user; verdict, version, digest: of the window, and of the champion that judged it;
    eyes: whose figures join the reference (`reference.eyes_called`); images: how many of the window's.
    """

    window: str
    said: Literal["accepted", "revoked"]
    at: str
    by: str
    reason: str = ""
    verdict: str
    version: int
    digest: str
    eyes: str
    images: int

    @property
    def sentence(self) -> str:
        """It in words, for people."""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.said} {self.at[:16].replace('T', ' ')} UTC by {self.by}{why}"


def read_statements(folder: Path) -> list[Statement]:
    """Return all statements in the order in which they were said; UserError where one can't be read."""
    found = []
    for path in _files(folder):
        try:
            found.append(Statement.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "its content"
            raise UserError(
                f"{path} can't be read ({key}: {first['msg']}): restore it, or remove it, and it no longer counts."
            ) from None
    return found


def keep_statement(folder: Path, statement: Statement) -> Path:
    """Add a statement after all others, atomically, and return its file; who calls holds the site's lock."""
    files = _files(folder)
    path = folder / f"{int(files[-1].stem) + 1 if files else 1:04d}.json"
    write_json(path, statement.content())
    return path


def in_force(statements: Iterable[Statement]) -> dict[str, Statement]:
    """Return by window the statements that count, of windows that are accepted, the earliest accepted first."""
    last: dict[str, Statement] = {}
    for one in statements:
        last.pop(one.window, None)
        last[one.window] = one
    return {window: one for window, one in last.items() if one.said == ACCEPTED}


def _files(folder: Path) -> list[Path]:
    named = [path for path in folder.glob("*.json") if path.stem.isascii() and path.stem.isdigit()]
    return sorted(named, key=lambda path: int(path.stem))
