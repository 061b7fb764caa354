"""What compressed candidates and students are worth on real photographs, beside what they were made of.

    PLUMBLINE_WEIGHTS=../shared/weights python -m benchmarks.compression [SEED ...] [--data ../shared/data/helmet]

For every seed the groups are dealt into five parts: test, validation, and three to train on. `mobilenet_v2` and
`mobilenet` (a head on the frozen network) are measured as float32 files and compressed; a small network trained from
pixels is pruned, and learns with and without a teacher (`mobilenet_v2`). Accuracy is on test, paired with the original;
milliseconds and pictures a second are ONNX Runtime's on one thread, all of a seed's files in turns; `JPEG to answer`
adds reading and shrinking the picture as serving does. A seed's figures are kept in build/benchmarks/compression, and
not measured again: delete them after a change of the code.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.additions import LINEAR, V2, Model, backbone_name, dealt, features_of, read_table
from plumbline.common.errors import run
from plumbline.common.files import write_json
from plumbline.evidence.compressed import paired
from plumbline.evidence.intervals import draw_weights, group_codes
from plumbline.imaging.decode import decode_resized
from plumbline.imaging.reading import iter_rgb
from plumbline.imaging.settings import DataParams
from plumbline.models.candidates import Candidate
from plumbline.models.compressed import Compressed, Pruning
from plumbline.models.compression import Original, answers, compress
from plumbline.models.export import OnnxModel
from plumbline.models.features import Features
from plumbline.models.latency import speeds
from plumbline.models.training import Trained, train

KEPT = Path("build/benchmarks/compression")
V1 = {**V2, "network": "mobilenet"}
PIXELS: dict[str, Any] = {"network": "pixels", "image_size": 64}
SMALL: dict[str, Any] = {
    "architecture": "compact_cnn",
    "mirror": True,
    "brightness": 0.2,
    "batch_size": 32,
    "epochs": 40,
    "schedule": "cosine",
    "weight_decay": 0.001,
    "early_stopping_patience": 40,
}
MODELS = {
    "mobilenet_v2": Model("mobilenet_v2", V2, LINEAR),
    "mobilenet": Model("mobilenet", V1, LINEAR),
    "small": Model("small", PIXELS, SMALL),
    "student": Model("student", PIXELS, {**SMALL, "teacher": "mobilenet_v2"}),
}
TEACHER = "mobilenet_v2"
COPIES: dict[str, dict[str, dict[str, Any]]] = {
    "mobilenet_v2": {"int8": {"how": "int8"}, "float16": {"how": "float16"}},
    "mobilenet": {"int8": {"how": "int8"}},
    "small": {
        "int8": {"how": "int8"},
        "pruned to 70%": {"how": "float32", "pruning": Pruning(keep=0.7)},
        "pruned to 70% by Taylor score": {"how": "float32", "pruning": Pruning(by="taylor", keep=0.7)},
        "pruned to 70%, int8": {"how": "int8", "pruning": Pruning(keep=0.7)},
    },
    "student": {"int8": {"how": "int8"}},
}
JPEGS = 50


def right(predictions: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which of the pictures a table of predictions has right (N,)."""
    columns = [str(name) for name in predictions if str(name).startswith("p_")]
    said = predictions[columns].to_numpy(np.float64).argmax(axis=1)
    return np.asarray(np.asarray([name.removeprefix("p_") for name in columns])[said] == predictions["label"])


def measure(table: pd.DataFrame, data: Path, seed: int) -> dict[str, Any]:
    """Train, compress and measure everything on one deal of the groups."""
    splits = next(dealt(table, seed, 1))
    said: dict[str, pd.DataFrame] = {}
    found: dict[str, Any] = {}
    files: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="plumbline-compression-") as top:
        for name, model in MODELS.items():
            features = features_of(model.backbone, table, data)
            taught = said[TEACHER] if model.candidate.get("teacher") else None
            trained = train(name, model.settings(), splits, features, seed, said=taught)
            said[name] = trained.predictions
            for copy, settings in COPIES[name].items():
                scratch = Path(top) / name / copy.replace(" ", "_")
                scratch.mkdir(parents=True)
                files |= one_copy(name, copy, settings, trained, features, splits, data, scratch, seed, found)
        measured = speeds(list(files.values()))
        for (name, file), speed in zip(files.items(), measured, strict=True):
            found[name] |= {
                "MB": round(file.stat().st_size / 1e6, 2),
                "ms": speed.one_ms,
                "pictures a second": round(speed.pictures_per_second),
                "JPEG to answer, ms": jpeg_to_answer(file, [data / path for path in splits["path"][:JPEGS]]),
            }
    return found


