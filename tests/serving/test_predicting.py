"""`plumbline predict` in this process: which files, which rows, and what a run that was killed leaves."""

import hashlib
import os
import sys

import numpy as np
import pandas as pd
import pytest
from brightness import TEMPERATURE, encoded, grey, in_a_registry, p_bright, write_version

from plumbline.common import cluster
from plumbline.common.errors import UserError
from plumbline.registry import bundle
from serving import predict as command
from serving import predicting
from serving.predicting import Part, Scoring, pictures_in, predict
from serving.settings import Limits, ServingParams

ODD = os.fsdecode(b"caf\xe9.png")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    (root / "gate 1").mkdir(parents=True)
    (root / "gate 1" / "a.PNG").write_bytes(encoded(grey(255)))
    (root / "b.png").write_bytes(encoded(grey(200)))
    (root / "torn.jpg").write_bytes(b"no picture")
    (root / "large.png").write_bytes(bytes(5001))
    (root / ODD).write_bytes(encoded(grey(0)))
    (root / "notes.txt").write_bytes(b"text")
    (root / ".hidden.png").write_bytes(b"x")
    (root / "link.png").symlink_to("/etc/passwd")
    return root


@pytest.fixture
def champion(tmp_path):
    """Settings and the registry's address."""
    digest = write_version(tmp_path / "version")
    uri = in_a_registry(tmp_path / "mlflow.db", tmp_path / "version", digest)
    return ServingParams(state=tmp_path / "served", limits=Limits(picture_bytes=5000)), uri


def test_pictures_by_name_in_order_and_no_links(folder, tmp_path):
    assert pictures_in(folder) == sorted(["b.png", ODD, "gate 1/a.PNG", "large.png", "torn.jpg"])
    for wrong in (tmp_path / "nothing", folder / "b.png"):
        with pytest.raises(UserError, match="is no folder"):
            pictures_in(wrong)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no picture"):
        pictures_in(tmp_path / "empty")


def test_a_row_for_each_file_with_its_answer_or_its_problem(folder, tmp_path, champion, capsys):
    output = tmp_path / "out.parquet"
    assert predict(folder, output, champion[0], "plumbline", champion[1]) == (5, 2)
    table = pd.read_parquet(output).set_index("path")
    assert sorted(table.index) == sorted(["b.png", "caf\\udce9.png", "gate 1/a.PNG", "large.png", "torn.jpg"])
    for path, value in (("gate 1/a.PNG", 255), ("b.png", 200), ("caf\\udce9.png", 0)):
        row = table.loc[path]
        assert row["p_bright"] == pytest.approx(p_bright(value, TEMPERATURE), abs=1e-5)
        assert (row["label"], row["version"]) == ("bright" if value > 128 else "dark", 7)
        assert pd.isna(row["problem"])
    assert table.loc["b.png", "id"] == hashlib.sha256((folder / "b.png").read_bytes()).hexdigest()
    assert "5,000 bytes of serving.limits.picture_bytes" in table.loc["large.png", "problem"]
    assert pd.isna(table.loc["torn.jpg", ["label", "confidence", "p_bright"]]).all()
    assert not output.with_name("out.parquet.parts").exists()


def test_a_picture_that_goes_away_meanwhile_has_a_row_that_says_so(folder, tmp_path, champion, monkeypatch):
    known = pictures_in(folder)
    (folder / "b.png").unlink()
    monkeypatch.setattr(predicting, "pictures_in", lambda folder: known)
    output = tmp_path / "out.parquet"
    assert predict(folder, output, champion[0], "plumbline", champion[1]) == (5, 3)
    assert "No such file" in pd.read_parquet(output).set_index("path").loc["b.png", "problem"]


