"""Whether a detector reads heads or what is around them: test photographs blurred outside the boxes, or inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from plumbline.common.records import Record
from plumbline.evidence.detection_figures import AT_50
from plumbline.evidence.detection_scores import match, scenes_of
from plumbline.evidence.intervals import draw_groups, group_codes, rate_if_any
from plumbline.evidence.records import Figure
from plumbline.imaging.decode import Pixels
from plumbline.models.detecting import SIDES
from plumbline.tasks.scores import Floats

if TYPE_CHECKING:
    import pandas as pd

Condition = Literal["as it is", "context blurred", "boxes blurred"]
CONDITIONS: tuple[Condition, ...] = ("as it is", "context blurred", "boxes blurred")
MARGIN = 0.15
"""A box's share on each side that stays sharp around it, so that its outline does."""
BLUR = 0.02
"""Standard deviation of the blur, as a share of the photograph's longer side: of a head nothing is left to tell."""


class ContextEvidence(Record):
    """build/context/context.json: of `detector`, at the thresholds that the page shows.

    `found` is the share of the test photographs' boxes found under each condition, `still` the share of those found as
    the photograph is that are found under the others too; None where there is none. `shown` are the photographs of
    which there is Grad-CAM, in its order.
    """

    detector: str
    thresholds: dict[str, float]
    found: dict[Condition, Figure | None]
    still: dict[Condition, Figure | None]
    shown: tuple[str, ...]


def under(photograph: Pixels, boxes: Floats, condition: Condition) -> Pixels:
    """Return a photograph (H, W, 3) blurred outside its boxes (M, 4), in shares of it, or inside them."""
    import cv2

    if condition == "as it is":
        return photograph
    height, width = photograph.shape[:2]
    blurred = cv2.GaussianBlur(photograph, (0, 0), BLUR * max(height, width))
    inside = np.zeros((height, width, 1), dtype=bool)
    for left, top, right, bottom in boxes:
        wide, high = MARGIN * (right - left), MARGIN * (bottom - top)
        x = np.clip([round((left - wide) * width), round((right + wide) * width)], 0, width)
        y = np.clip([round((top - high) * height), round((bottom + high) * height)], 0, height)
        inside[y[0] : y[1], x[0] : x[1]] = True
    return np.where(inside == (condition == "boxes blurred"), blurred, photograph)


def conditions_of(
    paths: Sequence[str], photographs: Iterable[Pixels], boxes: pd.DataFrame
) -> Iterable[tuple[str, dict[Condition, Pixels]]]:
    """Yield each photograph under every condition; `boxes` are (path, left, top, right, bottom) in shares of them."""
    of, none = dict(list(boxes.groupby("path"))), boxes.iloc[:0]
    for path, photograph in zip(paths, photographs, strict=True):
        own = of.get(path, none)[SIDES].to_numpy(np.float64)
        yield path, {condition: under(photograph, own, condition) for condition in CONDITIONS}


def measure(
    detector: str,
    photographs: pd.DataFrame,
    boxes: pd.DataFrame,
    detections: Mapping[Condition, pd.DataFrame],
    thresholds: Mapping[str, float],
    shown: Sequence[str],
    resamples: int,
    seed: int,
) -> ContextEvidence:
    """Return how many boxes of the test `photographs` (path, width, height, group) are found under each condition.

    `detections` are (path, label, score, left, top, right, bottom) under each; a box counts as found at IoU 0.5 by a
    detection of its class that scores the class's of `thresholds` or more.
    """
    found = {one: _found(photographs, boxes, detections[one], thresholds) for one in CONDITIONS}
    of_group, hit = np.concatenate([found["as it is"][0]]), {one: values[1] for one, values in found.items()}
    codes = group_codes(photographs["group"])
    draws = draw_groups(int(codes.max()) + 1, resamples, seed)[:, codes[of_group]]
    every = np.ones(len(of_group), dtype=bool)
    return ContextEvidence(
        detector=detector,
        thresholds=dict(thresholds),
        found={one: rate_if_any(hit[one], every, codes[of_group], draws) for one in CONDITIONS},
        still={one: rate_if_any(hit[one], hit["as it is"], codes[of_group], draws) for one in CONDITIONS[1:]},
        shown=tuple(shown),
    )


def _found(
    photographs: pd.DataFrame, boxes: pd.DataFrame, detections: pd.DataFrame, thresholds: Mapping[str, float]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Of every box, class after class: its photograph's number (B,), and whether it is found (B,)."""
    numbers, hits = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=bool)]
    for label, least in thresholds.items():
        matches = match(list(scenes_of(photographs, boxes, detections, label)))
        start = np.cumsum(matches.wanted) - matches.wanted
        hit = np.zeros(int(matches.wanted.sum()), dtype=bool)
        sure = matches.hit[AT_50] & (matches.score >= least)
        hit[start[matches.photograph[sure]] + matches.box[AT_50][sure]] = True
        numbers.append(np.repeat(np.arange(len(matches.wanted)), matches.wanted))
        hits.append(hit)
    return np.concatenate(numbers), np.concatenate(hits)


def in_words(evidence: ContextEvidence) -> str:
    """Return what the probe found, in a sentence."""
    blurred, hidden = evidence.still["context blurred"], evidence.still["boxes blurred"]
    if blurred is None or hidden is None:
        return "Not measured: no box of the test photographs is found as they are."
    return (
        f"Of the boxes that {evidence.detector} finds, it still finds {blurred.value:.0%} ({blurred.low:.0%} to "
        f"{blurred.high:.0%}) where all around the boxes is blurred, and {hidden.value:.0%} ({hidden.low:.0%} to "
        f"{hidden.high:.0%}) where the boxes themselves are."
    )
