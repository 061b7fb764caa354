"""Stage `featurize@BACKBONE`: a frozen backbone runs once per picture and view, for every candidate to share.

Features are independent of the splits, and a row depends on the picture's bytes and the backbone's settings alone:
rows of the last run are taken over, so a new picture costs one picture.
"""

from __future__ import annotations

import functools

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.params import load_section, name_given
from plumbline.common.records import read_record, read_table
from plumbline.models.backbones import Backbone, record_entry, resolve_entry
from plumbline.models.extraction import SplitShare, featurize, read_pictures
from plumbline.models.records import WeightsRecord


def main() -> None:
    """Read build/manifest.parquet and the data, write build/features/BACKBONE."""

    from plumbline.imaging.layouts.which import find_layout
    from plumbline.imaging.settings import DataParams

    name = name_given("backbones")
    entry = load_section(f"backbones.{name}", Backbone)
    data = load_section("data", DataParams)
    weights = resolve_entry(name, entry)
    file = artefacts.WEIGHTS / f"{name}.json"
    if read_record(file, WeightsRecord, artefacts.WEIGHTS.by) != record_entry(name, entry, weights):
        raise UserError(f"{file} is out of date: run `dvc repro`, or first `dvc repro -s weights`.")
    manifest = read_table(artefacts.MANIFEST, columns=["path", "id"])
    share = load_section("split", SplitShare).fractions["train"] if entry.freeze == "auto" else 0
    training_images = round(share * len(manifest))
    featurize(
        manifest,
        functools.partial(read_pictures, data, fit=entry.preprocess.fit),
        name,
        entry,
        weights,
        artefacts.FEATURES / name,
        training_images,
        data.arrays.channels if find_layout(data) == "arrays" else None,
    )


if __name__ == "__main__":
    run(main)
