"""Stage `train@CANDIDATE`: train one candidate on its backbone's features and predict every picture with it.

`train_of_students@STUDENT` does the same for an entry of `students`, which learns from the predictions of its teacher
in build/candidates as well, and with hints from its maps: of its network there, and its own backbone's features.
"""

from __future__ import annotations

import time
from pathlib import Path

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import replacing_folder, write_table
from plumbline.common.params import load_section, name_given, parse_section
from plumbline.common.records import read_record, read_table, write_record
from plumbline.models.assemble import load_candidate, load_trained
from plumbline.models.candidates import Candidate, entry_of
from plumbline.models.features import open_features
from plumbline.models.hints import Teacher, teacher_maps
from plumbline.models.latency import latency_ms
from plumbline.models.records import Cost, ModelRecord
from plumbline.models.training import TrainParams, peak_megabytes, train


def main() -> None:
    """Read build/splits.parquet and the backbone's features, write build/candidates/CANDIDATE."""

    name = name_given("candidates", "students")
    candidate = entry_of(name)
    params = load_section("train", TrainParams)
    splits = read_table(artefacts.SPLITS)
    features = open_features(artefacts.FEATURES / candidate.backbone)
    start = time.perf_counter()
    said = maps = None
    if candidate.teacher is not None:
        teacher = artefacts.CANDIDATES / candidate.teacher
        said = read_table(teacher / artefacts.PREDICTIONS, stage=f"train@{teacher.name}")
        if candidate.hints is not None:
            maps = teacher_maps(name, candidate, features, teacher_in(teacher), list(splits["path"]))
    trained = train(name, candidate, splits, features, params.seed, said=said, maps=maps)
    network, history, predictions, model = trained
    cost = Cost(seconds=round(time.perf_counter() - start, 2), peak_megabytes=round(peak_megabytes()))
    with replacing_folder(artefacts.CANDIDATES / name) as folder:
        network.save_weights(folder / artefacts.HEAD_WEIGHTS)
        write_table(folder / artefacts.HISTORY, history)
        write_table(folder / artefacts.PREDICTIONS, predictions)
        write_record(folder / artefacts.MODEL, model)
        # Measured on what serves, from pixels on. Not in model.json: no two runs take the same time.
        latency = latency_ms(load_candidate(folder, features.folder))
        write_record(folder / artefacts.COST, cost.model_copy(update={"latency_ms": round(latency, 3)}))


def teacher_in(folder: Path) -> Teacher:
    """Return who teaches: a candidate as its folder has it, on its own backbone's features."""
    model = read_record(folder / artefacts.MODEL, ModelRecord, f"train@{folder.name}")
    features = open_features(artefacts.FEATURES / model.backbone)
    settings = parse_section("settings", model.settings, Candidate, folder / artefacts.MODEL)
    return Teacher(settings, load_trained(folder, features.folder), features)


if __name__ == "__main__":
    run(main)
