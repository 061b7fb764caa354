"""Progress of long work: a bar on a terminal, a line a minute elsewhere (CI, Prefect's log, a file)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
EVERY = 60.0
"""Seconds between two lines where there is no terminal: what takes less prints none."""


class Progress:
    """How far some work is, shown on stderr."""

    def __init__(self, what: str, total: int | None, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done, self.beside = 0, ""
        self.began = self.told = time.monotonic()
        self.bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            self.bar = tqdm(desc=what, total=total, unit=unit, mininterval=0.1, dynamic_ncols=True, leave=False)

    def step(self, beside: str = "") -> None:
        """One more is done; `beside` is shown behind the figures."""
        self.done, self.beside = self.done + 1, beside
        now = time.monotonic()
        if self.bar is not None:
            self.bar.set_postfix_str(beside, refresh=False)
            self.bar.update()
        elif now - self.told >= EVERY:
            self.told = now
            print(self.line(now - self.began), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """How far it is after so many seconds, and how long it will take, in tqdm's words."""
        figures = {"prefix": self.what, "unit": self.unit, "ncols": 100, "postfix": self.beside}
        return str(tqdm.format_meter(self.done, self.total or 0, seconds, **figures))

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


def progress(items: Iterable[Item], what: str, total: int | None = None, unit: str = "image") -> Iterator[Item]:
    """Iterate, showing on stderr how far it is."""
    shown = Progress(what, len(items) if total is None and isinstance(items, Sized) else total, unit)
    try:
        for item in items:
            yield item
            shown.step()
    finally:
        shown.close()
