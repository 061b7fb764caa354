"""Stage `train@CANDIDATE`: train one candidate on its backbone's features and predict every picture with it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from plumbline.common.errors import run
from plumbline.common.files import replacing_folder, write_json, write_table
from plumbline.common.params import load_section
from plumbline.models.assemble import CROSS_VALIDATION, HEAD_WEIGHTS, MODEL
from plumbline.models.candidates import Candidate
from plumbline.models.features import open_features
from plumbline.models.training import CANDIDATES, COST, TrainParams, cross_validate, peak_megabytes, train


def main() -> None:
    """Read build/splits.parquet and the backbone's features, write build/candidates/CANDIDATE."""
    import pandas as pd

    name = sys.argv[1]
    candidate = load_section(f"candidates.{name}", Candidate)
    params = load_section("train", TrainParams)
    splits = pd.read_parquet("build/splits.parquet")
    features = open_features(Path("build/features") / candidate.backbone)
    start = time.perf_counter()
    network, history, predictions, model = train(name, candidate, splits, features, params.seed)
    cost = {"seconds": round(time.perf_counter() - start, 2), "peak_megabytes": round(peak_megabytes())}
    folds = cross_validate(name, candidate, splits, features, params.seed, params.folds) if params.folds else None
    with replacing_folder(CANDIDATES / name) as folder:
        network.save_weights(folder / HEAD_WEIGHTS)
        write_table(folder / "history.csv", history)
        write_table(folder / "predictions.parquet", predictions)
        if folds is not None:
            write_table(folder / CROSS_VALIDATION, folds)
        write_json(folder / COST, cost)
        write_json(folder / MODEL, model)


if __name__ == "__main__":
    run(main)
