"""Stage `ingest`: decode every picture once, name it by its bytes, hash and measure it; quarantine what can't be read.

One bad file stops nothing: it goes to build/quarantine.csv with the reason, and `validate` decides whether there are
too many. The same data gives the same bytes of every output. Of whole photographs (`data.task: detect`) it writes the
boxes as well, which only the pipeline in detection/ declares.
"""

from __future__ import annotations

import sys
from collections import Counter

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import write_table
from plumbline.common.params import load_section
from plumbline.common.pipeline import declares
from plumbline.imaging.boxes import boxes_by_class
from plumbline.imaging.manifest import Ingested, IngestParams, ingest, write_array
from plumbline.imaging.settings import DataParams


def main() -> None:
    """Read data/, write build/manifest.parquet, quarantine.csv, fingerprints.npy, thumbnails.npy, and boxes.parquet."""
    data = load_section("data", DataParams)
    if declares("ingest", artefacts.BOXES) is (data.task == "crops"):
        raise UserError(
            f"params.yaml: data.task is {data.task}, which is for the other pipeline: whole photographs belong into "
            "detection/data, with `dvc repro` in detection/, and crops into data/, with `dvc repro` at the top."
        )
    found = ingest(data, load_section("ingest", IngestParams))
    if not len(found.manifest):
        first = found.quarantine.iloc[0]
        write_table(artefacts.QUARANTINE, found.quarantine)
        raise UserError(
            f"none of the {len(found.quarantine)} files in {data.root}/ can be used (the first: {first['path']} "
            f"{first['reason']}): see {artefacts.QUARANTINE}."
        )
    write_array(artefacts.FINGERPRINTS.path, found.fingerprints)
    write_array(artefacts.THUMBNAILS.path, found.thumbnails)
    write_table(artefacts.QUARANTINE, found.quarantine)
    write_table(artefacts.MANIFEST, found.manifest)
    if found.boxes is not None:
        write_table(artefacts.BOXES, found.boxes)
    print(_said(found), file=sys.stderr)


def _said(found: Ingested) -> str:
    if found.boxes is not None:
        pictures = f"{len(found.manifest)} photographs with {len(found.boxes):,} boxes ({boxes_by_class(found.boxes)})"
    else:
        classes = ", ".join(f"{count} {label}" for label, count in sorted(Counter(found.manifest["label"]).items()))
        pictures = f"{len(found.manifest)} pictures ({classes})"
    return f"{pictures}, {len(found.quarantine)} quarantined"


if __name__ == "__main__":
    run(main)
