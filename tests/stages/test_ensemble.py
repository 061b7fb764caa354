"""Ensembles compete on equal terms: honest figures, summed cost, and the same model after a trip through disk."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from recorded import backbone_json, model_json

from plumbline.common.errors import UserError
from plumbline.common.files import write_json, write_table
from plumbline.common.records import write_record
from plumbline.evidence.candidates import read_not_made
from plumbline.models.assemble import load_candidate
from plumbline.models.candidates import Candidate, build_network
from plumbline.models.combination import stacked, stacking_inputs, write_head
from plumbline.models.ensembles import (
    Ensemble,
    Member,
    choose_members,
    combine_predictions,
    combined_unseen,
    model_record,
    read_members,
    why_not_made,
)
from plumbline.models.fitting import targets_of
from plumbline.models.records import ModelRecord
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.several_labels import SEVERAL_LABELS
from stages import ensemble

pytestmark = pytest.mark.slow

SIZE = 16


def table_of(labels, seed=0):
    count = len(labels)
    splits = np.array(["train", "validation", "test"])[np.arange(count) % 3]
    groups = [f"g{n // 6}" for n in range(count)]
    paths = [f"{n:03}.png" for n in range(count)]
    return pd.DataFrame({"path": paths, "id": paths, "label": labels, "split": splits, "group": groups})


def member(name, table, skill, seed, size=SIZE, classes=("no", "yes")):
    random = np.random.default_rng(seed)
    score = random.normal(size=(len(table), len(classes)))
    for place, label in enumerate(classes):
        score[:, place] += skill * table["label"].eq(label)
    p = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
    model = model_json(
        candidate=name,
        image_size=size,
        classes=list(classes),
        parameters=100,
        trainable_parameters=10,
        weights="imagenet" if seed % 2 else "random",
    )
    return Member(
        name, ModelRecord(**model), table.assign(**{f"p_{label}": p[:, n] for n, label in enumerate(classes)})
    )


@pytest.fixture
def table():
    return table_of(["yes", "no"] * 120)


def test_the_best_few_by_validation_of_one_input_size(table):
    members = [
        member("a", table, 1, 1),
        member("b", table, 3, 2),
        member("c", table, 2, 3),
        member("d", table, 2.5, 4, 32),
    ]
    assert [m.name for m in choose_members(members, 2)] == ["b", "c"]
    assert [m.name for m in choose_members([members[3], members[0]], 2)] == ["d"], "alone in its size"
    failed = replace(members[1], model=members[1].model.model_copy(update={"status": "diverged"}))
    assert [m.name for m in choose_members([members[0], failed, members[2]], 2)] == ["c", "a"]
    assert choose_members([failed], 2) == []
    assert why_not_made([]) == "the training of every candidate failed"


def test_a_vote_is_the_mean(table):
    members = [member("a", table, 1, 1), member("b", table, 1, 2)]
    combined, head = combine_predictions(members, "soft_vote")
    assert head is None
    expected = (members[0].table[["p_no", "p_yes"]] + members[1].table[["p_no", "p_yes"]]) / 2
    np.testing.assert_allclose(combined, expected)


def test_stacking_trusts_who_deserves_it(table):
    members = [member("guess", table, 0, 1), member("know", table, 3, 2)]
    _, (kernel, _) = combine_predictions(members, "stacking")
    assert kernel.shape == (2, 1)
    assert kernel[1, 0] > 3 * abs(kernel[0, 0])


def test_validation_figures_come_from_folds_that_did_not_see_the_group(table):
    """Members that know nothing: learning their noise by heart must not show as skill on validation."""
    members = [member(str(n), table, 0, n) for n in range(30)]
    combined, (kernel, bias) = combine_predictions(members, "stacking")
    rows = (table["split"] == "validation").to_numpy()
    truth = targets_of(table["label"]).values[rows]
    probabilities = np.stack([m.table[["p_no", "p_yes"]].to_numpy() for m in members], axis=1)
    by_heart = stacked(stacking_inputs(probabilities, ONE_LABEL), kernel, bias, ONE_LABEL)[rows].argmax(axis=1)
    assert (by_heart == truth).mean() > 0.75
    assert (combined[rows].argmax(axis=1) == truth).mean() < 0.65


def test_three_classes_and_several_labels():
    three = table_of(list("abccabbca") * 20)
    members = [member("x", three, 2, 1, classes=("a", "b", "c")), member("y", three, 2, 2, classes=("a", "b", "c"))]
    combined, (kernel, _) = combine_predictions(members, "stacking")
    assert kernel.shape == (6, 3)
    np.testing.assert_allclose(combined.sum(axis=1), 1)
    targets = targets_of(pd.Series(["a;b", "a", "b", "c", "a;c", "b;c"] * 10))
    random = np.random.default_rng(0)
    seen = random.normal(size=(60, 2, 3)) + 2 * targets.values[:, None, :]
    assert targets.task == SEVERAL_LABELS
    kernel, bias = targets.task.fit_stacking(seen, targets.truth)
    p = stacked(seen, kernel, bias, targets.task)
    assert ((p > 0.5) == targets.truth).mean() > 0.9
    assert kernel[0, 1] == 0, "a label is judged by its own evidence"


def test_cost_is_counted_and_random_weights_come_first(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    members = [member("a", table, 1, 1), member("b", table, 1, 2)]
    for m in members:
        folder = tmp_path / "build" / "candidates" / m.name
        folder.mkdir(parents=True)
        (folder / "head.weights.h5").write_bytes(m.name.encode())
    described = model_record("vote", Ensemble(kind="soft_vote", members=2), members, 0)
    assert described.parameters == 200
    assert described.trainable_parameters == 20
    assert described.weights == "random, imagenet"
    json.dumps(described.content(), allow_nan=False)


def test_candidates_of_another_split_are_refused(table, tmp_path):
    for n, m in enumerate((member("a", table, 1, 1), member("b", table, 1, 2))):
        changed = m.table.assign(split=m.table["split"].replace("train", "test")) if n else m.table
        write_record(tmp_path / m.name / "model.json", m.model)
        write_table(tmp_path / m.name / "predictions.parquet", changed)
    with pytest.raises(UserError, match="b was trained on another split"):
        read_members(tmp_path, ["a", "b"])


@pytest.mark.parametrize("kind", ["soft_vote", "stacking"])
def test_the_served_ensemble_says_what_was_evaluated(kind, tmp_path):
    """Two real networks through disk, combined in Keras, against the same combination in NumPy."""
    pixels = np.random.default_rng(0).uniform(0, 255, (5, SIZE, SIZE, 3)).astype(np.float32)
    outputs = []
    for number, architecture in enumerate(("lenet5", "custom_cnn")):
        candidate = Candidate(architecture=architecture, backbone="pixels", width=0.25)
        network = build_network(candidate, (SIZE, SIZE, 3), 2)
        folder = tmp_path / "ensembles" / "e" / "members" / f"m{number}"
        folder.mkdir(parents=True)
        network.save_weights(folder / "head.weights.h5")
        model = model_json(classes=["no", "yes"], settings=candidate.model_dump(mode="json"))
        write_json(folder / "model.json", model)
        outputs.append(ONE_LABEL.probabilities(network(pixels)))
    features = tmp_path / "features" / "pixels"
    write_json(features / "backbone.json", backbone_json(image_size=SIZE, shape=[SIZE, SIZE, 3]))
    probabilities = np.stack(outputs, axis=1)
    if kind == "soft_vote":
        expected, head = probabilities.mean(axis=1), (np.zeros((0, 0)), np.zeros(0))
    else:
        head = np.array([[0.7], [1.3]]), np.array([0.2])
        expected = stacked(stacking_inputs(probabilities, ONE_LABEL), *head, ONE_LABEL)
    folder = tmp_path / "ensembles" / "e"
    write_head(folder / "head.weights.h5", *head)
    members = [{"name": f"m{number}", "backbone": "pixels"} for number in range(2)]
    description = model_json(architecture=kind, members=members, several_labels=False, classes=["no", "yes"])
    write_json(folder / "model.json", description)
    whole = load_candidate(folder, features)
    np.testing.assert_allclose(ONE_LABEL.probabilities(whole(pixels)), expected, atol=1e-5)


def test_a_failed_candidate_is_left_out_and_a_lonely_best_one_makes_none(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sections = {
        "candidates": {name: {} for name in ("good", "other", "best", "failed")},
        "ensembles": {"vote": {"kind": "soft_vote"}},
    }
    (tmp_path / "params.yaml").write_text(json.dumps(sections))
    for m in (member("good", table, 2, 1), member("other", table, 2, 2), member("best", table, 4, 3, size=96)):
        folder = tmp_path / "build" / "candidates" / m.name
        write_record(folder / "model.json", m.model)
        write_table(folder / "predictions.parquet", m.table)
        (folder / "head.weights.h5").write_bytes(b"")
    ensemble.main()
    why = "no other candidate reads 96-pixel pictures as the best one, best, does"
    assert read_not_made(tmp_path / "build" / "ensembles") == {"vote": why}
    (tmp_path / "build" / "candidates" / "best" / "model.json").unlink()
    ensemble.main()
    assert read_not_made(tmp_path / "build" / "ensembles") == {}
    (tmp_path / "build" / "ensembles" / "not_made.json").write_text('{"vote": ')
    with pytest.raises(UserError, match=r"not_made\.json is damaged .*: run `dvc repro -f ensemble`"):
        read_not_made(tmp_path / "build" / "ensembles")
    made = json.loads((tmp_path / "build" / "ensembles" / "vote" / "model.json").read_text())
    assert {m["name"] for m in made["members"]} == {"good", "other"}


@pytest.mark.parametrize("kind", ["soft_vote", "stacking"])
def test_what_members_say_of_unseen_pictures_is_combined_unseen(kind):
    table = table_of(["no", "yes"] * 60)
    seen = table["split"] != "test"
    members = [member(name, table, 2.0, seed) for seed, name in enumerate(("a", "b"))]
    unseen = [replace(one, table=one.table[seen].reset_index(drop=True)) for one in members]
    found = combined_unseen(unseen, kind)
    assert found["split"].tolist() == table["split"][seen].tolist()
    assert (found["p_yes"].gt(0.5) == found["label"].eq("yes")).mean() > 0.8
    if kind == "soft_vote":
        np.testing.assert_allclose(found["p_yes"], np.mean([one.table["p_yes"] for one in unseen], axis=0))
