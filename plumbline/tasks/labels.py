"""From the labels of pictures to tables of which classes each one has, and back to text."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

SEVERAL = ";"  # parts the labels of a picture that has several: helmet;vest


def label_classes(label: object) -> tuple[str, ...]:
    """Return the classes of a label: `helmet;vest` has two."""
    return tuple(str(label).split(SEVERAL))


def classes_of(labels: Iterable[object]) -> set[str]:
    """Return every class that stands in any of these labels."""
    return {name for label in set(labels) for name in label_classes(label)}


def truth_table(labels: Iterable[object], classes: list[str]) -> NDArray[np.bool_]:
    """Return which of `classes` each label names, (N, C)."""
    rows: dict[str, list[bool]] = {}
    for label in map(str, labels):
        if label not in rows:
            names = label_classes(label)
            rows[label] = [name in names for name in classes]
    return np.array([rows[str(label)] for label in labels], dtype=bool).reshape(-1, len(classes))


def label_texts(table: NDArray[np.bool_], classes: list[str]) -> list[str]:
    """Return the classes of each row of `table` (N, C) as text: `helmet;vest`, or `nothing`."""
    return [SEVERAL.join(np.asarray(classes, dtype=object)[row]) or "nothing" for row in table]
