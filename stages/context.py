"""Stage `context` of detection/: does the detector chosen read heads, or what is around them? And Grad-CAM of mistakes.

The test photographs are blurred outside their boxes, and inside, and given to the network from their pixels.
"""

from __future__ import annotations

import numpy as np

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import replacing_folder
from plumbline.common.params import load_section
from plumbline.common.progress import progress
from plumbline.common.records import read_record, read_table, write_record
from plumbline.evidence.context import CONDITIONS, conditions_of, in_words, measure
from plumbline.evidence.detection import (
    SHOWN,
    DetectionEvidence,
    DetectionParams,
    read_detectors,
    shown_thresholds,
    worst_first,
)
from plumbline.evidence.systems import SystemsEvidence
from plumbline.imaging.reading import iter_rgb
from plumbline.imaging.settings import DataParams
from plumbline.models.detecting import detect_photographs, from_pixels
from plumbline.models.detector import Suppression
from plumbline.models.detector_attention import grad_cam
from plumbline.models.detector_training import load_detector
from plumbline.models.scene_maps import open_maps


def main() -> None:
    """Write build/context: context.json and heat.npy."""
    params = load_section("evaluate", DetectionParams)
    evidence = read_record(artefacts.DETECTION, DetectionEvidence)
    systems = read_record(artefacts.SYSTEMS / artefacts.SYSTEMS_RECORD, SystemsEvidence, artefacts.SYSTEMS.by)
    name, boxes = systems.detector, read_table(artefacts.BOXES)
    reported = read_detectors(artefacts.DETECTORS.path, [name])[0][name].detections
    manifest = read_table(artefacts.MANIFEST, columns=["path", "width", "height"])
    photographs = read_table(artefacts.SPLITS, columns=["path", "group", "split"]).merge(manifest, on="path")
    test = photographs[photographs["split"] == "test"].reset_index(drop=True)
    thresholds = shown_thresholds(evidence, evidence.detectors[name], reported, photographs, boxes)
    shown = [one.path for one in worst_first(test, boxes, reported, thresholds)[:SHOWN]]
    maps = open_maps(artefacts.MAPS / evidence.detectors[name].record.maps)
    network, design, record, parts = load_detector(artefacts.DETECTORS / name, maps.folder)
    whole = from_pixels(parts, network, design, record.image_size)
    suppression = Suppression.model_validate(record.settings["suppression"])
    pictures = iter_rgb(load_section("data", DataParams), test["path"])
    under = conditions_of(list(test["path"]), progress(pictures, "context", total=len(test)), boxes)
    found = detect_photographs(whole, under, CONDITIONS, suppression, record.classes)
    result = measure(name, test, boxes, found, thresholds, shown, params.resamples, params.seed)
    heat = grad_cam(network, design, maps.values[maps.rows_of(shown), 0]) if shown else None
    if heat is None:
        result = result.model_copy(update={"shown": ()})
    with replacing_folder(artefacts.CONTEXT) as folder:
        np.save(folder / artefacts.HEAT, np.zeros((0, 1, 1), np.float32) if heat is None else heat)
        write_record(folder / artefacts.CONTEXT_RECORD, result)
    print(in_words(result))


if __name__ == "__main__":
    run(main)
