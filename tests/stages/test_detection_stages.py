"""The stages of detectors, one after the other on a few drawn photographs."""

import json

import pandas as pd
import pytest
import yaml
from few_scenes import PARAMS, call, settings, write_classifier, write_scenes

from plumbline.common.errors import UserError
from plumbline.common.records import read_record
from plumbline.evidence.detection import DetectionEvidence
from plumbline.evidence.records import Decision
from plumbline.evidence.systems import SystemsEvidence, SystemsParams
from plumbline.models.detector_training import load_detector
from plumbline.models.scene_maps import open_maps
from plumbline.registry import versions as registry
from plumbline.registry.promotion import PromoteParams, history, rollback
from plumbline.registry.second_stage import find_classifier
from stages import classifier, context, detection, detector, judge, maps, page, price, promote, systems

ALLOWED = {
    "context_floor": None,
    "map50_floor": None, "recall_floor": None, "false_alarm_ceiling": None, "minimum_test_groups": None,
    "maximum_latency_ms": None,
}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """What the stages before leave."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    write_scenes(tmp_path)
    return tmp_path


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
    assert "later: no result in build/detectors/later" in capsys.readouterr().out
    for stage in (classifier, systems, context, price):
        call(monkeypatch, stage)
    call(monkeypatch, judge)
    decision = read_record("build/detection_decision.json", Decision)
    assert decision.verdict in ("HOLD", "REJECT"), "three test groups are too few for anything"
    assert "test groups" in capsys.readouterr().out
    (project / "build/place.json").write_text("{}")
    call(monkeypatch, promote)
    assert "refused: The gate said" in capsys.readouterr().out
    call(monkeypatch, page)
    assert "grid alone finds boxes best" in (project / "reports/detection.html").read_text()
    promotes_and_rolls_back(project, monkeypatch)
    judges_with_the_classifier(project, monkeypatch)


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


def champion():
    opened = registry.open_registry("helmet-detector")
    found = registry.find(opened, "champion")
    return None if found is None else int(found.version)


def promotes_and_rolls_back(project, monkeypatch):
    """A second detector, from another seed, takes the place of the first, and gives it back."""
    settings(project, gate=ALLOWED, promote={**PARAMS["promote"], "minimum_unseen_groups": 4})
    call(monkeypatch, judge)
    call(monkeypatch, promote)
    call(monkeypatch, promote)
    assert champion() == 1
    first = registry.load_version("champion", "helmet-detector")
    assert first.tags["system"] == "detector"
    assert first.read("serving.json")["suppression"]["kind"] == "hard"
    assert json.loads((project / "build/promotion.json").read_text())["outcome"] == "unchanged"
    settings(project, train={"seed": 1})
    for stage in ((detector, "grid"), (detection,), (systems,), (context,), (judge,), (promote,)):
        call(monkeypatch, *stage)
    refused = json.loads((project / "build/promotion.json").read_text())
    assert refused["reason"].startswith("HOLD: only 3 groups of test images are unseen by champion version 1")
    settings(project, promote=PARAMS["promote"])
    call(monkeypatch, promote)
    promoted = json.loads((project / "build/promotion.json").read_text())
    assert (promoted["outcome"], promoted["champion"], promoted["comparison"]["images"]) == ("promoted", 2, 3)
    names = [rule["name"] for rule in promoted["comparison"]["rules"]]
    assert names == ["no worse than the champion: mAP50", "no worse than the champion: alarms for head"]
    params = PromoteParams(model="helmet-detector")
    rollback(params, None, "sees helmets in hats", False)
    assert champion() == 1
    told = "\n".join(history(params))
    assert "version 2 previous: grid, mAP50" in told or "version 2 once champion: grid, mAP50" in told
    assert "sees helmets in hats" in told


def judges_with_the_classifier(project, monkeypatch):
    """With a classifier that knows the classes for certain the system of both is the better, and is promoted."""
    write_classifier(project / "classifier")
    params = {"classifier": str(project / "classifier"), "least_score": 0.0}
    settings(project, systems=params)
    call(monkeypatch, classifier)
    # What an untrained detector finds is none of the squares: boxes around them, of one class and the other.
    boxes = pd.read_parquet("build/boxes.parquet").merge(pd.read_parquet("build/splits.parquet")[["path", "split"]])
    found = pd.concat([boxes.assign(label=label, score=score) for label, score in (("head", 0.8), ("helmet", 0.7))])
    columns = ["path", "split", "label", "score", "left", "top", "right", "bottom"]
    found[columns].to_parquet("build/detectors/grid/detections.parquet")
    for stage in (detection, systems, context, judge):
        call(monkeypatch, stage)
    evidence = read_record("build/systems/systems.json", SystemsEvidence)
    assert (evidence.system, evidence.why_not) == ("detector+classifier", None)
    assert evidence.judged["grid"].splits["test"].map50.value == pytest.approx(1.0)
    assert read_record("build/detection.json", DetectionEvidence).detectors["grid"].splits["test"].map50.value < 1
    assert evidence.margins == {"grid": 0.0}, "of equals the first"
    assert evidence.same_false_alarms["grid"]["test"]["detector+classifier"].value == 1
    assert read_record("build/detection_decision.json", Decision).system == "detector+classifier"
    call(monkeypatch, promote)
    reason = json.loads((project / "build/promotion.json").read_text())["reason"]
    assert reason.startswith("These weights are version 2, rolled back because: sees helmets in hats.")
    call(monkeypatch, promote, "--force", "--reason", "for a test")
    version = registry.load_version("champion", "helmet-detector")
    assert version.read("serving.json")["system"] == "detector+classifier"
    assert (version.folder / "plumbline/classifier/model.onnx").is_file()
    call(monkeypatch, page)
    text = (project / "reports/detection.html").read_text()
    assert "PROMOTED BY FORCE" in text
    assert "for a test" in text
    assert f"grid with {project / 'classifier'} judging each head" in text


def test_a_classifier_that_is_missing_is_said_and_nothing_passes(project):
    found = find_classifier(SystemsParams())
    assert "has no champion of model 'plumbline'" in found.why_not
    assert "is no version's folder" in find_classifier(SystemsParams(classifier="nowhere")).why_not
    assert find_classifier(SystemsParams(classifier=None)).why_not is None
