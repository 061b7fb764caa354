"""Stage `card_compressed@NAME`: a compressed candidate beside its original, as one page that needs no other file.

Reads both folders in build/candidates and the pictures, writes reports/candidates/NAME.html.
"""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import write_text
from plumbline.common.params import load_section, name_given
from plumbline.evidence.candidates import read_candidate
from plumbline.models.assemble import read_cost
from plumbline.models.compressed import Compressed
from plumbline.pages.compressed_card import make_compressed_card


def main() -> None:
    """Write reports/candidates/NAME.html."""
    from plumbline.imaging.reading import iter_rgb
    from plumbline.imaging.settings import DataParams

    name = name_given("compressed")
    entry = load_section(f"compressed.{name}", Compressed)
    data = load_section("data", DataParams)
    page = make_compressed_card(
        read_candidate(artefacts.CANDIDATES / entry.of),
        read_candidate(artefacts.CANDIDATES / name),
        read_cost(artefacts.CANDIDATES / name),
        lambda paths, size: iter_rgb(data, paths, (size, size)),
    )
    write_text(artefacts.CARDS / f"{name}.html", page)


if __name__ == "__main__":
    run(main)