def test_parts_that_are_done_are_not_done_again_unless_something_changed(
    folder, tmp_path, champion, monkeypatch, capsys
):
    monkeypatch.setattr(predicting, "PART", 2)
    output = tmp_path / "out.parquet"
    write = predicting.replacing

    def killed(path):
        if path == output:
            raise KeyboardInterrupt
        return write(path)

    monkeypatch.setattr(predicting, "replacing", killed)
    with pytest.raises(KeyboardInterrupt):
        predict(folder, output, champion[0], "plumbline", champion[1])
    monkeypatch.setattr(predicting, "replacing", write)
    parts = output.with_name("out.parquet.parts")
    assert sorted(path.name for path in parts.glob("*.parquet")) == [f"{n:06d}.parquet" for n in range(3)]
    (parts / "000001.parquet").unlink()
    predict(folder, output, champion[0], "plumbline", champion[1])
    assert "2 of 3 parts were done before" in capsys.readouterr().err
    whole = pd.read_parquet(output)
    monkeypatch.setattr(predicting, "replacing", killed)
    with pytest.raises(KeyboardInterrupt):
        predict(folder, output, champion[0], "plumbline", champion[1])
    monkeypatch.setattr(predicting, "replacing", write)
    (folder / "b.png").write_bytes(encoded(grey(10)))
    predict(folder, output, champion[0], "plumbline", champion[1])
    assert "begun anew" in capsys.readouterr().err
    changed = pd.read_parquet(output).set_index("path")
    assert changed.loc["b.png", "label"] == "dark" != whole.set_index("path").loc["b.png", "label"]


def test_a_part_is_known_by_all_that_its_answers_depend_on(folder, tmp_path):
    write_version(tmp_path / "version")
    onnx = tmp_path / "version" / bundle.ONNX
    work = Scoring("code", cluster.share(onnx, "models"), 5000, 10_000, 32)
    part = Part(str(folder), ["b.png", "torn.jpg", "gate 1/a.PNG"])
    found = work.compute(part)
    assert found["good"].tolist() == [0, 2]
    assert found["probabilities"][:, 1] == pytest.approx([p_bright(200), p_bright(255)], abs=1e-5)
    assert found["embeddings"].tolist() == [[200] * 3, [255] * 3]
    assert [bool(text) for text in found["problems"]] == [False, True, False]
    keys = {work.key(part), work.key(Part(str(folder), ["b.png"]))}
    keys.add(Scoring("other", cluster.share(onnx, "models"), 5000, 10_000, 32).key(part))
    keys.add(Scoring("code", cluster.SharedFile(str(onnx), "0" * 64, None), 5000, 10_000, 32).key(part))
    (folder / "b.png").write_bytes(encoded(grey(201)))
    keys.add(work.key(part))
    assert len(keys) == 5


def test_another_model_than_the_runs_is_not_scored_with(folder, tmp_path):
    write_version(tmp_path / "version")
    other = cluster.SharedFile(str(tmp_path / "version" / bundle.ONNX), "0" * 64, None)
    work = Scoring("code", other, 5000, 10_000, 32)
    with pytest.raises(UserError, match="is not the model of this run"):
        work.compute(Part(str(folder), ["b.png"]))


def test_the_last_known_champion_answers_where_the_registry_is_down(folder, tmp_path, champion, capsys):
    params, uri = champion
    with pytest.raises(UserError, match="There is no registry"):
        predicting.champion(params, "plumbline", f"sqlite:///{tmp_path}/other.db")
    role, served = predicting.champion(params, "plumbline", uri)
    assert (role.version, served.classes) == (7, ("dark", "bright"))
    from serving.shelf import Roles, Shelf

    Shelf(params.state).write_roles(Roles(champion=role))
    assert predicting.champion(params, "plumbline", f"sqlite:///{tmp_path}/other.db")[0] == role
    assert "Version 7, the last known here, answers." in capsys.readouterr().err


def test_the_command(folder, tmp_path, champion, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", champion[1])
    (tmp_path / "params.yaml").write_text("serving: {limits: {picture_bytes: 5000}}\n")
    monkeypatch.setattr(sys, "argv", ["predict", str(folder), "out.parquet"])
    command.main()
    assert capsys.readouterr().out == "out.parquet: 5 pictures, 2 of them could not be read (column problem)\n"
    assert np.isfinite(pd.read_parquet("out.parquet")["confidence"]).sum() == 3
    monkeypatch.setattr(sys, "argv", ["predict", str(folder), "out.csv"])
    with pytest.raises(UserError, match=r"out.csv is no \.parquet"):
        command.main()
