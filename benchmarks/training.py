"""The four HelmNet models, trained as the study trained them and as this pipeline does, in one run.

    python -m benchmarks.training [--epochs 1] [--accuracy] [--results build/benchmarks/training.json]

Reads the workspace's own data, build/manifest.parquet, build/splits.parquet and build/weights (so `dvc repro` first).
The study's way runs the frozen backbone on every picture in every one of 20 epochs; EPOCHS of them are timed after a
warm-up and scaled to 20. The pipeline's way is timed as `dvc repro` runs it: a forked process for each stage, start-up
counted, nothing cached; `start-up` is what is left of those seconds without reading, computing, training. The study's
accuracy (`--accuracy`) is that of 20 whole epochs, its backbone's answers taken from memory: the backbone is frozen, so
they are the same in every epoch, but for the augmented model, whose pictures are drawn anew (there it runs in bfloat16
where the processor has it, or this would take hours).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError, run
from plumbline.common.files import write_json
from plumbline.common.params import load_section
from plumbline.models.augment import Augmentation, augmented_view
from plumbline.models.candidates import Candidate, Head, build_network
from plumbline.models.fitting import make_deterministic
from plumbline.models.precision import BFLOAT16_UNITS, precision, processor_flags

if TYPE_CHECKING:
    import keras

STUDY_EPOCHS = 20
STUDY_BATCH = 128
FFNN = Head(hidden=(256, 128), dropout=0.5)
STUDY: dict[str, tuple[Head | None, float, bool]] = {
    "simple_cnn": (None, 1e-3, False),
    "vgg16_base": (Head(), 1e-4, False),
    "vgg16_ffnn": (FFNN, 1e-4, False),
    "vgg16_ffnn_augmented": (FFNN, 1e-4, True),
}


def study_model(head: Head | None, classes: int, weights: str | None) -> keras.Model:
    """The study's model as one network from pixels / 255, its VGG16 frozen inside."""
    import keras

    from plumbline.models.networks import build_backbone

    if head is None:
        return build_network(Candidate(architecture="simple_cnn", backbone="pixels"), (200, 200, 3), classes)
    base = build_backbone("vgg16", 200, weights)
    network = build_network(Candidate(architecture="transfer", backbone="vgg16", head=head), (6, 6, 512), classes)
    pixels = keras.Input((200, 200, 3))
    return keras.Model(pixels, network(base(keras.layers.Rescaling(1 / 255)(pixels), training=False)))


