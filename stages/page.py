"""Stage `page` of detection/: the page that people read, of every detector, the system chosen and what became of it."""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import write_text
from plumbline.common.params import load_section
from plumbline.common.records import read_array, read_record, read_table
from plumbline.evidence.context import ContextEvidence
from plumbline.evidence.detection import DetectionEvidence, read_detectors
from plumbline.evidence.detection_price import DetectionPrice
from plumbline.evidence.records import Decision
from plumbline.evidence.systems import JUDGED, SystemsEvidence
from plumbline.imaging.reading import load_rgb
from plumbline.imaging.settings import DataParams
from plumbline.pages.detection import Judgement, render
from plumbline.registry.records import Promotion, by_force


def main() -> None:
    """Read what the stages before found, write reports/detection.html."""
    data = load_section("data", DataParams)
    evidence = read_record(artefacts.DETECTION, DetectionEvidence)
    systems = read_record(artefacts.SYSTEMS / artefacts.SYSTEMS_RECORD, SystemsEvidence, artefacts.SYSTEMS.by)
    decision = read_record(artefacts.DETECTION_DECISION, Decision)
    promotion = read_record(artefacts.PROMOTION, Promotion)
    detectors, _ = read_detectors(artefacts.DETECTORS.path, list(evidence.detectors))
    manifest = read_table(artefacts.MANIFEST, columns=["path", "width", "height"])
    photographs = read_table(artefacts.SPLITS, columns=["path", "group", "split"]).merge(manifest, on="path")
    chosen = detectors[systems.detector].detections
    if systems.system == JUDGED:
        chosen = read_table(artefacts.SYSTEMS / f"{systems.detector}.parquet", stage=artefacts.SYSTEMS.by)
    context = read_record(artefacts.CONTEXT / artefacts.CONTEXT_RECORD, ContextEvidence, artefacts.CONTEXT.by)
    heat = read_array(artefacts.CONTEXT / artefacts.HEAT, stage=artefacts.CONTEXT.by)
    judgement = Judgement(
        systems=systems,
        context=context,
        price=read_record(artefacts.PRICE, DetectionPrice),
        decision=decision,
        promotion=promotion.reason,
        forced=by_force(promotion, decision),
        detections=chosen,
        heat=dict(zip(context.shown, heat, strict=True)),
    )
    boxes = read_table(artefacts.BOXES)
    write_text(
        artefacts.DETECTION_PAGE,
        render(evidence, judgement, detectors, photographs, boxes, lambda path: load_rgb(data, path)),
    )
    print(f"open {artefacts.DETECTION_PAGE.path.resolve().as_uri()}")


if __name__ == "__main__":
    run(main)
