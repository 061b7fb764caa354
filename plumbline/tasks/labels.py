"""From the labels of pictures to tables of which classes each one has, and back to text."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from plumbline.imaging.labels import SEVERAL, label_classes


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
