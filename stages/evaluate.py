"""Stage evaluate: what is known about every candidate, with intervals; it judges nothing (that is gate's).

Reads build/candidates/*/, build/ensembles/*/, build/probes/*/, build/manifest.parquet and build/features/pixels/,
writes build/evaluation.json (everything), build/leaderboard.json (figures by candidate), build/metrics/ (`dvc metrics`)
and build/plots/ (`dvc plots`).
"""

from __future__ import annotations

from plumbline.common.errors import run
from plumbline.common.files import write_json
from plumbline.common.params import load_section
from plumbline.evidence import probes
from plumbline.evidence.candidates import read_candidates, read_not_made
from plumbline.evidence.evaluation import (
    BUILD,
    Evaluate,
    evaluate,
    leaderboard,
    names_of_all,
    pictures_of,
    write_metrics,
    write_plots,
)


def main() -> None:
    params = load_section("evaluate", Evaluate)
    candidates, absent = read_candidates(BUILD / "candidates", names_of_all())
    not_made = read_not_made(BUILD / "ensembles")
    missing = [name for name in absent if name not in not_made]
    manifest, pixels = pictures_of(next(iter(candidates.values())))
    evaluation = evaluate(candidates, missing, manifest, pixels, params, probes.read_probes(BUILD, candidates))
    evaluation["not_made"] = not_made
    write_json(BUILD / "evaluation.json", evaluation)
    write_json(BUILD / "leaderboard.json", leaderboard(evaluation))
    write_metrics(evaluation, BUILD / "metrics")
    write_plots(candidates, evaluation["violation_class"], BUILD / "plots")
    for name in missing:
        print(f"{name}: no result in {BUILD}/candidates/{name}, left out of the leaderboard")
    for row in leaderboard(evaluation):
        low, high = row["intervals"]["test"]["accuracy"]
        print(f"{row['candidate']}: test accuracy {row['metrics']['test']['accuracy']:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    run(main)
