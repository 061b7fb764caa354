"""Who is asked about more pictures, when it ends, and that no fold is trained for twice."""

from __future__ import annotations

import functools
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from recorded import model_json
from test_train import draw, read, split_table

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.evidence.calibration import fit_temperature
from plumbline.evidence.candidates import TrainedCandidate
from plumbline.evidence.intervals import draw_groups
from plumbline.evidence.race import (
    Answers,
    Entrant,
    Terms,
    all_folds,
    disturbing,
    is_settled,
    race,
    validation_alone,
    within_budget,
)
from plumbline.evidence.unseen import Unseen
from plumbline.models import folds as folds_module
from plumbline.models.backbones import Backbone, resolve_entry
from plumbline.models.extraction import featurize
from plumbline.models.folds import count_folds, folds_of
from plumbline.models.records import MemberRecord, ModelRecord, WeightsRecord
from stages import race as stage
from stages import train as train_stage
from stages.race import backbones_of, entrant

PICTURES = 100  # in validation and in each fold, a group each


class Track:
    """Candidates that err on pictures given by number; remembers who was asked about how many folds.

    Those of `fail` have no answer from so many folds on.
    """

    def __init__(self, *wrong: list[int], folds: int = 5, fail: dict[str, int] | None = None) -> None:
        self.fail = fail or {}
        self.right = np.full((len(wrong), PICTURES * (folds + 1)), True)
        for place, errors in enumerate(wrong):
            self.right[place, errors] = False
        self.asked: list[tuple[int, str]] = []

    def entrants(self, *seconds: float) -> list[Entrant]:
        seconds = seconds or (1.0,) * len(self.right)
        return [Entrant(f"m{n}", (n,), {f"m{n}": seconds[n]}) for n in range(len(self.right))]

    def look(self, names: list[str], folds: int) -> Answers:
        self.asked.append((folds, " ".join(names)))
        failed = {name: f"{name} broke" for name in names if folds >= self.fail.get(name, 99)}
        places = [int(name[1:]) for name in names if name not in failed]
        right = self.right[places, : PICTURES * (folds + 1)]
        groups = right.shape[1]
        return Answers(right, 0.1 * ~right, np.arange(groups), draw_groups(groups, 500, 0), failed)


def terms(folds: int = 5, minutes: float = 100.0) -> Terms:
    return Terms(folds=folds, minutes=minutes, margin=0.01, confidence=0.9, level=0.05)


def test_what_validation_tells_apart_is_asked_about_nothing_more():
    track = Track([*range(60)], [*range(60)], [])
    found = race(track.entrants(), track.look, terms())
    assert track.asked == [(0, "m0 m1 m2")]
    assert (found.ended, found.folds, found.finalists) == ("settled", 0, ["m2"])
    assert set(found.left) == {"m0", "m1"}
    assert found.left["m0"].startswith("at least ")
    assert found.left["m0"].endswith("points less accurate than m2")
    assert found.why == "Selected on validation alone: its 100 groups tell the candidates apart."


def test_those_in_question_alone_are_asked_until_they_are_told_apart():
    worse = [n for n in range(600) if n % 12 == 0]  # 8 points behind, everywhere: seen with a few folds
    track = Track([*range(60)], worse, [599])
    found = race(track.entrants(), track.look, terms())
    assert track.asked[0] == (0, "m0 m1 m2")
    assert {names for _, names in track.asked[1:]} == {"m1 m2"}
    assert (found.ended, found.finalists) == ("settled", ["m2"])
    assert 1 <= found.folds < 5
    assert [one.folds for one in found.rounds] == list(range(found.folds + 1))
    assert found.rounds[-1].groups == PICTURES * (found.folds + 1)
    assert found.why.startswith("2 of 3 candidates could not be told apart on validation (100 groups)")
    assert "until they were told apart; 1 stayed in question." in found.why


def test_the_last_fold_ends_it():
    track = Track([0, 1, 2], [3, 4], [5])
    found = race(track.entrants(), track.look, terms(folds=2))
    assert (found.ended, found.folds, found.finalists) == ("folds", 2, ["m0", "m1", "m2"])
    assert found.left == {}


