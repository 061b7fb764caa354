"""How well heads are found on whole photographs, what it costs to train that, and how long one photograph takes.

    python -m benchmarks.detection [--data ../shared/data/scenes] [--seeds 0 1 2] [--detectors NAME ...] [--work FOLDER]

The detection pipeline's own stages run in a folder of their own, on another draw of the split and of everything else
for each seed: ten minutes a seed and detector on two idle cores, or more. PLUMBLINE_WEIGHTS has to name the weights. At
the end the best detector of the first seed is exported: milliseconds a photograph in ONNX Runtime, with the suppression
of overlapping boxes apart. What is in FOLDER already (maps, groups) is used again, so that a second run is warm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from plumbline.common import artefacts
from plumbline.common.params import read_params
from plumbline.common.records import read_record
from plumbline.evidence.detection import DetectionEvidence

TOP = Path(__file__).resolve().parents[1]
FIGURES = ("map", "map50", "map75")
TIMED = 40


def main() -> None:
    """Run every seed, say what came out, and print it all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=TOP.parent / "shared/data/scenes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--detectors", nargs="*", help="those of detection/params.yaml, where none is named")
    parser.add_argument("--work", type=Path, help="a folder to work in and to keep")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        params = read_params(TOP / "detection/params.yaml")
        if arguments.detectors:
            params["detectors"] = {name: params["detectors"][name] for name in arguments.detectors}
        shutil.copy(TOP / "detection/dvc.yaml", work)  # which says what stages leave
        data = work / "data"
        if not data.exists():
            data.symlink_to(arguments.data.resolve(), target_is_directory=True)
        found = [one_seed(work, params, seed) for seed in arguments.seeds]
        best = max(found[0]["detectors"], key=lambda name: found[0]["detectors"][name]["validation"]["map50"])
        result = {"seeds": found, "mean": mean_of(found), "onnx": {best: exported(work, best)}}
    print(json.dumps(result, indent=1))


def one_seed(work: Path, params: dict[str, Any], seed: int) -> dict[str, Any]:
    """Run the pipeline with `seed` for split and training; return seconds of each stage and figures by detector."""
    settings = {**params, "split": {**params["split"], "seed": seed}, "train": {"seed": seed}}
    (work / "params.yaml").write_text(yaml.safe_dump(settings))
    seconds: dict[str, float] = {}

    def run(stage: str, *names: str, made: Path | None = None) -> None:
        if made is not None and (work / made).exists():
            return
        began = time.perf_counter()
        command = [sys.executable, "-m", f"stages.{stage}", *names]
        subprocess.run(command, cwd=work, check=True, env={**os.environ, "PYTHONPATH": str(TOP)}, stdout=sys.stderr)
        seconds["@".join([stage, *names])] = round(time.perf_counter() - began, 1)

    run("ingest", made=artefacts.MANIFEST.path)
    run("validate", made=artefacts.VALIDATION.path)
    run("weights")
    for name in {params["group"]["embedding"], params["leakage"]["features"]}:
        run("featurize", name, made=artefacts.FEATURES / name)
    run("group", made=artefacts.GROUPS.path)
    run("split")
    for name in sorted({entry["maps"] for entry in params["detectors"].values()}):
        run("maps", name, made=artefacts.MAPS / name)
    for name in params["detectors"]:
        run("detector", name)
    run("leakage", made=None)
    run("detection")
    evidence = read_record(work / artefacts.DETECTION, DetectionEvidence)
    detectors = {
        name: {split: figures_of(evidence, name, split) for split in ("validation", "test")}
        | {"training_seconds": entry.cost.seconds, "peak_megabytes": entry.cost.peak_megabytes}
        for name, entry in evidence.detectors.items()
    }
    for name, found in detectors.items():
        print(f"seed {seed}, {name}: {found}", file=sys.stderr, flush=True)
    return {"seed": seed, "seconds": seconds, "detectors": detectors}


def figures_of(evidence: DetectionEvidence, name: str, split: str) -> dict[str, Any]:
    """The figures of a detector on one side, rounded."""
    entry = evidence.detectors[name]
    figures = entry.splits[split]
    found: dict[str, float | None] = {key: _rounded(getattr(figures, key)) for key in FIGURES}
    for label, one in figures.classes.items():
        found |= {f"ap50_{label}": _rounded(one.ap50), f"recall_{label}_at_0.5": _rounded(one.recall_at.get("0.5"))}
    found["mean_iou"] = entry.mean_iou[split]
    if split in entry.alarms:
        found |= {
            "alarm_recall": _rounded(entry.alarms[split].recall),
            "false_alarms": round(entry.alarms[split].false_alarms, 3),
        }
    return found


def _rounded(figure: Any) -> float | None:
    return None if figure is None else round(figure.value, 4)


def mean_of(found: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The mean over seeds of every test figure that all seeds have, by detector."""
    means: dict[str, dict[str, float]] = {}
    for name in found[0]["detectors"]:
        tests = [one["detectors"][name]["test"] for one in found]
        keys = [key for key in tests[0] if all(test.get(key) is not None for test in tests)]
        means[name] = {key: round(float(np.mean([test[key] for test in tests])), 4) for key in keys}
    return means


def exported(work: Path, name: str) -> dict[str, Any]:
    """Export a detector; milliseconds a canvas in ONNX Runtime on two threads, and of the suppression after it."""
    from plumbline.models.detecting import BOXES, SCORES, from_pixels, reported
    from plumbline.models.detector_training import load_detector
    from plumbline.registry.detector_export import OnnxDetector, export_detector

    folder = work / artefacts.DETECTORS / name
    maps = json.loads((folder / artefacts.DETECTOR).read_text())["maps"]
    network, plan, record, parts = load_detector(folder, work / artefacts.MAPS / maps)
    model = from_pixels(parts, network, plan, record.image_size)
    path = work / f"{name}.onnx"
    export_detector(model, record, path)
    detector = OnnxDetector(path, threads=2)
    stored = np.load(work / artefacts.MAPS / maps / artefacts.VALUES, mmap_mode="r")
    canvas = np.random.default_rng(0).integers(0, 256, (1, record.image_size, record.image_size, 3)).astype(np.float32)
    if stored.dtype == np.uint8:
        canvas = stored[0, :1].astype(np.float32)
    answers = model.predict_on_batch(canvas)
    boxes, scores = detector(canvas)
    whole, suppression = [], []
    for _ in range(TIMED):
        began = time.perf_counter()
        boxes, scores = detector(canvas)
        between = time.perf_counter()
        reported(boxes[0], scores[0], detector.suppression)
        whole.append(1000 * (between - began))
        suppression.append(1000 * (time.perf_counter() - between))
    return {
        "image_size": record.image_size,
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "network_ms": {"median": round(float(np.median(whole)), 2), "fastest": round(min(whole), 2)},
        "suppression_ms": round(float(np.median(suppression)), 2),
        "largest_difference": {
            "boxes": float(np.abs(boxes - np.asarray(answers[BOXES])).max()),
            "scores": float(np.abs(scores - np.asarray(answers[SCORES])).max()),
        },
    }


if __name__ == "__main__":
    main()
