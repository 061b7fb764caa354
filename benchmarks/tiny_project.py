"""A project small enough to promote a thousand times: random pictures, a tiny network, the files of every stage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.files import write_json, write_table
from plumbline.common.records import write_record
from plumbline.evidence.records import (
    AgainstChampion,
    CandidateEvidence,
    Costs,
    Decision,
    Evaluation,
    LeaderboardRow,
    Rule,
    Verdict,
)
from plumbline.models.candidates import Candidate, build_network
from plumbline.models.records import BackboneRecord, ModelRecord, WeightsRecord
from plumbline.tasks.one_label import ONE_LABEL

if TYPE_CHECKING:
    import keras

    from plumbline.registry.champion import Pair
    from plumbline.registry.chosen import Chosen
    from plumbline.registry.promotion import Project

CLASSES = ["with_helmet", "without_helmet"]
SIZE = 16
NAME = "tiny"


def pictures(paths: list[str], size: int | None = SIZE) -> Iterator[NDArray[np.uint8]]:
    """Yield the picture of each path (size, size, 3): random, but always the same; helmets are a bright upper half."""
    size = size or SIZE
    for path in paths:
        random = np.random.default_rng(int(Path(path).stem))
        picture = random.integers(0, 160, (size, size, 3), dtype=np.uint8)
        if path.startswith(CLASSES[0]):
            picture[: size // 2] += 90
        yield picture


def write_project(
    root: Path, seed: int = 0, verdict: Verdict = "PROMOTE", images: int = 60, trained: bool = True
) -> Decision:
    """Write `root`/build as the stages up to gate leave it, for one candidate; return the decision.

    `trained=False` leaves the network at its random start: a challenger that deserves to lose.
    """
    build = root / "build"
    table = splits_table(images)
    write_table(build / "splits.parquet", table)
    random = np.random.default_rng(1)
    descriptors = {name: random.random(images) for name in ("brightness", "contrast", "sharpness", "colourfulness")}
    write_table(
        build / "manifest.parquet", table[["path", "id", "label"]].assign(width=SIZE, height=SIZE, **descriptors)
    )
    settings = Candidate(architecture="simple_cnn", backbone="pixels")
    pixels = np.stack(list(pictures(list(table["path"])))).astype(np.float32)
    truth = (table["label"] == CLASSES[1]).to_numpy(np.float32)
    network = _network(settings, pixels, truth, (table["split"] == "train").to_numpy(), seed, trained)
    probabilities = ONE_LABEL.probabilities(network(pixels))
    folder = build / "candidates" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    network.save_weights(folder / artefacts.HEAD_WEIGHTS)
    columns = {f"p_{label}": probabilities[:, place] for place, label in enumerate(CLASSES)}
    write_table(folder / "predictions.parquet", table.assign(**columns))
    parameters = network.count_params()
    model = ModelRecord(
        candidate=NAME,
        architecture=settings.architecture,
        backbone="pixels",
        network="pixels",
        image_size=SIZE,
        parameters=parameters,
        trainable_parameters=parameters,
        weights="from scratch",
        classes=tuple(CLASSES),
        seed=seed,
        epochs_run=1,
        settings=settings.model_dump(mode="json"),
    )
    write_record(folder / artefacts.MODEL, model)
    weights = WeightsRecord(backbone="pixels", requested="random", origin="none", file=None, sha256=None)
    backbone = BackboneRecord(
        backbone="pixels",
        network="pixels",
        image_size=SIZE,
        precision="uint8",
        weights=weights,
        code="",
        shape=(SIZE, SIZE, 3),
    )
    write_record(build / "features" / "pixels" / artefacts.BACKBONE, backbone)
    right = (probabilities.argmax(axis=1) == truth).mean()
    metrics = {
        split: {"accuracy": float(right), "recall:without_helmet": float(right)} for split in ("validation", "test")
    }
    row = LeaderboardRow(
        candidate=NAME,
        parameters=parameters,
        trainable_parameters=parameters,
        weights="from scratch",
        metrics=metrics,
        intervals={split: dict.fromkeys(values, (0.0, 1.0)) for split, values in metrics.items()},
    )
    write_json(build / "leaderboard.json", [row.content()])
    entry = CandidateEvidence(
        model=model.description(), temperature=1.0, threshold=0.4, train_test_difference=0.0, splits={}
    )
    evaluation = Evaluation(
        classes=tuple(CLASSES),
        violation_class=CLASSES[1],
        costs=Costs(missed_violation=10, false_alarm=1),
        data={},
        missing=(),
        slices_skipped=(),
        shortcuts=(),
        sites=(),
        baselines={},
        candidates={NAME: entry},
    )
    write_record(build / "evaluation.json", evaluation)
    passed = verdict == "PROMOTE"
    rule = Rule(
        name="accuracy floor",
        value=float(right),
        bound=0.85,
        passed=passed,
        reason=f"accuracy is {right:.3f} {'>=' if passed else '<'} 0.85",
    )
    decision = Decision(verdict=verdict, candidate=NAME, rules=(rule,))
    write_record(build / "decision.json", decision)
    return decision


def _network(
    settings: Candidate, pixels: NDArray[Any], truth: NDArray[Any], learn: NDArray[Any], seed: int, trained: bool
) -> keras.Model:
    import keras

    for attempt in range(10):
        keras.utils.set_random_seed(seed + 1000 * attempt)
        network = build_network(settings, (SIZE, SIZE, 3), len(CLASSES))
        if not trained:
            return network
        network.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy")
        network.fit(pixels[learn], truth[learn], epochs=15, verbose=0)
        # The four relu units before the output may all be dead from the start: draw again.
        if ((network(pixels)[:, 0] > 0.5) == truth).numpy()[learn].mean() > 0.9:
            return network
    raise RuntimeError("the tiny network did not learn to tell bright from dark in ten attempts")


def splits_table(images: int) -> pd.DataFrame:
    """Return splits (path, id, label, group, split): two images a group, 60% train, 20% validation, 20% test."""
    rows = []
    for place in range(images):
        label = CLASSES[place % 2]
        split = ("train", "train", "train", "validation", "test")[place // 2 % 5]
        rows.append((f"{label}/{place}.png", f"{place:064x}", label, f"g{place // 2}", split))
    return pd.DataFrame(rows, columns=["path", "id", "label", "group", "split"])


def whole_project(root: Path) -> Project:
    """Return the project under `root` as promotion takes it, its network exported by TensorFlow."""
    from plumbline.registry.promotion import Project, load_network

    return Project(root / "build", root, pictures, load_network, compare)


def export_project(root: Path) -> None:
    """Export the network beforehand, into `root`/exported."""
    from plumbline.registry.chosen import provenance, read_chosen, read_decision
    from plumbline.registry.folder import build_folder

    project = whole_project(root)
    chosen = read_chosen(project.build, read_decision(project.build))
    origin = provenance(root, chosen.manifest)
    build_folder(
        root / "exported", chosen, project.load(chosen.folder, chosen.features), pictures, origin, 1e-4, 500, 32
    )


def exported_project(root: Path) -> Project:
    """Return the project with what `export_project` left in place of an export: promotion without TensorFlow."""

    def copy_exported(folder: Path, *_: Any) -> dict[str, float]:
        shutil.copytree(root / "exported", folder)
        return {"onnx_difference": 0.0, "score_difference": 0.0}

    return replace(whole_project(root), load=lambda folder, features: None, export=copy_exported)


def compare(both: Pair, chosen: Chosen) -> AgainstChampion:
    """Compare by the gate's rule, without slices."""
    from plumbline.evidence.rules import Gate, compare_with_champion

    return compare_with_champion(both.old, both.new, chosen.classes, [], Gate(resamples=200), chosen.task)
