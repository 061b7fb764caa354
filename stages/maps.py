"""Stage `maps@MAPS` of detection/: a network's first layers run once per photograph and view, for every detector."""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import replacing_folder
from plumbline.common.params import load_section, name_given
from plumbline.common.progress import progress
from plumbline.common.records import read_record, read_table
from plumbline.imaging.settings import DataParams
from plumbline.models.backbones import Backbone, record_entry, resolve_entry
from plumbline.models.records import WeightsRecord
from plumbline.models.scene_maps import SceneMaps, compute_maps, cut_at, describe_maps, write_maps


def main() -> None:
    """Read build/manifest.parquet and the data, write build/maps/MAPS."""
    from plumbline.imaging.reading import iter_rgb

    name = name_given("maps")
    entry = load_section(f"maps.{name}", SceneMaps)
    backbone = load_section(f"backbones.{entry.backbone}", Backbone)
    data = load_section("data", DataParams)
    weights = resolve_entry(entry.backbone, backbone)
    file = artefacts.WEIGHTS / f"{entry.backbone}.json"
    if read_record(file, WeightsRecord, artefacts.WEIGHTS.by) != record_entry(entry.backbone, backbone, weights):
        raise UserError(f"{file} is out of date: run `dvc repro`, or first `dvc repro -s weights`.")
    record = describe_maps(name, entry, backbone, weights)
    parts = cut_at(record, weights[0].path)
    manifest = read_table(artefacts.MANIFEST, columns=["path", "id"])
    photographs = iter_rgb(data, manifest["path"], ids=manifest["id"])
    rows = progress(compute_maps(photographs, manifest["id"], record, parts), f"maps {name}", total=len(manifest))
    with replacing_folder(artefacts.MAPS / name) as folder:
        write_maps(folder, manifest, rows, record, parts)


if __name__ == "__main__":
    run(main)
