"""Tuning looks at validation pictures only, starts from the entry as it stands, and writes back nothing else."""

import optuna
import pandas as pd
import pytest
import yaml
from recorded import backbone_json

from plumbline.common.errors import UserError
from plumbline.models import training
from plumbline.models.candidates import Candidate, Head
from plumbline.models.features import Features
from plumbline.models.records import BackboneRecord
from plumbline.models.search import (
    as_it_stands,
    changed,
    open_study,
    propose,
    search,
    starting_point,
    study_key,
    write_back,
)

PARAMS = """\
# kept
shared:
  pooled: &pooled {architecture: transfer, head: {}, epochs: 100}

candidates:
  # kept too
  one: {<<: *pooled, backbone: b}
  two: # about two
    architecture: lenet5
    backbone: p

  three: {<<: *pooled, backbone: b, learning_rate: 0.5}

gate: {alpha: 0.05} # and this
"""


def features(shape=(8,), views=0):
    import numpy as np

    return Features(
        np.zeros((4, 1 + views, *shape)), pd.DataFrame(), BackboneRecord(**backbone_json(backbone="b")), None
    )


def splits():
    rows = [(f"{n}.png", "ab"[n % 2], ("train", "validation", "test")[n % 3]) for n in range(30)]
    return pd.DataFrame(rows, columns=["path", "label", "split"])


@pytest.fixture
def trained(monkeypatch):
    """A train stage whose validation loss is how far the learning rate is from 0.003; notes what it was shown."""
    seen = []

    def train(name, candidate, table, features, seed):
        seen.append((candidate, set(table["split"])))
        loss = abs(candidate.learning_rate - 0.003)
        history = pd.DataFrame({"val_loss": [1.0, loss], "val_accuracy": [0.1, 0.9]})
        return training.Trained(None, history, None, None)

    monkeypatch.setattr(training, "train", train)
    return seen


TRANSFER = Candidate(architecture="transfer", backbone="b", head=Head(hidden=(128,)), learning_rate=0.01)


def run(trials=8, candidate=TRANSFER, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    return search("x", candidate, splits(), features(), study, trials, 0, say=lambda text: None), study


def test_the_test_pictures_are_never_shown(trained):
    run()
    assert {split for _, shown in trained for split in shown} == {"train", "validation"}


def test_it_starts_from_the_entry_and_finds_better(trained):
    changes, study = run()
    first = trained[0][0]
    assert (first.learning_rate, first.head.hidden) == (0.01, (128,))
    assert study.best_value < study.trials[0].value
    assert changes["learning_rate"] == pytest.approx(study.best_trial.params["learning_rate"], rel=0.005)
    assert study.best_trial.user_attrs["val_accuracy"] == 0.9


def test_the_same_seed_searches_the_same_way(trained):
    assert run()[0] == run()[0]


def test_a_search_goes_on_with_other_trials(trained, tmp_path):
    for _ in range(2):
        study = open_study("x", "key", 0, tmp_path)
        search("x", TRANSFER, splits(), features(), study, 4, 0, say=lambda text: None)
    assert len({str(trial.params) for trial in study.trials}) == 8


def test_a_killed_first_trial_is_tried_again(trained, monkeypatch, tmp_path):
    def killed(*arguments):
        raise KeyboardInterrupt

    study = open_study("x", "key", 0, tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(training, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            search("x", TRANSFER, splits(), features(), study, 4, 0)
    study = open_study("x", "key", 0, tmp_path)
    search("x", TRANSFER, splits(), features(), study, 1, 0, say=lambda text: None)
    first = as_it_stands(study, optuna.trial.TrialState.COMPLETE)
    assert first.params["learning_rate"] == TRANSFER.learning_rate


TUNED = [
    TRANSFER,
    Candidate(architecture="transfer", backbone="b", head=Head(hidden=(96, 7), dropout=0.8), batch_size=24),
    Candidate(architecture="transfer", backbone="b", head=Head(hidden=(64,), pooling="attention"), augmented=True),
    Candidate(architecture="custom_cnn", backbone="p", width=0.5),
    Candidate(architecture="custom_cnn", backbone="p", width=0.3, brightness=0.7, learning_rate=0.5),
    Candidate(architecture="triplet", backbone="b", batch_size=5),
]


@pytest.mark.parametrize("candidate", TUNED)
@pytest.mark.parametrize("shape", [(8,), (4, 4, 8)])
@pytest.mark.filterwarnings("error")
def test_every_proposal_is_a_valid_candidate_and_the_first_is_the_entry_as_it_stands(candidate, shape):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(starting_point(candidate))
    for number in range(20):
        trial = study.ask()
        proposal = changed(candidate, propose(trial, candidate, features(shape, views=2)))
        study.tell(trial, 1.0)
        if number == 0:
            assert proposal == candidate


@pytest.mark.parametrize("candidate", TUNED)
def test_a_proposed_number_reads_well_and_is_the_one_that_is_trained_with_and_written(candidate):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    own = {value for value in starting_point(candidate).values() if isinstance(value, float)}
    for _ in range(20):
        proposal = propose(study.ask(), candidate, features(views=2))
        flat = {**proposal, **proposal.get("head", {})}
        numbers = {name: value for name, value in flat.items() if isinstance(value, float) and value not in own}
        assert "learning_rate" in numbers
        for value in numbers.values():
            assert len(f"{value:e}".partition("e")[0].replace(".", "").rstrip("0")) <= 3, value
        trained = changed(candidate, proposal)
        written = yaml.safe_load(write_back(PARAMS, "two", proposal))["candidates"]["two"]
        assert written["learning_rate"] == trained.learning_rate
        assert written.get("brightness", trained.brightness) == trained.brightness


def test_another_split_is_another_study():
    key = study_key(TRANSFER, splits(), features(), 0)
    assert key == study_key(TRANSFER, splits(), features(), 0)
    assert key != study_key(TRANSFER, splits().assign(split="train"), features(), 0)
    assert key != study_key(TRANSFER.model_copy(update={"epochs": 3}), splits(), features(), 0)


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_writing_back_changes_one_entry_and_no_comment(name):
    written = write_back(PARAMS, name, {"learning_rate": 0.002, "head": {"hidden": [128]}})
    before, after = yaml.safe_load(PARAMS), yaml.safe_load(written)
    assert after["candidates"][name] == before["candidates"][name] | {"learning_rate": 0.002, "head": {"hidden": [128]}}
    after["candidates"][name] = before["candidates"][name]
    assert after == before
    for comment in ("# kept\n", "# kept too\n", "# and this\n"):
        assert comment in written


def test_an_entry_that_others_build_on_is_not_rewritten():
    text = "candidates:\n  base: &base {architecture: lenet5}\n  other: {<<: *base, backbone: p}\n"
    with pytest.raises(UserError, match=r"candidates\.base could not be rewritten safely"):
        write_back(text, "base", {"epochs": 3})
    with pytest.raises(UserError, match=r"candidates\.nobody was not found"):
        write_back(text, "nobody", {})
