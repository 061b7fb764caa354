"""What each addition brings on real photographs, beside the same model without it.

    PLUMBLINE_WEIGHTS=../shared/weights python -m benchmarks.additions [NAME ...] [--data ../shared/data/helmet]

Without names: all of ADDITIONS, the hybrid, and likeness (verification, a new class from one or five pictures). DATA is
a folder of class folders with metadata.csv (path, label and photo; where there is a column repost_group, groups are
what it says). For every seed the groups are dealt into five parts anew; one part is test, the next validation, the
others are trained on, so many times as an addition says. The figures are test accuracies; features are kept in
build/benchmarks/additions.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.common.errors import UserError, run
from plumbline.common.files import file_digest, write_json
from plumbline.evidence.ablation import CONDITIONS, Ablation, ablate, build_extractor, disturbed_features
from plumbline.evidence.disturbances import extract_with
from plumbline.imaging.decode import decode, resize
from plumbline.imaging.reading import iter_rgb
from plumbline.imaging.settings import DataParams
from plumbline.models.backbones import Backbone, resolve_entry
from plumbline.models.candidates import Candidate
from plumbline.models.extraction import featurize
from plumbline.models.features import Features, open_features
from plumbline.models.similar import unit_vectors, verify
from plumbline.models.training import train
from plumbline.models.triplets import embedder, nearest, prototypes

KEPT = Path("build/benchmarks/additions")
PARTS = 5
TESTED = 2
LINEAR: dict[str, Any] = {"architecture": "transfer", "head": {}, "epochs": 100}


@dataclass(frozen=True)
class Model:
    """A candidate and its backbone, as entries of params.yaml; the backbone's name is its own here."""

    name: str
    backbone: dict[str, Any]
    candidate: dict[str, Any]

    def settings(self) -> Candidate:
        return Candidate(backbone=backbone_name(self.backbone), **self.candidate)


@dataclass(frozen=True)
class Addition:
    """Two models that differ in one thing; `parts` of five are test in turn for every seed."""

    without: Model
    models: tuple[Model, ...]
    parts: int = TESTED


V2 = {"network": "mobilenet_v2", "image_size": 224, "weights": "auto", "pooling": "average"}
HYBRID = {
    "networks": ("mobilenet", "mobilenet_v2", "efficientnet_lite0"),
    "image_size": 224,
    "weights": "auto",
    "pooling": "average",
}
TRIPLET: dict[str, Any] = {"architecture": "triplet", "epochs": 40, "early_stopping_patience": 10}
V2_MAPS = {**V2, "pooling": "none"}
CNN: dict[str, Any] = {
    "architecture": "compact_cnn",
    "mirror": True,
    "brightness": 0.2,
    "batch_size": 32,
    "epochs": 30,
    "schedule": "cosine",
    "weight_decay": 0.001,
    "early_stopping_patience": 30,
}
PIXELS: dict[str, Any] = {"network": "pixels", "image_size": 64}


def prepared(**preprocess: str) -> tuple[dict[str, Any], ...]:
    """MobileNetV2 on prepared pictures."""
    return ({**V2, "preprocess": preprocess}, LINEAR)


PLAIN = Model("mobilenet_v2", V2, LINEAR)
ADDITIONS: dict[str, Addition] = {
    "scales": Addition(
        PLAIN,
        (
            Model("mobilenet_v2 at 288", {**V2, "image_size": 288}, LINEAR),
            Model("mobilenet_v2_scales", {**V2, "image_size": 288, "scales": (160, 224, 288)}, LINEAR),
        ),
    ),
    "attention pooling": Addition(
        Model("average", V2_MAPS, {**LINEAR, "head": {"pooling": "average"}}),
        (Model("attention", V2_MAPS, {**LINEAR, "head": {"pooling": "attention"}}),),
    ),
    "preprocess": Addition(
        PLAIN,
        (
            Model("noise: median", *prepared(noise="median")),
            Model("colour: grey_world", *prepared(colour="grey_world")),
            Model("colour: shades_of_grey", *prepared(colour="shades_of_grey")),
        ),
    ),
    "triplet": Addition(
        PLAIN,
        tuple(
            Model(f"triplet, {mining}", V2, {**TRIPLET, "triplet": {"mining": mining}})
            for mining in ("semi_hard", "hard")
        ),
    ),
    **{
        f"simsiam, {share:.0%} of the labels": Addition(
            Model("compact_cnn", PIXELS, {**CNN, "labels": share}),
            (Model("simsiam first", PIXELS, {**CNN, "labels": share, "start": {"epochs": 60}}),),
            parts=1,
        )
        for share in (0.1, 0.25, 0.5, 1.0)
    },
    "curriculum": Addition(
        Model("compact_cnn", PIXELS, CNN),
        tuple(Model(f"curriculum: {kind}", PIXELS, {**CNN, "curriculum": kind}) for kind in ("sizes", "confidence")),
        parts=1,
    ),
    "cbam": Addition(
        Model("compact_cnn", PIXELS, CNN), (Model("cbam_cnn", PIXELS, {**CNN, "attention": "cbam"}),), parts=1
    ),
}


