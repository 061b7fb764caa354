"""Candidates, manifests and pictures made up for the tests of evaluate, race, gate and leaderboard."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml
from recorded import backbone_json, certificate_json

CLASSES = ["with_helmet", "without_helmet"]


def split_table(groups: int = 120, classes: list[str] | None = None, seed: int = 0) -> pd.DataFrame:
    """Pictures in groups of one to three, one label per group, 60/20/20."""
    classes = classes or CLASSES
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 4, groups)
    codes = np.repeat(np.arange(groups), sizes)
    split = np.array(["train"] * 3 + ["validation", "test"])[np.arange(groups) % 5][codes]
    labels = np.asarray(classes)[(np.arange(groups) // 5) % len(classes)][codes]
    paths = [f"{label}/{place:04d}.jpg" for place, label in enumerate(labels)]
    table = pd.DataFrame(
        {"path": paths, "id": paths, "label": labels, "split": split, "group": [f"g{code}" for code in codes]}
    )
    return table.sort_values("path", ignore_index=True)


def predictions(table: pd.DataFrame, skill: float, classes: list[str] | None = None, seed: int = 1) -> pd.DataFrame:
    """Predictions whose logit of the true class lies `skill` above the others, with noise shared within groups."""
    classes = classes or CLASSES
    random = np.random.default_rng(seed)
    codes = pd.factorize(table["group"])[0]
    labels = table["label"].map({name: place for place, name in enumerate(classes)}).to_numpy()
    logits = 0.8 * random.normal(size=(codes.max() + 1, len(classes)))[codes]
    logits += 0.8 * random.normal(size=(len(table), len(classes)))
    logits[np.arange(len(table)), labels] += skill
    odds = np.exp(logits)
    shares = odds / odds.sum(axis=1, keepdims=True)
    return table.assign(**{f"p_{name}": shares[:, place] for place, name in enumerate(classes)})


def write_candidate(
    folder: Path, table: pd.DataFrame, parameters: int, weights: str = "imagenet", classes: list[str] | None = None
) -> None:
    """What stage train leaves behind, without the network."""
    folder.mkdir(parents=True)
    model = {
        "candidate": folder.name,
        "architecture": "transfer",
        "backbone": "mobilenet_v2",
        "parameters": parameters,
        "trainable_parameters": parameters // 10,
        "weights": weights,
        "classes": classes or CLASSES,
        "image_size": 32,
        "seed": 0,
        "epochs_run": 3,
    }
    (folder / "model.json").write_text(json.dumps(model))
    (folder / "cost.json").write_text(json.dumps({"seconds": 3.0, "peak_megabytes": 900, "latency_ms": 31.5}))
    history = pd.DataFrame(
        {"epoch": [1, 2, 3], "loss": [0.6, 0.4, 0.3], "accuracy": [0.7, 0.8, 0.9], "val_loss": [0.7, 0.5, 0.4]}
        | {"val_accuracy": [0.6, 0.7, 0.8], "learning_rate": [0.001] * 3}
    )
    history.to_csv(folder / "history.csv", index=False)
    table.to_parquet(folder / "predictions.parquet", index=False)


def draw_people(labels: np.ndarray, seed: int, size: int = 64) -> np.ndarray:
    """Heads (N, size, size, 3) before clutter; label 1 wears nothing, label 0 a half disc of any colour."""
    random = np.random.default_rng(seed)
    pictures = []
    for label in labels:
        clutter = random.integers(40, 215, (random.integers(6, 14),) * 2 + (3,)).astype(np.uint8)
        picture = cv2.resize(clutter, (size, size), interpolation=cv2.INTER_CUBIC)
        radius = int(random.integers(size // 7, size // 5))
        centre = (size // 2 + int(random.integers(-3, 4)), size // 2 + int(random.integers(-3, 4)))
        cv2.circle(picture, centre, radius, tuple(int(v) for v in random.integers(90, 200, 3)), -1)
        if label == 0:
            colour = tuple(int(v) for v in random.integers(20, 255, 3))
            cv2.ellipse(picture, centre, (radius, radius), 0, 180, 360, colour, -1)
        noise = random.normal(0, 6, picture.shape)
        pictures.append(np.clip(picture + noise, 0, 255).astype(np.uint8))
    return np.stack(pictures)


def zoom_in(picture: np.ndarray, share: float) -> np.ndarray:
    """The middle of a picture, enlarged to the whole."""
    side = picture.shape[0]
    keep = round(side * share)
    start = (side - keep) // 2
    return cv2.resize(np.ascontiguousarray(picture[start : start + keep, start : start + keep]), (side, side))


def manifest_of(table: pd.DataFrame, pixels: np.ndarray) -> pd.DataFrame:
    """The manifest's columns that evaluate reads."""
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pixels]
    return pd.DataFrame(
        {
            "path": table["path"],
            "label": table["label"],
            "width": pixels.shape[2],
            "height": pixels.shape[1],
            "bytes": [len(cv2.imencode(".jpg", picture)[1]) for picture in pixels],
            "format": "JPEG",
            "brightness": [grey.mean() for grey in greys],
            "contrast": [grey.std() for grey in greys],
            "sharpness": [cv2.Laplacian(grey, cv2.CV_64F).var() for grey in greys],
            "colourfulness": [float(picture.std(axis=2).mean()) for picture in pixels],
            "site": [f"site {sum(map(ord, group)) % 3}" for group in table["group"]],
        }
    )


def write_project(
    root: Path,
    skills: dict[str, float],
    classes: list[str] | None = None,
    groups: int = 120,
    absent: tuple[str, ...] = (),
) -> pd.DataFrame:
    """A project as it stands before evaluate; returns the splits. Candidates are cheapest first."""
    classes = classes or CLASSES
    table = split_table(groups, classes)
    labels = table["label"].map({name: place for place, name in enumerate(classes)}).to_numpy()
    pixels = draw_people(labels, seed=3)
    features = root / "build" / "features" / "pixels"
    features.mkdir(parents=True)
    np.save(features / "features.npy", pixels[:, None])
    table[["path", "id"]].to_parquet(features / "index.parquet", index=False)
    (features / "backbone.json").write_text(json.dumps(backbone_json()))
    manifest_of(table, pixels).to_parquet(root / "build" / "manifest.parquet", index=False)
    table.to_parquet(root / "build" / "splits.parquet", index=False)
    for place, (name, skill) in enumerate(skills.items()):
        scored = predictions(table, skill, classes, seed=10 + place)
        write_candidate(root / "build" / "candidates" / name, scored, 1000 * (place + 1), classes=classes)
    (root / "build" / "leakage.json").write_text(json.dumps(certificate_json()))
    section = {
        "candidates": {name: {"architecture": "transfer"} for name in [*skills, *absent]},
        "evaluate": {"resamples": 400, "permutations": 100, "slice_minimum_groups": 5}
        | ({} if "without_helmet" in classes else {"violation_class": None}),
        "train": {"seed": 0},
        "gate": {"selection": "validation"}  # nothing here can be trained again
        | {"resamples": 400, "minimum_test_groups": 10, "accuracy_floor": 0.7, "recall_floor": 0.5}
        | {"probes": {"head": None, "background": None, "zoom": None}},  # nothing here was probed
    }
    (root / "params.yaml").write_text(yaml.safe_dump(section, sort_keys=False))
    return table
