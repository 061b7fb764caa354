"""How the last run ended: a short table, and the pages to open. Not a stage: `promote` and `make run` end with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plumbline.common.errors import run

PAGES = {
    "leaderboard": "reports/leaderboard.html",
    "leakage certificate": "reports/leakage.html",
    "validation docs": "reports/validation/index.html",
    "label conflicts": "reports/label_conflicts.html",
    "drift": "reports/drift/index.html",
}
REGISTRY = "mlflow ui --backend-store-uri sqlite:///registry/mlflow.db"


def table(leaderboard: list[dict[str, Any]], decision: dict[str, Any]) -> str:
    """Candidates by validation accuracy, the chosen one marked, then the verdict and the rules that failed."""
    rows = sorted(leaderboard, key=lambda row: -accuracy(row, "validation"))
    width = max([len(row["candidate"]) for row in rows] + [9])
    lines = [f"  {'candidate':<{width}}  validation  test   parameters  weights"]
    for row in rows:
        mark = "*" if row["candidate"] == decision["candidate"] else " "
        lines.append(
            f"{mark} {row['candidate']:<{width}}  {accuracy(row, 'validation'):10.3f}  {accuracy(row, 'test'):.3f}"
            f"  {row['parameters']:>10,}  {row['weights']}"
        )
    lines.append(f"{decision['verdict']}: {decision['candidate']} (* the one chosen)")
    lines += [f"  not met: {rule['name']}: {rule['reason']}" for rule in decision["rules"] if not rule["passed"]]
    return "\n".join(lines)


def accuracy(row: dict[str, Any], split: str) -> float:
    """A leaderboard row's accuracy on `split`; -1 for a candidate that failed and has none."""
    value = row.get("metrics", {}).get(split, {}).get("accuracy", -1.0)
    return float(value)


def main() -> None:
    """Print the table of build/leaderboard.json and build/decision.json, and the pages that exist."""
    leaderboard = json.loads(Path("build/leaderboard.json").read_text())
    print(table(leaderboard, json.loads(Path("build/decision.json").read_text())))
    for what, page in PAGES.items():
        if Path(page).exists():
            print(f"  {what + ':':<21}{Path(page).resolve().as_uri()}")
    print(f"  {'registry:':<21}{REGISTRY}")


if __name__ == "__main__":
    run(main)