ALL = ["hybrid", "likeness", *ADDITIONS]


def backbone_name(entry: dict[str, Any]) -> str:
    """Where its features are kept: a name made of its settings."""
    return "-".join(str(value) for value in entry.values()).translate(str.maketrans("/{}[]()', :", "___________"))


def read_table(data: Path) -> pd.DataFrame:
    """Return path, id, label and group of every picture of `data`."""
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    column = next((name for name in ("repost_group", "photo") if name in table), None)
    if column is None:
        raise UserError(f"{data}/metadata.csv has no column photo: without groups copies would be on both sides.")
    ids = [file_digest(data / path) for path in table["path"]]
    return table[["path", "label"]].assign(id=ids, group=table[column])


def dealt(table: pd.DataFrame, seed: int, parts: int) -> Iterator[pd.DataFrame]:
    """Yield `table` with a column split, `parts` times: test, validation and train are whole groups."""
    from sklearn.model_selection import StratifiedGroupKFold

    part = np.empty(len(table), dtype=np.intp)
    drawn = StratifiedGroupKFold(PARTS, shuffle=True, random_state=seed).split(table, table["label"], table["group"])
    for number, (_, held) in enumerate(drawn):
        part[held] = number
    for number in range(parts):
        roles = np.select([part == number, part == (number + 1) % PARTS], ["test", "validation"], "train")
        yield table.assign(split=roles)


def features_of(entry: dict[str, Any], table: pd.DataFrame, data: Path) -> Features:
    """Compute (or take up again) the features of every picture."""
    name, backbone, params = backbone_name(entry), Backbone(**entry), DataParams.model_validate({"root": data})

    def pictures(paths: list[str], ids: list[str], size: int) -> Iterable[NDArray[np.uint8]]:
        return iter_rgb(params, paths, (size, size), ids)

    featurize(table[["path", "id"]], pictures, name, backbone, resolve_entry(name, backbone), KEPT / name)
    return open_features(KEPT / name)


def accuracy(model: Model, splits: pd.DataFrame, features: Features, seed: int) -> float:
    """Train, and return the accuracy on the test pictures."""
    predictions = train(model.name, model.settings(), splits, features, seed).predictions
    test = predictions[predictions["split"] == "test"]
    columns = [str(name) for name in test if str(name).startswith("p_")]
    said = test[columns].to_numpy(np.float64).argmax(axis=1)
    return float((np.asarray([name.removeprefix("p_") for name in columns])[said] == test["label"]).mean())


def measure(addition: Addition, table: pd.DataFrame, data: Path, seeds: int) -> dict[str, list[float]]:
    """Return each model's mean accuracy by seed."""
    found: dict[str, list[float]] = {}
    for model in (addition.without, *addition.models):
        features = features_of(model.backbone, table, data)
        found[model.name] = [
            float(np.mean([accuracy(model, s, features, seed) for s in dealt(table, seed, addition.parts)]))
            for seed in range(seeds)
        ]
    return found


def show(name: str, found: dict[str, list[float]]) -> None:
    """Print one line per model: mean, each seed, and the difference to the first with its standard error."""
    first = np.asarray(next(iter(found.values())))
    print(f"\n{name}")
    for model, values in found.items():
        difference = np.asarray(values) - first
        error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else float("nan")
        told = "" if model == next(iter(found)) else f"  {difference.mean():+.4f} +- {error:.4f}"
        print(f"  {model:32} {np.mean(values):.4f}  ({', '.join(f'{v:.3f}' for v in values)}){told}", flush=True)


def hybrid(table: pd.DataFrame, data: Path, seeds: int) -> dict[str, dict[str, list[float]]]:
    """Return, for each subset of the hybrid's networks and each condition, the accuracy by seed."""
    features = features_of(HYBRID, table, data)
    params = Ablation(backbone=features.backbone.backbone, seeds=1)
    pictures = DataParams.model_validate({"root": data})
    everything = disturbed_features(
        table,
        lambda paths, size: iter_rgb(pictures, paths, (size, size)),
        build_extractor(features),
        features.backbone.image_size,
        params,
    )
    candidate = Candidate(backbone=features.backbone.backbone, **LINEAR)
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        for splits in dealt(table, seed, 1):
            test = (splits["split"] == "test").to_numpy()
            disturbed = {condition: values[test] for condition, values in everything.items()}
            for row in ablate(candidate, splits, features, disturbed, params, seed):
                kept = found.setdefault(" + ".join(row.networks), {})
                for condition, values in row.accuracy.items():
                    kept.setdefault(condition, []).extend(values)
    return found


