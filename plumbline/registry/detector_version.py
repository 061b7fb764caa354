"""The detector that a gate chose, as promotion takes it, and the folder of its version.

Layout, besides what plumbline/registry/bundle.py names for every version::

    model.onnx                          canvases to boxes and scores (plumbline/registry/detector_export.py)
    plumbline/serving.json              classes, canvas, suppression, the alarm's threshold, the system
    plumbline/detector.json, maps.json, evidence.json   what was trained on what, and what is known of it
    plumbline/detections.parquet        what it reported of every photograph when it was evaluated
    plumbline/classifier/               of a system with a classifier: its model.onnx and plumbline/serving.json
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.files import text_digest, write_json, write_table
from plumbline.common.overlap import iou
from plumbline.common.params import load_section
from plumbline.common.records import read_record, read_table, write_record
from plumbline.evidence.detection import DetectionEvidence, DetectionParams, DetectorEvidence
from plumbline.evidence.detection_figures import summary
from plumbline.evidence.detection_rules import DetectionGate, compare_with_champion
from plumbline.evidence.records import AgainstChampion, Decision
from plumbline.evidence.systems import JUDGED, SystemsEvidence, SystemsParams, entry_of
from plumbline.imaging.decode import Pixels
from plumbline.models.detecting import BOXES, SCORES, SIDES
from plumbline.models.detector import DetectorRecord, Suppression
from plumbline.models.export import INPUT
from plumbline.models.scene_maps import MapsRecord
from plumbline.models.scene_views import laid, letterbox
from plumbline.registry import bundle
from plumbline.registry.champion import Pair, comparable
from plumbline.registry.chosen import Pictures, Shown, add_weights, with_pixels
from plumbline.registry.detector_export import OnnxDetector, check_detector, export_detector
from plumbline.registry.folder import CHECKED_PICTURES, save_mlflow_model
from plumbline.registry.records import Provenance
from plumbline.registry.second_stage import SecondStage, folder_of
from plumbline.registry.versions import Version

if TYPE_CHECKING:
    import keras

CLASSIFIER = "classifier"
SAME_BOX = 0.9
"""IoU from which a box as served is the one that was evaluated."""


@dataclass(frozen=True)
class ChosenDetector:
    """See chosen.Promotable. `boxes` are those of the data, `record` and `maps` what was trained on what."""

    name: str
    folder: Path
    features: Path
    decision: Decision
    evidence: DetectionEvidence
    systems: SystemsEvidence
    record: DetectorRecord
    maps: MapsRecord
    detections: pd.DataFrame
    boxes: pd.DataFrame
    splits: pd.DataFrame
    manifest: pd.DataFrame
    weights_sha256: str

    @property
    def classes(self) -> list[str]:
        return list(self.record.classes)

    @property
    def entry(self) -> DetectorEvidence:
        """What is known of the system."""
        return entry_of(self.evidence, self.systems)

    @property
    def served(self) -> dict[str, Any]:
        """How it serves, besides its weights."""
        judged = self.systems.system == JUDGED
        return {
            "threshold": self.decision.threshold,
            "violation_class": self.decision.violation_class,
            "suppression": self.record.settings["suppression"],
            "system": self.systems.system,
            "classifier": self.systems.classifier.content() if judged else None,
            "second_stage": self.second_stage.model_dump(mode="json") if judged else None,
        }

    @property
    def second_stage(self) -> SystemsParams:
        """The settings of the second stage, with the one margin that was chosen."""
        return self.systems.params.model_copy(update={"margins": (self.systems.margins[self.name],)})

    @cached_property
    def fingerprint(self) -> str:
        """Identifies what is served: weights and settings, and of a classifier the digest of its version."""
        return text_digest(json.dumps([self.weights_sha256, self.served], sort_keys=True))

    @property
    def shown(self) -> Shown:
        """Its figures, for the registry."""
        test = self.entry.splits["test"]
        tags = {"test mAP50": with_interval(test.map50), "system": self.systems.system}
        if self.systems.system == JUDGED:
            tags["classifier"] = self.systems.classifier.called
        alarms = self.entry.alarms.get("test")
        if alarms is not None:
            tags[f"test recall {self.evidence.violation_class}"] = with_interval(alarms.recall)
            tags["test false alarms a photograph"] = f"{alarms.false_alarms:.3f}"
        metrics = {
            f"{split} {name}": float(value)
            for split, figures in self.entry.splits.items()
            for name, value in summary(figures).items()
            if value is not None
        }
        flat = {key: value for key, value in self.record.settings.items() if not isinstance(value, dict)}
        flat |= {key: getattr(self.record, key) for key in ("seed", "image_size", "weights")}
        params = {key: str(value) for key, value in flat.items() if value is not None}
        return Shown(
            "object detector", "test mAP50", tags, metrics, params, self.record.weights, self.entry.record.parameters
        )


def with_interval(figure: Any) -> str:
    """Return a test figure with its interval as text."""
    if figure is None:
        return "not measured: no test photograph has such a box"
    return f"{figure.value:.3f} (95%: {figure.low:.3f} to {figure.high:.3f})"


def read_detector_decision(build: Path) -> Decision:
    """Return build/detection_decision.json; UserError if it is missing or is no decision."""
    return read_record(artefacts.DETECTION_DECISION.inside(build), Decision, artefacts.DETECTION_DECISION.by)


def read_chosen_detector(build: Path, decision: Decision) -> ChosenDetector:
    """Return the detector that `decision` names; UserError names the file that is missing or does not belong to it."""
    name = decision.candidate
    folder = artefacts.DETECTORS.inside(build) / name
    record = read_record(folder / artefacts.DETECTOR, DetectorRecord, f"detector@{name}")
    features = artefacts.MAPS.inside(build) / record.maps
    evidence = read_record(artefacts.DETECTION.inside(build), DetectionEvidence, artefacts.DETECTION.by)
    systems = read_record(
        artefacts.SYSTEMS.inside(build) / artefacts.SYSTEMS_RECORD, SystemsEvidence, artefacts.SYSTEMS.by
    )
    if (systems.detector, systems.system) != (name, decision.system):
        raise UserError(
            f"{artefacts.DETECTION_DECISION.inside(build)} is of another system than "
            f"{artefacts.SYSTEMS.inside(build)}: run `dvc repro`."
        )
    maps = read_record(features / artefacts.MAPS_RECORD, MapsRecord, f"maps@{record.maps}")
    detections = folder / artefacts.DETECTIONS
    if systems.system == JUDGED:
        detections = artefacts.SYSTEMS.inside(build) / f"{name}.parquet"
    return ChosenDetector(
        name=name,
        folder=folder,
        features=features,
        decision=decision,
        evidence=evidence,
        systems=systems,
        record=record,
        maps=maps,
        detections=read_table(detections),
        boxes=read_table(artefacts.BOXES.inside(build)),
        splits=read_table(artefacts.SPLITS.inside(build)),
        manifest=read_table(artefacts.MANIFEST.inside(build)),
        weights_sha256=detector_digest(folder, features, record, maps),
    )


def detector_digest(folder: Path, features: Path, record: DetectorRecord, maps: MapsRecord) -> str:
    """Return one SHA-256 over a detector's weights, those of the network that makes its maps, and its architecture."""
    whole = hashlib.sha256()
    if not (folder / artefacts.HEAD_WEIGHTS).is_file():
        raise UserError(f"{folder / artefacts.HEAD_WEIGHTS} is missing: run `dvc repro`.")
    add_weights(whole, folder / artefacts.HEAD_WEIGHTS)
    if not maps.reads_pixels:
        add_weights(whole, features / artefacts.BACKBONE_WEIGHTS)
    shape = {key: record.content().get(key) for key in ("classes", "image_size", "architecture", "anchors", "settings")}
    made = {key: maps.content().get(key) for key in ("network", "kept", "strides")}
    whole.update(json.dumps([shape, made], sort_keys=True).encode())
    return whole.hexdigest()


