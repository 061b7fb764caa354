"""Stage `judge` of detection/: whether the best system is promoted, held or rejected; a pure decision.

Reads build/detection.json, build/systems, build/context, build/splits.parquet, build/boxes.parquet and
build/leakage.json, writes build/detection_decision.json.
"""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.params import load_section
from plumbline.common.records import read_record, read_table, write_record
from plumbline.evidence.context import ContextEvidence
from plumbline.evidence.detection import DetectionEvidence
from plumbline.evidence.detection_rules import DetectionGate, decide
from plumbline.evidence.results import printed
from plumbline.evidence.rules import leaks_between
from plumbline.evidence.systems import SystemsEvidence
from plumbline.leakage.records import Certificate


def main() -> None:
    """Write build/detection_decision.json, and say what each rule found."""
    params = load_section("gate", DetectionGate)
    evidence = read_record(artefacts.DETECTION, DetectionEvidence)
    systems = read_record(artefacts.SYSTEMS / artefacts.SYSTEMS_RECORD, SystemsEvidence, artefacts.SYSTEMS.by)
    context = read_record(artefacts.CONTEXT / artefacts.CONTEXT_RECORD, ContextEvidence, artefacts.CONTEXT.by)
    splits, boxes = read_table(artefacts.SPLITS), read_table(artefacts.BOXES)
    certificate = read_record(artefacts.CERTIFICATE, Certificate)
    test = splits[splits["split"] == "test"]
    violations = boxes.loc[boxes["label"] == evidence.violation_class, "path"]
    groups = test.loc[test["path"].isin(violations), "group"].nunique()
    leaks = leaks_between(splits, certificate.pairs_across_splits)
    decision = decide(evidence, systems, context, groups, leaks, params)
    write_record(artefacts.DETECTION_DECISION, decision)
    for rule in decision.rules:
        print(f"{printed(rule)}  {rule.name}: {rule.reason}")
    print(f"{decision.verdict}: {decision.reason}")


if __name__ == "__main__":
    run(main)
