"""A rule whose figure nobody measured is not passed: on the page, in the JSON, the summary and Prefect's artifact."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from fabricated import write_project

from flows.report import decision_text
from plumbline.commands.summary import table
from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.records import read_record, read_records
from plumbline.evidence import rules
from plumbline.evidence.records import ConditionAnswers, Decision, Evaluation, Figure, LeaderboardRow, ProbeEvidence
from plumbline.evidence.results import FAILED, NOT_APPLICABLE, NOT_JUDGED, PASSED, result_of
from stages import evaluate, gate, leaderboard, race


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, {"small": 4.0})
    return tmp_path


def decide(**gate_params):
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["gate"] |= gate_params
    Path("params.yaml").write_text(yaml.safe_dump(params))
    if not Path("build/evaluation.json").exists():
        evaluate.main()
    race.main()
    gate.main()
    return read_record(artefacts.DECISION, Decision)


def rule(decision, name):
    (found,) = [rule for rule in decision.rules if rule.name == name]
    return found


def forget_the_time(project):
    (project / "build/candidates/small/cost.json").write_text('{"seconds": 3.0, "peak_megabytes": 900}')


def test_a_time_that_was_not_measured_holds_and_every_reader_sees_it(project):
    forget_the_time(project)
    decision = decide()
    unmeasured = rule(decision, "latency in ms")
    assert (unmeasured.passed, unmeasured.judged, unmeasured.value) == (False, False, None)
    assert decision.verdict == "HOLD"
    assert decision.reason.endswith("Not judged, because it was not measured: latency in ms.")
    board = read_records(artefacts.LEADERBOARD, LeaderboardRow)
    assert "  not judged: latency in ms: not measured in this run" in table(board, decision)
    artifact = decision_text(decision)
    assert "| latency in ms | – | 100 | **not judged** |" in artifact
    assert "**Not judged**\n\n- latency in ms" in artifact
    leaderboard.main()
    page = Path("reports/leaderboard.html").read_text()
    row = re.search(r'<th scope="row">latency in ms</th>\s*<td>\s*<span class="([^"]+)">([^<]+)</span>', page)
    assert row.groups() == ("badge not-judged", "not judged")
    assert "speed not measured" in page


def test_by_parameter_it_may_be_let_through_and_is_still_not_called_passed(project, capsys):
    forget_the_time(project)
    decision = decide(unjudged="allow")
    assert decision.verdict == "PROMOTE"
    assert result_of(rule(decision, "latency in ms")) == NOT_JUDGED
    assert "not judged, and allowed so by gate.unjudged: latency in ms" in decision.reason
    assert "NOT JUDGED      latency in ms" in capsys.readouterr().out


def test_a_rule_switched_off_is_no_rule_that_was_not_judged(project):
    forget_the_time(project)
    decision = decide(maximum_latency_ms=None)
    assert decision.verdict == "PROMOTE"
    assert "latency in ms" not in [rule.name for rule in decision.rules]


@pytest.mark.parametrize(
    ("bound", "result", "value"), [(100, PASSED, 31.5), (31, FAILED, 31.5), (1000, PASSED, "under 250")]
)
def test_the_time_that_training_measured_is_judged(project, bound, result, value):
    decision = decide(maximum_latency_ms=bound)
    found = rule(decision, "latency in ms")
    assert (result_of(found), found.value) == (result, value)
    assert decision.verdict == ("REJECT" if result == FAILED else "PROMOTE")


def test_a_failed_rule_beside_one_that_was_not_judged_is_still_a_reject(project):
    forget_the_time(project)
    decision = decide(accuracy_floor=1.0)
    assert decision.verdict == "REJECT"
    assert "It fails on: accuracy" in decision.reason


def test_what_was_not_probed_or_sliced_is_not_judged_either(project):
    decision = decide(probes={"head": 0.15, "background": 0.3, "zoom": 0.3, "attention": 1.0})
    assert decision.verdict == "HOLD"
    found = [rule.name for rule in decision.rules if result_of(rule) == NOT_JUDGED]
    assert found == ["probe: head", "probe: background", "probe: zoom", "probe: attention"]
    assert result_of(rules.slice_rule([], 0.8)) == NOT_JUDGED


def test_a_network_without_maps_and_a_probe_without_zooms_are_not_judged():
    some = Figure(value=0.2, low=0.1, high=0.3)
    end = ConditionAnswers(changed=some, right=some)
    known = rules.probes.COVERED, rules.probes.SWAPPED
    probed = ProbeEvidence(
        images=20, groups=20, test_images=20, right=some, conditions=dict.fromkeys(known, end), attention=None
    )
    bounds = rules.Looks(head=None, background=None, zoom=0.3, attention=1.0)
    assert [rule.judged for rule in rules.probe_rules(probed, bounds)] == [False, False]


def test_a_shortcut_bound_that_names_no_audit_is_refused(project):
    with pytest.raises(UserError, match=r"gate\.shortcut_auc: .*'boarder' is none of .* metadata, framing, thumbnail"):
        decide(shortcut_auc={"boarder": 0.8})


def only(project, label):
    """Leave test pictures of one label only, in all that was predicted and split."""
    for path in (project / "build/splits.parquet", *(project / "build/candidates").glob("*/predictions.parquet")):
        table = pd.read_parquet(path)
        table.loc[(table["split"] == "test") & (table["label"] != label), "split"] = "train"
        table.to_parquet(path, index=False)


@pytest.mark.parametrize(
    ("label", "unjudged"), [("without_helmet", "false alarms"), ("with_helmet", "recall of without_helmet")]
)
def test_a_rate_of_no_test_picture_is_not_judged_and_no_page_shows_it_as_zero(project, label, unjudged):
    only(project, label)
    decision = decide()
    assert result_of(rule(decision, unjudged)) == NOT_JUDGED
    assert decision.verdict != "PROMOTE"
    test = read_record(artefacts.EVALUATION, Evaluation).candidates["small"].splits["test"]
    gone = {"without_helmet": "recall:with_helmet", "with_helmet": "recall:without_helmet"}[label]
    assert {gone, "recall_macro", "roc_auc"}.isdisjoint(test.scores)
    metrics = json.loads((artefacts.METRICS / "small.json").read_text())
    assert "validation roc_auc" in metrics
    assert "test roc_auc" not in metrics
    leaderboard.main()
    assert "not measured" in Path("reports/leaderboard.html").read_text()


@pytest.mark.parametrize("site", [None, "everywhere"])
def test_a_bound_on_the_site_of_pictures_of_one_site_is_shown_as_not_applicable_and_promotes(project, site, capsys):
    manifest = pd.read_parquet("build/manifest.parquet").drop(columns="site")
    manifest.assign(**({} if site is None else {"site": site})).to_parquet("build/manifest.parquet", index=False)
    decision = decide()
    found = rule(decision, "shortcut: site")
    assert (result_of(found), found.passed, decision.verdict) == (NOT_APPLICABLE, False, "PROMOTE")
    assert decision.reason.endswith("It passes every rule; not applicable: shortcut: site.")
    assert "not applicable  shortcut: site" in capsys.readouterr().out
    assert "| shortcut: site | – | 0.85 | not applicable |" in decision_text(decision)
    assert "  not applicable: shortcut: site" in table(read_records(artefacts.LEADERBOARD, LeaderboardRow), decision)
    leaderboard.main()
    assert '<span class="badge not-applicable">not applicable</span>' in Path("reports/leaderboard.html").read_text()