def test_the_budget_halves_the_field_and_the_less_accurate_stay_behind():
    track = Track([0, 1, 2, 3], [4, 5, 6], [7, 8], [9])
    found = race(track.entrants(), track.look, terms(minutes=6 / 60))
    # A fold for four takes 4 seconds, and for the next 2 are left: for the better half.
    assert track.asked == [(0, "m0 m1 m2 m3"), (1, "m0 m1 m2 m3"), (2, "m2 m3")]
    assert (found.ended, found.folds, found.finalists) == ("minutes", 2, ["m2", "m3"])
    assert "train.minutes" in found.left["m0"]
    assert "until 0.1 minutes (train.minutes) did not pay for another" in found.why


def test_without_time_for_two_validation_selects_and_the_page_says_so():
    track = Track([0, 1], [2])
    found = race(track.entrants(50, 20), track.look, terms(minutes=1))
    assert track.asked == [(0, "m0 m1")]
    assert (found.ended, found.folds, found.finalists) == ("minutes", 0, ["m0", "m1"])
    assert found.why == (
        "Selected on validation alone (100 groups): 2 of 2 candidates could not be told apart on validation, but 1 "
        "minutes (train.minutes) don't pay for a fold of two of them."
    )


def test_who_is_asked_for_itself_and_as_a_member_is_paid_for_once():
    ensemble = Entrant("e", (9,), {"a": 3.0, "b": 4.0})
    alone = Entrant("a", (1,), {"a": 3.0})
    answers = Track([0], [1]).look(["m0", "m1"], 0)
    assert within_budget([alone, ensemble], answers, 7.0) == [alone, ensemble]
    assert within_budget([alone, ensemble], answers, 6.9) == []


def test_a_costlier_candidate_leaves_when_it_is_worse_a_simpler_one_when_it_is_too_much_worse():
    """Both lack 2.5 points for sure at these many pictures; within a margin of 5 the simpler may still be chosen."""
    errors = [n for n in range(6000) if n % 40 == 0]
    right = np.full((3, 6000), True)
    right[0, errors] = right[2, errors] = False
    answers = Answers(right, 0.1 * ~right, np.arange(6000), draw_groups(6000, 200, 0))
    track = [Entrant(f"m{n}", (n,), {f"m{n}": 1.0}) for n in range(3)]
    wide = Terms(folds=0, minutes=1, margin=0.05, confidence=0.9, level=0.05)
    found = race(track, lambda names, _: answers.of([int(name[1:]) for name in names]), wide)
    assert list(found.left) == ["m2"]
    assert found.finalists == ["m0", "m1"]
    assert is_settled(track[:2], answers.of([0, 1]), wide)
    narrow = Terms(folds=0, minutes=1, margin=0.01, confidence=0.9, level=0.05)
    found = race(track, lambda names, _: answers.of([int(name[1:]) for name in names]), narrow)
    assert found.finalists == ["m1"]


def test_without_a_race_everybody_is_a_finalist():
    track = Track([*range(60)], [])
    found = validation_alone(track.entrants(), track.look, terms())
    assert (found.ended, found.folds, found.finalists) == ("validation", 0, ["m0", "m1"])
    found = all_folds(track.entrants(), track.look, terms(minutes=0))
    assert (found.ended, found.folds, found.finalists) == ("cross_validation", 5, ["m0", "m1"])
    assert found.rounds[0].groups == 600
    assert "as gate.selection asks" in found.why


def test_who_fails_to_answer_leaves_with_the_reason_and_the_others_go_on():
    track = Track([0, 1, 2], [3, 4], [5], fail={"m1": 1})
    found = race(track.entrants(), track.look, terms(folds=2))
    assert track.asked == [(0, "m0 m1 m2"), (1, "m0 m1 m2"), (2, "m0 m2")]
    assert (found.ended, found.finalists, found.failed) == ("folds", ["m0", "m2"], ["m1"])
    assert found.left == {"m1": "m1 broke"}
    assert found.rounds[1].in_question == ["m0", "m2"]
    assert found.why.endswith("2 stayed in question. m1 could not be asked: m1 broke.")
    whole = race(track.entrants(), Track([0, 1, 2], [3, 4], [5]).look, terms(folds=2))
    assert "failed" not in whole.content(), "where nobody failed the file is what it always was"
    every = all_folds(track.entrants(), track.look, terms())
    assert (every.finalists, every.left, every.failed) == (["m0", "m2"], {"m1": "m1 broke"}, ["m1"])


