"""Stage `evaluate`: what is known about every candidate, with intervals; it judges nothing (`gate` does).

Reads build/candidates/*/, build/ensembles/*/, build/probes/*/, build/manifest.parquet and build/features/pixels/,
writes build/evaluation.json (everything), build/leaderboard.json (figures by candidate), build/metrics/ (`dvc metrics`)
and build/plots/ (`dvc plots`).
"""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import write_json
from plumbline.common.params import load_section
from plumbline.common.records import write_record
from plumbline.evidence import probes
from plumbline.evidence.candidates import read_candidates, read_not_made
from plumbline.evidence.evaluation import (
    Evaluate,
    evaluate,
    leaderboard,
    names_of_all,
    pictures_of,
    write_metrics,
    write_plots,
)


def main() -> None:
    """Write the evaluation, its short forms, and say which candidate is best on validation."""
    params = load_section("evaluate", Evaluate)
    candidates, absent = read_candidates(artefacts.CANDIDATES.path, names_of_all())
    not_made = read_not_made(artefacts.ENSEMBLES.path)
    missing = [name for name in absent if name not in not_made]
    manifest, pixels = pictures_of(next(iter(candidates.values())))
    probed = probes.read_probes(artefacts.BUILD, candidates)
    not_probed = probes.read_not_probed(artefacts.BUILD, candidates)
    evaluation = evaluate(candidates, missing, manifest, pixels, params, probed, not_made, not_probed)
    rows = leaderboard(evaluation)
    write_record(artefacts.EVALUATION, evaluation)
    write_json(artefacts.LEADERBOARD, [row.content() for row in rows])
    write_metrics(evaluation, artefacts.METRICS.path)
    write_plots(candidates, evaluation.violation_class, artefacts.PLOTS.path)
    for name in missing:
        print(f"{name}: no result in {artefacts.CANDIDATES / name}, left out of the leaderboard")
    for entry in evaluation.candidates.values():
        for sentence in entry.model.trouble:
            print(f"{entry.model.candidate}: {sentence}")
    best = max(rows, key=lambda row: row.accuracy("validation"))
    low, high = best.intervals["test"]["accuracy"]
    print(
        f"{len(rows)} candidates evaluated; the best on validation is {best.candidate}, "
        f"test accuracy {best.accuracy('test'):.3f} ({low:.3f} to {high:.3f})"
    )


if __name__ == "__main__":
    run(main)