def load_network(folder: Path, maps: Path) -> keras.Model:
    """Assemble the whole detector, from canvases of pixels to boxes and scores."""
    from plumbline.models.detecting import from_pixels
    from plumbline.models.detector_training import load_detector

    network, plan, record, parts = load_detector(folder, maps)
    return from_pixels(parts, network, plan, record.image_size)


def build_folder(
    folder: Path,
    chosen: ChosenDetector,
    model: keras.Model,
    pictures: Pictures,
    origin: Provenance,
    onnx_tolerance: float,
    reference_images: int,
    batch_size: int,
) -> dict[str, float]:
    """Write a version into `folder`, all but comparison.json and the manifest; return the figures of the export check.

    As folder.build_folder; on up to `reference_images` validation photographs what is served is compared with what was
    evaluated. Raises UserError if the ONNX file does not give what Keras gives.
    """
    home = folder / bundle.HOME
    home.mkdir(parents=True)
    size = chosen.record.image_size
    model.save_weights(home / "model.weights.h5")
    (home / "keras.json").write_text(model.to_json(), encoding="utf-8")
    onnx_file = folder.with_suffix(".onnx")
    export_detector(model, chosen.record, onnx_file)
    paths = sorted(chosen.splits.loc[chosen.splits["split"] == "validation", "path"])[:reference_images]
    if not paths:
        raise UserError(f"{artefacts.SPLITS} has no validation photograph: run `dvc repro split`.")
    few = pictures(paths[:CHECKED_PICTURES], None)
    canvases = np.stack([laid(one, letterbox(one.shape[1], one.shape[0], size), size) for one in few])
    difference = check_detector(model, onnx_file, canvases, onnx_tolerance)
    places = tuple(model.outputs[0].shape)[1]
    save_mlflow_model(folder, onnx_file, size, {BOXES: (-1, places, 4), SCORES: (-1, places, len(chosen.classes))})
    if chosen.systems.system == JUDGED:
        source = folder_of(chosen.systems.classifier)
        SecondStage(source, chosen.second_stage, chosen.classes).copy_to(home / CLASSIFIER)
    write_json(home / "serving.json", serving(chosen))
    write_table(home / "splits.parquet", with_pixels(chosen.splits, chosen.manifest))
    write_table(home / artefacts.DETECTIONS, chosen.detections)
    write_record(home / "decision.json", chosen.decision)
    write_record(home / artefacts.DETECTOR, chosen.record)
    write_record(home / artefacts.MAPS_RECORD, chosen.maps)
    write_record(home / "evidence.json", chosen.entry)
    write_record(home / "provenance.json", origin)
    found = detections_of(folder, paths, pictures)
    evaluated = chosen.detections[chosen.detections["path"].isin(paths)]
    return {"onnx_difference": difference, "score_difference": score_difference(evaluated, found)}


