"""Stage leaderboard: the page that a manager reads and an engineer drills into; it computes nothing new.

Reads build/evaluation.json, build/decision.json, build/candidates/*/ and build/features/pixels/, writes
reports/leaderboard.html.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import run
from plumbline.common.files import write_text
from plumbline.evidence.candidates import read_candidates
from plumbline.models.features import open_features
from plumbline.pages.leaderboard import render

BUILD = Path("build")
REPORTS = Path("reports")
OTHER_REPORTS = (
    ("Leakage certificate", "leakage.html"),
    ("Validation of the data", "validation/index.html"),
)


def main() -> None:
    evaluation = json.loads((BUILD / "evaluation.json").read_text(encoding="utf-8"))
    decision = json.loads((BUILD / "decision.json").read_text(encoding="utf-8"))
    candidates, _ = read_candidates(BUILD / "candidates", list(evaluation["candidates"]))
    features = open_features(BUILD / "features" / "pixels")

    def picture(path: str) -> NDArray[np.uint8]:
        return np.asarray(features.values[features.rows_of([path])[0], 0], dtype=np.uint8)

    page = render(
        evaluation,
        decision,
        candidates,
        picture,
        links=[(title, address) for title, address in OTHER_REPORTS if (REPORTS / address).is_file()],
        cards={
            name: f"candidates/{name}.html"
            for name in candidates
            if (REPORTS / "candidates" / f"{name}.html").is_file()
        },
    )
    write_text(REPORTS / "leaderboard.html", page)
    print(f"{decision['verdict']}: {decision['reason']}")
    print(f"open {(REPORTS / 'leaderboard.html').resolve().as_uri()}")


if __name__ == "__main__":
    run(main)
