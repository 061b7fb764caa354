"""Three classes, and several labels at once: every stage of dvc.yaml from pictures to a promoted model."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import cv2
import networkx
import numpy as np
import pandas as pd
import pytest
import yaml
from dvc.repo import Repo
from typer.testing import CliRunner

from plumbline.cli import app
from plumbline.common.served import CHAMPION
from plumbline.registry import bundle
from plumbline.registry import versions as registry
from plumbline.registry.export import OnnxModel

TOP = Path(__file__).parent.parent
SIZE = 32
NETWORK = {
    "architecture": "lenet5",
    "backbone": "pixels",
    "epochs": 8,
    "batch_size": 16,
    "learning_rate": 0.003,
    "early_stopping_patience": 8,
}
HEADS = {"helmet": (240, 210, 30), "cap": (200, 40, 40), "bare": (60, 40, 30), "vest": (60, 40, 30)}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def draw(label: str, random: np.random.Generator) -> np.ndarray:
    """A head before clutter, its colour that of the headgear; a vest is an orange band below it."""
    clutter = random.integers(60, 190, (8, 8, 3)).astype(np.uint8)
    picture = cv2.resize(clutter, (64, 64), interpolation=cv2.INTER_NEAREST)
    names = label.split(";")
    cv2.circle(picture, (32, 22), 12, HEADS[names[0]], -1)
    if "vest" in names:
        picture[42:56, 8:56] = (250, 120, 0)
    return np.clip(picture + random.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def lay_out(root: Path, labels: list[str]) -> None:
    """A DVC project of the project's own dvc.yaml, small networks and 150 pictures, two of each photograph."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(150):
        label = labels[number // 2 % len(labels)]
        path = f"{label.split(';')[0]}/{number:04d}.png"
        (root / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "data" / path), draw(label, random)[:, :, ::-1])
        rows.append({"path": path, "label": label, "photo": f"photo {number // 2}"})
    pd.DataFrame(rows).to_csv(root / "data" / "metadata.csv", index=False)
    params = yaml.safe_load((TOP / "params.yaml").read_text())
    params |= {
        "backbones": {"pixels": {"image_size": SIZE}},
        "candidates": {"narrow": NETWORK, "wide": {**NETWORK, "width": 1.5}},
    }
    params["group"]["embedding"] = params["leakage"]["features"] = "pixels"
    params["leakage"]["repeats"] = params["train"]["folds"] = 2
    params["evaluate"] |= {"resamples": 300, "permutations": 100}
    params["gate"] |= {"resamples": 300, "minimum_test_groups": 5, "beat": []} | dict.fromkeys(
        ("accuracy_floor", "recall_floor", "false_alarm_ceiling", "calibration_tolerance", "slice_floor")
    )
    params["gate"] |= {"shortcut_auc": {}, "probes": {"background": None, "zoom": None, "head": None}}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shutil.copy(TOP / "dvc.yaml", root / "dvc.yaml")


def run_all(root: Path, monkeypatch: pytest.MonkeyPatch, but: tuple[str, ...] = ()) -> list[str]:
    """Every stage of dvc.yaml in DVC's order, in this process: that saves the imports of sixteen.

    `but`: modules of stages that are left out.
    """
    with Repo.init(str(root), no_scm=True) as repo:
        ordered = list(reversed(list(networkx.topological_sort(repo.index.graph))))
        commands = [stage.cmd.split() for stage in ordered if stage.cmd]
    ran = []
    for command in commands:
        _, _, module, *arguments = command
        if module == "plumbline.common.warm":
            module, arguments = f"stages.{arguments[0]}", arguments[1:]
        if module.removeprefix("stages.") in but:
            continue
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        importlib.import_module(module).main()
        ran.append(module.removeprefix("stages."))
    return ran


