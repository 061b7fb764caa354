"""`plumbline tune`: the study goes on, the winner is written where it was asked for, and only there."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from recorded import backbone_json

from plumbline.commands import tune
from plumbline.common.errors import UserError
from plumbline.models import training

PARAMS = """\
candidates:
  one: {architecture: lenet5, backbone: pixels, learning_rate: 0.01} # kept
tune: {trials: 3, seed: 0}
train: {seed: 0}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Features of six pictures, and a training whose validation loss is the distance of the rate from 0.003."""
    folder = tmp_path / "build/features/pixels"
    folder.mkdir(parents=True)
    rows = [(f"{n}.png", f"id{n}", "ab"[n % 2], ("train", "validation", "test")[n % 3]) for n in range(6)]
    table = pd.DataFrame(rows, columns=["path", "id", "label", "split"])
    table.to_parquet(tmp_path / "build/splits.parquet", index=False)
    table[["path", "id"]].to_parquet(folder / "index.parquet", index=False)
    np.save(folder / "features.npy", np.zeros((6, 1, 32, 32, 3), np.uint8))
    (folder / "backbone.json").write_text(json.dumps(backbone_json()))
    (tmp_path / "params.yaml").write_text(PARAMS)

    def train(name, candidate, table, features, seed):
        history = pd.DataFrame({"val_loss": [abs(candidate.learning_rate - 0.003)], "val_accuracy": [0.9]})
        return training.Trained(None, history, None, None)

    monkeypatch.setattr(training, "train", train)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["plumbline tune", *arguments])
    tune.main()


@pytest.mark.slow
def test_the_winner_is_kept_beside_the_study_and_params_stay(project, monkeypatch, capsys):
    run(monkeypatch, "one")
    found = json.loads((project / "build/tune/one.json").read_text())
    assert found["trials"] == 3
    assert found["as_it_stood"]["val_loss"] == pytest.approx(0.007)
    assert found["best"]["val_loss"] <= found["as_it_stood"]["val_loss"]
    assert json.loads(capsys.readouterr().out) == found
    assert (project / "params.yaml").read_text() == PARAMS


@pytest.mark.slow
def test_writing_changes_the_entry_alone(project, monkeypatch, capsys):
    run(monkeypatch, "one", "--write", "--trials", "12")
    found = json.loads((project / "build/tune/one.json").read_text())
    written = yaml.safe_load((project / "params.yaml").read_text())
    assert found["best"]["val_loss"] < 0.007
    assert written["candidates"]["one"]["learning_rate"] == found["changes"]["learning_rate"]
    assert "candidates.one has the winning values" in capsys.readouterr().out
    assert {key: written[key] for key in ("tune", "train")} == {"tune": {"trials": 3, "seed": 0}, "train": {"seed": 0}}


def test_where_nothing_was_better_nothing_is_written(project, monkeypatch, capsys):
    run(monkeypatch, "one", "--write", "--trials", "1")
    assert "nothing was better than the entry as it stands" in capsys.readouterr().out
    assert (project / "params.yaml").read_text() == PARAMS


@pytest.mark.slow
def test_a_second_search_goes_on_with_the_study(project, monkeypatch):
    run(monkeypatch, "one")
    run(monkeypatch, "one", "--trials", "2")
    assert json.loads((project / "build/tune/one.json").read_text())["trials"] == 5


def test_no_such_candidate_and_no_trials_are_refused(project, monkeypatch, capsys):
    with pytest.raises(UserError, match=r"no section 'candidates\.nobody'"):
        run(monkeypatch, "nobody")
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "one", "--trials", "0")
    assert ended.value.code == 2
    assert "--trials: 1 or more" in capsys.readouterr().err


def test_before_a_first_run_it_says_what_is_missing(project, monkeypatch):
    (project / "build/splits.parquet").unlink()
    with pytest.raises(UserError, match=r"build/splits\.parquet is missing: run `dvc repro split`"):
        run(monkeypatch, "one")
