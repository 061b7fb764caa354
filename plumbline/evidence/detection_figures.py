"""The figures of a detector, each with its interval: what evaluation.json and the page say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plumbline.common.records import Record
from plumbline.evidence.detection_scores import (
    SIZES,
    Matches,
    average_precision,
    match,
    recall_at,
    scenes_of,
)
from plumbline.evidence.intervals import draw_groups, group_codes, interval
from plumbline.evidence.records import Costs, Figure
from plumbline.evidence.thresholds import choose_threshold
from plumbline.tasks.scores import Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

FALSE_ALARMS = (0.1, 0.25, 0.5, 1.0)
"""Numbers of false alarms a photograph at which recall is told."""
AT_50, AT_75 = 0, 5
"""Places of these thresholds in detection_scores.IOU_THRESHOLDS."""


class Alarms(Record):
    """What alarms of one class do at a threshold: `recall` of its boxes, `false_alarms` a photograph."""

    threshold: float
    caught: int
    missed: int
    false: int
    photographs: int
    recall: Figure | None
    false_alarms: float
    cost: float


class ClassFigures(Record):
    """How well the boxes of one class are found; figures are None where the set has none of them.

    `ap` is the mean over IoU 0.50 to 0.95, `recall_at` by false alarms a photograph (at IoU 0.5), `by_size` AP for
    small (below 32 x 32 pixels of the photograph), medium and large (from 96 x 96 on) boxes.
    """

    boxes: int
    ap: Figure | None
    ap50: Figure | None
    ap75: Figure | None
    recall_at: dict[str, Figure]
    by_size: dict[str, float | None]


class DetectionFigures(Record):
    """How well all boxes are found: means over the classes that the set has, and each class."""

    photographs: int
    groups: int
    map: Figure | None
    map50: Figure | None
    map75: Figure | None
    classes: dict[str, ClassFigures]


def figures(
    photographs: pd.DataFrame,
    boxes: pd.DataFrame,
    detections: pd.DataFrame,
    classes: Sequence[str],
    resamples: int,
    seed: int,
) -> DetectionFigures:
    """Return every figure of `detections` on `photographs` (path, width, height, group), with 95% intervals.

    Tables are as in detection_scores.scenes_of. Intervals come from `resamples` redrawings of whole groups.
    """
    codes = group_codes(photographs["group"])
    draws = draw_groups(int(codes.max()) + 1, resamples, seed)[:, codes]
    values: dict[str, Floats] = {}
    drawn: dict[str, Floats] = {}
    made: dict[str, ClassFigures] = {}
    for label in classes:
        scenes = list(scenes_of(photographs, boxes, detections, label))
        matches = match(scenes)
        values[label] = average_precision(matches)
        drawn[label] = np.array([average_precision(matches, times) for times in draws])
        by_size: dict[str, float | None] = {
            size: _value(average_precision(match(scenes, size=size)).mean()) for size in SIZES if size != "all"
        }
        recalls = {str(rate): recall_figure(matches, rate, draws, codes) for rate in FALSE_ALARMS}
        wanted = int(matches.wanted.sum())
        made[label] = ClassFigures(
            boxes=wanted,
            ap=_figure(values[label], drawn[label], slice(None), matches.wanted, codes),
            ap50=_figure(values[label], drawn[label], AT_50, matches.wanted, codes),
            ap75=_figure(values[label], drawn[label], AT_75, matches.wanted, codes),
            recall_at={rate: one for rate, one in recalls.items() if one is not None},
            by_size=by_size,
        )
    present = [label for label in classes if made[label].boxes]
    in_all = boxes["path"].value_counts().reindex(photographs["path"], fill_value=0).to_numpy()

    def mean(which: int | slice) -> Figure | None:
        return _mean_figure([values[one] for one in present], [drawn[one] for one in present], which, in_all, codes)

    return DetectionFigures(
        photographs=len(photographs),
        groups=len(np.unique(codes)),
        map=mean(slice(None)),
        map50=mean(AT_50),
        map75=mean(AT_75),
        classes=made,
    )


def _value(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _figure(values: Floats, draws: Floats, which: int | slice, wanted: Ints, codes: Ints) -> Figure | None:
    """The figure of one class from its values (T,) and draws (R, T)."""
    if not wanted.any():
        return None
    value = float(np.mean(values[which]))
    redrawn = draws[:, which] if isinstance(which, int) else draws[:, which].mean(axis=1)
    low, high = interval("pr_auc", value, redrawn, int(wanted.sum()), len(np.unique(codes[wanted > 0])))
    return Figure(value=value, low=low, high=high)


def _mean_figure(
    values: Sequence[Floats], draws: Sequence[Floats], which: int | slice, wanted: Ints, codes: Ints
) -> Figure | None:
    """The mean over classes; a class of which a redrawn set has no box is left out of that one's mean."""
    if not values:
        return None
    redrawn = np.stack(draws)
    missing = np.isnan(redrawn)
    mean = np.where(missing, 0, redrawn).sum(axis=0) / np.maximum((~missing).sum(axis=0), 1)
    mean[missing.all(axis=0)] = np.nan
    return _figure(np.mean(values, axis=0), mean, which, wanted, codes)


