"""The detection pipeline from photographs to the certificate: detection/dvc.yaml as it stands, on a small set."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import networkx
import pandas as pd
import pytest
import yaml
from dvc.repo import Repo
from PIL import ImageDraw, ImageOps

from drawn import scene
from plumbline.common.errors import UserError

TOP = Path(__file__).parent.parent
DATA = ("weights", "ingest", "validate", "featurize", "group", "split", "leakage")
COLOURS = {"helmet": (240, 210, 30), "head": (60, 40, 30)}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def lay_out(root, classes=("helmet", "head")):
    """A DVC project with detection/ in it: 36 photographs, two re-published, one empty, a box outside in another."""
    inner = root / "detection"
    (inner / "data").mkdir(parents=True)
    for number in range(36):
        photograph = scene(number, (160, 120))
        lines = []
        for place in range(1 + number % 3 if number else 0):
            name = classes[(number + place) % len(classes)]
            x, y = 20 + 45 * place, 30 + number % 5 * 8
            ImageDraw.Draw(photograph).ellipse((x, y, x + 20, y + 24), fill=COLOURS[name])
            lines.append(
                f"{classes.index(name)} {(x + 10) / 160:.6f} {(y + 12) / 120:.6f} {20 / 160:.6f} {24 / 120:.6f}\n"
            )
        if number == 1:
            lines.append("0 0.99 0.5 0.3 0.2\n")
        photograph.save(inner / "data" / f"{number}.jpg", quality=90)
        (inner / "data" / f"{number}.txt").write_text("".join(lines))
        if number in (4, 5):
            ImageOps.mirror(photograph).save(inner / "data" / f"{number}_again.jpg", quality=70)
            mirrored = [line.split() for line in lines]
            text = "".join(" ".join([c, f"{1 - float(x):.6f}", *rest]) + "\n" for c, x, *rest in mirrored)
            (inner / "data" / f"{number}_again.txt").write_text(text)
    (inner / "data" / "obj.names").write_text("".join(f"{name}\n" for name in classes))
    params = yaml.safe_load((TOP / "detection" / "params.yaml").read_text())
    params["backbones"] = {"pixels": {"image_size": 32}}
    params["group"]["embedding"] = params["leakage"]["features"] = "pixels"
    params["leakage"]["repeats"] = 2
    params["validate"]["min_groups"] = 5
    params["evaluate"]["violation_class"] = "head" if "head" in classes else None
    (inner / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shutil.copy(TOP / "detection" / "dvc.yaml", inner / "dvc.yaml")
    return inner


def run_data(inner, monkeypatch):
    """The stages of data of the pipeline, in DVC's order, in this process."""
    monkeypatch.chdir(inner)
    with Repo.init(str(inner.parent), no_scm=True) as repo:
        ordered = list(reversed(list(networkx.topological_sort(repo.index.graph))))
        commands = [stage.cmd.split() for stage in ordered if stage.cmd]
    for _, _, module, *arguments in commands:
        name, *rest = arguments if module == "plumbline.common.warm" else [module.removeprefix("stages."), *arguments]
        if name in DATA:
            monkeypatch.setattr(sys, "argv", [name, *rest])
            importlib.import_module(f"stages.{name}").main()


def test_photographs_and_their_copies_go_through_every_stage_of_data(tmp_path, monkeypatch):
    inner = lay_out(tmp_path)
    run_data(inner, monkeypatch)
    boxes = pd.read_parquet(inner / "build" / "boxes.parquet")
    manifest = pd.read_parquet(inner / "build" / "manifest.parquet").set_index("path")
    assert len(manifest) == 38
    assert manifest.loc["0.jpg", ["label", "box_count"]].tolist() == ["background", 0]
    assert boxes.groupby("path").size().to_dict() == manifest["box_count"][manifest["box_count"] > 0].to_dict()
    quarantine = pd.read_csv(inner / "build" / "quarantine.csv")
    assert quarantine["path"].tolist() == ["1.jpg#2"]
    splits = pd.read_parquet(inner / "build" / "splits.parquet").set_index("path")
    assert splits.loc["4.jpg", "group"] == splits.loc["4_again.jpg", "group"]
    assert splits.loc["5.jpg", "split"] == splits.loc["5_again.jpg", "split"]
    found = boxes.merge(splits["split"], left_on="path", right_index=True)
    assert found.groupby("split")["label"].nunique().to_dict() == {"train": 2, "validation": 2, "test": 2}
    assert json.loads((inner / "build" / "leakage.json").read_text())["pairs_across_splits"] == 0
    assert "<rect class=" in (inner / "reports" / "validation" / "index.html").read_text()
    assert (inner / "memberships" / "seed-0.csv").is_file()


def test_photographs_of_one_class_only_go_as_far(tmp_path, monkeypatch):
    inner = lay_out(tmp_path, classes=("helmet",))
    run_data(inner, monkeypatch)
    assert set(pd.read_parquet(inner / "build" / "boxes.parquet")["label"]) == {"helmet"}
    assert pd.read_parquet(inner / "build" / "splits.parquet")["split"].nunique() == 3


def test_photographs_in_the_pipeline_of_crops_are_refused(tmp_path, monkeypatch):
    inner = lay_out(tmp_path)
    shutil.copy(TOP / "dvc.yaml", inner / "dvc.yaml")
    monkeypatch.chdir(inner)
    with pytest.raises(UserError, match=r"data\.task is detect, which is for the other pipeline"):
        importlib.import_module("stages.ingest").main()
