"""Stage `price` of detection/: what a random split would have claimed of detectors, in points of mAP50."""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.params import load_section
from plumbline.common.records import read_table, write_record
from plumbline.evidence.detection_price import PriceParams, measure
from plumbline.models.scene_maps import open_maps


def main() -> None:
    """Read the maps, build/splits.parquet and build/boxes.parquet, write build/price.json."""
    params = load_section("price", PriceParams)
    maps = open_maps(artefacts.MAPS / params.maps)
    manifest = read_table(artefacts.MANIFEST, columns=["path", "width", "height"])
    photographs = read_table(artefacts.SPLITS, columns=["path", "group"]).merge(manifest, on="path")
    found = measure(maps, photographs, read_table(artefacts.BOXES), params)
    write_record(artefacts.PRICE, found)
    print(found.sentence)


if __name__ == "__main__":
    run(main)
