"""`plumbline export`: a candidate in other formats, checked on its own pictures; what disagrees is not left."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from recorded import backbone_json

from plumbline.commands import export as command
from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.models.exports import ask_saved_model, ask_tflite
from stages import train as train_stage

pytestmark = pytest.mark.slow

SIDE, COUNT = 32, 80
SETTINGS = {"architecture": "compact_cnn", "backbone": "pixels", "width": 0.125, "epochs": 6, "batch_size": 8,
            "learning_rate": 0.01, "early_stopping_patience": 9}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project whose candidate tells bright above from bright below, as the stages leave it."""
    root = tmp_path_factory.mktemp("export")
    above = np.arange(COUNT) % 2 == 0
    values = np.random.default_rng(0).integers(0, 90, (COUNT, 1, SIDE, SIDE, 3)).astype(np.uint8)
    values[above, :, : SIDE // 2] += 120
    values[~above, :, SIDE // 2 :] += 120
    labels = np.where(above, "above", "below")
    paths = [f"{label}/{n:02d}.png" for n, label in enumerate(labels)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for path, picture in zip(paths, values[:, 0], strict=True):
            file = root / "data" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
        folder = artefacts.FEATURES / "pixels"
        folder.mkdir(parents=True)
        np.save(folder / artefacts.VALUES, values)
        table = pd.DataFrame({"path": paths, "id": paths, "label": labels, "group": paths})
        table[["path", "id"]].to_parquet(folder / artefacts.INDEX)
        (folder / artefacts.BACKBONE).write_text(json.dumps(backbone_json(image_size=SIDE, shape=[SIDE, SIDE, 3])))
        split = np.array(["train", "train", "train", "validation", "test"])[np.arange(COUNT) // 2 % 5]
        table.assign(split=split).to_parquet(artefacts.SPLITS.path)
        sections = {"candidates": {"small": SETTINGS}, "train": {"seed": 0}, "data": {"root": "data"}}
        (root / "params.yaml").write_text(yaml.safe_dump(sections))
        patch.setattr("sys.argv", ["train", "small"])
        train_stage.main()
    return root


@pytest.fixture
def project(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(trained)
    return trained, artefacts.CANDIDATES / "small", tmp_path / "out"


def said_by(folder, paths):
    table = pd.read_parquet(folder / artefacts.PREDICTIONS).set_index("path").loc[paths]
    return table[["p_above", "p_below"]].to_numpy()


def test_each_format_says_what_the_stage_predicted(project):
    root, folder, out = project
    table = pd.read_parquet(folder / artefacts.PREDICTIONS)
    paths = list(table["path"][table["split"] == "test"])
    seen = np.stack([np.asarray(Image.open(root / "data" / path)) for path in paths])
    path, agreement = command.export(folder, "saved-model", out)
    assert path == out / "small" / "1"
    assert agreement.pictures == (table["split"] == "validation").sum()
    np.testing.assert_allclose(ask_saved_model(path, seen), said_by(folder, paths), atol=1e-4)
    told = json.loads((path / "assets.extra/plumbline.json").read_text())
    assert (told["classes"], told["input"]["side"]) == (["above", "below"], SIDE)
    assert told["agreement"]["most"] <= told["tolerance"]["most"] == 1e-4
    assert command.export(folder, "saved-model", out)[0] == out / "small" / "2", "the next version, as Serving counts"
    path, _ = command.export(folder, "tflite", out)
    np.testing.assert_allclose(ask_tflite(path, seen), said_by(folder, paths), atol=1e-4)
    path, agreement = command.export(folder, "tflite-int8", out)
    assert (path.name, agreement.mean > 0) == ("small_int8.tflite", True)
    assert np.abs(ask_tflite(path, seen) - said_by(folder, paths)).mean() < 0.05
    assert json.loads(path.with_suffix(".json").read_text())["format"] == "tflite-int8"


@pytest.mark.parametrize("kind", ["saved-model", "tflite", "tflite-int8"])
def test_what_disagrees_is_not_left(project, monkeypatch, kind):
    _, folder, out = project
    for asking in ("ask_saved_model", "ask_tflite"):
        monkeypatch.setattr(command, asking, lambda _, pictures: np.full((len(pictures), 2), 0.5))
    with pytest.raises(UserError, match=rf"small can't be exported as {kind}: its prob.* differ .* take another"):
        command.export(folder, kind, out)
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_a_compressed_candidate_and_a_folder_that_is_none_are_refused(project, tmp_path):
    _, folder, out = project
    copy = tmp_path / "small_int8"
    copy.mkdir()
    made = {"of": "small", "how": "int8", "recipe": "int8", "bytes": 1, "original_bytes": 4}
    record = json.loads((folder / artefacts.MODEL).read_text())
    (copy / artefacts.MODEL).write_text(json.dumps(record | {"compressed": made}))
    with pytest.raises(UserError, match="holds a compressed candidate, which is ONNX alone: export small"):
        command.export(copy, "tflite", out)
    with pytest.raises(UserError, match=r"nobody/model\.json is missing"):
        command.export(artefacts.CANDIDATES / "nobody", "tflite", out)


def test_the_command_says_where_it_wrote_and_how_near_it_is(project, monkeypatch, capsys):
    _, folder, out = project
    monkeypatch.setattr(sys, "argv", ["export", str(folder), "--format", "tflite", "--to", str(out)])
    command.main()
    assert f"{out}/small.tflite: differs from small by at most " in capsys.readouterr().out
