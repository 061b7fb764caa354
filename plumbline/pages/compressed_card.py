"""A compressed candidate's page: what was tried, what it costs and gained, and the pictures it answers otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.evidence.calibration import fit_temperature
from plumbline.evidence.candidates import TrainedCandidate
from plumbline.models.records import Cost
from plumbline.pages.card import about_sets, confusions, graded
from plumbline.pages.template import data_uri, render_page

MOST_SHOWN = 24
THUMBNAIL = 160
Pictures = Callable[[list[str], int], Iterable[NDArray[np.uint8]]]


@dataclass(frozen=True)
class Changed:
    """A test picture that original and copy answer differently: its label, both answers, its pixels as an address."""

    path: str
    label: str
    before: str
    after: str
    right: bool
    source: str


@dataclass(frozen=True)
class Side:
    """How often both give the same answer in one split, and how often each is right (shares)."""

    split: str
    images: int
    agreement: float
    before: float
    after: float


def sides(before: TrainedCandidate, after: TrainedCandidate) -> list[Side]:
    """Return a row for each split."""
    found = []
    for split in ("train", "validation", "test"):
        old, new = before.sample(split), after.sample(split)
        agree = (old.predicted == new.predicted).all(axis=1)
        found.append(Side(split, len(agree), float(agree.mean()), float(old.right.mean()), float(new.right.mean())))
    return found


def changed(before: TrainedCandidate, after: TrainedCandidate, pictures: Pictures) -> tuple[list[Changed], int]:
    """Return the test pictures that the two answer differently, mistakes first, up to MOST_SHOWN; and how many."""
    old, new = (graded(one.table, one.classes, one.task) for one in (before, after))
    both = new.assign(was=old["predicted"])
    both = both[both["was"] != both["predicted"]].sort_values(["right", "path"])
    shown = both.head(MOST_SHOWN)
    drawn = zip(shown.itertuples(), pictures(list(shown["path"]), THUMBNAIL), strict=True)
    return [
        Changed(str(row.path), str(row.label), str(row.was), str(row.predicted), bool(row.right), data_uri(pixels))
        for row, pixels in drawn
    ], len(both)


def make_compressed_card(before: TrainedCandidate, after: TrainedCandidate, cost: Cost, pictures: Pictures) -> str:
    """Return the page of compressed candidate `after`, made of `before`.

    `pictures(paths, size)` yields (size, size, 3) uint8 RGB in order; `cost` is what cost.json says of it. Raises
    UserError where the two were not asked about the same pictures.
    """
    record = after.model.compressed
    same = ["path", "label", "split"]
    if record is None or not before.table[same].equals(after.table[same]):
        raise UserError(f"{after.name} and {before.name} were not asked about the same pictures: run `dvc repro`.")
    test = graded(after.table, after.classes, after.task)
    differing, differing_in_all = changed(before, after, pictures)
    return render_page(
        "compressed_card.html.j2",
        filters={"percent": lambda value: f"{100 * value:.1f}%"},
        model=after.model,
        compressed=record,
        sides=sides(before, after),
        temperatures=[temperature_of(one) for one in (before, after)],
        cost=cost,
        differing=differing,
        differing_in_all=differing_in_all,
        test_images=len(test),
        confusions=confusions(test, after.classes, after.task),
        sets=about_sets(after.table, after.classes, after.task),
    )


def temperature_of(candidate: TrainedCandidate) -> float:
    """Return the temperature that validation gives a candidate."""
    return fit_temperature(*candidate.sample("validation").decisions)