def serving(chosen: ChosenDetector) -> dict[str, Any]:
    """Return what is needed to use the ONNX file as it was evaluated."""
    return {
        "detector": chosen.name,
        "classes": chosen.classes,
        **chosen.served,
        "input": INPUT,
        "outputs": [BOXES, SCORES],
        "preprocessing": bundle.preprocessing(
            chosen.record.image_size, "letterbox", "plumbline.models.scene_views.laid"
        ),
        "weights": chosen.record.weights,
        "order": "boxes and scores, then suppression per class; with a classifier one box around each object, of "
        "whatever class, whose score times the classifier's probability is each class's; then threshold on "
        "violation_class",
    }


class DetectorSystem:
    """A version of a detector, ready to find boxes as it serves, with its classifier where it has one."""

    def __init__(self, folder: Path) -> None:
        """Open the version in `folder`; UserError where it is no detector's."""
        said = bundle.read_json(folder, "serving.json")
        if "system" not in said:
            raise UserError(f"{folder} is no version of a detector: roll back to one that is.")
        self._detector = OnnxDetector(folder / bundle.ONNX)
        self._detector.suppression = Suppression.model_validate(said["suppression"])
        self._second = None
        if said["system"] == JUDGED:
            params = SystemsParams.model_validate(said["second_stage"])
            self._second = SecondStage(folder / bundle.HOME / CLASSIFIER, params, self._detector.classes)

    def detect(self, path: str, photograph: Pixels) -> pd.DataFrame:
        """Return (path, label, score, left, top, right, bottom) of a photograph (H, W, 3), in shares of it."""
        found = self._detector.detect([path], [photograph])
        return found if self._second is None else self._second.judge(found, photograph, self._second.params.margins[0])


