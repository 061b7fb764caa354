"""Stage `ingest`: decode every picture once, name it by its bytes, hash and measure it; quarantine what can't be read.

One bad file stops nothing: it goes to build/quarantine.csv with the reason, and `validate` decides whether there are
too many. The same data gives the same bytes of every output.
"""

from __future__ import annotations

import sys
from collections import Counter

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import write_table
from plumbline.common.params import load_section
from plumbline.imaging.manifest import IngestParams, ingest, write_array
from plumbline.imaging.settings import DataParams


def main() -> None:
    """Read data/, write build/manifest.parquet, quarantine.csv, fingerprints.npy and thumbnails.npy."""
    data = load_section("data", DataParams)
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
    classes = ", ".join(f"{count} {label}" for label, count in sorted(Counter(found.manifest["label"]).items()))
    print(f"{len(found.manifest)} pictures ({classes}), {len(found.quarantine)} quarantined", file=sys.stderr)


if __name__ == "__main__":
    run(main)
