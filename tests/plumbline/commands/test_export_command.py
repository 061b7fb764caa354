"""`plumbline export`: champion, version or candidate in other formats, checked on its own pictures; what disagrees, or
is there already, is not written.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from benchmarks.tiny_project import CLASSES, NAME, SIZE, export_project, pictures, splits_table, write_project
from plumbline.commands import export as command
from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.files import write_json
from plumbline.models.export import OnnxModel
from plumbline.models.exports import open_saved_model, open_tflite
from plumbline.registry import bundle
from plumbline.registry import versions as registry

pytestmark = pytest.mark.slow

IMAGES = 60
CANDIDATE = str(artefacts.CANDIDATES / NAME)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project as `make run` leaves it: pictures, a candidate, and a champion in the registry."""
    root = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        paths = list(splits_table(IMAGES)["path"])
        for path, picture in zip(paths, pictures(paths), strict=True):
            file = root / "data" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
        (root / "params.yaml").write_text(yaml.safe_dump({"data": {"root": "data"}, "promote": {}}))
        write_project(root, images=IMAGES)
        export_project(root)
        opened = registry.open_registry()
        digest = bundle.seal(root / "exported")
        registry.register(opened, root / "exported", digest, "tiny", {}, {"accuracy": 0.9}, {"seed": "0"}, "A page.")
        opened.client.set_registered_model_alias("plumbline", "champion", "1")
    return root


@pytest.fixture
def project(made, monkeypatch, tmp_path):
    monkeypatch.chdir(made)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "out"


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
    command.main()


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def seen():
    """The test pictures, as they are on the disk."""
    table = splits_table(IMAGES)
    paths = list(table["path"][table["split"] == "test"])
    return paths, np.stack([np.asarray(Image.open(Path("data") / path)) for path in paths])


def test_the_champion_is_what_is_exported_and_each_format_says_what_is_served(project, monkeypatch, capsys):
    served = OnnxModel(registry.load_version().onnx)(seen()[1])[0]
    call(monkeypatch, "--format", "saved-model", "--to", project)
    said = capsys.readouterr().out
    assert said.startswith(f"{project}/plumbline/1: version 1 of plumbline as saved-model; the same class on 12 of 12 ")
    assert (project / "plumbline/1/saved_model.pb").is_file(), "MODEL/VERSION/, as TensorFlow Serving watches it"
    np.testing.assert_allclose(open_saved_model(project / "plumbline/1")(seen()[1]), served, atol=1e-4)
    told = json.loads((project / "plumbline/1/assets.extra/plumbline.json").read_text())
    assert (told["model"], told["version"], told["classes"]) == ("plumbline", 1, CLASSES)
    assert (told["threshold"], told["temperature"], told["preprocessing"]["image_size"]) == (0.4, 1.0, SIZE)
    assert told["agreement"]["most"] <= told["tolerance"]["most"] == 1e-4
    call(monkeypatch, "champion", "--format", "tflite", "--to", project)
    np.testing.assert_allclose(open_tflite(project / "plumbline_1.tflite")(seen()[1]), served, atol=1e-4)
    call(monkeypatch, 1, "--format", "tflite-int8", "--to", project)
    assert " as tflite-int8; the same class on 1" in capsys.readouterr().out
    file = project / "plumbline_1_int8.tflite"
    assert 0 < np.abs(open_tflite(file)(seen()[1]) - served).mean() < 0.05
    told = json.loads(file.with_suffix(".json").read_text())
    assert (told["calibration_pictures"], told["sha256"]) == (16, command.file_digest(file))
    assert "int8 within" in told["holds"]


def test_a_candidates_folder_says_what_its_stage_predicted(project):
    paths, shown = seen()
    table = pd.read_parquet(f"{CANDIDATE}/predictions.parquet").set_index("path").loc[paths]
    subject = command.subject_of(CANDIDATE)
    for number in (1, 2):
        path, agreement = command.export(subject, "saved-model", project)
        assert (path, agreement.same) == (project / NAME / str(number), agreement.pictures), (
            "the next, as Serving counts"
        )
    np.testing.assert_allclose(open_saved_model(path)(shown), table[[f"p_{name}" for name in CLASSES]], atol=1e-4)
    told = json.loads((path / "assets.extra/plumbline.json").read_text())
    assert (told["candidate"], told["temperature"]) == (NAME, None)
    assert command.export(subject, "tflite", project)[0] == project / f"{NAME}.tflite"


