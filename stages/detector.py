"""Stage `detector@DETECTOR` of detection/: train one detector on photographs' maps and run it on every photograph."""

from __future__ import annotations

import time

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import replacing_folder, write_table
from plumbline.common.params import load_section, name_given
from plumbline.common.records import read_table, write_record
from plumbline.models.detecting import from_pixels
from plumbline.models.detector import Detector
from plumbline.models.detector_training import DetectorParams, train
from plumbline.models.latency import latency_ms
from plumbline.models.records import Cost
from plumbline.models.scene_maps import open_maps
from plumbline.models.training import peak_megabytes


def main() -> None:
    """Read build/splits.parquet, build/boxes.parquet and the maps, write build/detectors/DETECTOR."""
    name = name_given("detectors")
    detector = load_section(f"detectors.{name}", Detector)
    params = load_section("train", DetectorParams)
    maps = open_maps(artefacts.MAPS / detector.maps)
    start = time.perf_counter()
    trained = train(name, detector, maps, read_table(artefacts.SPLITS), read_table(artefacts.BOXES), params.seed)
    cost = Cost(seconds=round(time.perf_counter() - start, 2), peak_megabytes=round(peak_megabytes()))
    with replacing_folder(artefacts.DETECTORS / name) as folder:
        trained.network.save_weights(folder / artefacts.HEAD_WEIGHTS)
        write_table(folder / artefacts.HISTORY, trained.history)
        write_table(folder / artefacts.DETECTIONS, trained.detections)
        write_record(folder / artefacts.DETECTOR, trained.record)
        whole = from_pixels(trained.parts, trained.network, trained.design, maps.record.image_size)
        write_record(folder / artefacts.COST, cost.model_copy(update={"latency_ms": round(latency_ms(whole), 3)}))


if __name__ == "__main__":
    run(main)
