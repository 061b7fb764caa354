"""Boxes of whole photographs, brought to one form: shares of the upright photograph's width and height.

A box is refused, by name, where it reaches outside, is smaller than a pixel, is there twice or is drawn for another
picture; a photograph none of whose boxes is left is refused as a whole, for it must not pass for an empty one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from plumbline.imaging.decode import DecodeError
from plumbline.imaging.labels import SEVERAL, label_classes
from plumbline.imaging.pictures import Marked, Refused

if TYPE_CHECKING:
    import pandas as pd

EDGES = ("left", "top", "right", "bottom")
COLUMNS = ("path", "label", *EDGES)
BACKGROUND = "background"  # the label of a photograph without a box
ROUNDING = 0.01  # share of the photograph by which an edge may lie outside: rounding by whoever wrote it
SAME_SHAPE = 0.01  # by which width / height may differ where a photograph was resized after its boxes were drawn
SMALLEST = 0.5  # pixels; a narrower box rounds to none

Size = tuple[int, int]
Shares = tuple[float, float, float, float]
Stored = Callable[[str], tuple[Size, int]]


@dataclass
class Settled:
    """`boxes` (COLUMNS) in the order given, the refused, photographs that can't be used, and how many were resized."""

    boxes: list[Marked] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    resized: int = 0


def settle_boxes(marked: Iterable[Marked], sizes: Mapping[str, Size], stored: Stored) -> Settled:
    """Bring boxes to shares of their photographs.

    Args:
        marked: boxes, those of a photograph side by side; of photographs that `sizes` lacks they are left out.
        sizes: (width, height) of each photograph that was decoded, upright.
        stored: gives a photograph's size as stored and its EXIF orientation; asked only where a file says another size.
    """
    found = Settled()
    for path, group in groupby(marked, key=lambda box: box.path):
        if path not in sizes:
            continue
        mine = list(group)
        try:
            placed = [_placed(box, sizes[path], stored, found) for box in mine]
        except DecodeError as error:
            found.refused.append(Refused(path, error.reason, "box", label_of(box.label for box in mine)))
            found.lost.add(path)
            continue
        kept = _without_copies([one for one in placed if isinstance(one, Marked)], found)
        found.refused += [one for one in placed if isinstance(one, Refused)]
        found.boxes += kept
        if not kept:
            found.refused.append(no_box_left(path, len(mine), label_of(box.label for box in mine)))
            found.lost.add(path)
    return found


def no_box_left(path: str, count: int, label: str = "") -> Refused:
    """A photograph all of whose boxes were refused: without them it would pass for background."""
    has = "one box, which can't be used" if count == 1 else f"{count} boxes, none of which can be used"
    return Refused(path, f"has {has}: correct its boxes, or remove the photograph", "box", label)


def label_of(labels: Iterable[str]) -> str:
    """Return a photograph's label from those of its boxes: its classes joined by `;`, or BACKGROUND."""
    return SEVERAL.join(sorted(set(labels))) or BACKGROUND


def box_classes(label: object) -> tuple[str, ...]:
    """Return the classes of a photograph's label: BACKGROUND is none."""
    return tuple(name for name in label_classes(label) if name != BACKGROUND)


def box_table(boxes: Sequence[Marked]) -> pd.DataFrame:
    """Return settled boxes as build/boxes.parquet has them: path, label, and four edges as float64."""
    import pandas as pd

    rows = [(box.path, box.label, box.left, box.top, box.right, box.bottom) for box in boxes]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"path": object, "label": object, **dict.fromkeys(EDGES, "float64")})


def turned(shares: Shares, orientation: int) -> Shares:
    """Return a box of a picture as stored, in shares, as it lies in the upright picture (EXIF orientation 1 to 8)."""
    across, down = (shares[0], shares[2]), (shares[1], shares[3])
    if orientation >= 5:  # rows are columns
        across, down = down, across
    if orientation in (2, 3, 6, 7):
        across = 1 - across[1], 1 - across[0]
    if orientation in (3, 4, 7, 8):
        down = 1 - down[1], 1 - down[0]
    return across[0], down[0], across[1], down[1]


def _placed(box: Marked, size: Size, stored: Stored, found: Settled) -> Marked | Refused:
    """The box in shares of the upright photograph, clipped to it; DecodeError where it is of another picture."""
    edges = _in_shares(box, size, stored, found)
    if not all(math.isfinite(edge) for edge in edges):
        return _refused(box, "has an edge that is no number")
    left, top, right, bottom = edges
    if not (left < right and top < bottom):
        return _refused(box, "has no area: its right and bottom edges have to lie beyond the left and top ones")
    outside = max(-left, -top, right - 1, bottom - 1)
    if outside > ROUNDING:
        return _refused(box, f"reaches outside the photograph by {outside:.0%} of it")
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0)
    if (right - left) * size[0] < SMALLEST or (bottom - top) * size[1] < SMALLEST:
        return _refused(box, f"is less than a pixel of this {size[0]} x {size[1]} photograph")
    return Marked(box.path, box.number, box.label, left, top, right, bottom)


def _in_shares(box: Marked, size: Size, stored: Stored, found: Settled) -> Shares:
    edges = (box.left, box.top, box.right, box.bottom)
    if box.size is None:
        return edges
    width, height = box.size if min(box.size) > 0 else size
    shares = (box.left / width, box.top / height, box.right / width, box.bottom / height)
    if (width, height) == size:
        return shares
    as_stored, orientation = stored(box.path)
    if (width, height) == as_stored:
        return turned(shares, orientation)
    if abs(width * size[1] / (height * size[0]) - 1) <= SAME_SHAPE:
        found.resized += 1
        return shares
    raise DecodeError(
        f"has {size[0]} x {size[1]} pixels, but its boxes were drawn on {width} x {height}: bring the picture that "
        "they belong to, or label it anew"
    )


def _without_copies(boxes: list[Marked], found: Settled) -> list[Marked]:
    """Of boxes with the same edges the first; where they have different classes none, for one is wrong."""
    first: dict[Shares, Marked] = {}
    classes: dict[Shares, set[str]] = {}
    for box in boxes:
        edges = (box.left, box.top, box.right, box.bottom)
        first.setdefault(edges, box)
        classes.setdefault(edges, set()).add(box.label)
    kept = []
    for box in boxes:
        edges = (box.left, box.top, box.right, box.bottom)
        if len(classes[edges]) > 1:
            others = ", ".join(sorted(classes[edges] - {box.label}))
            found.refused.append(_refused(box, f"is there as {box.label} and as {others}: remove what is wrong"))
        elif first[edges] is box:
            kept.append(box)
        else:
            found.refused.append(_refused(box, f"is there twice, as box {first[edges].number + 1} of its photograph"))
    return kept


def _refused(box: Marked, reason: str) -> Refused:
    return Refused(box.name, f"(box {box.number + 1}, {box.label}) {reason}", "box", box.label)


def boxes_by_class(table: pd.DataFrame) -> str:
    """Return how many boxes each class has, in words: `927 helmet, 115 head`."""
    return ", ".join(f"{count:,} {name}" for name, count in Counter(table["label"]).most_common()) or "none"
