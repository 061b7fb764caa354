"""Stage `detection` of detection/: what is known about every detector, with intervals."""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.params import Named, load_section, load_sections
from plumbline.common.records import read_table, write_record
from plumbline.evidence.detection import DetectionParams, evaluate, read_detectors


def main() -> None:
    """Read what `detector` left, write build/detection.json."""
    params = load_section("evaluate", DetectionParams)
    detectors, missing = read_detectors(artefacts.DETECTORS.path, list(load_sections("detectors", Named)))
    if not detectors:
        raise UserError(f"{artefacts.DETECTORS} holds no trained detector: run `dvc repro`.")
    manifest = read_table(artefacts.MANIFEST, columns=["path", "width", "height"])
    photographs = read_table(artefacts.SPLITS, columns=["path", "group", "split"]).merge(manifest, on="path")
    evidence = evaluate(detectors, missing, photographs, read_table(artefacts.BOXES), params)
    write_record(artefacts.DETECTION, evidence)
    for name in missing:
        print(f"{name}: no result in {artefacts.DETECTORS / name}, left out")
    test = evidence.detectors[evidence.best].splits["test"]
    if test.map50 is not None:
        said = f"mAP50 {test.map50.value:.3f} ({test.map50.low:.3f} to {test.map50.high:.3f}) on test"
        print(f"{len(detectors)} detectors evaluated; the best on validation is {evidence.best}, {said}")


if __name__ == "__main__":
    run(main)
