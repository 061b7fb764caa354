"""Stage `disturb@BACKBONE`: features of test pictures with framing, background or head taken away.

Whole groups of test pictures are drawn up to `probe.pictures` and shown zoomed, before another background, with the
head covered; the backbone runs once for all of its candidates. Reads build/features/BACKBONE, build/splits.parquet and
the pictures, writes build/disturbed/BACKBONE: features.npy (N, conditions, ...), index.parquet (path, id and the
head's box) and conditions.json; or not_measured.json alone where the race found that it is not worth the time.
"""

from __future__ import annotations

import numpy as np

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import replacing_folder, write_json, write_table
from plumbline.common.params import load_section, name_given
from plumbline.common.records import read_record, read_table, write_record
from plumbline.evidence.disturbances import (
    BOX,
    ProbeParams,
    conditions,
    disturbed_features,
    drawn_rows,
    extract_with,
    head_boxes,
)
from plumbline.evidence.records import Disturbing
from plumbline.models.features import open_features


def main() -> None:
    """Write build/disturbed/BACKBONE."""
    from plumbline.imaging.reading import iter_rgb
    from plumbline.imaging.settings import DataParams

    name = name_given("backbones")
    wanted = read_record(artefacts.RACE / artefacts.DISTURB / f"{name}.json", Disturbing, artefacts.RACE.by)
    if wanted.not_measured:
        with replacing_folder(artefacts.DISTURBED / name) as folder:
            write_record(folder / artefacts.NOT_MEASURED, wanted)
        return
    data, params = load_section("data", DataParams), load_section("probe", ProbeParams)
    features = open_features(artefacts.FEATURES / name)
    rows = drawn_rows(read_table(artefacts.SPLITS), params)
    boxes = head_boxes(rows, read_table(artefacts.MANIFEST), params)
    values = disturbed_features(
        rows,
        boxes,
        lambda paths, size: iter_rgb(data, paths, (size, size), fit=features.backbone.fit),
        extract_with(features),
        features.backbone.image_size,
        params,
    )
    with replacing_folder(artefacts.DISTURBED / name) as folder:
        np.save(folder / artefacts.VALUES, values, allow_pickle=False)
        write_table(folder / artefacts.INDEX, rows[["path", "id"]].assign(**dict(zip(BOX, boxes.T, strict=True))))
        write_json(folder / artefacts.CONDITIONS, conditions(params))


if __name__ == "__main__":
    run(main)
