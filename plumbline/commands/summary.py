"""How the last run ended: a short table, and the pages to open. Not a stage: `promote` and `make run` end with it."""

from __future__ import annotations

from collections.abc import Sequence

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.records import read_record, read_records
from plumbline.evidence.records import Decision, LeaderboardRow
from plumbline.evidence.results import FAILED, NOT_JUDGED, PASSED, result_of

PAGES = {
    "leaderboard": artefacts.LEADERBOARD_PAGE.path,
    "leakage certificate": artefacts.CERTIFICATE_PAGE.path,
    "validation docs": artefacts.VALIDATION_PAGES / "index.html",
    "label conflicts": artefacts.CONFLICTS_PAGE.path,
    "drift": artefacts.DRIFT_PAGES / "index.html",
}
REGISTRY = "mlflow ui --backend-store-uri sqlite:///registry/mlflow.db"


def table(leaderboard: Sequence[LeaderboardRow], decision: Decision) -> str:
    """Candidates by validation accuracy, the chosen one marked, then the verdict and the rules that failed."""
    rows = sorted(leaderboard, key=lambda row: -row.accuracy("validation"))
    width = max([len(row.candidate) for row in rows] + [9])
    lines = [f"  {'candidate':<{width}}  validation  test   parameters  weights"]
    for row in rows:
        mark = "*" if row.candidate == decision.candidate else " "
        lines.append(
            f"{mark} {row.candidate:<{width}}  {row.accuracy('validation'):10.3f}  {row.accuracy('test'):.3f}"
            f"  {row.parameters:>10,}  {row.weights}"
        )
    lines.append(f"{decision.verdict}: {decision.candidate} (* the one chosen)")
    words = {FAILED: "not met", NOT_JUDGED: "not judged"}
    for rule in decision.rules:
        if result_of(rule) != PASSED:
            lines.append(f"  {words[result_of(rule)]}: {rule.name}: {rule.reason}")
    return "\n".join(lines)


def main() -> None:
    """Print the table of build/leaderboard.json and build/decision.json, and the pages that exist."""
    leaderboard = read_records(artefacts.LEADERBOARD, LeaderboardRow)
    print(table(leaderboard, read_record(artefacts.DECISION, Decision)))
    for what, page in PAGES.items():
        if page.exists():
            print(f"  {what + ':':<21}{page.resolve().as_uri()}")
    print(f"  {'registry:':<21}{REGISTRY}")


if __name__ == "__main__":
    run(main)