@pytest.mark.parametrize(("kind", "name"), [("saved-model", "plumbline/1"), ("tflite", "plumbline_1.tflite")])
def test_what_is_there_already_is_left_as_it_is(project, kind, name):
    there = project / name / "mine" if kind == "saved-model" else project / name
    there.parent.mkdir(parents=True)
    there.write_text("mine")
    with pytest.raises(UserError, match=rf"{name} exists already and is left as it is: remove it, or .* --to"):
        command.export(command.subject_of("champion"), kind, project)
    assert files(project) == {there.relative_to(project).as_posix(): b"mine"}


@pytest.mark.parametrize("kind", ["saved-model", "tflite", "tflite-int8"])
def test_what_disagrees_is_not_left(project, monkeypatch, kind):
    for opening in ("open_saved_model", "open_tflite"):
        monkeypatch.setattr(command, opening, lambda _: lambda pictures: np.full((len(pictures), 2), 0.5))
    with pytest.raises(UserError, match=rf"version 1 of plumbline can't be exported as {kind}: it disagrees"):
        command.export(command.subject_of("champion"), kind, project)
    assert files(project) == {}


def test_a_kill_while_it_is_checked_leaves_nothing_under_its_name(project, monkeypatch):
    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "open_saved_model", killed)
    with pytest.raises(KeyboardInterrupt):
        command.export(command.subject_of("champion"), "saved-model", project)
    assert files(project) == {}


def test_what_can_not_be_exported_is_refused_by_name(project, tmp_path, monkeypatch):
    copy = tmp_path / "tiny_int8"
    shutil.copytree(CANDIDATE, copy)
    record = json.loads((copy / artefacts.MODEL).read_text())
    of = {"of": NAME, "how": "int8", "recipe": "int8", "bytes": 1, "original_bytes": 4}
    write_json(copy / artefacts.MODEL, record | {"compressed": of})
    with pytest.raises(UserError, match=rf"tiny_int8 is a compressed model, which is ONNX alone: .*{CANDIDATE}; for"):
        command.subject_of(str(copy))
    write_json(copy / artefacts.MODEL, record | {"status": "diverged"})
    with pytest.raises(UserError, match=r"tiny_int8 can't be exported: .* its training diverged"):
        command.subject_of(str(copy))
    with pytest.raises(UserError, match=r"^nobody is no candidate's folder \(it holds no model\.json\): give one"):
        command.subject_of("nobody")
    with pytest.raises(UserError, match="has no version '7' of model 'plumbline': `plumbline history` lists"):
        command.subject_of("7")
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump({"data": {"root": "data"}, "promote": {}}))
    with pytest.raises(UserError, match=r"There is no registry at .* promote a model first"):
        command.subject_of("champion")
    Path("params.yaml").write_text(yaml.safe_dump({"data": {"root": "data", "task": "detect"}}))
    with pytest.raises(UserError, match="detectors are ONNX alone"):
        command.subject_of("champion")


def test_a_registry_without_a_champion(made, tmp_path, monkeypatch):
    for name in ("registry", "params.yaml"):
        (shutil.copytree if name == "registry" else shutil.copy)(made / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    registry.open_registry().client.delete_registered_model_alias("plumbline", "champion")
    with pytest.raises(UserError, match="has no version 'champion' of model 'plumbline'"):
        command.subject_of("champion")


def test_pictures_that_are_missing_or_too_few(made, project, tmp_path, monkeypatch):
    subject = command.subject_of("1")
    few = subject.table[subject.table["split"] != "train"]
    with pytest.raises(UserError, match=r"version 1 of plumbline can't be calibrated: .* makes 0, and 16 are needed"):
        command.export(replace(subject, table=few), "tflite-int8", project)
    none = subject.table[subject.table["split"] == "train"]
    with pytest.raises(UserError, match="has no validation picture to check an export with"):
        command.export(replace(subject, table=none), "tflite", project)
    for name in ("registry", "params.yaml"):
        (shutil.copytree if name == "registry" else shutil.copy)(made / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"can't be checked on its own pictures \(data/.*png.*\); those of an older"):
        command.export(command.subject_of("1"), "tflite", project)
    assert not project.exists()
