"""What the stages of data leave of a few drawn photographs, for the tests of detectors."""

import hashlib
import json

import numpy as np
import pandas as pd
import yaml
from brightest import write_network
from PIL import Image

from plumbline.common.records import write_record
from plumbline.models.backbones import Backbone, record_entry, resolve_entry
from plumbline.registry import bundle

PARAMS = {
    "data": {"task": "detect"},
    "backbones": {"pixels": {"image_size": 64}},
    "maps": {"pixels_64": {"backbone": "pixels", "image_size": 64, "views": 1}},
    "train": {"seed": 0},
    "detectors": {
        "grid": {"architecture": "yolo_grid", "maps": "pixels_64", "width": 0.1, "epochs": 1, "batch_size": 4},
        "later": {"architecture": "se_resnet50_two_head", "maps": "pixels_64"},
    },
    "evaluate": {"violation_class": "head", "resamples": 100},
    "systems": {"classifier": None},
    "price": {"maps": "pixels_64", "repeats": 1, "resamples": 100},
    "gate": {"minimum_test_groups": 40},
    "promote": {"model": "helmet-detector", "minimum_unseen_groups": 2, "place": {"commit": "any"}},
}
CERTIFICATE = {
    "pairs_across_splits": 0, "pairs": [], "images": 12, "groups": 12, "sides": {}, "set_aside": [], "group_sizes": [],
    "kinds": [], "closest_apart": [], "embeddings": "none", "price": None, "price_sentence": "not measured",
}  # fmt: skip
SPLITS = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
CLASSES = ["helmet", "head"]
BRIGHTNESS = (250, 90)
"""Of a helmet and of a head."""


def write_scenes(root):
    """Twelve photographs with a square each, bright for a helmet and dark for a head; the last is empty."""
    random = np.random.default_rng(0)
    (root / "data").mkdir()
    (root / "build/weights").mkdir(parents=True)
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (root / "data/obj.names").write_text("helmet\nhead\n")
    (root / "build/leakage.json").write_text(json.dumps(CERTIFICATE))
    rows, boxes = [], []
    for number, split in enumerate(SPLITS):
        path = f"{number:02}.png"
        pixels = random.integers(0, 60, (48, 64, 3)).astype(np.uint8)
        text = ""
        if number < 11:
            pixels[12:36, 16:48] = BRIGHTNESS[number % 2]
            text = f"{number % 2} 0.5 0.5 0.5 0.5\n"
            boxes.append((path, CLASSES[number % 2], 0.25, 0.25, 0.75, 0.75))
        Image.fromarray(pixels).save(root / "data" / path)
        (root / f"data/{number:02}.txt").write_text(text)
        identity = hashlib.sha256((root / "data" / path).read_bytes()).hexdigest()
        rows.append((path, identity, 64, 48, f"g{number}", split, CLASSES[number % 2]))
    table = pd.DataFrame(rows, columns=["path", "id", "width", "height", "group", "split", "label"])
    table[["path", "id", "label", "width", "height"]].to_parquet(root / "build/manifest.parquet")
    table[["path", "id", "label", "group", "split"]].to_parquet(root / "build/splits.parquet")
    table = pd.DataFrame(boxes, columns=["path", "label", "left", "top", "right", "bottom"])
    table.to_parquet(root / "build/boxes.parquet")
    entry = Backbone(image_size=64)
    write_record(root / "build/weights/pixels.json", record_entry("pixels", entry, resolve_entry("pixels", entry)))


def settings(root, **sections):
    """Change sections of params.yaml."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump({**params, **sections}))


def write_classifier(folder, classes=("without_helmet", "with_helmet")):
    """A sealed version that calls bright crops helmets; return its digest."""
    (folder / "plumbline").mkdir(parents=True)
    write_network(folder / bundle.ONNX)
    serving = {"candidate": "brightness", "classes": list(classes), "temperature": 1.0, "threshold": 0.5}
    (folder / "plumbline/serving.json").write_text(json.dumps(serving))
    (folder / "plumbline/model.json").write_text(json.dumps({"parameters": 2}))
    return bundle.seal(folder)


def call(monkeypatch, stage, *arguments):
    """Run a stage as `python -m` would."""
    monkeypatch.setattr("sys.argv", [stage.__name__, *arguments])
    stage.main()
