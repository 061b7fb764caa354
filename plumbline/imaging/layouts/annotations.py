"""What the files of a tool that draws boxes say, before any photograph is decoded: the same for every tool."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from plumbline.common.errors import UserError
from plumbline.imaging.boxes import BACKGROUND
from plumbline.imaging.labels import SEVERAL, shown
from plumbline.imaging.layouts.published import Side
from plumbline.imaging.pictures import Marked, Refused
from plumbline.imaging.settings import DataParams

# Folders that only say that photographs are in them: images/train, JPEGImages.
IMAGE_FOLDERS = {"images", "image", "imgs", "img", "jpegimages", "photos", "pictures"}


@dataclass
class Annotations:
    """Boxes by photograph, and what can't be used.

    boxes: photograph to its boxes; none for one that the files know to be empty.
    refused: boxes, files of boxes and photographs that can't be used; `spoilt` are these photographs.
    faults: by photograph, how many of its boxes were refused.
    sides: by photograph, its side of a published split, where the files say so.
    classes: every class that they name.
    """

    boxes: dict[str, list[Marked]] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    spoilt: set[str] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)
    sides: dict[str, Side] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)

    def refuse_box(self, picture: str, number: int, reason: str, label: str = "") -> None:
        """Refuse one box of a photograph."""
        self.refused.append(Refused(f"{picture}#{number}", reason, "box", label))
        self.faults[picture] += 1

    def refuse_photograph(self, picture: str, reason: str) -> None:
        """Refuse a photograph: what its boxes are can't be told."""
        self.refused.append(Refused(picture, reason, "box"))
        self.spoilt.add(picture)
        self.boxes.pop(picture, None)

    def refuse_file(self, path: str, reason: str) -> None:
        """Refuse a file of boxes that is of no photograph here."""
        self.refused.append(Refused(path, reason, "box"))


class Pictures:
    """The photographs of a folder, found by what files of other folders and disks call them."""

    def __init__(self, pictures: Iterable[str]) -> None:
        self._by_name: dict[str, list[str]] = {}
        for path in pictures:
            self._by_name.setdefault(PurePosixPath(path).name, []).append(path)

    def find(self, called: str, beside: Sequence[str] = ()) -> str | None:
        """Return the only photograph that a path can mean, else None.

        Of several with that name the one whose folders agree furthest from the end, then the one that lies in a folder
        called as one of `beside`.
        """
        wanted = PurePosixPath(called.replace("\\", "/"))
        there = self._by_name.get(wanted.name, [])
        if len(there) < 2:
            return next(iter(there), None)
        agreeing = {path: _common_end(PurePosixPath(path).parts, wanted.parts) for path in there}
        best = [path for path in there if agreeing[path] == max(agreeing.values())]
        if len(best) > 1:
            best = [path for path in best if any(part in beside for part in PurePosixPath(path).parts[:-1])]
        return best[0] if len(best) == 1 else None


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


def class_name(params: DataParams, name: str, file: str) -> str:
    """Return what a class of a file is called here (data.yolo.classes); UserError where it would be another thing."""
    called = params.yolo.classes.get(name, name)
    if called.casefold() == BACKGROUND:
        raise UserError(
            f"{params.root / file} has a class {shown(name)!r}, as photographs without a box are called here: give "
            "it another name under data.yolo.classes."
        )
    if SEVERAL in called:
        raise UserError(
            f"{params.root / file} has a class {shown(name)!r} with a `{SEVERAL}`, which parts several labels: rename "
            "it, or give it another name under data.yolo.classes."
        )
    return called


def say(lines: Iterable[str]) -> None:
    """Print sentences for the person who runs this."""
    for line in lines:
        print(line, file=sys.stderr)


def parents(path: str) -> Iterator[str]:
    """Yield the folders above a file, the nearest first; "." is the root."""
    yield from map(str, PurePosixPath(path).parents)
