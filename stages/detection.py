"""Stage `detection` of detection/: what is known about every detector, with intervals, and the page that shows it."""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import write_text
from plumbline.common.params import Named, load_section, load_sections
from plumbline.common.records import read_table, write_record
from plumbline.evidence.detection import DetectionParams, evaluate, read_detectors
from plumbline.imaging.reading import load_rgb
from plumbline.imaging.settings import DataParams
from plumbline.pages.detection import render


def main() -> None:
    """Read what `detector` left and the data, write build/detection.json and reports/detection.html."""
    params = load_section("evaluate", DetectionParams)
    data = load_section("data", DataParams)
    detectors, missing = read_detectors(artefacts.DETECTORS.path, list(load_sections("detectors", Named)))
    if not detectors:
        raise UserError(f"{artefacts.DETECTORS} holds no trained detector: run `dvc repro`.")
    manifest = read_table(artefacts.MANIFEST, columns=["path", "width", "height"])
    photographs = read_table(artefacts.SPLITS, columns=["path", "group", "split"]).merge(manifest, on="path")
    boxes = read_table(artefacts.BOXES)
    evidence = evaluate(detectors, missing, photographs, boxes, params)
    write_record(artefacts.DETECTION, evidence)
    page = render(evidence, detectors, photographs, boxes, lambda path: load_rgb(data, path))
    write_text(artefacts.DETECTION_PAGE, page)
    for name in missing:
        print(f"{name}: no result in {artefacts.DETECTORS / name}, left out")
    test = evidence.detectors[evidence.best].splits["test"]
    if test.map50 is not None:
        said = f"mAP50 {test.map50.value:.3f} ({test.map50.low:.3f} to {test.map50.high:.3f}) on test"
        print(f"{len(detectors)} detectors evaluated; the best on validation is {evidence.best}, {said}")
    print(f"open {artefacts.DETECTION_PAGE.path.resolve().as_uri()}")


if __name__ == "__main__":
    run(main)