def test_where_all_in_question_fail_those_who_were_sent_home_race_without_them():
    """m1 and m2 are surely better than m0 on validation, but neither can be asked about a fold."""
    track = Track([*range(60)], [0, 1], [2], fail={"m1": 1, "m2": 1})
    found = race(track.entrants(), track.look, terms())
    assert track.asked == [(0, "m0 m1 m2"), (1, "m1 m2"), (0, "m0")]
    assert (found.finalists, found.failed) == (["m0"], ["m1", "m2"])
    assert found.left == {"m1": "m1 broke", "m2": "m2 broke"}
    broken = Track([0], [1], fail={"m0": 1, "m1": 1})
    for run in (race, all_folds):
        with pytest.raises(UserError, match=r"m0 broke; m1 broke.*or set gate\.selection: validation"):
            run(broken.entrants(), broken.look, terms())


def test_folds_are_whole_groups_of_training_pictures_with_every_class():
    splits = split_table(400).assign(group=[f"g{n // 4}" for n in range(400)])
    splits["split"] = ["train" if n // 4 % 5 < 3 else "validation" if n // 4 % 5 == 3 else "test" for n in range(400)]
    part = folds_of(splits, 5, 0)
    assert count_folds(part) == 5
    assert set(part[splits["split"] != "train"]) == {-1}
    of_train = splits.assign(part=part)[part >= 0]
    assert (of_train.groupby("group")["part"].nunique() == 1).all()
    assert (of_train.groupby("part")["label"].nunique() == 2).all()
    np.testing.assert_array_equal(part, folds_of(splits, 5, 0))
    other = splits.assign(label=splits["label"].where(splits["split"] != "test", "with_helmet"))
    np.testing.assert_array_equal(part, folds_of(other, 5, 0))


@pytest.mark.parametrize(("groups", "folds"), [(9, 5), (3, 3), (2, 2), (1, 0), (0, 0)])
def test_too_few_groups_of_a_class_make_fewer_folds_or_none(groups, folds):
    splits = split_table(200)
    rare = splits["label"] == "without_helmet"
    splits["group"] = [f"r{n // 2 % max(groups, 1)}" if one else f"g{n}" for n, one in enumerate(rare)]
    splits["split"] = "train" if groups else "validation"
    part = folds_of(splits, 5, 0)
    assert count_folds(part) == folds
    for number in range(folds):
        assert splits["label"][part != number].nunique() == 2, "every class is left to be learnt"


def test_folds_of_pictures_with_several_labels():
    labels = ["a;b", "a", "b", "a;c", "b;c", "c"] * 20
    splits = pd.DataFrame({"label": labels, "split": "train", "group": [f"g{n // 2}" for n in range(120)]})
    assert count_folds(folds_of(splits, 5, 0)) == 5


def scored(table: pd.DataFrame, seed: int, skill: float = 2.0) -> pd.DataFrame:
    score = (
        np.random.default_rng(seed).normal(size=len(table)) + skill * (table["label"] == "without_helmet") - skill / 2
    )
    p = 1 / (1 + np.exp(-score))
    return table.assign(p_with_helmet=1 - p, p_without_helmet=p)


def test_an_ensemble_says_of_a_fold_what_its_members_say_together():
    splits = split_table(120).sort_values("path", ignore_index=True)
    names = ["a", "b"]
    described = {"classes": ["with_helmet", "without_helmet"]}
    members = [{"name": name, "backbone": "pixels"} for name in names]
    records = {name: ModelRecord(**model_json(candidate=name, **described)) for name in names}
    records["e"] = ModelRecord(**model_json(candidate="e", architecture="soft_vote", members=members, **described))
    tables = {name: scored(splits, seed) for seed, name in enumerate(records)}
    found = {name: TrainedCandidate(name, record, pd.DataFrame(), tables[name]) for name, record in records.items()}
    fold = splits[splits["split"] == "train"][:20]
    asked = []

    def ask(name: str, number: int) -> pd.DataFrame:
        asked.append((name, number))
        return scored(fold, 10 + names.index(name))

    unseen = Unseen(found, ask, 200, 0)
    alone = unseen.table("e", 0)
    assert set(alone["split"]) == {"validation"}
    own = tables["e"][splits["split"] == "validation"]
    np.testing.assert_array_equal(alone["p_with_helmet"], own["p_with_helmet"])
    table = unseen.table("e", 1)
    assert asked == [("a", 0), ("b", 0)]
    assert sorted(table["path"]) == sorted([*alone["path"], *fold["path"]])
    both = [unseen.table(name, 1)["p_without_helmet"] for name in names]
    np.testing.assert_allclose(table["p_without_helmet"], np.mean(both, axis=0))
    answers = unseen.answers(["a", "e"], 1)
    assert answers.right.shape == (2, len(table))
    temperature = fit_temperature(*found["a"].sample("validation").decisions)
    np.testing.assert_allclose(answers.brier[0], unseen.sample("a", 1).scaled(temperature).brier)
    assert len(asked) == 2, "a table is made once"


HEAD = {"architecture": "transfer", "backbone": "mobilenet", "batch_size": 32, "epochs": 3, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with two candidates trained and raced over two folds, as DVC's stages leave it."""
    root = tmp_path_factory.mktemp("race")
    splits = split_table(120)
    random = np.random.default_rng(0)
    images = {path: draw(label, random) for path, label in zip(splits["path"], splits["label"], strict=True)}
    entry = Backbone(image_size=32, weights="random", pooling="average")
    candidates = {"a": {**HEAD, "head": {}}, "b": {**HEAD, "head": {"hidden": [8]}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        reader = functools.partial(read, images)
        featurize(
            splits, reader, "mobilenet", entry, resolve_entry("mobilenet", entry), root / "build/features/mobilenet"
        )
        splits.to_parquet("build/splits.parquet", index=False)
        write_params(candidates)
        for name in candidates:
            train_candidate(patch, name)
        stage.main()
    return root


def write_params(candidates, **gate):
    sections = {
        "candidates": candidates,
        "train": {"seed": 0, "folds": 2, "minutes": 10},
        "gate": {"resamples": 200, "maximum_latency_ms": None, **gate},
    }
    Path("params.yaml").write_text(yaml.safe_dump(sections))


def train_candidate(patch, name):
    patch.setattr("sys.argv", ["train", name])
    train_stage.main()


@pytest.fixture
def project(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def race_json():
    return json.loads((artefacts.RACE / artefacts.RACE_RECORD).read_text())


def files():
    return sorted(path.name for path in artefacts.FOLDS.path.iterdir())


def run_again(capsys) -> tuple[int, int]:
    """Run the stage; how many folds were asked, and how many of them trained for."""
    capsys.readouterr()
    stage.main()
    asked, trained_for = re.search(r"(\d+) folds asked, (\d+) of them trained for", capsys.readouterr().err).groups()
    return int(asked), int(trained_for)


def test_a_worthless_backbone_is_disturbed_only_for_a_finalist():
    def told(requested, origin, stands):
        weights = WeightsRecord(backbone="b", requested=requested, origin=origin, file=None, sha256=None)
        return disturbing(weights, stands).not_measured

    assert told("auto", "random", False).startswith("its backbone's weights are random for want of others")
    for one in (("auto", "random", True), ("random", "random", False), ("auto", "imagenet", False)):
        assert told(*one) is None, one


@pytest.mark.slow
def test_the_race_says_of_every_backbone_whether_it_is_disturbed(project, capsys):
    told = artefacts.RACE / artefacts.DISTURB / "mobilenet.json"
    assert json.loads(told.read_text()) == {"not_measured": None}
    nobody = artefacts.FEATURES / "inception_v3" / artefacts.BACKBONE
    nobody.parent.mkdir()
    record = json.loads((artefacts.FEATURES / "mobilenet" / artefacts.BACKBONE).read_text())
    weights = {**record["weights"], "requested": "auto", "origin": "random"}
    nobody.write_text(json.dumps({**record, "backbone": "inception_v3", "weights": weights}))
    stage.main()
    assert "not probed: candidates on inception_v3: random weights" in capsys.readouterr().out
    assert "no candidate on it is still in question" in told.with_name("inception_v3.json").read_text()
    assert json.loads(told.read_text()) == {"not_measured": None}


def test_an_ensemble_stands_on_its_members_backbones():
    members = (MemberRecord(name="a", backbone="vgg16"), MemberRecord(name="b", backbone="pixels"))
    both = TrainedCandidate("m", SimpleNamespace(members=members, backbone=""), pd.DataFrame(), pd.DataFrame())
    assert backbones_of(both) == {"vgg16", "pixels"}


@pytest.mark.slow
def test_finalists_answer_for_pictures_that_they_never_saw(project):
    found = race_json()
    assert (found["ended"], found["finalists"], found["folds"]) == ("folds", ["a", "b"], 2)
    splits = pd.read_parquet("build/splits.parquet")
    seen = splits[splits["split"] != "test"]
    for name in "ab":
        table = pd.read_parquet(f"build/race/{name}.parquet")
        assert sorted(table["path"]) == sorted(seen["path"])
        own = pd.read_parquet(f"build/candidates/{name}/predictions.parquet").set_index("path").loc[table["path"]]
        same = table["p_with_helmet"].to_numpy() == own["p_with_helmet"].to_numpy()
        assert same[table["split"] == "validation"].all(), "the model that will serve answers for validation"
        assert not same[table["split"] == "train"].any(), "one that never saw them for the training pictures"


@pytest.mark.slow
def test_folds_are_trained_for_once_and_a_new_candidate_costs_its_own(project, monkeypatch, capsys):
    first, record = files(), race_json()
    assert len(first) == 4
    assert run_again(capsys) == (4, 0)
    assert (files(), race_json()) == (first, record)
    params = yaml.safe_load(Path("params.yaml").read_text())
    write_params({**params["candidates"], "c": {**HEAD, "head": {"hidden": [4]}}})
    train_candidate(monkeypatch, "c")
    asked, trained_for = run_again(capsys)
    assert trained_for == asked - len(set(files()) & set(first)) == sum(name.startswith("c-") for name in files())
    assert trained_for in (0, 1, 2)
    write_params(params["candidates"], selection="validation")
    assert run_again(capsys) == (0, 0)
    assert (race_json()["ended"], files()) == ("validation", [])


@pytest.mark.slow
def test_a_fold_depends_on_all_that_it_was_trained_on_and_on_no_test_picture(project, capsys):
    first = files()
    splits = pd.read_parquet("build/splits.parquet")
    for name in "ab":
        table = pd.read_parquet(f"build/candidates/{name}/predictions.parquet")
        table.loc[table["split"] == "test", "label"] = "with_helmet"
        table.to_parquet(f"build/candidates/{name}/predictions.parquet", index=False)
    splits.loc[splits["split"] == "test", "label"] = "with_helmet"
    splits.to_parquet("build/splits.parquet", index=False)
    assert run_again(capsys) == (4, 0)
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["candidates"]["a"]["learning_rate"] = 0.02
    write_params(params["candidates"])
    _, trained_for = run_again(capsys)
    assert trained_for == sum(name not in first for name in files()) > 0
    assert all(name.startswith("a-") for name in files() if name not in first)


@pytest.mark.slow
def test_what_a_kill_or_a_damaged_file_leaves_is_taken_up(project, monkeypatch, capsys):
    first = files()
    honest, calls = folds_module.train, []

    def killed(*arguments, **named):
        calls.append(arguments[0])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return honest(*arguments, **named)

    for name in first[:2]:
        (artefacts.FOLDS / name).unlink()
    record = race_json()
    monkeypatch.setattr(folds_module, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        stage.main()
    assert len(files()) == 3
    assert race_json() == record, "the last result stays until there is another"
    monkeypatch.setattr(folds_module, "train", honest)
    (artefacts.FOLDS / first[3]).write_bytes(b"torn")
    stage.main()
    said = capsys.readouterr().err
    assert f"build/folds/{first[3]} is damaged" in said
    assert len(re.findall(r"race: 2 candidates on validation and \d of 2 folds: \d trainings in \d+ s", said)) <= 2
    assert "epochs in" not in said, "a line for a round, not for each of its trainings"
    assert "4 folds asked, 2 of them trained for" in said
    assert (files(), race_json()) == (first, record)


@pytest.mark.slow
def test_machines_share_folds_by_way_of_a_store(project, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PLUMBLINE_STORE", str(tmp_path / "store"))
    first = files()
    (artefacts.FOLDS / first[0]).unlink()
    assert run_again(capsys) == (4, 1)
    (artefacts.FOLDS / first[0]).unlink()
    assert run_again(capsys) == (4, 0)
    assert files() == first


@pytest.mark.slow
def test_a_candidate_that_may_not_stand_is_not_raced(project):
    params = yaml.safe_load(Path("params.yaml").read_text())
    sizes = {name: json.loads(Path(f"build/candidates/{name}/model.json").read_text())["parameters"] for name in "ab"}
    write_params(params["candidates"], maximum_parameters=sizes["a"])
    stage.main()
    found = race_json()
    assert (found["finalists"], found["folds"]) == (["a"], 0)
    assert files() == []


@pytest.mark.slow
def test_params_of_before_are_refused_by_name(project):
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("folds: 2", "folds: null"))
    with pytest.raises(UserError, match=r"params.yaml.*train.*folds"):
        stage.main()


def test_where_no_training_time_is_known_no_fold_is_asked_for_and_the_page_says_why():
    model = SimpleNamespace(parameters=3, members=(), compressed=None, settings={})
    candidate = TrainedCandidate("m0", model, pd.DataFrame(), pd.DataFrame())
    assert entrant(candidate, {"m0": candidate}, 5).seconds == {"m0": math.inf}
    slow = replace(candidate, name="m1", seconds=10.0)
    assert entrant(candidate, {"m0": candidate, "m1": slow}, 5).seconds == {"m0": 8.0}
    track = Track([0, 1], [2])
    found = race(track.entrants(math.inf, math.inf), track.look, terms(minutes=1000))
    assert track.asked == [(0, "m0 m1")]
    assert (found.ended, found.folds, found.finalists) == ("unmeasured", 0, ["m0", "m1"])
    assert "no candidate's training time is known (cost.json)" in found.why


def test_a_fold_of_a_copy_or_a_student_takes_what_comes_before_it_too():
    def one(name, seconds, of=None, **settings):
        compressed = of and SimpleNamespace(of=of)
        model = SimpleNamespace(parameters=3, members=(), compressed=compressed, settings=settings)
        return TrainedCandidate(name, model, pd.DataFrame(), pd.DataFrame(), seconds=seconds)

    known = {name: one(name, *rest) for name, *rest in (("a", 10.0), ("a_int8", 5.0, "a"))}
    known["pupil"] = one("pupil", 20.0, teacher="a")
    assert entrant(known["a_int8"], known, 5).seconds == {"a_int8": 12.0}
    assert entrant(known["pupil"], known, 5).seconds == {"pupil": 24.0}


class Broken:
    """What is done to a copy's original, which fails with an error of some library."""

    key = ("broken",)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def answers(self, network, table):
        raise self.error


def copy_that_breaks(monkeypatch, error: Exception) -> None:
    """Let candidate b be a copy of a that can't be made again without a fold."""
    file = Path("build/candidates/b/model.json")
    made = {"of": "a", "how": "int8", "recipe": "int8", "bytes": 1, "original_bytes": 4}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"compressed": made}))
    monkeypatch.setattr(stage, "after_training", lambda *_: Broken(error))


@pytest.mark.slow
def test_a_copy_that_cannot_be_made_without_a_fold_leaves_and_the_race_goes_on(project, monkeypatch, capsys):
    copy_that_breaks(monkeypatch, ValueError("no kernel for Conv\nat line 3"))
    asked, trained_for = run_again(capsys)
    found = race_json()
    reason = "b without fold 1 of 2: its copy could not be made again (no kernel for Conv)"
    assert (found["finalists"], found["left"], found["failed"]) == (["a"], {"b": reason}, ["b"])
    assert (asked, trained_for) == (2, 1)
    assert not Path("build/race/b.parquet").exists()
    assert all(name.startswith("a-") for name in files()), "no answer is kept of what failed"
    stage.main()
    said = capsys.readouterr()
    assert f"race: b leaves: {reason}" in said.err
    assert f"b could not be asked: {reason}." in said.out


def test_a_full_disk_is_no_copys_fault_and_stops_the_race(project, monkeypatch):
    copy_that_breaks(monkeypatch, OSError(28, "No space left on device"))
    before = race_json()
    with pytest.raises(OSError, match="No space left"):
        stage.main()
    assert race_json() == before
