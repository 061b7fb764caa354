"""Stage `systems` of detection/: each detector alone, or with the promoted classifier of crops judging each head.

Reads build/classifier.json, which says which classifier there is; where there is none, that is said, and nothing passes
for measured.
"""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import replacing_folder, write_table
from plumbline.common.params import load_section
from plumbline.common.progress import progress
from plumbline.common.records import read_record, read_table, write_record
from plumbline.evidence.detection import JUDGED as SIDES_JUDGED
from plumbline.evidence.detection import DetectionEvidence, DetectionParams, Trained, read_detectors
from plumbline.evidence.systems import (
    ClassifierFound,
    SystemsParams,
    best_margin,
    compare_systems,
    in_words,
    with_classifier,
)
from plumbline.imaging.reading import iter_rgb
from plumbline.imaging.settings import DataParams
from plumbline.registry.second_stage import SecondStage, folder_of, judged_photographs


def main() -> None:
    """Write build/systems: systems.json, and by detector what the classifier made of its boxes."""
    params = load_section("systems", SystemsParams)
    data = load_section("data", DataParams)
    found = read_record(artefacts.CLASSIFIER, ClassifierFound)
    alone = read_record(artefacts.DETECTION, DetectionEvidence)
    detectors, _ = read_detectors(artefacts.DETECTORS.path, list(alone.detectors))
    manifest = read_table(artefacts.MANIFEST, columns=["path", "width", "height"])
    photographs = read_table(artefacts.SPLITS, columns=["path", "group", "split"]).merge(manifest, on="path")
    boxes = read_table(artefacts.BOXES)
    judged: dict[str, Trained] = {}
    margins: dict[str, float] = {}
    why_not = found.why_not
    if found.wanted is not None and why_not is None:
        try:
            second = SecondStage(folder_of(found), params, alone.classes)
        except UserError as error:
            why_not = str(error).rstrip(".")
        else:
            paths = list(photographs.loc[photographs["split"].isin(SIDES_JUDGED), "path"])
            pictures = progress(iter_rgb(data, paths), "systems", total=len(paths))
            tables = judged_photographs(
                second, {name: one.detections for name, one in detectors.items()}, paths, pictures
            )
            margins = {
                name: best_margin(by_margin, photographs, boxes, alone.classes) for name, by_margin in tables.items()
            }
            judged = {
                name: with_classifier(one, tables[name][margins[name]], second.parameters, second.milliseconds)
                for name, one in detectors.items()
            }
    evaluation = load_section("evaluate", DetectionParams)
    systems = compare_systems(alone, detectors, judged, margins, found, why_not, photographs, boxes, params, evaluation)
    with replacing_folder(artefacts.SYSTEMS) as folder:
        for name, one in judged.items():
            write_table(folder / f"{name}.parquet", one.detections)
        write_record(folder / artefacts.SYSTEMS_RECORD, systems)
    if why_not is not None:
        print(f"detectors with a classifier were not measured: {why_not}.")
        for name, one in detectors.items():
            if one.record.architecture == "sliding_window":
                print(f"{name}: its windows are judged by a classifier of its own, for lack of the champion.")
    else:
        print(f"the better system on validation: {in_words(systems)}")


if __name__ == "__main__":
    run(main)
