"""Stage gate: which candidate is chosen, and whether it is promoted, held or rejected; a pure decision.

Reads build/evaluation.json, build/candidates/*/predictions.parquet, build/splits.parquet and build/leakage.json,
writes build/decision.json.
"""

from __future__ import annotations

import pandas as pd

from plumbline.common.errors import run
from plumbline.common.files import write_json
from plumbline.common.params import load_section
from plumbline.evidence.candidates import read_candidates
from plumbline.evidence.rules import BUILD, Gate, choose, decide, leaks_between, read_json


def main() -> None:
    params = load_section("gate", Gate)
    evaluation = read_json("evaluation.json")
    candidates, _ = read_candidates(BUILD / "candidates", list(evaluation["candidates"]))
    leaks = leaks_between(pd.read_parquet(BUILD / "splits.parquet"), read_json("leakage.json"))
    decision = decide(choose(candidates, evaluation, params), evaluation, leaks, params)
    write_json(BUILD / "decision.json", decision)
    for rule in decision["rules"]:
        print(f"{'pass' if rule['passed'] else 'FAIL'}  {rule['name']}: {rule['reason']}")
    print(f"{decision['verdict']}: {decision['reason']}")


if __name__ == "__main__":
    run(main)