def one_copy(
    name: str,
    copy: str,
    settings: dict[str, Any],
    trained: Trained,
    features: Features,
    splits: pd.DataFrame,
    data: Path,
    scratch: Path,
    seed: int,
    found: dict[str, Any],
) -> dict[str, Path]:
    """Make a copy of a trained model, put its figures into `found`; return its file and its original's."""
    size = features.backbone.image_size
    params = DataParams.model_validate({"root": data})

    def pictures(paths: list[str]) -> Iterable[NDArray[np.uint8]]:
        return iter_rgb(params, paths, (size, size))

    candidate = Candidate.model_validate(trained.model.settings)
    entry = Compressed(of=name, backbone=backbone_name(MODELS[name].backbone), **settings)
    original = Original(candidate, features.folder, "stretch", pictures)
    source, pruned = original.source(trained.network, entry, splits, seed, copy)
    made = compress(copy, entry, source, splits, scratch, seed)
    test = splits[splits["split"] == "test"]
    codes = group_codes(test["group"])
    draws = draw_weights(codes, 2000, 0)
    before, after = (answers(file, source, splits, "test") for file in (made.original, made.file))
    everywhere = np.full(len(test), True)
    gain = paired(right(after).astype(np.float64) - right(before), everywhere, codes, draws)
    parameters = trained.model.parameters
    found.setdefault(name, {"accuracy": float(right(before).mean()), "parameters": parameters})
    found[f"{name}, {copy}"] = {
        "accuracy": float(right(after).mean()),
        "parameters": parameters - pruned,
        "difference": [round(value, 4) for value in (gain.value, gain.low, gain.high)],
        "same answer": float((said_by(before) == said_by(after)).mean()),
        "kept": made.recipe,
        "tried": {one.recipe: one.accuracy for one in made.tried},
    }
    return {name: made.original, f"{name}, {copy}": made.file}


def said_by(predictions: pd.DataFrame) -> NDArray[np.intp]:
    """Return the number of the class that each picture is said to have (N,)."""
    columns = [str(name) for name in predictions if str(name).startswith("p_")]
    return np.asarray(predictions[columns].to_numpy(np.float64).argmax(axis=1))


def jpeg_to_answer(file: Path, pictures: list[Path]) -> float:
    """Return the median milliseconds from the bytes of a JPEG to the answer, on one thread."""
    network = OnnxModel(file, 1)
    size = (network.image_size, network.image_size)
    took = []
    for picture in pictures:
        content = picture.read_bytes()
        began = time.perf_counter()
        network(decode_resized(content, size, 50_000_000, network.fit)[None])
        took.append(time.perf_counter() - began)
    return round(1000 * float(np.median(took[1:])), 2)


def show(by_seed: dict[int, dict[str, Any]]) -> None:
    """Print a line per model: means over the seeds, and each seed's difference with its interval."""
    first = next(iter(by_seed.values()))
    print(f"seeds {', '.join(map(str, by_seed))}")
    head = ("accuracy", "MB", "ms", "pictures a second", "JPEG to answer, ms")
    print(f"{'':32}{''.join(f'{name:>20}' for name in head)}")
    for name in first:
        means = [np.mean([found[name][key] for found in by_seed.values()]) for key in head]
        print(f"{name:32}{''.join(f'{value:20.4g}' for value in means)}")
        for seed, found in by_seed.items():
            if "difference" in (one := found[name]):
                value, low, high = (100 * share for share in one["difference"])
                told = f"{value:+.1f} points ({low:+.1f} to {high:+.1f}), {one['same answer']:.1%} the same answer"
                print(f"    seed {seed}: {told}; kept: {one['kept']} of {one['tried']}")


def main() -> None:
    """Measure the seeds that were not measured, print all that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/helmet"))
    options = parser.parse_args()
    table = read_table(options.data)
    by_seed: dict[int, dict[str, Any]] = {}
    for seed in options.seeds:
        kept = KEPT / f"seed-{seed}.json"
        if not kept.is_file():
            write_json(kept, measure(table, options.data, seed))
        by_seed[seed] = json.loads(kept.read_text(encoding="utf-8"))
    show(by_seed)


if __name__ == "__main__":
    run(main)
