"""The stages of detectors, one after the other on a few drawn photographs."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from plumbline.common.errors import UserError
from plumbline.common.records import read_record, write_record
from plumbline.evidence.detection import DetectionEvidence
from plumbline.evidence.records import Decision
from plumbline.models.backbones import Backbone, record_entry, resolve_entry
from plumbline.models.detector_training import load_detector
from plumbline.models.scene_maps import open_maps
from stages import detection, detector, judge, maps

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
    "gate": {"minimum_test_groups": 40},
}
CERTIFICATE = {
    "pairs_across_splits": 0, "pairs": [], "images": 12, "groups": 12, "sides": {}, "set_aside": [], "group_sizes": [],
    "kinds": [], "closest_apart": [], "embeddings": "none", "price": None, "price_sentence": "not measured",
}  # fmt: skip
SPLITS = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3


@pytest.fixture
def project(tmp_path, monkeypatch):
    """What the stages before leave: photographs with a bright square each, but for the last, which is empty."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    (tmp_path / "build/weights").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (tmp_path / "data/obj.names").write_text("helmet\nhead\n")
    rows, boxes = [], []
    for number, split in enumerate(SPLITS):
        path = f"{number:02}.png"
        pixels = random.integers(0, 80, (48, 64, 3)).astype(np.uint8)
        text = ""
        if number < 11:
            pixels[12:36, 16:48] = 250
            text = f"{number % 2} 0.5 0.5 0.5 0.5\n"
            boxes.append((path, ["helmet", "head"][number % 2], 0.25, 0.25, 0.75, 0.75))
        Image.fromarray(pixels).save(tmp_path / "data" / path)
        (tmp_path / f"data/{number:02}.txt").write_text(text)
        identity = hashlib.sha256((tmp_path / "data" / path).read_bytes()).hexdigest()
        rows.append((path, identity, 64, 48, f"g{number}", split))
    table = pd.DataFrame(rows, columns=["path", "id", "width", "height", "group", "split"])
    table[["path", "id", "width", "height"]].to_parquet("build/manifest.parquet")
    table[["path", "id", "group", "split"]].to_parquet("build/splits.parquet")
    pd.DataFrame(boxes, columns=["path", "label", "left", "top", "right", "bottom"]).to_parquet("build/boxes.parquet")
    entry = Backbone(image_size=64)
    write_record("build/weights/pixels.json", record_entry("pixels", entry, resolve_entry("pixels", entry)))
    return tmp_path


def call(monkeypatch, stage, *arguments):
    monkeypatch.setattr("sys.argv", [stage.__name__, *arguments])
    stage.main()


@pytest.mark.slow
def test_from_photographs_to_the_page(project, monkeypatch, capsys):
    call(monkeypatch, maps, "pixels_64")
    stored = open_maps(project / "build/maps/pixels_64")
    assert stored.values.shape == (12, 2, 64, 64, 3)
    assert stored.values[0, 0].max() == 250
    call(monkeypatch, detector, "grid")
    found = pd.read_parquet("build/detectors/grid/detections.parquet")
    assert list(found) == ["path", "split", "label", "score", "left", "top", "right", "bottom"]
    assert set(found["split"]) <= {"train", "validation", "test"}
    network, _, record, _ = load_detector(project / "build/detectors/grid", project / "build/maps/pixels_64")
    assert (record.classes, record.photographs, record.boxes) == (("head", "helmet"), 6, 6)
    assert network.count_params() == record.parameters
    assert json.loads((project / "build/detectors/grid/cost.json").read_text())["latency_ms"] > 0
    call(monkeypatch, detection)
    evidence = read_record("build/detection.json", DetectionEvidence)
    assert (evidence.best, evidence.missing) == ("grid", ("later",))
    assert evidence.detectors["grid"].splits["test"].photographs == 3
    assert "grid finds boxes best" in (project / "reports/detection.html").read_text()
    assert "later: no result in build/detectors/later" in capsys.readouterr().out
    (project / "build/leakage.json").write_text(json.dumps(CERTIFICATE))
    call(monkeypatch, judge)
    decision = read_record("build/detection_decision.json", Decision)
    assert decision.verdict in ("HOLD", "REJECT"), "three test groups are too few for anything"
    assert "test groups" in capsys.readouterr().out


def test_without_a_detector_there_is_nothing_to_say(project, monkeypatch):
    with pytest.raises(UserError, match="holds no trained detector"):
        call(monkeypatch, detection)


def test_maps_of_a_backbone_that_is_not_there_are_refused(project, monkeypatch):
    wrong = {**PARAMS, "maps": {"pixels_64": {"backbone": "other", "image_size": 64}}}
    (project / "params.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(UserError, match=r"backbones\.other"):
        call(monkeypatch, maps, "pixels_64")


def test_a_detector_without_its_maps_says_what_makes_them(project, monkeypatch):
    with pytest.raises(UserError, match="maps@pixels_64"):
        call(monkeypatch, detector, "grid")
