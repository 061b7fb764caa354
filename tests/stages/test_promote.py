"""Promote, refuse, roll back, look back: on a project of random pictures and a real, tiny registry."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.tiny_project import CLASSES, NAME, SIZE, pictures, whole_project
from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import file_digest
from plumbline.common.records import read_record, write_record
from plumbline.common.served import ServedAs
from plumbline.evidence.records import Rule
from plumbline.models.export import OnnxModel, export_onnx, with_embedding
from plumbline.models.quantisation import halve
from plumbline.models.records import CompressedRecord, ModelRecord
from plumbline.registry import bundle, folder, promotion
from plumbline.registry import history as journal
from plumbline.registry import versions as registry
from plumbline.registry.champion import champion_predictions, unseen_pictures
from plumbline.registry.chosen import read_chosen, read_decision, weights_digest
from plumbline.registry.promotion import PromoteParams, Wish, history, judge_comparison, parse, promote, rollback
from plumbline.registry.records import Compared, by_force, still_forced
from plumbline.registry.trial import ServedVerdict, Trial, keep_verdict
from stages import promote as stage

pytestmark = pytest.mark.slow

PARAMS = PromoteParams(minimum_unseen_groups=3)


@pytest.fixture(scope="module", autouse=True)
def _converted_once():
    """The same weights are converted to ONNX once; each promotion checks the file against its network all the same."""
    convert, kept = folder.export_onnx, {}

    def once(model, path, fit="stretch"):
        key = (fit, *(weight.tobytes() for weight in model.get_weights()))
        if key not in kept:
            convert(model, path, fit)
            kept[key] = path.read_bytes()
        path.write_bytes(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "export_onnx", once)
        yield


@pytest.fixture
def project(tiny_projects, empty_registry):
    """A function that lays a candidate with a verdict on it into the folder of an empty registry."""
    return lambda name, verdict="PROMOTE": lay(tiny_projects / name, empty_registry, verdict)


def lay(candidate, root, verdict):
    shutil.rmtree(root / "build", ignore_errors=True)
    shutil.copytree(candidate / "build", root / "build")
    decision = json.loads((root / "build" / "decision.json").read_text())
    decision["verdict"] = verdict
    for rule in decision["rules"]:
        rule["passed"] = verdict == "PROMOTE"
    (root / "build" / "decision.json").write_text(json.dumps(decision))
    return whole_project(root)


def champion():
    return registry.number(registry.find(registry.open_registry(), "champion"))


def previous():
    return registry.number(registry.find(registry.open_registry(), "previous"))


def versions():
    return len(registry.open_registry().client.search_model_versions("name = 'plumbline'"))


def log():
    return [
        (entry.action, entry.outcome, entry.champion_after)
        for entry in journal.entries(registry.open_registry())
        if entry.outcome != "begun"
    ]


def test_the_first_that_passes_becomes_champion_and_carries_everything(project):
    result = promote(PARAMS, Wish(), project("good"))
    assert (result.outcome, result.champion, result.champion_before) == ("promoted", 1, None)
    version = registry.load_version()
    files = {path.relative_to(version.folder).as_posix() for path in version.folder.rglob("*") if path.is_file()}
    assert files == {
        *("MLmodel", "model.onnx", "conda.yaml", "python_env.yaml", "requirements.txt"),
        *(f"plumbline/{name}.json" for name in ("serving", "keras", "provenance", "decision", "leaderboard_row")),
        *(f"plumbline/{name}.json" for name in ("comparison", "model", "backbones", "manifest")),
        *(f"plumbline/{name}" for name in ("model.weights.h5", "splits.parquet", "predictions.parquet")),
        *(f"plumbline/reference/{name}" for name in ("images.parquet", "embeddings.npy", "groups.npy")),
        *(
            f"plumbline/reference/{name}"
            for name in ("thumbnails.parquet", "pool.parquet", "pool_small.npy", "eyes.json")
        ),
    }
    serving = version.read("serving.json")
    assert (serving["classes"], serving["violation_class"]) == (CLASSES, CLASSES[1])
    assert (serving["threshold"], serving["temperature"]) == (0.4, 1.0)
    assert serving["preprocessing"]["image_size"] == SIZE
    assert version.tags["verdict"] == "PROMOTE"
    assert version.tags["test accuracy"] == "1.000 (95%: 0.000 to 1.000)"
    assert version.tags["data version"].startswith("manifest ")


def test_keras_config_and_weights_make_the_model_that_onnx_serves(project):
    import keras

    promote(PARAMS, Wish(), project("good"))
    version = registry.load_version()
    home = version.folder / bundle.HOME
    model = keras.models.model_from_json((home / "keras.json").read_text())
    model.load_weights(home / "model.weights.h5")
    batch = np.stack(list(pictures(["with_helmet/0.png", "without_helmet/1.png"])))
    rebuilt = np.asarray(model(batch.astype(np.float32)))[:, 0]
    np.testing.assert_allclose(OnnxModel(version.onnx)(batch)[0][:, 1], rebuilt, atol=1e-5)


def test_mlflow_users_load_it_by_alias_without_pickle(project, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    promote(PARAMS, Wish(), project("good"))
    batch = np.stack(list(pictures(["with_helmet/0.png"]))).astype(np.float32)
    found = mlflow.pyfunc.load_model("models:/plumbline@champion").predict(batch)
    assert found["probabilities"].shape == (1, 2)
    assert found["probabilities"][0].argmax() == 0
    assert mlflow.onnx.load_model("models:/plumbline/1").graph.input[0].name == "pixels"


def test_reference_is_the_images_not_trained_on_as_they_are_served(project):
    promote(PARAMS, Wish(), project("good"))
    version = registry.load_version()
    images = pd.read_parquet(version.folder / "plumbline/reference/images.parquet")
    embeddings = np.load(version.folder / "plumbline/reference/embeddings.npy", allow_pickle=False)
    splits = pd.read_parquet("build/splits.parquet")
    assert sorted(images["path"]) == sorted(splits.loc[splits["split"] != "train", "path"])
    assert embeddings.shape == (len(images), 128)
    assert {"brightness", "contrast", "sharpness", "colourfulness", "width"} <= set(images.columns)
    assert {"warmth", "noise", "blockiness"} <= set(images.columns)
    probabilities, seen = OnnxModel(version.onnx).score(pictures(list(images["path"])))
    np.testing.assert_allclose(images[[f"p_{name}" for name in CLASSES]], probabilities, atol=1e-6)
    np.testing.assert_allclose(embeddings, seen, atol=1e-5)


def test_provenance_names_commit_lock_and_data(project, tmp_path):
    import subprocess

    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        if command[0] == "add":
            (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
            (tmp_path / "data.dvc").write_text("outs:\n- md5: abc123.dir\n  path: data\n")
            command = ["add", "dvc.lock", "data.dvc"]
        git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
        subprocess.run([*git, *command], check=True, cwd=tmp_path)
    promote(PARAMS, Wish(), project("good"))
    version = registry.load_version()
    origin = version.read("provenance.json")
    assert len(origin["git_commit"]) == 40
    assert origin["git_changed"] == []
    assert origin["data_md5"] == "abc123.dir"
    assert origin["dvc_lock_sha256"] == file_digest(tmp_path / "dvc.lock")
    assert version.tags["data version"] == "abc123.dir"
    assert version.tags["git commit"] == origin["git_commit"]


def test_the_same_decision_twice_is_one_version(project):
    for expected in ("promoted", "unchanged", "unchanged"):
        assert promote(PARAMS, Wish(), project("good")).outcome == expected
    assert versions() == 1
    assert log() == [("promote", "done", 1), ("promote", "unchanged", 1), ("promote", "unchanged", 1)]


def test_weights_are_the_same_whatever_keras_calls_its_layers(project, tmp_path):
    here = project("good")
    before = weights_digest(here.build / "candidates" / NAME, here.build / "features")
    network = promotion.load_network(here.build / "candidates" / NAME, here.build / "features" / "pixels")
    network.save_weights(here.build / "candidates" / NAME / "head.weights.h5")
    assert weights_digest(here.build / "candidates" / NAME, here.build / "features") == before
    network.layers[-1].bias.assign_add([1e-6])
    network.save_weights(here.build / "candidates" / NAME / "head.weights.h5")
    assert weights_digest(here.build / "candidates" / NAME, here.build / "features") != before


@pytest.mark.parametrize("verdict", ["HOLD", "REJECT"])
def test_a_refusal_is_a_result_and_leaves_the_champion(project, verdict):
    promote(PARAMS, Wish(), project("good"))
    result = promote(PARAMS, Wish(), project("better", verdict))
    assert result.outcome == "refused"
    assert result.reason.startswith(f"The gate said {verdict}. accuracy floor: accuracy is 1.000")
    assert (champion(), versions()) == (1, 1)
    assert log()[-1] == ("promote", "refused", 1)


def test_the_next_moves_both_aliases(project):
    promote(PARAMS, Wish(), project("good"))
    result = promote(PARAMS, Wish(), project("better"))
    assert (champion(), previous()) == (2, 1)
    assert result.comparison.champion == 1
    assert result.comparison.images == 12
    assert result.comparison.groups == 6
    assert registry.load_version().read("comparison.json") == json.loads(json.dumps(result.comparison.content()))


def test_a_challenger_worse_than_the_champion_is_rejected_whatever_the_gate_said(project):
    promote(PARAMS, Wish(), project("good"))
    # What was evaluated must be what is served: only then the comparison is reached.
    result = promote(PARAMS, Wish(), project("bad"))
    assert result.outcome == "refused"
    assert result.reason.startswith("REJECT: worse than champion version 1")
    assert result.comparison.passed is False
    assert (champion(), versions()) == (1, 1)


def test_too_few_unseen_groups_hold(project):
    promote(PARAMS, Wish(), project("good"))
    result = promote(replace_params(minimum_unseen_groups=7), Wish(), project("better"))
    assert result.reason.startswith("HOLD: only 6 groups of test images are unseen by champion version 1")
    assert champion() == 1


def replace_params(**changes):
    return PARAMS.model_copy(update=changes)


def served(for_challenger, for_champion):
    """What `plumbline compare` leaves of version 2 beside version 1."""
    figures = {"pairs": 60, "differing": 9, "difference": 0.1, "low": -0.1, "high": 0.3, "needed": 40.0, "alpha": 0.05}
    evidence = {"evidence_for_challenger": for_challenger, "evidence_for_champion": for_champion}
    said = {"better": "not settled", "pairing": "same picture", **figures, **evidence}
    keep_verdict(ServedAs().state, ServedVerdict(champion=1, challenger=2, **said))


def challenger():
    return registry.number(registry.find(registry.open_registry(), "challenger"))


def test_a_winner_on_trial_is_challenger_until_serving_has_settled_it(project):
    params = replace_params(trial=Trial(wanted=True))
    assert promote(params, Wish(), project("good")).outcome == "promoted", "the first has nobody to be served beside"
    assert promote(params, Wish(dry_run=True), project("better")).outcome == "would go on trial"
    assert (challenger(), versions()) == (None, 1)
    result = promote(params, Wish(), project("better"))
    assert (result.outcome, result.champion) == ("on trial", 1)
    assert (champion(), challenger()) == (1, 2)
    assert "version 2 challenger" in "\n".join(history(PARAMS))
    served(39.0, 0.1)
    result = promote(params, Wish(), project("better"))
    assert result.outcome == "on trial"
    assert "so far of 60 labelled pairs (same picture) 9 differ" in result.reason
    served(41.0, 0.1)
    assert promote(params, Wish(), project("better")).outcome == "promoted"
    assert (champion(), previous(), challenger(), versions()) == (2, 1, None, 2)


@pytest.mark.parametrize("wanted", [True, False])
def test_what_serving_found_to_be_worse_stays_out_but_by_force(project, wanted):
    trial = replace_params(trial=Trial(wanted=True))
    promote(trial, Wish(), project("good"))
    promote(trial, Wish(), project("better"))
    served(0.1, 41.0)
    stricter = replace_params(trial=Trial(wanted=True, alpha=0.01))
    assert promote(stricter, Wish(), project("better")).outcome == "on trial", "settled at 5%, not at 1%"
    result = promote(replace_params(trial=Trial(wanted=wanted)), Wish(), project("better"))
    assert result.outcome == "refused"
    assert result.reason.startswith("REJECT: served beside champion version 1, of 60 labelled pairs")
    assert (champion(), challenger()) == (1, None)
    assert promote(trial, Wish(force=True, reason="I know better"), project("better")).outcome == "promoted"


def test_judging_a_comparison():
    rules = [
        Rule("overall", 0.1, 0.0, True, "fine"),
        Rule("light dusk", -0.2, 0.0, False, "-0.2"),
    ]
    good = Compared(champion=4, groups=20, passed=True, rules=rules[:1])
    assert judge_comparison(good, 4, 20) is None
    assert judge_comparison(good.model_copy(update={"groups": 19}), 4, 20).startswith("HOLD: only 19")
    bad = Compared(champion=4, groups=20, passed=False, rules=rules)
    assert judge_comparison(bad, 4, 20).endswith(": light dusk: -0.2.")


def test_images_the_champion_learnt_from_and_their_near_duplicates_are_not_compared_on(project):
    promote(PARAMS, Wish(), project("good"))
    version = registry.load_version()
    here = project("better")
    chosen = read_chosen(here.build, read_decision(here.build))
    splits = chosen.splits.copy()
    test = splits[splits["split"] == "test"]
    learnt = splits[splits["split"] == "train"]
    assert len(unseen_pictures(chosen, version)) == len(test) == 12
    # An image that the champion learnt from comes back under another name in the group of a test image.
    twin = learnt.iloc[[0]].assign(path="with_helmet/999.png", split="test", group=test.iloc[0]["group"])
    moved = replace(chosen, splits=pd.concat([splits, twin], ignore_index=True))
    left = unseen_pictures(moved, version)
    assert test.iloc[0]["group"] not in set(left["group"])
    assert len(left) == 10
    # What it only validated on counts as learnt from.
    validation = splits["split"] == "validation"
    swapped = replace(chosen, splits=splits.assign(split=np.where(validation, "test", "train")))
    assert unseen_pictures(swapped, version).empty


def test_a_reencoded_lossless_copy_is_known_by_its_pixels(project):
    here = project("good")
    manifest = pd.read_parquet(here.build / "manifest.parquet").assign(pixels_sha256=lambda table: table["id"])
    manifest.to_parquet(here.build / "manifest.parquet")
    promote(PARAMS, Wish(), here)
    version = registry.load_version()
    chosen = read_chosen(here.build, read_decision(here.build))
    other_bytes = replace(chosen, splits=chosen.splits.assign(id=lambda table: "x" + table["id"]))
    assert len(unseen_pictures(other_bytes, version)) == 12
    taught = other_bytes.splits.loc[other_bytes.splits["split"] == "train", "path"].iloc[0]
    as_test = other_bytes.splits.assign(
        split=np.where(other_bytes.splits["path"] == taught, "test", other_bytes.splits["split"])
    )
    assert taught not in set(unseen_pictures(replace(other_bytes, splits=as_test), version)["path"])


def test_champion_predictions_are_its_own_scores_in_order(project):
    promote(PARAMS, Wish(), project("good"))
    version = registry.load_version()
    evaluated = pd.read_parquet("build/candidates/tiny/predictions.parquet")
    rows = evaluated.loc[evaluated["split"] == "test", ["path", "label", "group"]].iloc[::-1]
    found = champion_predictions(version, rows, pictures, batch_size=5)
    columns = [f"p_{name}" for name in CLASSES]
    expected = evaluated.set_index("path").loc[rows["path"], columns].to_numpy()
    assert list(found["path"]) == list(rows["path"])
    np.testing.assert_allclose(found[columns].to_numpy(), expected, atol=1e-4)


def test_other_classes_cannot_be_compared_and_hold(project):
    promote(PARAMS, Wish(), project("good"))
    here = project("better")
    model = json.loads((here.build / "candidates" / NAME / "model.json").read_text())
    model["classes"] = ["cap", "without_helmet"]
    (here.build / "candidates" / NAME / "model.json").write_text(json.dumps(model))
    table = pd.read_parquet(here.build / "candidates" / NAME / "predictions.parquet")
    table = table.rename(columns={"p_with_helmet": "p_cap"})
    table.to_parquet(here.build / "candidates" / NAME / "predictions.parquet")
    result = promote(PARAMS, Wish(), here)
    assert result.reason.startswith("HOLD: tiny tells cap, without_helmet apart")
    forced = promote(PARAMS, Wish(force=True, reason="new classes"), here)
    assert (forced.outcome, champion()) == ("promoted", 2)
    assert "Not compared, promoted by force" in forced.comparison.note


def test_features_that_no_longer_match_the_pictures_are_refused(project):
    here = project("good")
    path = here.build / "candidates" / NAME / "predictions.parquet"
    table = pd.read_parquet(path)
    table[["p_with_helmet", "p_without_helmet"]] = table[["p_without_helmet", "p_with_helmet"]].to_numpy()
    table.to_parquet(path)
    result = promote(PARAMS, Wish(), here)
    assert result.outcome == "refused"
    assert "differs from what was evaluated" in result.reason
    assert (champion(), versions()) == (None, 0)


def test_force_overrules_a_hold_and_is_recorded_everywhere(project, tmp_path):
    promote(PARAMS, Wish(), project("good"))
    result = promote(PARAMS, Wish(force=True, reason="site 4 opens tomorrow"), project("bad", "REJECT"))
    assert (result.outcome, champion()) == ("promoted", 2)
    version = registry.load_version()
    assert version.tags["verdict"] == "REJECT (forced)"
    assert version.tags["forced because"] == "site 4 opens tomorrow"
    entry = journal.entries(registry.open_registry())[-1]
    assert (entry.forced, entry.reason, entry.verdict) == (True, "site 4 opens tomorrow", "REJECT")
    said = "Promoted by force as version 2, although the gate said REJECT: site 4 opens tomorrow"
    decision = read_decision(tmp_path / "build")
    assert by_force(result, decision) == said
    again = promote(PARAMS, Wish(), whole_project(tmp_path))
    assert (again.outcome, by_force(again, decision)) == ("refused", None), "the gate still says REJECT"
    assert by_force(still_forced(again, result), decision) == said
    assert by_force(still_forced(again.model_copy(update={"champion": 1}), result), decision) is None
    overruled = promote(PARAMS, Wish(force=True, reason="as before"), whole_project(tmp_path))
    assert (overruled.outcome, by_force(overruled, decision)) == ("unchanged", said)


@pytest.mark.parametrize("arguments", [["--force"], ["--force", "--reason", " "], ["rollback", "--reason", ""]])
def test_force_and_rollback_without_a_reason_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert "--reason" in capsys.readouterr().err


def test_rollback_goes_back_and_stays_back(project):
    promote(PARAMS, Wish(), project("good"))
    promote(PARAMS, Wish(), project("better"))
    sentence = rollback(PARAMS, None, "misses white hoods", False)
    assert sentence == "Rolled back from version 2 to version 1: misses white hoods"
    assert (champion(), previous()) == (1, 2)
    again = promote(PARAMS, Wish(), project("better"))
    assert again.outcome == "refused"
    assert "rolled back because: misses white hoods" in again.reason
    assert champion() == 1
    forced = promote(PARAMS, Wish(force=True, reason="hoods are labelled now"), project("better"))
    assert (forced.outcome, champion(), versions()) == ("promoted", 2, 2)
    assert promote(PARAMS, Wish(), project("better")).outcome == "unchanged"


def test_rollback_refuses_what_cannot_be_and_logs_it(project):
    with pytest.raises(UserError, match="no champion to roll back from"):
        rollback(PARAMS, None, "why not", False)
    promote(PARAMS, Wish(), project("good"))
    for to, sentence in ((None, "the only champion there ever was"), (1, "champion already"), (9, "no version 9")):
        with pytest.raises(UserError, match=sentence):
            rollback(PARAMS, to, "why not", False)
    assert [outcome for action, outcome, _ in log() if action == "rollback"] == ["refused"] * 4
    assert champion() == 1


def test_rollback_to_a_damaged_version_is_refused(project):
    promote(PARAMS, Wish(), project("good"))
    (registry.load_version(1).folder / bundle.ONNX).write_bytes(b"")
    promote(PARAMS, Wish(force=True, reason="the old one is damaged"), project("better"))
    with pytest.raises(UserError, match="missing or was altered"):
        rollback(PARAMS, 1, "back", False)
    assert champion() == 2


def test_rollback_knows_the_champion_before_even_if_a_kill_left_previous_on_the_champion(project):
    for name in ("good", "better"):
        promote(PARAMS, Wish(), project(name))
    opened = registry.open_registry()
    opened.client.set_registered_model_alias("plumbline", "previous", "2")
    rollback(PARAMS, None, "worse", False)
    assert champion() == 1


def test_a_damaged_champion_holds_the_next_until_forced(project):
    promote(PARAMS, Wish(), project("good"))
    (registry.load_version().folder / bundle.ONNX).write_bytes(b"")
    result = promote(PARAMS, Wish(), project("better"))
    assert result.outcome == "refused"
    assert result.reason.startswith("HOLD: ")
    assert "altered" in result.reason
    assert promote(PARAMS, Wish(force=True, reason="the old one is damaged"), project("better")).champion == 2


def snapshot(root):
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and "lock" not in path.name]
    return {path: file_digest(path) for path in files}


def test_dry_runs_say_what_would_be_and_change_nothing(project, tmp_path):
    promote(PARAMS, Wish(), project("good"))
    promote(PARAMS, Wish(), project("better"))
    before = snapshot(tmp_path / "registry")
    assert promote(PARAMS, Wish(dry_run=True), project("bad")).outcome == "would refuse"
    assert promote(PARAMS, Wish(dry_run=True), project("good", "HOLD")).outcome == "would refuse"
    assert promote(PARAMS, Wish(dry_run=True, force=True, reason="x"), project("bad")).outcome == "would promote"
    assert rollback(PARAMS, None, "x", True) == "Would roll back from version 2 to version 1; nothing was changed."
    with pytest.raises(UserError, match="no version 9"):
        rollback(PARAMS, 9, "x", True)
    assert snapshot(tmp_path / "registry") == before


def test_a_dry_run_before_there_is_a_registry_makes_none(project, tmp_path):
    shutil.rmtree(tmp_path / "registry")
    assert promote(PARAMS, Wish(dry_run=True), project("good")).outcome == "would promote"
    assert history(PARAMS)[0].startswith("Nothing yet")
    with pytest.raises(UserError, match="nothing to roll back"):
        rollback(PARAMS, None, "x", False)
    assert not (tmp_path / "registry").exists()


def test_history_tells_the_whole_story(project):
    promote(PARAMS, Wish(), project("good"))
    promote(PARAMS, Wish(), project("better"))
    promote(PARAMS, Wish(), project("good", "HOLD"))
    rollback(PARAMS, None, "misses white hoods", False)
    text = "\n".join(history(PARAMS))
    assert "version 1 champion: tiny, accuracy 1.000" in text
    assert "version 2 previous: tiny" in text
    assert "rolled back: misses white hoods" in text
    assert "Promote of tiny refused" in text
    assert "Rollback to version 1 done" in text
    assert "begun" not in text
    assert "WARNING" not in text
    numbers = re.findall(r"(?m)^ *([\d-]+) \d{4}-\d\d-\d\d ", text)
    assert numbers == ["1-2", "3-4", "5", "6-7"], "no number is skipped without a word"


def test_history_says_why_a_number_is_missing(project):
    for name in ("good", "better"):
        promote(PARAMS, Wish(), project(name))
    promote(PARAMS, Wish(force=True, reason="third"), project("bad", "HOLD"))
    opened = registry.open_registry()
    opened.client.delete_registered_model_alias("plumbline", "previous")
    opened.client.delete_model_version("plumbline", "2")
    lines = history(PARAMS)
    assert lines[1].startswith("  version 1 once champion: tiny")
    assert lines[2] == "  version 2 once champion: was deleted in MLflow"
    assert lines[3].startswith("  version 3 champion: tiny")


def test_no_entry_of_the_log_is_skipped_without_a_word():
    def entry(number, outcome, settles=""):
        return journal.Entry(
            "promote", outcome, "why", number=number, settles=settles, at=f"2026-01-0{number}T00:00:00"
        )

    begun = entry(1, "begun")
    log = [begun, entry(2, "refused"), entry(4, "done", journal.digest(begun)), entry(5, "begun")]
    numbers = [line.split()[0] for line in promotion._log_lines(log)]
    assert numbers == ["2", "3", "1,4", "5"]
    assert promotion._log_lines(log)[1].endswith("3 is missing: it was taken out of the registry's log")


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda build: (build / "decision.json").unlink(), r"decision\.json is missing: run `dvc repro gate`"),
        (
            lambda build: (build / "decision.json").write_text("{"),
            r"decision\.json is damaged .*: run `dvc repro -f gate`",
        ),
        (lambda build: (build / "decision.json").write_text("[]"), r"decision\.json was not written by this version"),
        (lambda build: (build / "candidates/tiny/head.weights.h5").unlink(), r"head\.weights\.h5 is missing"),
        (
            lambda build: (build / "candidates/tiny/head.weights.h5").write_bytes(b"x"),
            r"weights\.h5 can't be read",
        ),
        (lambda build: (build / "leaderboard.json").write_text("[]"), r"does not list tiny"),
        (lambda build: (build / "splits.parquet").write_bytes(b"x"), r"splits\.parquet can't be read"),
    ],
)
def test_what_is_missing_or_broken_is_named_in_one_sentence(project, harm, sentence):
    promote(PARAMS, Wish(), project("good"))
    here = project("better")
    harm(here.build)
    with pytest.raises(UserError, match=sentence) as caught:
        promote(PARAMS, Wish(), here)
    assert "\n" not in str(caught.value)
    assert champion() == 1


def test_a_failure_is_logged_too(project):
    promote(PARAMS, Wish(), project("good"))
    here = project("better")
    (here.build / "candidates/tiny/head.weights.h5").unlink()
    with pytest.raises(UserError):
        promote(PARAMS, Wish(), here)
    assert log()[-1] == ("promote", "failed", 1)


def test_the_command_exits_0_on_a_refusal_and_writes_what_happened(project, tmp_path, monkeypatch, capsys):
    project("good", "HOLD")
    (tmp_path / "params.yaml").write_text("promote: {minimum_unseen_groups: 3}\n")
    monkeypatch.setattr(sys, "argv", ["promote"])
    run(stage.main)
    assert capsys.readouterr().out.startswith("refused: The gate said HOLD. accuracy floor: accuracy is 1.000")
    written = json.loads((tmp_path / "build" / "promotion.json").read_text())
    assert (written["outcome"], written["verdict"], written["champion"]) == ("refused", "HOLD", None)
    monkeypatch.setattr(sys, "argv", ["promote", "history"])
    run(stage.main)
    assert "Promote of tiny refused" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["promote", "rollback", "--reason", "x"])
    with pytest.raises(SystemExit) as caught:
        run(stage.main)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: There is no champion to roll back from.\n"


def test_a_compressed_candidate_is_served_as_the_file_that_was_evaluated(project):
    here = project("good")
    folder = here.build / "candidates" / NAME
    network = promotion.load_network(folder, here.build / "features" / "pixels")
    float32 = folder.parent / "float32.onnx"
    export_onnx(with_embedding(network), float32)
    halve(float32, folder / artefacts.SERVED_FILE)
    (folder / artefacts.HEAD_WEIGHTS).unlink()
    made = CompressedRecord(of="other", how="float16", recipe="half", bytes=1, original_bytes=2)
    record = read_record(folder / artefacts.MODEL, ModelRecord)
    write_record(folder / artefacts.MODEL, record.model_copy(update={"compressed": made}))
    assert promote(PARAMS, Wish(), here).outcome == "promoted"
    version = registry.load_version()
    assert not (version.folder / "plumbline/keras.json").exists()
    assert version.read("model.json")["compressed"]["of"] == "other"
    batch = np.stack(list(pictures(["with_helmet/0.png", "without_helmet/1.png"])))
    served, evaluated = (OnnxModel(file)(batch)[0] for file in (version.onnx, folder / artefacts.SERVED_FILE))
    np.testing.assert_array_equal(served, evaluated)
    assert promote(PARAMS, Wish(), here).outcome == "unchanged"
    (folder / artefacts.SERVED_FILE).unlink()
    with pytest.raises(UserError, match=r"served\.onnx is missing"):
        promote(PARAMS, Wish(), here)
