"""Progress bars on long work."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str, total: int | None = None, unit: str = "image") -> Iterator[Item]:
    """Iterate with a bar on stderr; on a pipe (CI, Prefect logs) it prints a line every ten seconds at most."""
    quiet = 0.1 if sys.stderr.isatty() else 10.0
    return iter(tqdm(items, desc=what, total=total, unit=unit, mininterval=quiet, dynamic_ncols=True))