def detections_of(folder: Path, paths: Sequence[str], pictures: Pictures) -> pd.DataFrame:
    """Return what the version in `folder` reports of photographs, one decoded at a time."""
    system = DetectorSystem(folder)
    found = [system.detect(path, one) for path, one in zip(paths, pictures(list(paths), None), strict=True)]
    return pd.concat(found, ignore_index=True)


def score_difference(evaluated: pd.DataFrame, served: pd.DataFrame) -> float:
    """Return the mean difference in score between boxes as evaluated and as served, weighed by their scores.

    A box of one that the other does not have (same photograph and class, IoU 0.9) differs by its whole score. Evaluated
    ones come from stored maps (float16), served ones from pixels.
    """
    differing, whole = 0.0, 0.0
    theirs = dict(list(served.groupby(["path", "label"])))
    ours = dict(list(evaluated.groupby(["path", "label"])))
    for key in {*ours, *theirs}:
        one, other = ours.get(key, evaluated.iloc[:0]), theirs.get(key, served.iloc[:0])
        score, their_score = one["score"].to_numpy(np.float64), other["score"].to_numpy(np.float64)
        same = iou(one[SIDES].to_numpy(np.float64), other[SIDES].to_numpy(np.float64)) >= SAME_BOX
        apart = np.where(same, np.abs(score[:, None] - their_score[None]), np.inf)
        nearest = np.minimum(apart.min(axis=1, initial=np.inf), score)
        their_nearest = np.minimum(apart.min(axis=0, initial=np.inf), their_score)
        differing += float((score * nearest).sum() + (their_score * their_nearest).sum())
        whole += float(score.sum() + their_score.sum())
    return differing / whole if whole else 0.0


def pair(chosen: ChosenDetector, folder: Path, champion: Version, pictures: Pictures, batch_size: int) -> Pair:
    """Return champion's and challenger's detections of the same unseen photographs, as both serve.

    The challenger's version lies in `folder`. Raises UserError if the two know different classes, or if no photograph
    is unseen by both.
    """
    images = comparable(chosen, champion)
    paths = list(images["path"])
    return Pair(
        images.merge(chosen.manifest[["path", "width", "height"]], on="path"),
        _with_alarms(detections_of(champion.folder, paths, pictures), champion.read("serving.json")["threshold"]),
        _with_alarms(detections_of(folder, paths, pictures), chosen.decision.threshold),
    )


def _with_alarms(detections: pd.DataFrame, threshold: float | None) -> pd.DataFrame:
    return detections.assign(alarm=False if threshold is None else detections["score"] >= threshold)


def compare(both: Pair, chosen: ChosenDetector) -> AgainstChampion:
    """Compare two systems' detections of the same photographs: no worse in mAP50, nor in what their alarms cost."""
    params = load_section("evaluate", DetectionParams)
    alpha = load_section("gate", DetectionGate).alpha
    violation = chosen.evidence.violation_class
    return compare_with_champion(
        both.images, chosen.boxes, both.old, both.new, chosen.classes, violation, params, alpha
    )
