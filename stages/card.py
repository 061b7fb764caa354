"""Stage `card@CANDIDATE`: all that is known about one candidate, as one page that needs no other file.

Reads build/candidates/NAME, its backbone's features and the pictures, writes reports/candidates/NAME.html. Grad-CAM is
left out, and the page says so, where the race found that probing its backbone is not worth the time.
"""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import write_text
from plumbline.common.params import load_section, name_given
from plumbline.common.records import read_record
from plumbline.evidence.records import Disturbing
from plumbline.models.records import ModelRecord
from plumbline.pages.card import make_card


def main() -> None:
    """Write reports/candidates/NAME.html."""
    from plumbline.imaging.reading import iter_rgb
    from plumbline.imaging.settings import DataParams

    name = name_given("candidates", "students")
    data = load_section("data", DataParams)
    model = read_record(artefacts.CANDIDATES / name / artefacts.MODEL, ModelRecord)
    probed = read_record(artefacts.RACE / artefacts.DISTURB / f"{model.backbone}.json", Disturbing, artefacts.RACE.by)
    page = make_card(
        artefacts.CANDIDATES / name,
        artefacts.FEATURES / model.backbone,
        lambda paths, size: iter_rgb(data, paths, (size, size), fit=model.fit),
        probed.not_measured,
    )
    write_text(artefacts.CARDS / f"{name}.html", page)


if __name__ == "__main__":
    run(main)