def epoch_batches(
    pixels: np.ndarray, ids: list[str], labels: np.ndarray, augmented: bool, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The study's batches of 128, in a new order each epoch, augmented anew where the model is."""
    order = np.random.default_rng(epoch).permutation(len(pixels))
    for start in range(0, len(order), STUDY_BATCH):
        rows = order[start : start + STUDY_BATCH]
        images = pixels[rows]
        if augmented:
            views = [augmented_view(pixels[r], ids[r], epoch + 1, Augmentation()) for r in rows]
            images = np.stack(views)
        yield images.astype(np.float32), labels[rows]


def study_seconds(name: str, data: dict[str, Any], weights: str, epochs: int) -> float:
    """Seconds that 20 epochs of the study's training take (training and validation), `epochs` of them timed."""
    import keras

    head, rate, augmented = STUDY[name]
    make_deterministic(0)
    model = study_model(head, 2, weights)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    for split, step in (("train", model.train_on_batch), ("validation", model.test_on_batch)):
        batches = list(epoch_batches(data[f"{split}_x"], data[f"{split}_id"], data[f"{split}_y"], False, 0))
        for batch in (batches[0], batches[-1]):  # both sizes are traced before the clock runs
            step(*batch)
    start = time.perf_counter()
    for epoch in range(epochs):
        for batch in epoch_batches(data["train_x"], data["train_id"], data["train_y"], augmented, epoch):
            model.train_on_batch(*batch)
        for batch in epoch_batches(data["validation_x"], data["validation_id"], data["validation_y"], False, 0):
            model.test_on_batch(*batch)
    return (time.perf_counter() - start) / epochs * STUDY_EPOCHS


def study_accuracy(name: str, data: dict[str, Any], weights: str) -> float:
    """Test accuracy after the study's 20 epochs, no early stopping, pixels / 255 for every network."""
    import keras

    head, rate, augmented = STUDY[name]
    make_deterministic(0)
    base = None if head is None else frozen_backbone(weights, augmented)
    network = (
        study_model(None, 2, weights)
        if head is None
        else build_network(Candidate(architecture="transfer", backbone="vgg16", head=head), (6, 6, 512), 2)
    )
    network.compile(keras.optimizers.Adam(rate), "binary_crossentropy")

    def seen(pictures: np.ndarray) -> np.ndarray:
        inputs = pictures.astype(np.float32)
        return inputs if base is None else base.predict(inputs, batch_size=32, verbose=0).astype(np.float32)

    plain = None if augmented else seen(data["train_x"])
    for epoch in range(STUDY_EPOCHS):
        order = np.random.default_rng(epoch).permutation(len(data["train_y"]))
        if plain is None:
            views = [augmented_view(data["train_x"][r], data["train_id"][r], epoch + 1, Augmentation()) for r in order]
            features = seen(np.stack(views))
        else:
            features = plain[order]
        for first in range(0, len(order), STUDY_BATCH):
            rows = slice(first, first + STUDY_BATCH)
            network.train_on_batch(features[rows], data["train_y"][order[rows]])
    output = network.predict(seen(data["test_x"]), batch_size=32, verbose=0)[:, 0]
    return float(((output > 0.5) == data["test_y"]).mean())


def frozen_backbone(weights: str, fast: bool) -> keras.Model:
    """VGG16 over pixels / 255, in bfloat16 where `fast` is wanted and the processor has units for it."""
    import keras

    from plumbline.models.networks import build_backbone

    policy = "mixed_bfloat16" if fast and processor_flags() & BFLOAT16_UNITS else "float32"
    with precision(policy):
        base = build_backbone("vgg16", 200, weights)
    pixels = keras.Input((200, 200, 3))
    return keras.Model(pixels, base(keras.layers.Rescaling(1 / 255)(pixels), training=False))


def pipeline_seconds(workspace: Path) -> tuple[dict[str, float], dict[str, float], float]:
    """Seconds of each stage the four models need, run as in dvc.yaml, their test accuracies, and start-up's part.

    Start-up is what a stage takes beyond its own work: for a training all but the seconds in its cost.json, for a
    backbone what it takes when every row is known already.
    """
    backbones, seconds = ("pixels", "vgg16"), {}
    for stage, names in (("featurize", backbones), ("train", tuple(STUDY))):
        for name in names:
            seconds[f"{stage}@{name}"] = stage_seconds(workspace, stage, name)
    folders = {name: workspace / "build/candidates" / name for name in STUDY}
    worked = sum(json.loads((folder / "cost.json").read_text())["seconds"] for folder in folders.values())
    start_up = sum(seconds[f"train@{name}"] for name in STUDY) - worked
    start_up += sum(stage_seconds(workspace, "featurize", name) for name in backbones)
    return seconds, {name: test_accuracy(folder) for name, folder in folders.items()}, start_up


def stage_seconds(workspace: Path, stage: str, name: str) -> float:
    """Seconds of `python -m plumbline.common.warm STAGE NAME` in `workspace`."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "plumbline.common.warm", stage, name], cwd=workspace, check=True, capture_output=True
    )
    return time.perf_counter() - start


def test_accuracy(folder: Path) -> float:
    """Accuracy at 0.5 on the test pictures of a trained candidate."""
    predictions = pd.read_parquet(folder / "predictions.parquet")
    test = predictions[predictions["split"] == "test"]
    columns = [column for column in map(str, test) if column.startswith("p_")]
    return float((test[columns].idxmax(axis=1).str[2:] == test["label"]).mean())


def copy_workspace(top: Path, to: Path) -> None:
    """A second workspace with the same code, data and splits, and no features or candidates yet."""
    for name in ("plumbline", "stages", "params.yaml", "data"):
        (to / name).symlink_to((top / name).resolve())
    (to / "build").mkdir()
    for name in ("manifest.parquet", "splits.parquet", "weights"):
        (to / "build" / name).symlink_to((top / "build" / name).resolve())


def load_pixels() -> dict[str, Any]:
    """Pictures at 200x200 with ids and 0/1 labels of each split of the workspace, as the study held them: in memory."""
    from plumbline.imaging.collection import DataParams, iter_rgb

    splits = pd.read_parquet("build/splits.parquet")
    classes = sorted(splits["label"].unique())
    if len(classes) != 2:
        raise UserError(f"the HelmNet study has two classes, data/ has {len(classes)}: benchmark a two-class set.")
    data: dict[str, Any] = {}
    for split, rows in splits.groupby("split"):
        data[f"{split}_x"] = np.stack(list(iter_rgb(load_section("data", DataParams), list(rows["path"]), (200, 200))))
        data[f"{split}_id"] = list(rows["id"])
        data[f"{split}_y"] = (rows["label"] == classes[1]).to_numpy(dtype=np.int64)
    return data


def main() -> None:
    """Time both ways, print the table and the ratio, write the figures."""
    parser = argparse.ArgumentParser(description="Train the HelmNet models the study's way and this pipeline's.")
    parser.add_argument("--epochs", type=int, default=1, help="epochs of the study's 20 that are run and timed")
    parser.add_argument("--accuracy", action="store_true", help="also the study's test accuracy after 20 whole epochs")
    parser.add_argument("--results", type=Path, default=Path("build/benchmarks/training.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy_workspace(Path.cwd(), Path(folder))
        stages, accuracies, start_up = pipeline_seconds(Path(folder))
        weights = Path(folder) / "build/features/vgg16/backbone.weights.h5"
        data = load_pixels()
        study = {name: study_seconds(name, data, str(weights), arguments.epochs) for name in STUDY}
        print(f"study {sum(study.values()):.0f} s, pipeline {sum(stages.values()):.0f} s", flush=True)
        held_out = {name: study_accuracy(name, data, str(weights)) for name in STUDY} if arguments.accuracy else None
    result = summarise(study, held_out, stages, accuracies, start_up, arguments.epochs)
    write_json(arguments.results, result)
    print(as_text(result))


def summarise(
    study: dict[str, float],
    held_out: dict[str, float] | None,
    stages: dict[str, float],
    accuracies: dict[str, float],
    start_up: float,
    epochs: int,
) -> dict[str, Any]:
    """Both ways' seconds and test accuracies, and their ratio."""
    origin = json.loads(Path("build/weights/vgg16.json").read_text())["origin"]
    total_study, total_ours = sum(study.values()), sum(stages.values())
    return {
        "vgg16_weights": origin,
        "study_epochs_timed": epochs,
        "study_seconds": study,
        "study_test_accuracy": held_out,
        "pipeline_seconds": stages,
        "pipeline_test_accuracy": accuracies,
        "study_total_seconds": total_study,
        "pipeline_total_seconds": total_ours,
        "pipeline_start_up_seconds": start_up,
        "ratio": total_study / total_ours,
    }


def as_text(result: dict[str, Any]) -> str:
    """The result as a short table."""
    lines = [f"VGG16 weights: {result['vgg16_weights']}; study: {result['study_epochs_timed']} of 20 epochs timed"]
    lines += [f"  study     {name:<24}{seconds:9.1f} s" for name, seconds in result["study_seconds"].items()]
    lines += [f"  pipeline  {name:<24}{seconds:9.1f} s" for name, seconds in result["pipeline_seconds"].items()]
    for way in ("study", "pipeline"):
        if result[f"{way}_test_accuracy"]:
            figures = ", ".join(f"{name} {value:.3f}" for name, value in result[f"{way}_test_accuracy"].items())
            lines.append(f"  {way} test accuracy: {figures}")
    lines.append(
        f"study {result['study_total_seconds']:.0f} s, pipeline {result['pipeline_total_seconds']:.0f} s: "
        f"{result['ratio']:.1f} times less; start-up is {result['pipeline_start_up_seconds']:.0f} s of the pipeline's"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
