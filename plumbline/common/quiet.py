"""What libraries print of themselves is for their developers: silent, unless PLUMBLINE_VERBOSE=1 asks for it."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

VERBOSE = "PLUMBLINE_VERBOSE"


def verbose() -> bool:
    """Whether everything is asked for: libraries' own lines, a line for each epoch."""
    return os.environ.get(VERBOSE, "0") not in ("", "0")


def hush(env: MutableMapping[str, str] = os.environ) -> None:
    """Leave of TensorFlow's native log and of absl's only errors; call it before TensorFlow is imported."""
    if env.get(VERBOSE, "0") not in ("", "0"):
        return
    env.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    env.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.getLogger("absl").addFilter(_grave)
    logging.getLogger("tensorflow").addFilter(_grave)


def _grave(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@contextmanager
def without_future_warnings() -> Iterator[None]:
    """Run a library that warns its users of what its own dependencies will change."""
    with warnings.catch_warnings():
        if not verbose():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
        yield
