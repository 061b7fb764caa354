"""Stage `gate`: which candidate is chosen, and whether it is promoted, held or rejected; a pure decision.

Reads build/evaluation.json, build/race/, build/candidates/, build/ensembles/, build/splits.parquet and
build/leakage.json, writes build/decision.json.
"""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.params import load_section
from plumbline.common.records import read_record, read_table, write_record
from plumbline.evidence.candidates import read_candidates, read_unseen
from plumbline.evidence.records import Evaluation, RaceRecord
from plumbline.evidence.results import printed
from plumbline.evidence.rules import Gate, choose, decide, leaks_between
from plumbline.leakage.records import Certificate


def main() -> None:
    """Write build/decision.json, and say what each rule found."""
    params = load_section("gate", Gate)
    evaluation = read_record(artefacts.EVALUATION, Evaluation)
    candidates, _ = read_candidates(artefacts.CANDIDATES.path, list(evaluation.candidates))
    certificate = read_record(artefacts.CERTIFICATE, Certificate)
    leaks = leaks_between(read_table(artefacts.SPLITS), certificate.pairs_across_splits)
    race = read_record(artefacts.RACE / artefacts.RACE_RECORD, RaceRecord, artefacts.RACE.by)
    unseen = read_unseen(artefacts.RACE.path, candidates, race.finalists)
    selection = choose(candidates, unseen, evaluation, params, race.latencies)
    decision = decide(selection, evaluation, leaks, params, candidates[selection.chosen].latency, race)
    write_record(artefacts.DECISION, decision)
    for rule in decision.rules:
        print(f"{printed(rule)}  {rule.name}: {rule.reason}")
    print(f"{decision.verdict}: {decision.reason}")


if __name__ == "__main__":
    run(main)
