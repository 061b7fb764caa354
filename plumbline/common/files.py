"""Atomic writes: a reader sees the old file or the whole new one, never a part, even after a kill."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.common.errors import WriteError, first_line, writing

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Artefact:
    """A file or folder that a run leaves, usable as a path relative to the project's top folder.

    `by` is the stage of dvc.yaml that writes it, or the command; `holds` says what is in it: the class it is read
    as, or words; `also_by` is another stage that adds to a folder. plumbline/common/artefacts.py lists them all.
    """

    name: str
    by: str
    holds: str
    also_by: str | None = None

    @property
    def path(self) -> Path:
        return Path(self.name)

    def __fspath__(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name

    def __truediv__(self, name: str | os.PathLike[str]) -> Path:
        return self.path / name

    def inside(self, folder: Path) -> Path:
        """Return its path with `folder` in place of build/ (or of reports/)."""
        return folder / self.path.relative_to(self.path.parts[0])


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes `path`'s place in one step, on error it is removed.

    Raises WriteError naming `path` where the disk is full, or nothing may be written there.
    """
    path = Path(path)
    with _refused(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _new_file(path)
    try:
        with writing(path):
            yield temporary
        with _refused(path):
            _flush_to_disk(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _new_file(path: Path) -> Path:
    """Make an empty file beside `path`, with the user's normal permissions: mkstemp's are private (0600)."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
        with suppress(FileExistsError):
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return temporary


@contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it takes `path`'s place, on error `path` is left as it was.

    A folder can't be exchanged in one step portably: a kill between the two renames leaves no folder at `path`
    (never a half-written one), and its leftovers carry a leading dot. Raises WriteError as `replacing` does.
    """
    path = Path(path)
    with _refused(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent))
    temporary.chmod(0o755)
    try:
        try:
            with writing(path):
                yield temporary
        except WriteError as error:
            inside = Path(error.path)
            if not inside.is_relative_to(temporary):
                raise
            raise WriteError(path / inside.relative_to(temporary), error.why) from error
        with _refused(path):
            if path.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent))
                os.replace(path, old / "old")
                try:
                    os.replace(temporary, path)
                except OSError:
                    os.replace(old / "old", path)
                    raise
                finally:
                    shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Raise a WriteError naming `path` where the system refuses to write it."""
    try:
        yield
    except OSError as error:
        raise WriteError(path, os.strerror(error.errno) if error.errno else first_line(error)) from error


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON atomically: keys in the order given, two spaces, NaN refused (JSON has none)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: str | os.PathLike[str], table: pd.DataFrame) -> None:
    """Write a table as Parquet or CSV (by the path's suffix), atomically and without its index."""
    with replacing(path) as temporary:
        if temporary.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
