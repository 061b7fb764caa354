"""What tasks hand out as JSON."""

from __future__ import annotations

from plumbline.common.records import Record


class Confusion(Record):
    """A confusion matrix: counts by true class (rows) and predicted class (columns)."""

    title: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
