"""Stage `compress@NAME`: a smaller copy of a candidate, as it would be served, judged like any other candidate.

Reads the original's folder in build/candidates, its backbone's in build/features and the pictures; writes
build/candidates/NAME as `train` does, with served.onnx in place of weights.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import replacing_folder, write_table
from plumbline.common.params import load_section, name_given, parse_section
from plumbline.common.records import read_record, read_table, write_record
from plumbline.models.assemble import load_trained
from plumbline.models.candidates import Candidate
from plumbline.models.compressed import Compressed
from plumbline.models.compression import Original, answers, compress, cost_record, model_record
from plumbline.models.fitting import make_deterministic
from plumbline.models.records import ModelRecord
from plumbline.models.training import TrainParams, peak_megabytes
from plumbline.tasks.known import task_of


def main() -> None:
    """Write build/candidates/NAME."""
    from plumbline.imaging.reading import iter_rgb
    from plumbline.imaging.settings import DataParams

    name = name_given("compressed")
    entry = load_section(f"compressed.{name}", Compressed)
    data, seed = load_section("data", DataParams), load_section("train", TrainParams).seed
    folder = artefacts.CANDIDATES / entry.of
    original = read_record(folder / artefacts.MODEL, ModelRecord, f"train@{entry.of}")
    table = read_table(folder / artefacts.PREDICTIONS, stage=f"train@{entry.of}")
    make_deterministic(seed)

    def pictures(paths: list[str]) -> Iterable[NDArray[np.uint8]]:
        return iter_rgb(data, paths, (original.image_size, original.image_size), fit=original.fit)

    features = artefacts.FEATURES / original.backbone
    candidate = parse_section("settings", original.settings, Candidate, folder / artefacts.MODEL)
    began = time.perf_counter()
    of = Original(candidate, features, original.fit, pictures, len(original.classes), task_of(original))
    source, pruned = of.source(load_trained(folder, features), entry, table, seed, name)
    pruning = time.perf_counter() - began
    with tempfile.TemporaryDirectory(prefix="plumbline-compress-") as scratch:
        made = compress(name, entry, source, table, Path(scratch), seed)
        began = time.perf_counter()
        predictions = answers(made.file, source, table)
        seconds = pruning + time.perf_counter() - began
        model = model_record(name, entry, original, made, pruned)
        cost = cost_record(made, seconds, peak_megabytes())
        with replacing_folder(artefacts.CANDIDATES / name) as out:
            shutil.copyfile(made.file, out / artefacts.SERVED_FILE)
            shutil.copyfile(folder / artefacts.HISTORY, out / artefacts.HISTORY)
            write_table(out / artefacts.PREDICTIONS, predictions)
            write_record(out / artefacts.MODEL, model)
            write_record(out / artefacts.COST, cost)
        share = made.file_share
    print(f"{name}: {made.recipe}, {share:.0%} of the bytes of {entry.of}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
