"""Errors that a user can act on."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from plumbline.common import interrupted
from plumbline.common.quiet import hush
from plumbline.common.users import name_this_user

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TELEMETRY_OFF = {"DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "GX_ANALYTICS_ENABLED": "false"}
# A disk that is full, a quota that is used up, a file larger than `ulimit -f` allows.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# The same in the words of HDF5, SQLite, Arrow and others, whose exceptions carry no number.
_NO_ROOM_TEXT = ("no space left on device", "disk is full", "file too large", "disk quota exceeded")
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # NumPy's message for it
# Errors of the file system on an existing file that are not bugs of ours.
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}


class UserError(Exception):
    """One clear sentence that names the file and the way out; ends a command with exit code 1."""


class WriteError(UserError):
    """A file or folder can't be written; `path` is which, `why` is what the system says."""

    def __init__(self, path: Path | str, why: str) -> None:
        way_out = f"{_way_out(why)} and run again"
        super().__init__(f"{path} can't be written ({why}): {way_out}. What was there is unchanged.")
        self.path, self.why = path, why

    def __reduce__(self) -> tuple[type[WriteError], tuple[Path | str, str]]:
        """Pickle an error by its arguments, for other processes."""
        return type(self), (self.path, self.why)


def _way_out(why: str) -> str:
    text = why.lower()
    if "too large" in text:
        return "raise the limit on the size of a file (`ulimit -f`)"
    return "make room on its disk" if any(word in text for word in _NO_ROOM_TEXT) else "put that right"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without its full stop, to stand inside a sentence; else its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def one_line(text: object) -> str:
    """The text with every run of white space, including line breaks, as one space."""
    return " ".join(str(text).split())


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then its cause, the cause of that, and so on."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        yield current
        current = current.__cause__ or current.__context__


def no_room(error: BaseException) -> str | None:
    """The system's message where an error, or one of its causes, comes from a full disk; else None."""
    for cause in causes(error):
        number = getattr(cause, "errno", None)
        if number in _NO_ROOM:
            return os.strerror(number)
        text = str(cause).lower()
        if not isinstance(cause, UserError) and any(words in text for words in _NO_ROOM_TEXT):
            return next(words for words in _NO_ROOM_TEXT if words in text).capitalize()
        if isinstance(cause, OSError) and _SHORT_WRITE.fullmatch(text):
            return os.strerror(errno.ENOSPC)
    return None


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn any error that comes from a full disk while `path` is written into a WriteError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if why := no_room(error):
            raise WriteError(path, why) from error
        raise


def sentence_of(error: BaseException) -> str | None:
    """The sentence for an error that is not our bug: a UserError, a full disk, or a file that the system refuses."""
    if isinstance(error, UserError):
        return str(error)
    named = next((e for e in causes(error) if isinstance(e, OSError) and e.filename is not None), None)
    if why := no_room(error):
        name = (named.filename2 or named.filename) if named else None  # of a copy the second is written
        known = os.fsdecode(name) if isinstance(name, str | bytes) else None
        return str(WriteError(known or f"A file in {Path.cwd()} or {tempfile.gettempdir()}, or what is printed,", why))
    if isinstance(error, OSError) and error.errno in _REFUSED and isinstance(error.filename, str | bytes):
        name = os.fsdecode(error.filename)
        return f"{name} can't be opened or written ({os.strerror(error.errno)}): put that right, then run again."
    return None


def run(main: Callable[[], object], failed: int = 1) -> None:
    """Run a command's `main` with telemetry off.

    A UserError, a full disk and a file that the system refuses become one sentence on stderr and exit code `failed`.
    Where DVC runs the command, leftovers of a kill are looked for first, see interrupted.py.
    Output is flushed before the exit code is decided, so that a full disk under stdout is a failure too.
    """
    os.environ.update(TELEMETRY_OFF)
    hush()
    prepare_environment()
    name_this_user()
    try:
        try:
            if why_not := interrupted.at_start(Path.cwd()):
                raise UserError(why_not)
            main()
        except SystemExit:
            _flush()
            raise
        _flush()
    except BrokenPipeError:
        _drop(sys.stdout)  # the reader of our output has gone: `| head`
        sys.exit(failed)
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None and failed == 1:
            raise
        try:
            if sentence is None:
                traceback.print_exc()
            else:
                print(f"error: {sentence}", file=sys.stderr, flush=True)
        except OSError:
            _drop(sys.stderr)  # it may be on the full disk too
        with suppress(OSError):
            _flush()
        sys.exit(failed)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop(sys.stdout)
        raise WriteError("Standard output", os.strerror(error.errno or 0)) from error


def _drop(stream: TextIO) -> None:
    """Discard what can't be printed; otherwise the interpreter tries again at exit and ends with code 120."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def prepare_environment(env: MutableMapping[str, str] = os.environ) -> None:
    """Let child processes find this environment's `python`, `dvc` and `prefect`, and reach servers on this machine.

    People start commands by the interpreter's path (`.venv/bin/python -m flows.training`) without its folder on PATH,
    but dvc.yaml's commands say `python`; and they set HTTP_PROXY without NO_PROXY.
    """
    own = str(Path(sys.executable).parent)
    others = [folder for folder in env.get("PATH", os.defpath).split(os.pathsep) if folder != own]
    env["PATH"] = os.pathsep.join([own, *others])
    _drop_unusable_proxies(env)
    # Libraries read one spelling or the other, and the lower-case one where both are set.
    names = [_bare(name) for text in _no_proxy(env) for name in text.split(",") if name.strip()]
    if "*" in names:
        return  # no proxy at all; some libraries know `*` only where it stands alone
    env["NO_PROXY"] = env["no_proxy"] = ",".join(dict.fromkeys([*names, *LOOPBACK]))


def _bare(name: str) -> str:
    """An entry of NO_PROXY without the brackets that people write around IPv6 and HTTPX can't read."""
    name = name.strip()
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _drop_unusable_proxies(env: MutableMapping[str, str]) -> None:
    """Remove proxies that HTTPX refuses, with a warning: Prefect would end with a traceback, even on this machine."""
    usable = {"http", "https"} | ({"socks5", "socks5h"} if find_spec("socksio") else set())
    for name in [name for name in env if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]:
        scheme, mark, _ = env[name].partition("://")
        if mark and scheme.lower() not in usable:
            del env[name]
            why = "`pip install socksio` for socks5" if scheme.lower().startswith("socks") else "http or https works"
            print(f"warning: {name} names a proxy of the kind {scheme}, which is left out ({why}).", file=sys.stderr)


def _no_proxy(env: MutableMapping[str, str]) -> list[str]:
    return [env[name] for name in ("no_proxy", "NO_PROXY") if name in env]
