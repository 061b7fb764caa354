"""Scores against scikit-learn, intervals against what is known of them, shortcuts rigged and fair, the stage itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricated import CLASSES, draw_people, manifest_of, predictions, split_table, write_project, zoom_in
from sklearn import metrics

from plumbline.common.errors import UserError
from plumbline.evidence import calibration, intervals, shortcuts, slices, thresholds
from plumbline.evidence.baselines import leave_one_site_out, pixel_regression
from plumbline.evidence.candidates import sample_of
from plumbline.evidence.records import Shortcut
from plumbline.evidence.rules import Gate, shortcut_rule
from plumbline.tasks import scores
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.several_labels import SEVERAL_LABELS
from plumbline.tasks.task import LabelSets
from stages import evaluate


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def some_predictions(classes: int, images: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(classes)
    labels = random.integers(0, classes, images)
    odds = random.random((images, classes)) + 1.2 * np.eye(classes)[labels] * random.random((images, 1))
    probabilities = np.round(odds / odds.sum(axis=1, keepdims=True), 2) + 1e-3  # rounding makes ties
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True), random.integers(0, 4, images).astype(float)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scores_are_those_of_scikit_learn_under_any_weights(classes):
    labels, probabilities, weights = some_predictions(classes)
    predicted = probabilities.argmax(axis=1)
    found = scores.score_all(labels, probabilities, np.vstack([np.ones(len(labels)), weights]), 1, bins=10)
    for row, weight in enumerate([None, weights]):
        expected = {
            "accuracy": metrics.accuracy_score(labels, predicted, sample_weight=weight),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted, sample_weight=weight),
            "log_loss": metrics.log_loss(labels, probabilities, sample_weight=weight),
        }
        for average in ("macro", "weighted"):
            values = metrics.precision_recall_fscore_support(labels, predicted, average=average, sample_weight=weight)
            expected |= dict(zip([f"{n}_{average}" for n in ("precision", "recall", "f1")], values[:3], strict=True))
        for name, values in zip(
            ("precision", "recall", "f1"),
            metrics.precision_recall_fscore_support(labels, predicted, sample_weight=weight),
            strict=False,
        ):
            expected |= {f"{name}:{k}": value for k, value in enumerate(values)}
        curves = range(classes) if classes > 2 else [1]
        areas = [(labels == k, probabilities[:, k]) for k in curves]
        expected["roc_auc"] = np.mean([metrics.roc_auc_score(y, p, sample_weight=weight) for y, p in areas])
        expected["pr_auc"] = np.mean([metrics.average_precision_score(y, p, sample_weight=weight) for y, p in areas])
        if classes == 2:
            expected["brier"] = metrics.brier_score_loss(labels, probabilities[:, 1], sample_weight=weight)
        if classes == 5:
            expected["top_3"] = metrics.top_k_accuracy_score(labels, probabilities, k=3, sample_weight=weight)
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, abs=0.01 if name == "top_3" else 1e-9), (
                name
            )  # sklearn orders ties


def test_several_labels_are_scored_as_by_scikit_learn_under_any_weights():
    random = np.random.default_rng(0)
    truth = random.random((200, 3)) < (0.3, 0.5, 0.7)
    probabilities = np.round(np.clip(0.5 + 0.25 * (2 * truth - 1) + 0.3 * random.normal(size=(200, 3)), 0.01, 0.99), 2)
    weights = random.integers(0, 4, 200).astype(float)
    told = probabilities > 0.5
    found = scores.score_several(truth, probabilities, np.vstack([np.ones(200), weights]), bins=10)
    for row, weight in enumerate([None, weights]):
        expected = {
            "accuracy": metrics.accuracy_score(truth, told, sample_weight=weight),
            "label_accuracy": 1 - metrics.hamming_loss(truth, told, sample_weight=weight),
            "roc_auc": metrics.roc_auc_score(truth, probabilities, sample_weight=weight),
            "pr_auc": metrics.average_precision_score(truth, probabilities, sample_weight=weight),
            "balanced_accuracy": np.mean(
                [metrics.balanced_accuracy_score(truth[:, k], told[:, k], sample_weight=weight) for k in range(3)]
            ),
            "log_loss": np.mean(
                [metrics.log_loss(truth[:, k], probabilities[:, k], sample_weight=weight) for k in range(3)]
            ),
        }
        for average in ("macro", "weighted"):
            values = metrics.precision_recall_fscore_support(truth, told, average=average, sample_weight=weight)
            expected |= dict(zip([f"{n}_{average}" for n in ("precision", "recall", "f1")], values[:3], strict=True))
        for k, recall in enumerate(metrics.recall_score(truth, told, average=None, sample_weight=weight)):
            expected[f"recall:{k}"] = recall
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, abs=1e-9), name


def test_a_sample_of_several_labels_is_right_where_every_label_is():
    table = pd.DataFrame(
        {"path": list("abc"), "group": list("xyz"), "label": ["helmet;vest", "vest", "helmet"]}
        | {"p_helmet": [0.9, 0.8, 0.7], "p_vest": [0.6, 0.9, 0.2]}
    )
    sample = sample_of(table, ["helmet", "vest"], task=SEVERAL_LABELS)
    assert sample.right.tolist() == [True, False, True]
    assert sample.brier[1] == pytest.approx((0.8**2 + 0.1**2) / 2)
    sharper = sample.scaled(0.5)
    assert (sharper.predicted == sample.predicted).all()
    assert sharper.probabilities[0, 0] == pytest.approx(0.81 / (0.81 + 0.01))
    assert (sample.label_sets.truth == sample.truth).all()


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    error = scores.calibration_error(np.array([0, 1, 0, 1]), probabilities, np.ones((1, 4)), bins=10)
    # Bins: two at 0.9 with half right (gap 0.4), one at 0.6 right (0.4), one at 0.8 right (0.2).
    assert error[0] == pytest.approx((2 * 0.4 + 0.4 + 0.2) / 4)


@pytest.mark.parametrize(("images", "lower"), [(95, 0.961), (189, 0.98), (381, 0.99)])
def test_a_perfect_test_set_proves_no_more_than_wilson(images, lower):
    codes = np.arange(images)
    draws = intervals.draw_weights(codes, 300, seed=0)
    low, high = intervals.interval("accuracy", 1.0, draws.mean(axis=1), images, images)
    assert low == pytest.approx(lower, abs=5e-4)
    assert high == pytest.approx(1.0)


def test_an_error_more_never_lifts_the_lower_end():
    codes = np.repeat(np.arange(50), 2)
    draws = intervals.draw_weights(codes, 2000, seed=0)
    lows = []
    for errors in range(12):
        right = np.ones(100)
        right[np.random.default_rng(errors).choice(100, errors, replace=False)] = 0
        rates = (draws @ right) / draws.sum(axis=1)
        lows.append(intervals.interval("accuracy", right.mean(), rates, 100, 50)[0])
    assert lows == sorted(lows, reverse=True)


def test_copies_of_a_picture_in_its_group_are_no_new_evidence():
    right = np.random.default_rng(0).random(80) < 0.85

    def width(copies: int) -> float:
        codes, repeated = np.repeat(np.arange(80), copies), np.repeat(right, copies)
        draws = intervals.draw_weights(codes, 2000, seed=0)
        rates = (draws @ repeated) / draws.sum(axis=1)
        low, high = intervals.interval("accuracy", repeated.mean(), rates, len(codes), 80)
        return high - low

    assert width(6) == pytest.approx(width(1), rel=0.15)


@pytest.mark.slow
def test_intervals_cover_the_truth():
    from benchmarks.selection import coverage

    held = coverage(groups=100, accuracy=0.95, repeats=200)
    for score in ("accuracy", "recall:1", "f1_macro"):
        assert 0.92 <= held[score] <= 0.99, held


def test_temperature_is_found_and_keeps_the_class():
    random = np.random.default_rng(0)
    true = 1 / (1 + np.exp(-1.5 * random.normal(size=4000)))
    labels = (random.random(4000) < true).astype(np.int64)
    sharpened = calibration.scale(np.column_stack([1 - true, true]), 1 / 3)
    temperature = calibration.fit_temperature(labels, sharpened)
    assert temperature == pytest.approx(3, rel=0.1)
    scaled = calibration.scale(sharpened, temperature)
    assert (scaled.argmax(axis=1) == sharpened.argmax(axis=1)).all()
    assert np.allclose(scaled[:, 1], true, atol=0.02)


def test_a_validation_set_without_errors_does_not_ask_for_certainty():
    probabilities = np.tile([0.1, 0.9], (40, 1))
    assert 0.2 < calibration.fit_temperature(np.ones(40, dtype=np.int64), probabilities) < 1


def test_even_a_calibrated_model_shows_a_calibration_error():
    random = np.random.default_rng(0)
    confidence = 0.5 + 0.5 * random.random(95)
    null = calibration.null_calibration_errors(np.column_stack([confidence, 1 - confidence]), 15, 2000, seed=1)
    assert 0.06 < null.mean() < 0.13
    labels = (random.random(95) > confidence).astype(np.int64)
    shown = scores.calibration_error(labels, np.column_stack([confidence, 1 - confidence]), np.ones((1, 95)), 15)
    assert shown[0] < np.quantile(null, 0.999)


def test_the_threshold_is_the_cheapest_there_is():
    random = np.random.default_rng(2)
    violation = random.random(200) < 0.4
    score = np.clip(0.45 * violation + 0.35 * random.random(200) + 0.1, 0.01, 0.99)
    chosen = thresholds.choose_threshold(violation, score, missed=10, alarm=1)

    def cost(threshold: float) -> float:
        alarm = score >= threshold
        return (10 * (violation & ~alarm).sum() + (~violation & alarm).sum()) / 200

    assert cost(chosen) == min(cost(threshold) for threshold in np.linspace(0, 1, 2001))
    assert thresholds.cost_at(violation, score, np.array([chosen]), 10, 1)[0] == pytest.approx(cost(chosen))


def test_where_all_thresholds_cost_the_same_theory_decides():
    violation = np.array([True] * 5 + [False] * 5)
    score = np.array([0.97] * 5 + [0.02] * 5)
    assert thresholds.choose_threshold(violation, score, missed=10, alarm=1) == pytest.approx(1 / 11)
    assert thresholds.choose_threshold(violation, score, missed=1, alarm=1) == pytest.approx(1 / 2)


def test_slices_take_what_can_be_sliced_and_say_what_not():
    count = 300
    random = np.random.default_rng(0)
    manifest = pd.DataFrame(
        {
            "path": [str(place) for place in range(count)],
            "width": 200,
            "height": 200,
            "brightness": random.random(count),
            "sharpness": random.random(count),
            "site": np.where(np.arange(count) % 2, "north", "south"),
            "worker": [f"w{place}" for place in range(count)],
            "head_size": random.random(count).round(6).astype(str),
            "camera": "one",
        }
    )
    cuts, skipped = slices.slicings(manifest)
    assert [cut.column for cut in cuts] == ["light", "sharpness", "site", "head_size"]
    sizes = pd.Series(cuts[3].values).value_counts()
    assert set(sizes.index) == {"low", "middle", "high"}
    assert sizes.min() >= 99
    assert [sentence.split(":")[0] for sentence in skipped] == ["photograph size", "worker", "camera"]


@pytest.fixture(scope="module")
def people():
    table = split_table(groups=160, seed=4)
    labels = (table["label"] == "without_helmet").to_numpy().astype(np.int64)
    return table, labels, draw_people(labels, seed=5)


def sets_of(labels: np.ndarray) -> LabelSets:
    return ONE_LABEL.label_sets(np.eye(labels.max() + 1, dtype=bool)[labels])


def shortcuts_of(table: pd.DataFrame, labels: np.ndarray, pixels: np.ndarray) -> dict[str, Shortcut]:
    manifest = manifest_of(table, pixels).drop(columns="site")
    codes = intervals.group_codes(table["group"])
    return {item.name: item for item in shortcuts.measure_all(manifest, pixels, sets_of(labels), codes, 200, seed=0)}


@pytest.mark.slow
def test_a_fair_data_set_is_not_called_rigged(people):
    found = shortcuts_of(*people)
    bounds = Gate().shortcut_auc
    for name in ("metadata", "framing", "border"):
        assert found[name].low < bounds[name], name
        assert shortcut_rule(found[name], bounds[name]).passed
    assert found["border"].p > 0.01
    assert found["framing"].p > 0.01


@pytest.mark.slow
def test_a_data_set_with_one_class_zoomed_is_caught(people):
    table, labels, pixels = people
    rigged = np.stack([zoom_in(p, 0.65) if label else p for p, label in zip(pixels, labels, strict=True)])
    found = shortcuts_of(table, labels, rigged)
    rule = shortcut_rule(found["framing"], Gate().shortcut_auc["framing"])
    assert not rule.passed
    assert rule.more_test_groups is None, "no amount of evidence makes it better"
    assert rule.reason == "framing alone predicts the label with AUC 1.00: this data set teaches zoom"


@pytest.mark.slow
def test_a_background_that_gives_the_label_away_is_caught(people):
    table, labels, pixels = people
    rigged = pixels.copy()
    rigged[labels == 1, :6] = rigged[labels == 1, :6] // 2
    border = shortcuts_of(table, labels, rigged)["border"]
    assert not shortcut_rule(border, Gate().shortcut_auc["border"]).passed


def test_permuted_labels_stay_together_in_groups_of_one_size():
    codes = np.repeat(np.arange(30), 3)
    labels = (np.arange(30) % 3 == 0).astype(np.int64)[codes]
    permuted = shortcuts.permute_in_groups(labels, codes, np.random.default_rng(0))
    assert permuted.sum() == labels.sum()
    assert (permuted.reshape(30, 3) == permuted.reshape(30, 3)[:, :1]).all()
    assert not (permuted == labels).all()


@pytest.mark.slow
def test_chance_explains_random_labels_as_often_as_it_says(people):
    table, _, pixels = people
    codes = intervals.group_codes(table["group"])
    source = shortcuts.Source("", "", shortcuts.border_features(pixels))
    draws = [np.random.default_rng(seed).integers(0, 2, codes.max() + 1)[codes] for seed in range(12)]
    p_values = np.array([shortcuts.measure("border", source, sets_of(labels), codes, 99, 0).p for labels in draws])
    assert (p_values < 0.05).sum() <= 3
    assert 0.25 < p_values.mean() < 0.75


def test_a_site_that_wears_its_own_colours_costs_a_model_that_never_saw_it():
    random = np.random.default_rng(0)
    sites = np.array(["east", "west"], dtype=object)[np.repeat([0, 1], 100)]
    labels = random.integers(0, 2, 200)
    sign = np.where(sites == "east", 1.0, -1.0)
    features = np.column_stack([labels * sign, sign, random.normal(size=200)])
    features = np.hstack([features, features[:, :1] * features[:, 1:2]])[:, [0, 1, 2]]
    rows = leave_one_site_out(features, sets_of(labels), np.arange(200), sites, seed=0)
    assert [row.site for row in rows] == ["east", "west"]
    assert all(row.auc_unseen < 0.1 for row in rows)


def test_pixel_regression_learns_a_helmet_and_leaves_the_test_set_alone(people):
    table, labels, pixels = people
    train, validation = ((table["split"] == name).to_numpy() for name in ("train", "validation"))
    sample = sample_of(predictions(table, skill=1.0), CLASSES)
    probabilities = pixel_regression(pixels, sample, train, validation)
    test = (table["split"] == "test").to_numpy()
    assert (probabilities[test].argmax(axis=1) == labels[test]).mean() > 0.55
    other = replace(sample, truth=np.where(test[:, None], ~sample.truth, sample.truth))
    assert np.array_equal(probabilities, pixel_regression(pixels, other, train, validation))


@pytest.mark.slow
def test_the_stage_writes_what_the_contract_says(project, capsys):
    write_project(project, {"small": 1.5, "large": 3.0}, absent=("broken",))
    evaluate.main()
    board = json.loads(Path("build/leaderboard.json").read_text())
    assert [entry["candidate"] for entry in board] == ["small", "large"]
    assert set(board[0]) >= {"candidate", "parameters", "trainable_parameters", "weights", "metrics"}
    assert set(board[0]["metrics"]) == {"train", "validation", "test"}
    table = pd.read_parquet("build/candidates/small/predictions.parquet").query("split == 'test'")
    right = table[[f"p_{name}" for name in CLASSES]].to_numpy().argmax(axis=1) == (table["label"] == CLASSES[1])
    assert board[0]["metrics"]["test"]["accuracy"] == pytest.approx(right.mean())
    low, high = board[0]["intervals"]["test"]["accuracy"]
    assert low < right.mean() < high
    assert sorted(path.name for path in Path("build/metrics").iterdir()) == ["large.json", "small.json"]
    for kind in ("learning", "confusion", "roc", "pr"):
        assert sorted(path.name for path in Path("build/plots", kind).iterdir()) == ["large.csv", "small.csv"]
    assert "broken: no result" in capsys.readouterr().out
    evaluation = json.loads(Path("build/evaluation.json").read_text())
    assert evaluation["missing"] == ["broken"]
    assert evaluation["candidates"]["small"]["slices"][0]["column"] == "light"
    points = evaluation["candidates"]["small"]["splits"]["test"]["operating_points"]
    assert {0.3, 0.5, 0.7} <= {point["threshold"] for point in points}
    assert [point["chosen"] for point in points].count(True) == 1


@pytest.mark.slow
def test_the_same_candidates_give_the_same_bytes_twice(project):
    write_project(project, {"small": 1.5})
    evaluate.main()
    first = Path("build/evaluation.json").read_bytes()
    evaluate.main()
    assert Path("build/evaluation.json").read_bytes() == first


@pytest.mark.slow
def test_three_classes_without_a_violation(project):
    classes = ["cap", "helmet", "nothing"]
    write_project(project, {"small": 2.0, "large": 3.0}, classes)
    evaluate.main()
    evaluation = json.loads(Path("build/evaluation.json").read_text())
    entry = evaluation["candidates"]["large"]
    assert entry["threshold"] is None
    assert {"top_2", "recall:cap", "f1_macro", "roc_auc"} <= set(entry["splits"]["test"]["scores"])
    (matrix,) = entry["splits"]["test"]["confusion"]
    assert np.shape(matrix["counts"]) == (3, 3)
    assert set(pd.read_csv("build/plots/roc/small.csv")["class"]) == set(classes)


@pytest.mark.slow
def test_the_threshold_comes_from_validation_alone(project):
    table = write_project(project, {"small": 1.5})
    evaluate.main()
    chosen = json.loads(Path("build/evaluation.json").read_text())["candidates"]["small"]
    path = Path("build/candidates/small/predictions.parquet")
    scored = pd.read_parquet(path)
    test = (table["split"] == "test").to_numpy()
    columns = [f"p_{name}" for name in CLASSES]
    scored.loc[test, columns] = scored.loc[test, columns[::-1]].to_numpy()
    scored.to_parquet(path, index=False)
    evaluate.main()
    again = json.loads(Path("build/evaluation.json").read_text())["candidates"]["small"]
    assert again["splits"]["test"]["scores"]["accuracy"] != chosen["splits"]["test"]["scores"]["accuracy"]
    assert (again["threshold"], again["temperature"]) == (chosen["threshold"], chosen["temperature"])


def spoil(name: str) -> None:
    path = Path("build/candidates/small/predictions.parquet")
    table = pd.read_parquet(path)
    if name == "column":
        table = table.drop(columns="p_with_helmet")
    elif name == "nan":
        table.loc[3, "p_with_helmet"] = np.nan
    elif name == "images":
        table = table.iloc[1:]
    elif name == "no test":
        table = table[table["split"] != "test"]
    elif name == "damaged":
        path.write_bytes(b"PAR1 no longer")
        return
    table.to_parquet(path, index=False)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("column", "has no column p_with_helmet"),
        ("nan", "not finite or not between 0 and 1"),
        ("images", "not predicted for the same images"),
        ("no test", "has no test images"),
        ("damaged", "is damaged"),
    ],
)
def test_spoilt_predictions_are_refused_by_name(project, what, words):
    write_project(project, {"large": 3.0, "small": 1.5})
    spoil(what)
    with pytest.raises(UserError, match=words) as refused:
        evaluate.main()
    assert "small" in str(refused.value)
    assert "dvc repro" in str(refused.value)
    assert not Path("build/evaluation.json").exists()


def test_an_unknown_violation_class_is_named_with_the_classes(project):
    write_project(project, {"small": 1.5})
    text = Path("params.yaml").read_text().replace("resamples: 400", "violation_class: bare\n  resamples: 400", 1)
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError, match="'bare', but the classes are with_helmet, without_helmet"):
        evaluate.main()


def test_no_candidate_at_all_says_so(project):
    write_project(project, {}, absent=("small",))
    with pytest.raises(UserError, match=r"no trained candidate .*small"):
        evaluate.main()


def test_a_sample_keeps_labels_and_probabilities_together():
    table = predictions(split_table(), skill=2.0)
    sample = sample_of(table, CLASSES, "test")
    assert sample.paths == table.loc[table["split"] == "test", "path"].tolist()
    test = table.loc[table["split"] == "test", "label"]
    assert (sample.truth == np.column_stack([test == name for name in CLASSES])).all()