def likeness(table: pd.DataFrame, data: Path, seeds: int) -> dict[str, dict[str, list[float]]]:
    """Return by space (frozen features, triplet embedding) the figures of verification and of a new class, by seed.

    Verification: are two test pictures of one photograph? The new class is `nobody`: places in DATA/../scenes where
    there is no head, one of each photograph; its prototype is the mean of one or five of them, and all three classes
    are judged by the nearest prototype (balanced accuracy on test pictures and the other hundred).
    """
    model = Model("triplet", V2, TRIPLET)
    features = features_of(V2, table, data)
    nobody = extract_with(features)(np.stack(nobody_pictures(data.parent / "scenes", 120)))
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        for splits in dealt(table, seed, 1):
            network = train(model.name, model.settings(), splits, features, seed).network
            for name, embedding in (("mobilenet_v2", None), ("triplet", embedder(network))):
                vectors = unit_vectors(features.values[:, 0], embedding)
                fresh = unit_vectors(nobody, embedding)[np.random.default_rng(seed).permutation(len(nobody))]
                test = (splits["split"] == "test").to_numpy()
                kept = found.setdefault(name, {})
                verified = verify(vectors[test], splits["group"].to_numpy()[test])
                kept.setdefault("verification: ROC area", []).append(verified.area)
                kept.setdefault("verification: equal error", []).append(verified.error)
                for shots in (1, 5):
                    value = with_new_class(vectors, splits, fresh, shots)
                    kept.setdefault(f"new class from {shots}", []).append(value)
    return found


def with_new_class(vectors: NDArray[Any], splits: pd.DataFrame, fresh: NDArray[Any], shots: int) -> float:
    """Return balanced accuracy over the known classes and a new one, whose first `shots` pictures are its prototype."""
    classes = np.unique(splits["label"])
    truth = splits["label"].to_numpy()[:, None] == classes
    learnt, test = ((splits["split"] == side).to_numpy() for side in ("train", "test"))
    centres = np.vstack([prototypes(vectors[learnt], truth[learnt]), fresh[:shots].mean(axis=0)])
    said, right = nearest(vectors[test], centres), truth[test].argmax(axis=1)
    recalls = [float((said[right == number] == number).mean()) for number in range(len(classes))]
    return float(np.mean([*recalls, float((nearest(fresh[5:], centres) == len(classes)).mean())]))


def nobody_pictures(scenes: Path, count: int) -> list[NDArray[np.uint8]]:
    """Return squares (224, 224, 3) of photographs with YOLO boxes, one each, that touch no box."""
    random, found = np.random.default_rng(0), []
    for file in sorted(scenes.glob("*.jpg")):
        rgb = decode(file.read_bytes())
        height, width = rgb.shape[:2]
        side = min(height, width) // 3
        lines = file.with_suffix(".txt").read_text(encoding="utf-8").split("\n")
        boxes = np.array([line.split()[1:] for line in lines if line.strip()], dtype=np.float64).reshape(-1, 4)
        low = (boxes[:, :2] - boxes[:, 2:] / 2) * (width, height)
        high = (boxes[:, :2] + boxes[:, 2:] / 2) * (width, height)
        for _ in range(50):
            place = np.array([random.integers(width - side + 1), random.integers(height - side + 1)])
            if not ((place < high) & (place + side > low)).all(axis=1).any():
                x, y = place
                found.append(resize(rgb[y : y + side, x : x + side], (224, 224)))
                break
        if len(found) == count:
            return found
    raise UserError(f"{scenes} has places without a head in {len(found)} photographs, not {count}.")


def show_hybrid(found: dict[str, dict[str, list[float]]]) -> None:
    """Print a line per subset: the mean accuracy under each condition."""
    print(f"\nhybrid_pretrained{'':39}{'  '.join(f'{condition:>8}' for condition in CONDITIONS)}")
    for name, by_condition in found.items():
        means = "  ".join(f"{np.mean(by_condition[condition]):8.3f}" for condition in CONDITIONS)
        print(f"  {name:52} {means}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=ALL)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/helmet"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    unknown = set(options.names) - set(ALL)
    if unknown:
        raise UserError(f"there is no addition '{min(unknown)}': use some of {', '.join(ALL)}.")
    table = read_table(options.data)
    for name in options.names:
        result: Any
        if name == "likeness":
            result = likeness(table, options.data, options.seeds)
            print("\nlikeness")
            for space, figures in result.items():
                for figure, values in figures.items():
                    print(f"  {space:14} {figure:26} {np.mean(values):.4f}  ({', '.join(f'{v:.3f}' for v in values)})")
        elif name == "hybrid":
            result = hybrid(table, options.data, options.seeds)
            show_hybrid(result)
        else:
            result = measure(ADDITIONS[name], table, options.data, options.seeds)
            show(name, result)
        write_json(KEPT / "results" / f"{name}.json", result)


if __name__ == "__main__":
    run(main)
