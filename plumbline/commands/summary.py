"""How the last run ended: a short table, and the pages to open. Not a stage: `promote` and `make run` end with it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.records import read_record, read_records, read_table
from plumbline.evidence.records import Decision, Evaluation, LeaderboardRow
from plumbline.evidence.results import PASSED, result_of
from plumbline.registry.place import git
from plumbline.registry.records import read_by_force

if TYPE_CHECKING:
    import pandas as pd

    from plumbline.evidence.detection import DetectionEvidence
    from plumbline.evidence.systems import SystemsEvidence

PAGES = {
    "detectors": artefacts.DETECTION_PAGE.path,
    "leaderboard": artefacts.LEADERBOARD_PAGE.path,
    "leakage certificate": artefacts.CERTIFICATE_PAGE.path,
    "validation docs": artefacts.VALIDATION_PAGES / "index.html",
    "label conflicts": artefacts.CONFLICTS_PAGE.path,
    "drift": artefacts.DRIFT_PAGES / "index.html",
}
REGISTRY = "mlflow ui --backend-store-uri sqlite:///registry/mlflow.db"
KEPT_IN_GIT = ("dvc.lock", "memberships", "params.yaml", "dvc.yaml", "data.dvc", "incoming.dvc")


def table(leaderboard: Sequence[LeaderboardRow], decision: Decision) -> str:
    """Return candidates by validation accuracy, the chosen one marked, then the verdict and the rules not passed."""
    rows = sorted(leaderboard, key=lambda row: -row.accuracy("validation"))
    width = max([len(row.candidate) for row in rows] + [9])
    lines = [f"  {'candidate':<{width}}  validation  test   parameters  weights"]
    for row in rows:
        mark = "*" if row.candidate == decision.candidate else " "
        lines.append(
            f"{mark} {row.candidate:<{width}}  {row.accuracy('validation'):10.3f}  {row.accuracy('test'):.3f}"
            f"  {row.parameters:>10,}  {row.weights}"
        )
    return "\n".join([*lines, *_verdict(decision)])


def of_detectors(evidence: DetectionEvidence, systems: SystemsEvidence, decision: Decision) -> str:
    """Return systems by mAP50 on validation, the chosen one marked, then the verdict and the rules not passed."""
    from plumbline.evidence.detection_figures import summary as figures_of
    from plumbline.evidence.systems import ALONE, JUDGED

    entries = [(name, entry, ALONE) for name, entry in evidence.detectors.items()]
    entries += [(name, entry, JUDGED) for name, entry in systems.judged.items()]
    found = {
        name if system == ALONE else f"{name} + {systems.classifier.called}": [
            *(figures_of(entry.splits[split])["map50"] or 0.0 for split in ("validation", "test")),
            (name, system) == (decision.candidate, decision.system),
        ]
        for name, entry, system in entries
    }
    width = max([len(name) for name in found] + [8])
    lines = [f"  {'system':<{width}}  mAP50 on validation  on test"]
    for name in sorted(found, key=lambda name: -found[name][0]):
        mark = "*" if found[name][2] else " "
        lines.append(f"{mark} {name:<{width}}  {found[name][0]:19.3f}  {found[name][1]:7.3f}")
    lines += [f"  {name}: its training failed, there is no result" for name in evidence.missing]
    return "\n".join([*lines, *_verdict(decision)])


def _verdict(decision: Decision) -> list[str]:
    open_ = [rule for rule in decision.rules if result_of(rule) != PASSED]
    return [
        f"{decision.verdict}: {decision.candidate} (* the one chosen)",
        *(f"  {result_of(rule)}: {rule.name}: {rule.reason}" for rule in open_),
    ]


def to_commit(root: Path) -> list[str]:
    """Return the files of a run that belong in Git and are not committed: dvc.lock, memberships, settings.

    Without the first two `dvc metrics diff` has nothing to compare with, and a fresh clone draws other splits.
    """
    changed = git(root, "diff", "--name-only", "--relative", "HEAD", "--", *KEPT_IN_GIT).splitlines()
    new = git(root, "ls-files", "--others", "--exclude-standard", "--", *KEPT_IN_GIT).splitlines()
    return [name for name in KEPT_IN_GIT if any(Path(path).parts[0] == name for path in [*changed, *new])]


def went_wrong(evaluation: Evaluation) -> list[str]:
    """What went wrong on the way, a line each: candidates without a result, or that can't be chosen."""
    lines = [f"{name}: its training failed, there is no result" for name in evaluation.missing]
    lines += [f"{name}: not made: {why}" for name, why in evaluation.not_made.items()]
    return lines + [f"{name}: {said}" for name, one in evaluation.candidates.items() for said in one.model.trouble]


def of_photographs(boxes: pd.DataFrame, splits: pd.DataFrame) -> str:
    """Return what the detection pipeline has, a line for each side of the split: photographs and boxes by class."""
    placed = boxes.merge(splits[["path", "split"]], on="path")
    lines = [f"{len(splits)} photographs in {splits['group'].nunique()} groups, {len(boxes):,} boxes"]
    for side, photographs in Counter(splits["split"]).most_common():
        of_side = Counter(placed.loc[placed["split"] == side, "label"])
        named = ", ".join(f"{count:,} {label}" for label, count in sorted(of_side.items())) or "no box"
        lines.append(f"  {side + ':':<21}{photographs} photographs, {named}")
    return "\n".join(lines)


def main() -> None:
    """Print the table of build/leaderboard.json and build/decision.json, the pages that exist, and what went wrong.

    In the folder of the detection pipeline its photographs, boxes and detectors stand in place of the table.
    """
    if artefacts.BOXES.path.exists():
        print(of_photographs(read_table(artefacts.BOXES), read_table(artefacts.SPLITS)))
        if artefacts.DETECTION_DECISION.path.exists():
            from plumbline.evidence.detection import DetectionEvidence
            from plumbline.evidence.systems import SystemsEvidence

            decision = read_record(artefacts.DETECTION_DECISION, Decision)
            systems = read_record(artefacts.SYSTEMS / artefacts.SYSTEMS_RECORD, SystemsEvidence)
            print(of_detectors(read_record(artefacts.DETECTION, DetectionEvidence), systems, decision))
            if forced := read_by_force(decision):
                print(forced)
        _print_pages()
        return
    leaderboard = read_records(artefacts.LEADERBOARD, LeaderboardRow)
    decision = read_record(artefacts.DECISION, Decision)
    print(table(leaderboard, decision))
    if forced := read_by_force(decision):
        print(forced)
    _print_pages(f"  {'registry:':<21}{REGISTRY}")
    wrong = went_wrong(read_record(artefacts.EVALUATION, Evaluation))
    if wrong:
        print("what went wrong:\n  " + "\n  ".join(wrong))


def _print_pages(*more: str) -> None:
    """The pages that exist, `more` lines, and what to commit to keep the run."""
    for what, page in PAGES.items():
        if page.exists():
            print(f"  {what + ':':<21}{page.resolve().as_uri()}")
    for line in more:
        print(line)
    waiting = to_commit(Path())
    if waiting:
        print(f"  {'to keep this run:':<21}git add {shlex.join(waiting)} && git commit")


if __name__ == "__main__":
    run(main)
