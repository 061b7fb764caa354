"""API keys: their SHA-256 in a file, read again when it changes, so that a key comes and goes without a restart.

A line is `NAME SHA256`; a key is 32 random bytes, so a plain digest tells nothing of it. `python -m serving.keys NAME`
makes one, prints it once and adds the line.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sys
from pathlib import Path

from plumbline.common.errors import UserError, run
from plumbline.common.files import write_text
from plumbline.common.params import load_section
from serving.settings import ServingParams

LINE = re.compile(r"([A-Za-z0-9._-]{1,64})\s+([0-9a-f]{64})")


def digest(key: str) -> str:
    """Return what the file holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> dict[str, str]:
    """Return name by digest; UserError names the line that is none."""
    keys: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} can't be read: make it with `python -m serving.keys NAME`.") from None
    for number, line in enumerate(lines, 1):
        text = line.split("#")[0].strip()
        found = LINE.fullmatch(text)
        if text and not found:
            raise UserError(f"{path}, line {number} is not `NAME SHA256`: make it with `python -m serving.keys NAME`.")
        if found:
            keys[found[2]] = found[1]
    return keys


class Keys:
    """Who may ask. Where no file is named, everybody."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._names: dict[str, str] = {}
        self.trouble: str | None = None
        if path is not None:
            self._names = read_keys(path)
            self._stamp = _stamp(path)

    @property
    def wanted(self) -> bool:
        """Whether a key is asked for."""
        return self._path is not None

    def name_of(self, key: str | None) -> str | None:
        """Return whose key this is, None for nobody's. A file that went bad leaves the keys as they were."""
        self._refresh()
        if not key:
            return None
        mine = digest(key)
        return next((name for known, name in self._names.items() if hmac.compare_digest(known, mine)), None)

    def _refresh(self) -> None:
        if self._path is None or (stamp := _stamp(self._path)) == self._stamp:
            return
        self._stamp = stamp
        try:
            self._names, self.trouble = read_keys(self._path), None
        except UserError as error:
            self.trouble = str(error)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino


def main(arguments: list[str]) -> None:
    """Make a key for a name and print it."""
    params = load_section("serving", ServingParams, optional=True)
    if len(arguments) != 1 or not LINE.fullmatch(f"{arguments[0]} {'0' * 64}"):
        raise UserError("Name the key's holder, in letters, digits, `.`, `_` and `-`: `python -m serving.keys gate-3`.")
    if params.keys is None:
        raise UserError("params.yaml names no file of keys: set serving.keys, such as `keys: served/keys`.")
    key = secrets.token_urlsafe(32)
    known = params.keys.read_text(encoding="utf-8") if params.keys.is_file() else ""
    write_text(
        params.keys, f"{known}{'' if known.endswith(chr(10)) or not known else chr(10)}{arguments[0]} {digest(key)}\n"
    )
    params.keys.chmod(0o600)
    print(key)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