@pytest.mark.parametrize(
    ("labels", "several"),
    [(["bare", "cap", "helmet"], False), (["bare", "helmet", "vest", "helmet;vest"], True)],
    ids=["three classes", "several labels"],
)
def test_the_whole_pipeline_on_another_kind_of_labels(labels, several, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    lay_out(tmp_path, labels)
    # As README has it: the shipped settings name a class that these pictures don't have.
    fitted = CliRunner().invoke(app, ["init", "data", "--violation", "bare"])
    assert fitted.exit_code == 0, fitted.output
    ran = run_all(tmp_path, monkeypatch)
    assert ran.index("gate") < ran.index("promote") < ran.index("drift")
    assert {"disturb", "probe", "card", "ensemble", "evaluate", "gate", "leaderboard"} <= set(ran)
    classes = ["bare", "helmet", "vest"] if several else labels

    def read(name: str):
        return json.loads((tmp_path / "build" / name).read_text())

    evaluation, decision = read("evaluation.json"), read("decision.json")
    assert (evaluation["classes"], evaluation["several_labels"]) == (classes, several)
    assert set(evaluation["candidates"]) == {"narrow", "wide", "soft_vote", "stacking"}
    entry = evaluation["candidates"][decision["candidate"]]
    scores = entry["splits"]["test"]["scores"]
    assert {"f1_macro", "roc_auc", *(f"recall:{name}" for name in classes)} <= set(scores)
    assert ("label_accuracy" if several else "top_2") in scores
    assert scores["accuracy"]["value"] > 0.8
    assert len(entry["splits"]["test"]["confusion"]) == (3 if several else 1)
    assert 0 < entry["threshold"] < 1
    assert entry["probes"]["conditions"]["head covered"]["changed"]["value"] > 0.2
    predictions = pd.read_parquet(tmp_path / "build/candidates/wide/predictions.parquet").query("split == 'test'")
    p = predictions[[f"p_{name}" for name in classes]].to_numpy()
    assert np.allclose(p.sum(axis=1), 1) == (not several)
    if several:
        told = [{name for name, sure in zip(classes, row, strict=True) if sure > 0.5} for row in p]
        right = np.mean(
            [names == set(label.split(";")) for names, label in zip(told, predictions["label"], strict=True)]
        )
        wide = evaluation["candidates"]["wide"]["splits"]["test"]["scores"]
        assert wide["accuracy"]["value"] == pytest.approx(right)
        assert wide["label_accuracy"]["value"] >= right

    page = (tmp_path / "reports/leaderboard.html").read_text()
    assert ("label accuracy" if several else "top 2") in page
    assert "right in every label" in page if several else "right in every label" not in page
    assert (tmp_path / "reports/candidates/wide.html").is_file()
    assert decision["verdict"] == "PROMOTE", decision["reason"]
    assert read("promotion.json")["outcome"] == "promoted"

    opened = registry.open_registry(registry.MODEL, registry.registry_uri())
    version = registry.fetch(opened, registry.find(opened, CHAMPION))
    assert version.read("serving.json")["several_labels"] is several
    some = predictions.head(6)
    chosen = pd.read_parquet(version.folder / bundle.HOME / "predictions.parquet").set_index("path").loc[some["path"]]
    pictures = [cv2.imread(str(tmp_path / "data" / path))[:, :, ::-1] for path in some["path"]]
    small = [cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for picture in pictures]
    served, _ = OnnxModel(version.onnx).score(small)
    assert np.abs(served - chosen[[f"p_{name}" for name in classes]].to_numpy()).max() < 0.1


def test_a_published_split_is_kept_from_the_folders_to_the_decision(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    lay_out(tmp_path, ["bare", "helmet"])
    data = tmp_path / "data"
    table = pd.read_csv(data / "metadata.csv")
    side = ["Test" if int(photo.split()[1]) % 5 == 0 else "Train" for photo in table["photo"]]
    for folder, path in zip(side, table["path"], strict=True):
        (data / folder / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).rename(data / folder / path)
    table["path"] = [f"{folder}/{path}" for folder, path in zip(side, table["path"], strict=True)]
    table.to_csv(data / "metadata.csv", index=False)
    (data / "bare").rmdir()
    (data / "helmet").rmdir()
    tested = [path for path in table["path"] if path.startswith("Test/helmet")]
    cv2.imwrite(str(data / "Train/helmet/leak.jpg"), cv2.imread(str(data / tested[0])))
    shutil.copy(data / tested[1], data / "Train/helmet/same.png")
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params |= {"candidates": {"narrow": NETWORK}, "ensembles": {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    asked = ["init", "data", "--violation", "bare", "--published-split", "keep"]
    assert CliRunner().invoke(app, asked).exit_code == 0
    ran = run_all(tmp_path, monkeypatch, but=("card", "disturb", "probe", "promote", "drift", "leaderboard"))
    assert ran[-1] == "gate"
    splits = pd.read_parquet(tmp_path / "build/splits.parquet").set_index("path")["split"]
    assert set(splits[[path for path in table["path"] if path.startswith("Test/")]]) == {"test"}
    assert set(splits[[path for path in table["path"] if path.startswith("Train/")]]) == {"train", "validation"}
    aside = pd.read_csv(tmp_path / "build/set_aside.csv").set_index("path")["reason"]
    assert set(aside.index) == {"Train/helmet/leak.jpg", "Train/helmet/same.png"}
    assert tested[0] in aside["Train/helmet/leak.jpg"]
    assert tested[1] in aside["Train/helmet/same.png"]
    assert "2 image(s) set aside" in capsys.readouterr().out
    assert json.loads((tmp_path / "build/leakage.json").read_text())["pairs_across_splits"] == 0
    decision = json.loads((tmp_path / "build/decision.json").read_text())
    assert decision["candidate"] == "narrow"
    assert decision["verdict"] in ("PROMOTE", "HOLD", "REJECT")
