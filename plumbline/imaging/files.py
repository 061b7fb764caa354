"""The files below a folder: which of them have names that work on every system, and how their bytes are read."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from pathlib import Path, PurePosixPath

from PIL import Image

from plumbline.imaging.decode import LFS_POINTER, SUFFIXES, DecodeError, decode_image
from plumbline.imaging.litter import is_litter
from plumbline.imaging.pictures import Refused
from plumbline.imaging.settings import DataParams

LINKED_OUT = "is a symbolic link out of the folder"


def walk(params: DataParams, refused: list[Refused]) -> list[str]:
    """Return the relative POSIX paths, in order, of all files whose names work on every system; refuse the others."""
    inside = params.root.resolve()
    files: list[str] = []
    folders: list[str] = []
    seen = {inside}

    def visit(folder: Path, prefix: str) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            why = f"can't be listed: {error.strerror}"
            refused.append(Refused(shown_path(prefix), why, "unreadable", top_folder(prefix)))
            return
        for entry in entries:
            if is_litter(entry.name):
                continue
            path = prefix + entry.name
            if reason := _bad_name(entry.name):
                refused.append(Refused(shown_path(path), reason, "name", top_folder(path)))
            elif reason := _bad_link(entry, inside, params.follow_symlinks):
                refused.append(Refused(path, reason, "unreadable", top_folder(path)))
            elif entry.is_dir():
                target = Path(entry.path).resolve()
                if target not in seen:  # a link may lead back to a folder that is being walked
                    seen.add(target)
                    folders.append(path)
                    visit(Path(entry.path), path + "/")
            else:
                files.append(path)

    visit(params.root, "")
    return _without_twins(files, folders, refused)


def _bad_name(name: str) -> str | None:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in name):
        return "its name holds a line break or control character: rename it"
    return None


def _bad_link(entry: os.DirEntry[str], inside: Path, follow: bool) -> str | None:
    if not entry.is_symlink():
        return None
    try:
        target = Path(entry.path).resolve(strict=True)
    except (OSError, RuntimeError):
        return "is a symbolic link that leads nowhere: remove it"
    if target.is_relative_to(inside) or follow:
        return None
    return f"{LINKED_OUT}: copy the file here, or set data.follow_symlinks"


def _without_twins(files: list[str], folders: list[str], refused: list[Refused]) -> list[str]:
    """Refuse paths that differ only in case or Unicode form: some systems would keep only one of them."""
    twins: dict[str, list[str]] = {}
    for path in (*folders, *files):
        twins.setdefault(_everywhere(path), []).append(path)
    other = {path: next(p for p in paths if p != path) for paths in twins.values() if len(paths) > 1 for path in paths}
    if not other:
        return files
    kept = []
    for path in files:
        clash = next((p for p in (path, *map(str, PurePosixPath(path).parents)) if p in other), None)
        if clash is None:
            kept.append(path)
        else:
            reason = f"{clash} differs from {other[clash]} only in case or Unicode form: rename one of them"
            refused.append(Refused(path, reason, "name", top_folder(path)))
    return kept


def _everywhere(path: str) -> str:
    """The form in which paths are equal if some system takes them for one: case, Unicode, trailing dots and spaces."""
    parts = unicodedata.normalize("NFC", path).casefold().split("/")
    return "/".join(part.rstrip(" .") for part in parts)


def shown_path(path: str) -> str:
    """The path with \\x and \\udc escapes for what can't be printed."""
    text = path.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def top_folder(path: str) -> str:
    """The topmost folder of a path, as it is shown; empty for a file that is in none."""
    return shown_path(path.split("/", 1)[0]) if "/" in path else ""


def pictures_below(root: Path) -> list[str]:
    """Return every file below `root` that is named as a picture, as a path from there, in order; no litter."""
    below = (file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    found = sorted(file.relative_to(root) for file in below)
    return [path.as_posix() for path in found if not any(map(is_litter, path.parts))]


def read_bytes(params: DataParams, path: str) -> bytes:
    """Return a file's bytes; DecodeError where it is unreadable, too large, no plain file or a link out of the root."""
    full = params.root / path
    try:
        if not params.follow_symlinks and not full.resolve().is_relative_to(params.root.resolve()):
            raise DecodeError(LINKED_OUT)
        # Non-blocking, because opening a named pipe would otherwise wait for a writer for ever.
        with open(full, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as handle:
            status = os.fstat(handle.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DecodeError("is not a plain file")
            if status.st_size > params.max_bytes:
                raise DecodeError(f"has {status.st_size:,} bytes, more than the {params.max_bytes:,} of data.max_bytes")
            return handle.read()
    except OSError as error:
        raise DecodeError(f"can't be read: {error.strerror}") from None


def read_picture(params: DataParams, path: str) -> tuple[bytes, Image.Image] | Refused:
    """Return a picture file's bytes and the decoded picture, or why it can't be used."""
    try:
        data = read_bytes(params, path)
        return data, decode_image(data, params.max_pixels)
    except DecodeError as error:
        return Refused(path, error.reason, "unreadable")


def read_text(params: DataParams, path: str) -> str:
    """Return a small UTF-8 text file; DecodeError as `read_bytes`."""
    content = read_bytes(params, path)
    if content.startswith(LFS_POINTER):
        raise DecodeError("is a Git LFS pointer (run `git lfs pull`)")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DecodeError("is not text in UTF-8") from None


def read_lines(params: DataParams, path: str) -> list[str]:
    """Return the lines of a small UTF-8 text file: not as `splitlines`, for which a name may hold the end of a line."""
    lines = re.split(r"\r\n|\r|\n", read_text(params, path))
    return lines[:-1] if not lines[-1] else lines
