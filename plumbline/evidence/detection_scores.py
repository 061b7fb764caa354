"""How well boxes are found: COCO's average precision, recall at a number of false alarms, intervals over groups.

A photograph's boxes and its detections are matched as COCO does: the detections of a class, the highest score first,
each take the box of that class that they overlap most, if nobody has it yet. So a detection's fate depends on no lower
score and on no other photograph, and one matching serves every threshold and every redrawn set of photographs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from plumbline.common.overlap import areas, iou
from plumbline.models.detecting import SIDES
from plumbline.tasks.scores import Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

Size = Literal["all", "small", "medium", "large"]

IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
RECALLS: Floats = np.linspace(0, 1, 101)
MOST_DETECTIONS = 100
"""Of a class in a photograph; those with the highest scores count, as in COCO."""
SIZES: dict[Size, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""Areas in the photograph's own pixels, as in COCO, both ends included."""


@dataclass(frozen=True)
class Scene:
    """One photograph's boxes of one class, (M, 4), and its detections (D, 4) with scores (D,), in pixels."""

    boxes: Floats
    detections: Floats
    scores: Floats


@dataclass(frozen=True)
class Matches:
    """One class's detections of all photographs, the highest score first, matched at T thresholds of IoU.

    Attributes:
        photograph: row of each detection's photograph (D,).
        score: (D,), falling.
        hit: whether it has a box of its own (T, D).
        counted: whether it counts at all (T, D): what lies outside the range of sizes does not.
        row: which of its photograph's detections it is (D,).
        box: which of its photograph's boxes it has (T, D), -1 where none.
        wanted: how many boxes there are to find, by photograph (P,).
    """

    photograph: Ints
    score: Floats
    hit: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    row: Ints
    box: Ints
    wanted: Ints


def scenes_of(photographs: pd.DataFrame, boxes: pd.DataFrame, detections: pd.DataFrame, label: str) -> Iterator[Scene]:
    """Yield each photograph of (path, width, height) with its boxes and detections of class `label`.

    `boxes` are (path, label, left, top, right, bottom) in shares of the photograph, `detections` have a score as well.
    """
    truth = dict(list(boxes[boxes["label"] == label].groupby("path")))
    found = dict(list(detections[detections["label"] == label].groupby("path")))
    none = boxes.iloc[:0], detections.iloc[:0]
    sizes = photographs[["width", "height", "width", "height"]].to_numpy(np.float64)
    for path, pixels in zip(photographs["path"], sizes, strict=True):
        own, seen = truth.get(path, none[0]), found.get(path, none[1])
        yield Scene(
            own[SIDES].to_numpy(np.float64) * pixels,
            seen[SIDES].to_numpy(np.float64) * pixels,
            seen["score"].to_numpy(np.float64),
        )


def match(scenes: Sequence[Scene], thresholds: Floats = IOU_THRESHOLDS, size: Size = "all") -> Matches:
    """Match the detections of every photograph; boxes out of the range of `size` need not be found.

    A detection that finds such a box, or finds none and is itself out of the range, is not counted.
    """
    parts = [_match_scene(scene, thresholds, SIZES[size]) for scene in scenes]
    scores = np.concatenate([part.score for part in parts]) if parts else np.zeros(0)
    order = np.argsort(-scores, kind="stable")
    photographs = np.repeat(np.arange(len(parts)), [len(part.score) for part in parts])
    empty = np.zeros((len(thresholds), 0))
    return Matches(
        photograph=photographs[order],
        score=scores[order],
        hit=np.concatenate([empty, *(part.hit for part in parts)], axis=1).astype(bool)[:, order],
        counted=np.concatenate([empty, *(part.counted for part in parts)], axis=1).astype(bool)[:, order],
        row=np.concatenate([empty[0], *(part.row for part in parts)]).astype(np.int64)[order],
        box=np.concatenate([empty, *(part.box for part in parts)], axis=1).astype(np.int64)[:, order],
        wanted=np.array([part.wanted[0] for part in parts], dtype=np.int64),
    )


