"""Stage `probe_compressed@NAME`: a compressed candidate's answers on disturbed test pictures.

As `probe`, but from pixels on: the frozen backbone is compressed as well, so that no features of it are stored. Reads
build/candidates/NAME, build/splits.parquet, build/manifest.parquet and the pictures; writes build/probes/NAME:
answers.parquet, and attention.parquet without a row, since Grad-CAM needs gradients and a file that serves has none.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import replacing_folder, write_table
from plumbline.common.params import load_section, name_given
from plumbline.common.records import read_record, read_table
from plumbline.evidence.disturbances import ProbeParams, drawn_rows, head_boxes
from plumbline.evidence.probing import no_attention, probe_file
from plumbline.models.records import ModelRecord


def main() -> None:
    """Write build/probes/NAME."""
    from plumbline.imaging.reading import iter_rgb
    from plumbline.imaging.settings import DataParams

    name = name_given("compressed")
    data, params = load_section("data", DataParams), load_section("probe", ProbeParams)
    model = read_record(artefacts.CANDIDATES / name / artefacts.MODEL, ModelRecord, f"compress@{name}")
    rows = drawn_rows(read_table(artefacts.SPLITS), params)
    boxes = head_boxes(rows, read_table(artefacts.MANIFEST), params)

    def pictures(paths: list[str], size: int) -> Iterable[NDArray[np.uint8]]:
        return iter_rgb(data, paths, (size, size), fit=model.fit)

    found = probe_file(artefacts.CANDIDATES / name / artefacts.SERVED_FILE, model, rows, boxes, pictures, params)
    with replacing_folder(artefacts.PROBES / name) as folder:
        write_table(folder / artefacts.ANSWERS, found)
        write_table(folder / artefacts.ATTENTION, no_attention())


if __name__ == "__main__":
    run(main)
