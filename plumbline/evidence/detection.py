"""What is known of every detector, with intervals; it judges nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from plumbline.common import artefacts
from plumbline.common.overlap import iou
from plumbline.common.params import Section
from plumbline.common.records import Record, read_record, read_table
from plumbline.evidence.detection_figures import AT_50, Alarms, DetectionFigures, alarm_threshold, alarms, figures
from plumbline.evidence.detection_scores import Matches, Scene, match, mean_iou, scenes_of
from plumbline.evidence.evaluation import CostParams
from plumbline.evidence.intervals import draw_groups, group_codes
from plumbline.evidence.records import Costs, Figure
from plumbline.models.detector import DetectorRecord
from plumbline.models.records import Cost
from plumbline.tasks.scores import Floats

if TYPE_CHECKING:
    import pandas as pd

JUDGED = ("validation", "test")
SHOWN = 12
"""Photographs on the page, the worst first."""


class DetectionParams(Section):
    """Section `evaluate` of detection/params.yaml: the class that must not be missed, what mistakes cost, intervals."""

    violation_class: str | None = "head"
    costs: CostParams = CostParams()
    resamples: int = Field(default=1000, ge=100)
    seed: int = 0


class DetectorEvidence(Record):
    """What is known of one detector; `alarms` are those of the violation, at the threshold cheapest on validation."""

    record: DetectorRecord
    cost: Cost
    splits: dict[str, DetectionFigures]
    mean_iou: dict[str, float | None]
    alarms: dict[str, Alarms]


class DetectionEvidence(Record):
    """build/detection.json. `best` is the detector with the highest mAP50 on validation."""

    classes: tuple[str, ...]
    violation_class: str | None
    costs: Costs
    detectors: dict[str, DetectorEvidence]
    missing: tuple[str, ...]
    best: str


@dataclass(frozen=True)
class Trained:
    """The folder of a trained detector, read: its record, what it reports, learning curve and cost."""

    record: DetectorRecord
    detections: pd.DataFrame
    history: pd.DataFrame
    cost: Cost


def read_detectors(folder: Path, names: Sequence[str]) -> tuple[dict[str, Trained], list[str]]:
    """Return the trained detectors among `names` in `folder`, and the names that have no result."""
    import pandas as pd

    found: dict[str, Trained] = {}
    missing: list[str] = []
    for name in names:
        own = folder / name
        if not (own / artefacts.DETECTOR).is_file():
            missing.append(name)
            continue
        found[name] = Trained(
            read_record(own / artefacts.DETECTOR, DetectorRecord, f"detector@{name}"),
            read_table(own / artefacts.DETECTIONS, stage=f"detector@{name}"),
            pd.read_csv(own / artefacts.HISTORY),
            read_record(own / artefacts.COST, Cost, f"detector@{name}"),
        )
    return found, missing


def evaluate(
    detectors: Mapping[str, Trained],
    missing: Sequence[str],
    photographs: pd.DataFrame,
    boxes: pd.DataFrame,
    params: DetectionParams,
) -> DetectionEvidence:
    """Return all figures on `detectors`, one at least.

    `photographs` are (path, width, height, group, split), `boxes` (path, label, left, top, right, bottom) in shares.
    """
    classes = next(iter(detectors.values())).record.classes
    violation = params.violation_class if params.violation_class in classes else None
    costs = Costs(**params.costs.model_dump())
    made = {name: _evidence(one, photographs, boxes, violation, costs, params) for name, one in detectors.items()}
    return DetectionEvidence(
        classes=classes,
        violation_class=violation,
        costs=costs,
        detectors=made,
        missing=tuple(missing),
        best=max(made, key=lambda name: _value(made[name].splits["validation"].map50)),
    )


def _value(figure: Figure | None) -> float:
    return -1.0 if figure is None else figure.value


def _evidence(
    one: Trained,
    photographs: pd.DataFrame,
    boxes: pd.DataFrame,
    violation: str | None,
    costs: Costs,
    params: DetectionParams,
) -> DetectorEvidence:
    splits: dict[str, DetectionFigures] = {}
    raised: dict[str, Alarms] = {}
    overlaps: dict[str, float | None] = {}
    threshold: float | None = None
    for split in JUDGED:
        own = photographs[photographs["split"] == split]
        splits[split] = figures(own, boxes, one.detections, one.record.classes, params.resamples, params.seed)
        overlaps[split] = _mean_iou(own, boxes, one, params)
        if violation is None:
            continue
        matches = match(list(scenes_of(own, boxes, one.detections, violation)))
        if threshold is None:  # validation comes first
            threshold = alarm_threshold(matches, costs)
        codes = group_codes(own["group"])
        draws = draw_groups(int(codes.max()) + 1, params.resamples, params.seed)[:, codes]
        raised[split] = alarms(matches, threshold, costs, codes, draws)
    return DetectorEvidence(record=one.record, cost=one.cost, splits=splits, mean_iou=overlaps, alarms=raised)


def _mean_iou(own: pd.DataFrame, boxes: pd.DataFrame, one: Trained, params: DetectionParams) -> float | None:
    """The mean IoU of what was found (score 0.3 and more) with its boxes, over the classes that found any."""
    found = []
    for label in one.record.classes:
        scenes = list(scenes_of(own, boxes, one.detections, label))
        found.append(mean_iou(scenes, match(scenes), 0.3))
    return float(np.nanmean(found)) if np.isfinite(found).any() else None


@dataclass(frozen=True)
class Drawn:
    """A box on a photograph: where (4,) in shares, what (right, wrong, missed), its class, score and IoU."""

    box: tuple[float, float, float, float]
    what: str
    label: str
    score: float | None
    overlap: float | None


@dataclass(frozen=True)
class Judged:
    """A photograph with its boxes as found: `mistakes` counts wrong and missed ones."""

    path: str
    drawn: tuple[Drawn, ...]
    mistakes: int


def worst_first(
    photographs: pd.DataFrame, boxes: pd.DataFrame, detections: pd.DataFrame, thresholds: Mapping[str, float]
) -> list[Judged]:
    """Return the photographs (path, width, height), the one with most mistakes first.

    Shown are the detections whose score is their class's of `thresholds` or more, right where they have a box of their
    class at IoU 0.5, and the boxes that none of them found.
    """
    drawn: dict[str, list[Drawn]] = {path: [] for path in photographs["path"]}
    paths = list(photographs["path"])
    sizes = photographs[["width", "height", "width", "height"]].to_numpy(np.float64)
    for label, least in thresholds.items():
        scenes = list(scenes_of(photographs, boxes, detections, label))
        matches = match(scenes)
        found: set[tuple[int, int]] = set()
        for place in np.flatnonzero(matches.score >= least):
            number, row = int(matches.photograph[place]), int(matches.row[place])
            box = int(matches.box[AT_50, place])
            found.add((number, box))
            drawn[paths[number]].append(
                Drawn(
                    _shares(scenes[number].detections[row], sizes[number]),
                    "right" if matches.hit[AT_50, place] else "wrong",
                    label,
                    float(matches.score[place]),
                    _best_overlap(scenes[number], row),
                )
            )
        for number, scene in enumerate(scenes):
            for row, box_of in enumerate(scene.boxes):
                if (number, row) not in found:
                    missed = Drawn(_shares(box_of, sizes[number]), "missed", label, None, None)
                    drawn[paths[number]].append(missed)
    judged = [
        Judged(path, tuple(boxes_of), sum(one.what != "right" for one in boxes_of)) for path, boxes_of in drawn.items()
    ]
    return sorted(judged, key=lambda one: (-one.mistakes, one.path))


def _shares(box: Floats, size: Floats) -> tuple[float, float, float, float]:
    left, top, right, bottom = (box / size).tolist()
    return left, top, right, bottom


def _best_overlap(scene: Scene, row: int) -> float | None:
    return float(iou(scene.detections[row : row + 1], scene.boxes).max()) if len(scene.boxes) else None


def shown_thresholds(
    evidence: DetectionEvidence,
    best: DetectorEvidence,
    detections: pd.DataFrame,
    photographs: pd.DataFrame,
    boxes: pd.DataFrame,
) -> dict[str, float]:
    """Return the score of each class from which on its boxes are shown: the alarm's, else the one with the best F1."""
    validation = photographs[photographs["split"] == "validation"]
    found = {}
    for label in evidence.classes:
        found[label] = best_f1(match(list(scenes_of(validation, boxes, detections, label))))
    if evidence.violation_class is not None:
        found[evidence.violation_class] = best.alarms["validation"].threshold
    return found


def best_f1(matches: Matches) -> float:
    """Return the score from which on detections have the highest F1, 0.5 where none is right: for showing pictures."""
    right = np.cumsum(matches.hit[AT_50])
    if not right.any():
        return 0.5
    f1 = 2 * right / (np.arange(1, len(right) + 1) + matches.wanted.sum())
    return float(matches.score[int(f1.argmax())])
