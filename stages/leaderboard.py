"""Stage `leaderboard`: the page that a manager reads and an engineer drills into; it computes nothing new.

Reads build/evaluation.json, build/decision.json, build/candidates/*/, build/ensembles/*/ and build/features/pixels/,
writes reports/leaderboard.html, which links to the other reports. Where build/promotion.json is about this decision and
says that it was overruled by force, the page does too; a promotion by force makes it anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import write_text
from plumbline.common.records import read_record
from plumbline.evidence.candidates import read_candidates
from plumbline.evidence.records import Decision, Evaluation
from plumbline.models.features import open_features
from plumbline.pages.leaderboard import render
from plumbline.registry.records import read_by_force

OTHER_REPORTS = (
    ("Leakage certificate", artefacts.CERTIFICATE_PAGE.path),
    ("Validation of the data", artefacts.VALIDATION_PAGES / "index.html"),
)


def main() -> None:
    """Write reports/leaderboard.html."""
    evaluation = read_record(artefacts.EVALUATION, Evaluation)
    decision = read_record(artefacts.DECISION, Decision)
    candidates, _ = read_candidates(artefacts.CANDIDATES.path, list(evaluation.candidates))
    features = open_features(artefacts.FEATURES / "pixels")

    def picture(path: str) -> NDArray[np.uint8]:
        return np.asarray(features.values[features.rows_of([path])[0], 0], dtype=np.uint8)

    forced = read_by_force(decision)
    page = render(
        evaluation,
        decision,
        candidates,
        picture,
        links=[(title, beside(path)) for title, path in OTHER_REPORTS if path.is_file()],
        cards={name: beside(path) for name in candidates if (path := artefacts.CARDS / f"{name}.html").is_file()},
        forced=forced,
    )
    write_text(artefacts.LEADERBOARD_PAGE, page)
    if forced:
        print(forced)
    print(f"open {artefacts.LEADERBOARD_PAGE.path.resolve().as_uri()}")


def beside(page: Path) -> str:
    """Return the address of another page as the leaderboard links to it."""
    return page.relative_to(artefacts.LEADERBOARD_PAGE.path.parent).as_posix()


if __name__ == "__main__":
    run(main)
