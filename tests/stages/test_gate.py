"""The gate chooses the simplest of the tied, counts missing evidence, and looks at the test set once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricated import CLASSES, predictions, split_table, write_project
from recorded import certificate_json
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from benchmarks.selection import chosen_share, optimism
from plumbline.common.errors import UserError
from plumbline.evidence import rules
from plumbline.evidence.intervals import draw_weights, wilson
from plumbline.evidence.records import Figure, Gain, SliceEvidence
from plumbline.evidence.selection import bootstrap_p, holm, mcnemar, select_simplest
from plumbline.evidence.slices import Slicing
from stages import evaluate, gate


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_both() -> dict:
    evaluate.main()
    gate.main()
    return json.loads(Path("build/decision.json").read_text())


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_holm_is_that_of_statsmodels():
    p_values = np.random.default_rng(0).random(9) ** 3
    assert holm(list(p_values)) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert holm([]) == []


def test_mcnemar_lies_below_the_exact_test_by_half_the_table_seen():
    for first, second in ((9, 1), (12, 5), (0, 6), (30, 18)):
        exact = reference_mcnemar([[50, first], [second, 40]], exact=True).pvalue
        assert 0 < mcnemar(first, second) < exact
        assert mcnemar(first, second) == mcnemar(second, first)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(4, 4) == 1.0


def test_bootstrap_p_knows_that_a_group_errs_together():
    gain = np.zeros(60)
    gain[:6] = 1.0
    apart, together = np.arange(60), np.repeat(np.arange(10), 6)
    assert bootstrap_p(gain, draw_weights(apart, 2000, 0)) < 0.02
    assert bootstrap_p(gain, draw_weights(together, 2000, 0)) > 0.1


def choose_among(accuracies: list[float], costs: list[float], images: int = 400) -> tuple[str, list[bool]]:
    random = np.random.default_rng(0)
    luck = random.random(images)
    right = np.stack([luck < accuracy for accuracy in accuracies])
    selection = select_simplest(
        right=right,
        brier=1.0 - right,
        names=[f"m{place}" for place in range(len(costs))],
        costs=[(cost,) for cost in costs],
        draws=draw_weights(np.arange(images), 1000, 0),
        alpha=0.05,
    )
    return selection.chosen, [item.tied for item in selection.comparisons]


def test_the_cheapest_of_the_tied_is_chosen_whatever_the_order():
    assert choose_among([0.95, 0.955, 0.945], [3, 2, 1])[0] == "m2"
    assert choose_among([0.945, 0.95, 0.955], [1, 2, 3])[0] == "m0"


def test_a_clearly_worse_cheap_model_is_not_chosen():
    chosen, tied = choose_among([0.85, 0.95, 0.96], [1, 2, 3])
    assert (chosen, tied) == ("m1", [False, True])


def test_a_dear_model_that_is_best_by_chance_is_not_chosen_and_a_cheap_best_is():
    assert choose_among([0.96, 0.90], [1, 2])[0] == "m0"


def test_worse_probabilities_count_as_worse_where_accuracy_can_not_tell():
    random = np.random.default_rng(0)
    right = random.random((2, 90)) < 0.95
    brier = np.stack([random.uniform(0.1, 0.2, 90), random.uniform(0.0, 0.05, 90)])
    right[1] |= right[0]
    selection = select_simplest(right, brier, ["m0", "m1"], [(1,), (2,)], draw_weights(np.arange(90), 1000, 0), 0.05)
    (item,) = selection.comparisons
    assert item.p_mcnemar > 0.05
    assert (selection.best, selection.chosen, item.tied) == ("m1", "m1", False)


def test_the_best_of_ten_equal_models_shows_more_than_any_is_worth():
    assert optimism(repeats=1000) == pytest.approx(0.981, abs=0.002)


def test_ties_promote_the_simplest_and_a_better_model_is_found():
    assert chosen_share([0.95, 0.95], groups=500, wanted=0, repeats=150) >= 0.92
    assert chosen_share([0.95, 0.98], groups=500, wanted=1, repeats=60) >= 0.8


@pytest.mark.parametrize(("value", "trials", "groups"), [(0.95, 90.0, 50), (1.0, 40.0, 40), (0.9, 200.0, 100)])
def test_hold_says_how_many_more_groups_settle_it(value, trials, groups):
    low, _ = wilson(value, trials)
    floor = (low + value) / 2
    rule = rules.floor_rule("accuracy", Figure(value=value, low=low, high=1.0), floor, groups)
    more = rule.more_test_groups
    assert not rule.passed
    assert more is not None
    assert wilson(value, trials * (groups + more) / groups)[0] >= floor
    assert wilson(value, trials * (groups + more - 1) / groups)[0] < floor


def test_below_the_floor_no_amount_of_evidence_helps():
    rule = rules.floor_rule("accuracy", Figure(value=0.8, low=0.7, high=0.9), 0.85, 50)
    assert (rule.passed, rule.more_test_groups) == (False, None)


def test_a_gain_over_a_rival_that_may_be_chance_asks_for_groups():
    versus = {"16x16 pixels": Gain(value=0.05, low=-0.15, high=0.25, spread=0.1, share_better=0.69)}
    rule = rules.beat_rule("16x16 pixels", versus, 50, sure=0.9)
    # 0.05 is half a standard error and has to become 1.28 of them: 6.57 times the groups.
    assert (rule.passed, rule.more_test_groups) == (False, 279)
    assert rules.beat_rule("16x16 pixels", versus, 50, sure=0.6).passed
    lost = {"value": -0.01, "share_better": 0.4}
    versus = {"16x16 pixels": versus["16x16 pixels"].model_copy(update=lost)}
    rule = rules.beat_rule("16x16 pixels", versus, 50, sure=0.9)
    assert (rule.passed, rule.more_test_groups) == (False, None)
    with pytest.raises(UserError, match="names 'nobody'"):
        rules.beat_rule("nobody", versus, 50, sure=0.9)


def test_only_a_slice_that_is_surely_bad_fails():
    def one(high: float, judged: bool = True) -> SliceEvidence:
        figure = Figure(value=high - 0.1, low=high - 0.2, high=high)
        return SliceEvidence(column="site", value="a", images=20, groups=12, judged=judged, accuracy=figure)

    assert rules.slice_rule([one(0.95), one(0.81)], 0.8).passed
    assert not rules.slice_rule([one(0.95), one(0.79)], 0.8).passed
    assert rules.slice_rule([one(0.95), one(0.79, judged=False)], 0.8).passed
    assert rules.slice_rule([], 0.8).value is None


def test_leaks_are_counted_from_groups_and_from_the_certificate():
    splits = pd.DataFrame({"group": ["a", "a", "b"], "split": ["train", "test", "test"]})
    assert rules.leaks_between(splits, 0) == 1
    assert rules.leaks_between(splits[1:], 3) == 3
    assert rules.leaks_between(splits[1:], 0) == 0
    assert not rules.leakage_rule(1).passed


def test_a_good_model_is_promoted_with_every_rule_explained(project):
    write_project(project, {"small": 4.0, "large": 4.0})
    decision = run_both()
    assert decision["verdict"] == "PROMOTE", decision["reason"]
    assert decision["candidate"] == "small"
    for rule in decision["rules"]:
        assert {"name", "value", "bound", "passed", "reason"} <= set(rule)
        assert rule["reason"]
    names = [rule["name"] for rule in decision["rules"]]
    assert len(names) == len(set(names))
    assert {"accuracy", "recall of without_helmet", "leakage", "better than 16x16 pixels"} <= set(names)


def test_a_candidate_over_the_budget_does_not_stand(project):
    write_project(project, {"small": 1.2, "large": 4.0})
    assert run_both()["candidate"] == "large"
    text = Path("params.yaml").read_text().replace("gate:\n", "gate:\n  maximum_parameters: 1500\n")
    Path("params.yaml").write_text(text)
    assert run_both()["candidate"] == "small"


def test_too_few_groups_hold_and_say_how_many(project):
    write_project(project, {"small": 4.0})
    text = Path("params.yaml").read_text().replace("minimum_test_groups: 10", "minimum_test_groups: 60")
    Path("params.yaml").write_text(text)
    decision = run_both()
    assert (decision["verdict"], decision["more_test_groups"]) == ("HOLD", 36)
    assert "36 more test groups" in decision["reason"]


def test_a_poor_model_is_rejected(project):
    write_project(project, {"small": 0.2})
    decision = run_both()
    assert decision["verdict"] == "REJECT"
    assert "accuracy" in decision["reason"]


def test_a_group_in_two_splits_rejects(project):
    table = write_project(project, {"small": 4.0})
    table.loc[table["split"] == "test", "group"] = table.loc[table["split"] == "train", "group"].iloc[0]
    table.to_parquet("build/splits.parquet", index=False)
    decision = run_both()
    assert decision["verdict"] == "REJECT"
    assert "leakage" in decision["reason"]


def test_the_certificate_is_heeded(project):
    write_project(project, {"small": 4.0})
    Path("build/leakage.json").write_text(json.dumps(certificate_json(pairs_across_splits=2)))
    assert run_both()["verdict"] == "REJECT"


@pytest.mark.parametrize(("text", "words"), [(None, "is missing"), ("{", "is damaged")])
def test_without_a_certificate_there_is_no_decision(project, text, words):
    write_project(project, {"small": 4.0})
    evaluate.main()
    path = Path("build/leakage.json")
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UserError, match=f"leakage.json {words}.*dvc repro"):
        gate.main()
    assert not Path("build/decision.json").exists()


def test_test_figures_decide_nothing_about_who_is_chosen(project):
    table = write_project(project, {"small": 1.0, "large": 4.0})
    first = run_both()
    assert first["candidate"] == "large"
    path = Path("build/candidates/small/predictions.parquet")
    scored = pd.read_parquet(path)
    in_test = (table["split"] == "test").to_numpy()
    perfect = predictions(table, 9.0)
    columns = [f"p_{name}" for name in CLASSES]
    scored.loc[in_test, columns] = perfect.loc[in_test, columns].to_numpy()
    scored.to_parquet(path, index=False)
    again = run_both()
    assert again == first


def test_cross_validation_selects_when_asked_and_says_what_it_lacks(project):
    table = write_project(project, {"small": 1.0, "large": 4.0})
    text = Path("params.yaml").read_text().replace("gate:\n", "gate:\n  selection: cross_validation\n")
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"small/cross_validation.parquet is missing"):
        run_both()
    for name, skill in {"small": 4.0, "large": 1.0}.items():
        folds = predictions(table, skill, seed=5)
        folds.to_parquet(f"build/candidates/{name}/cross_validation.parquet", index=False)
    decision = run_both()
    assert (decision["candidate"], decision["selected_on"]) == ("small", "cross_validation")


def test_a_rule_that_is_null_is_not_judged(project):
    write_project(project, {"small": 0.2})
    text = Path("params.yaml").read_text().replace("accuracy_floor: 0.7", "accuracy_floor: null")
    Path("params.yaml").write_text(text)
    assert "accuracy" not in [rule["name"] for rule in run_both()["rules"]]


def champion_tables(skill: float, seed: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = split_table(groups=300)
    return predictions(table, 3.0, seed=2), predictions(table, skill, seed=seed)


def test_a_challenger_as_good_as_the_champion_may_pass():
    champion, challenger = champion_tables(3.0)
    assert rules.compare_with_champion(champion, challenger, CLASSES, [], rules.Gate()).passed


def test_a_worse_challenger_may_not():
    champion, challenger = champion_tables(1.0)
    verdict = rules.compare_with_champion(champion, challenger, CLASSES, [], rules.Gate())
    assert not verdict.passed
    assert verdict.rules[0].name == "no worse than the champion: overall"


def test_a_challenger_that_is_worse_in_one_protected_slice_may_not():
    champion, challenger = champion_tables(3.5)
    columns = [f"p_{name}" for name in CLASSES]
    night = np.arange(len(challenger)) % 6 == 0
    rows = challenger.index[night]
    challenger.loc[rows, columns] = 1 - champion.loc[rows, columns].round()
    cut = Slicing("light", np.where(night, "night", "day").astype(object))
    verdict = rules.compare_with_champion(champion, challenger, CLASSES, [cut], rules.Gate())
    failed = [rule.name for rule in verdict.rules if not rule.passed]
    assert "no worse than the champion: light night" in failed
    assert "no worse than the champion: light day" not in failed


def test_champion_and_challenger_must_see_the_same_pictures():
    champion, challenger = champion_tables(3.0)
    with pytest.raises(UserError, match="same pictures"):
        rules.compare_with_champion(champion, challenger[1:], CLASSES, [], rules.Gate())
    with pytest.raises(UserError, match="no picture that neither"):
        rules.compare_with_champion(champion[:0], challenger[:0], CLASSES, [], rules.Gate())
