"""Silence what libraries print for their own developers, unless PLUMBLINE_VERBOSE=1 asks for it."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from types import ModuleType

VERBOSE = "PLUMBLINE_VERBOSE"
# What TensorFlow's libraries write to file descriptor 2 while they are loaded, before their log has a level to heed.
_NATIVE = re.compile(
    rb"WARNING: All log messages before absl|[IW]\d{4} \d\d:\d\d:|To enable the following instructions:"
)


def verbose() -> bool:
    """Whether everything is asked for: libraries' own lines, a line for each epoch."""
    return os.environ.get(VERBOSE, "0") not in ("", "0")


def hush(env: MutableMapping[str, str] = os.environ) -> None:
    """Leave only errors of TensorFlow's native log and of absl's; call it before TensorFlow is imported."""
    if verbose():
        return
    env.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("absl", "tensorflow"):
        logger = logging.getLogger(name)
        if _grave not in logger.filters:
            logger.addFilter(_grave)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path) and "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


@contextmanager
def without_future_warnings() -> Iterator[None]:
    """Ignore warnings of coming changes: they are for the developers of the library, not for us."""
    with warnings.catch_warnings():
        if not verbose():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _grave(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as it would be found anyway, to be loaded without its native lines."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def quietly(module: ModuleType) -> None:
                with _without_native_lines():
                    load(module)

            spec.loader.exec_module = quietly  # type: ignore[method-assign]
        return spec


@contextmanager
def _without_native_lines() -> Iterator[None]:
    """Let through what is written to file descriptor 2, except `_NATIVE` lines.

    A process of its own looks at them, so that the last words of a crash (a processor without AVX) are not lost with
    this one.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            _let_go(read)
            with os.fdopen(read, "rb") as lines:
                for line in lines:
                    if not _NATIVE.match(line):
                        os.write(2, line)
        finally:
            os._exit(0)
    os.close(read)
    before = os.dup(2)
    os.dup2(write, 2)
    os.close(write)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
        _wait_for(child)


def _let_go(kept: int) -> None:
    """Close all but file descriptors 2 and `kept`: who waits for the end of our output, or for a lock that we hold,
    would wait for this process too.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _wait_for(child: int) -> None:
    """Wait a second at most for its last lines: a process started meanwhile may hold the pipe open for hours."""
    for _ in range(100):
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return
        time.sleep(0.01)
