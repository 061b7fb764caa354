"""Stage `card@CANDIDATE`: all that is known about one candidate, as one page that needs no other file.

Reads build/candidates/NAME, its features' backbone and the pictures, writes reports/candidates/NAME.html.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from plumbline.common.errors import run
from plumbline.common.files import write_text
from plumbline.common.params import load_section
from plumbline.models.assemble import MODEL
from plumbline.pages.card import make_card

CANDIDATES = Path("build/candidates")
FEATURES = Path("build/features")
REPORTS = Path("reports/candidates")


def main() -> None:
    """Write reports/candidates/NAME.html."""
    from plumbline.imaging.collection import DataParams, iter_rgb

    name = sys.argv[1]
    data = load_section("data", DataParams)
    model = json.loads((CANDIDATES / name / MODEL).read_text(encoding="utf-8"))
    page = make_card(
        CANDIDATES / name,
        FEATURES / model["backbone"],
        lambda paths, size: iter_rgb(data, paths, (size, size)),
    )
    write_text(REPORTS / f"{name}.html", page)


if __name__ == "__main__":
    run(main)