def _match_scene(scene: Scene, thresholds: Floats, bounds: tuple[float, float]) -> Matches:
    """COCO's evaluateImg: of boxes that overlap equally the later one is taken, and any that counts before the rest."""
    best = np.argsort(-scene.scores, kind="stable")[:MOST_DETECTIONS]
    outside = ~_within(areas(scene.boxes), bounds)
    order = np.argsort(outside, kind="stable")
    overlap = iou(scene.detections[best], scene.boxes[order])
    outside = outside[order]
    box = np.full((len(thresholds), len(best)), -1)
    for number, threshold in enumerate(thresholds):
        free = np.ones(len(order), dtype=bool)
        for one, row in enumerate(overlap):
            for among in (~outside, outside):
                open_ = free & among & (row >= min(threshold, 1 - 1e-10))
                if open_.any():
                    place = len(row) - 1 - int(np.argmax(np.where(open_, row, -1.0)[::-1]))
                    box[number, one], free[place] = place, False
                    break
    found = box >= 0
    passed_over = np.where(found, outside[np.maximum(box, 0)] if len(outside) else False, False)
    stray = ~_within(areas(scene.detections[best]), bounds)
    return Matches(
        photograph=np.zeros(len(best), dtype=np.int64),
        score=scene.scores[best],
        hit=found & ~passed_over,
        counted=np.where(found, ~passed_over, ~stray[None, :]),
        row=best,
        box=np.where(found, order[np.maximum(box, 0)] if len(order) else -1, -1),
        wanted=np.array([(~outside).sum()]),
    )


def _within(sizes: Floats, bounds: tuple[float, float]) -> NDArray[np.bool_]:
    return np.asarray((sizes >= bounds[0]) & (sizes <= bounds[1]))


def average_precision(matches: Matches, times: Floats | None = None) -> Floats:
    """Return the average precision (T,) of one class; NaN where there is no box to find.

    The mean, over 101 recalls, of the highest precision reached at that recall or a higher one, 0 where none reaches
    it. With `times` (P,) each photograph counts so many times: as drawn by a bootstrap.
    """
    precision, recall, wanted = _curves(matches, times)
    if wanted == 0:
        return np.full(len(matches.hit), np.nan)
    found = np.zeros((len(matches.hit), len(RECALLS)))
    for row, (one, reached) in enumerate(zip(precision, recall, strict=True)):
        envelope = np.maximum.accumulate(one[::-1])[::-1]
        places = np.searchsorted(reached, RECALLS, side="left")
        within = places < len(envelope)
        found[row, within] = envelope[places[within]]
    return np.asarray(found.mean(axis=1))


def curve(matches: Matches, threshold: int = 0) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and score (D,) at threshold number `threshold`, from the surest detection on."""
    precision, recall, wanted = _curves(matches, None)
    counted = matches.counted[threshold]
    reached = recall[threshold] if wanted else np.full(len(matches.score), np.nan)
    return precision[threshold][counted], reached[counted], matches.score[counted]


def _curves(matches: Matches, times: Floats | None) -> tuple[Floats, Floats, float]:
    """Precision and recall (T, D) when detections down to each are taken, and how many boxes there are to find."""
    times = np.ones(len(matches.wanted)) if times is None else times
    wanted = float(times @ matches.wanted)
    weight = times[matches.photograph]
    right = np.cumsum(matches.hit * weight, axis=1)
    wrong = np.cumsum((matches.counted & ~matches.hit) * weight, axis=1)
    precision = right / (right + wrong + np.spacing(1))
    return precision, right / wanted if wanted else right, wanted


def recall_at(matches: Matches, false_alarms: float, threshold: int = 0, times: Floats | None = None) -> float:
    """Return the share of boxes found when at most `false_alarms` a photograph, on average, are accepted; NaN: none.

    The point of a free-response ROC. Detections of one score are taken together.
    """
    times = np.ones(len(matches.wanted)) if times is None else times
    wanted = float(times @ matches.wanted)
    if wanted == 0:
        return float("nan")
    weight = times[matches.photograph]
    right = np.cumsum(matches.hit[threshold] * weight)
    wrong = np.cumsum((matches.counted & ~matches.hit)[threshold] * weight)
    last = np.append(np.diff(matches.score) != 0, True)[: len(right)]
    allowed = last & (wrong <= false_alarms * times.sum() + 1e-9)
    return float(right[allowed].max() / wanted) if allowed.any() else 0.0


def mean_iou(scenes: Sequence[Scene], matches: Matches, least_score: float, threshold: int = 0) -> float:
    """Return the mean IoU of the hits whose score is `least_score` or more with the boxes they found; NaN: no hit."""
    taken = matches.hit[threshold] & (matches.score >= least_score)
    overlaps = [
        iou(scenes[p].detections[row : row + 1], scenes[p].boxes[box : box + 1])[0, 0]
        for p, row, box in zip(
            matches.photograph[taken], matches.row[taken], matches.box[threshold][taken], strict=True
        )
    ]
    return float(np.mean(overlaps)) if overlaps else float("nan")
