"""A site's whole system: a detector alone, or one with a classifier of crops that judges each head it finds.

With a classifier the detector's own classes only propose: of its boxes, of whatever class, one stays around each
object, and its score, times what the classifier says of the crop, is the score of each class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from plumbline.common.params import Section
from plumbline.common.records import Record
from plumbline.evidence.detection import DetectionEvidence, DetectionParams, DetectorEvidence, Trained, evaluate
from plumbline.evidence.detection_figures import AT_50, recall_figure
from plumbline.evidence.detection_scores import average_precision, match, scenes_of
from plumbline.evidence.intervals import draw_groups, group_codes
from plumbline.evidence.records import Figure, System
from plumbline.models.detecting import SIDES
from plumbline.tasks.boxes import nms
from plumbline.tasks.scores import Floats

if TYPE_CHECKING:
    import pandas as pd

ALONE: System = "detector"
JUDGED: System = "detector+classifier"


class SystemsParams(Section):
    """Section `systems` of detection/params.yaml.

    `classifier` is `champion` (of the registered `model`, in the same registry), the path of a version's folder, or
    null: detectors alone. `classes` names for each of its classes the detectors' class that it means. `margins` are
    shares of a box's sides that its crop is wider on each side: of several the best on validation is taken, for
    crops are cut wider or closer from set to set. Boxes below `least_score` are not judged; of those that
    overlap by more than the IoU `overlap`, only the surest is.
    """

    classifier: str | None = "champion"
    model: str = "plumbline"
    classes: dict[str, str] = Field(default={"with_helmet": "helmet", "without_helmet": "head"})
    margins: Annotated[tuple[Annotated[float, Field(ge=0, le=2)], ...], Field(min_length=1)] = (0.0, 0.25, 0.5)
    least_score: Annotated[float, Field(ge=0, lt=1)] = 0.05
    overlap: Annotated[float, Field(gt=0, lt=1)] = 0.5


class ClassifierFound(Record):
    """build/classifier.json: which classifier there is here and now, None where it is switched off.

    `digest` is that of the version's manifest, or of a folder's ONNX file; `why_not` says why there is none.
    """

    wanted: str | None
    model: str | None = None
    version: int | None = None
    digest: str | None = None
    why_not: str | None = None

    @property
    def called(self) -> str:
        """The classifier in words."""
        return self.wanted or "none" if self.version is None else f"{self.model} version {self.version}"


class SystemsEvidence(Record):
    """build/systems/systems.json: detectors with the classifier, and which system is the better on validation.

    `judged` has what is known of each detector with the classifier; it is empty where there was none, and `why_not`
    says why. `margins` are those chosen, by detector. `same_false_alarms`: by detector and side, the recall of the
    violation by either system at as many false alarms a photograph as the detector raises alone. `detector` and
    `system` are the better of all on validation.
    """

    classifier: ClassifierFound
    why_not: str | None
    params: SystemsParams
    judged: dict[str, DetectorEvidence]
    margins: dict[str, float]
    same_false_alarms: dict[str, dict[str, dict[System, Figure | None]]]
    detector: str
    system: System


def heads_of(detections: pd.DataFrame, params: SystemsParams) -> pd.DataFrame:
    """Return one row per object of (path, split, score, left, top, right, bottom): the surest of boxes that overlap.

    `detections` are (path, split, label, score, ...) of any photographs.
    """
    import pandas as pd

    surer = detections[detections["score"] >= params.least_score]
    kept = [
        rows.iloc[nms(rows[SIDES].to_numpy(np.float64), rows["score"].to_numpy(np.float64), params.overlap)]
        for _, rows in surer.groupby("path", sort=False)
    ]
    return pd.concat(kept or [surer], ignore_index=True).drop(columns="label")


def judged_heads(heads: pd.DataFrame, probabilities: Floats, classes: Sequence[str]) -> pd.DataFrame:
    """Return detections (..., label, score) of `heads`, whose classes have `probabilities` (N, C): a row per class."""
    import pandas as pd

    parts = [
        heads.assign(label=label, score=heads["score"].to_numpy(np.float64) * probabilities[:, place])
        for place, label in enumerate(classes)
    ]
    return pd.concat(parts, ignore_index=True)[[*_before_label(heads), "label", "score", *SIDES]]


def _before_label(heads: pd.DataFrame) -> list[str]:
    return [column for column in ("path", "split") if column in heads]


def compare_systems(
    alone: DetectionEvidence,
    detectors: Mapping[str, Trained],
    judged: Mapping[str, Trained],
    margins: Mapping[str, float],
    classifier: ClassifierFound,
    why_not: str | None,
    photographs: pd.DataFrame,
    boxes: pd.DataFrame,
    params: SystemsParams,
    evaluation: DetectionParams,
) -> SystemsEvidence:
    """Return what is known of the `detectors` with the classifier; tables are as in detection.evaluate.

    `judged` are the same detectors with the classifier's detections, cost and parameters, `margins` of whose crops were
    chosen by `best_margin`; none where there was no classifier.
    """
    found = evaluate(judged, [], photographs, boxes, evaluation).detectors if judged else {}
    best, system = alone.best, ALONE
    if found:
        rival = max(found, key=lambda name: _on_validation(found[name]))
        if _on_validation(found[rival]) > _on_validation(alone.detectors[best]):
            best, system = rival, JUDGED
    return SystemsEvidence(
        classifier=classifier,
        why_not=why_not,
        params=params,
        judged=found,
        margins=dict(margins),
        same_false_alarms={
            name: _same_false_alarms(alone, name, detectors[name], judged[name], photographs, boxes, evaluation)
            for name in found
            if alone.violation_class is not None
        },
        detector=best,
        system=system,
    )


def best_margin(
    tables: Mapping[float, pd.DataFrame], photographs: pd.DataFrame, boxes: pd.DataFrame, classes: Sequence[str]
) -> float:
    """Return the margin whose detections have the highest mAP50 on validation, the first of equals."""
    own = photographs[photographs["split"] == "validation"]

    def map50(margin: float) -> float:
        found = [average_precision(match(list(scenes_of(own, boxes, tables[margin], one))))[AT_50] for one in classes]
        return float(np.nanmean(found)) if np.isfinite(found).any() else 0.0

    return max(tables, key=map50)


def _on_validation(entry: DetectorEvidence) -> float:
    figure = entry.splits["validation"].map50
    return -1.0 if figure is None else figure.value


def _same_false_alarms(
    alone: DetectionEvidence,
    name: str,
    detector: Trained,
    judged: Trained,
    photographs: pd.DataFrame,
    boxes: pd.DataFrame,
    params: DetectionParams,
) -> dict[str, dict[System, Figure | None]]:
    assert alone.violation_class is not None
    found: dict[str, dict[System, Figure | None]] = {}
    for split, alarms in alone.detectors[name].alarms.items():
        own = photographs[photographs["split"] == split]
        codes = group_codes(own["group"])
        draws = draw_groups(int(codes.max()) + 1, params.resamples, params.seed)[:, codes]
        both: dict[System, Trained] = {ALONE: detector, JUDGED: judged}
        found[split] = {
            system: recall_figure(
                match(list(scenes_of(own, boxes, one.detections, alone.violation_class))),
                alarms.false_alarms,
                draws,
                codes,
            )
            for system, one in both.items()
        }
    return found


def with_classifier(detector: Trained, detections: pd.DataFrame, parameters: int, milliseconds: float) -> Trained:
    """Return a detector with what the classifier makes of its boxes; `milliseconds` it takes for a photograph more."""
    alone = detector.cost.latency_ms
    cost = detector.cost.model_copy(update={"latency_ms": None if alone is None else round(alone + milliseconds, 3)})
    record = detector.record.model_copy(update={"parameters": detector.record.parameters + parameters})
    return replace(detector, detections=detections, cost=cost, record=record)


def entry_of(evidence: DetectionEvidence, systems: SystemsEvidence) -> DetectorEvidence:
    """Return what is known of the system that is the better on validation."""
    return systems.judged[systems.detector] if systems.system == JUDGED else evidence.detectors[systems.detector]


def in_words(systems: SystemsEvidence) -> str:
    """The better system, or that only one was measured, as a clause."""
    if systems.system == JUDGED:
        return f"{systems.detector} with {systems.classifier.called} judging each head"
    return f"{systems.detector} alone"