def recall_figure(matches: Matches, rate: float, draws: Floats, codes: Ints) -> Figure | None:
    """Return the share of boxes found at `rate` false alarms a photograph, None where there is none to find.

    `draws` (R, P) are redrawings of the photographs, `codes` (P,) their groups.
    """
    wanted = matches.wanted
    if not wanted.any():
        return None
    value = recall_at(matches, rate)
    redrawn = np.array([recall_at(matches, rate, times=times) for times in draws])
    low, high = interval("recall", value, redrawn, int(wanted.sum()), len(np.unique(codes[wanted > 0])))
    return Figure(value=value, low=low, high=high)


def alarm_threshold(matches: Matches, costs: Costs) -> float:
    """Return the score from which on detections of a class are alarms, the cheapest on these photographs.

    A missed box costs `missed_violation`, a detection without a box `false_alarm`, both at IoU 0.5.
    """
    violation, score = _decisions(matches)
    return choose_threshold(violation, score, costs.missed_violation, costs.false_alarm)


def alarm_costs(raised: Matches, costs: Costs) -> Floats:
    """Return what mistakes cost on each photograph (P,) where all of `raised` are alarms, at IoU 0.5."""
    photographs = len(raised.wanted)
    caught = np.bincount(raised.photograph[raised.hit[AT_50]], minlength=photographs)
    false = np.bincount(raised.photograph[~raised.hit[AT_50]], minlength=photographs)
    return np.asarray(costs.missed_violation * (raised.wanted - caught) + costs.false_alarm * false, dtype=np.float64)


def _decisions(matches: Matches) -> tuple[NDArray[np.bool_], Floats]:
    """Each detection, with whether it has a box, and each box without a detection, which no threshold finds."""
    hit, score = matches.hit[AT_50], matches.score
    unseen = int(matches.wanted.sum() - hit.sum())
    return np.append(hit, np.ones(unseen, dtype=bool)), np.append(score, np.zeros(unseen))


def alarms(matches: Matches, threshold: float, costs: Costs, codes: Ints, draws: Floats) -> Alarms:
    """Return what alarms at `threshold` catch, miss and claim; `codes` (P,) are groups, `draws` (R, P) redrawings."""
    raised = matches.score >= threshold
    caught = np.bincount(matches.photograph[raised & matches.hit[AT_50]], minlength=len(codes))
    false = int((raised & ~matches.hit[AT_50]).sum())
    wanted = matches.wanted
    recall = None
    if wanted.any():
        value = float(caught.sum() / wanted.sum())
        among = draws @ wanted
        redrawn = (draws @ caught)[among > 0] / among[among > 0]
        low, high = interval("recall", value, redrawn, int(wanted.sum()), len(np.unique(codes[wanted > 0])))
        recall = Figure(value=value, low=low, high=high)
    missed = int(wanted.sum() - caught.sum())
    return Alarms(
        threshold=threshold,
        caught=int(caught.sum()),
        missed=missed,
        false=false,
        photographs=len(codes),
        recall=recall,
        false_alarms=false / len(codes),
        cost=(costs.missed_violation * missed + costs.false_alarm * false) / len(codes),
    )


def summary(found: DetectionFigures) -> Mapping[str, float | None]:
    """Return the figures that a table of many detectors shows, by name."""
    first = {"map": found.map, "map50": found.map50, "map75": found.map75}
    by_class = {f"ap50_{label}": one.ap50 for label, one in found.classes.items()}
    return {name: one.value if one else None for name, one in {**first, **by_class}.items()}
