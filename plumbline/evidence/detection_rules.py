"""Whether the best detector is promoted, held or rejected: a rule for each bound of detection/params.yaml's `gate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from plumbline.common.params import Section
from plumbline.evidence.context import ContextEvidence
from plumbline.evidence.detection import DetectionEvidence, DetectionParams, DetectorEvidence
from plumbline.evidence.detection_figures import AT_50, alarm_costs
from plumbline.evidence.detection_scores import Matches, average_precision, match, scenes_of
from plumbline.evidence.intervals import draw_groups, group_codes
from plumbline.evidence.records import AgainstChampion, Costs, Decision, Rule
from plumbline.evidence.results import FAILED, NOT_JUDGED, result_of, verdict_on
from plumbline.evidence.rules import (
    budget_rule,
    floor_rule,
    groups_rule,
    latency_rule,
    leakage_rule,
    not_applicable,
    not_judged,
    recall_rule,
    weights_rule,
)
from plumbline.evidence.selection import bootstrap_p, holm, p_value
from plumbline.evidence.systems import JUDGED, SystemsEvidence, entry_of, in_words
from plumbline.tasks.scores import Floats

if TYPE_CHECKING:
    import pandas as pd


class DetectionGate(Section):
    """Every bound is one rule, judged on the test figures of the one detector chosen; null switches a rule off.

    Floors are judged by the lower end of the 95% interval: `map50_floor` of the mean average precision at IoU 0.5,
    `recall_floor` of the violations found at the alarm's threshold. `false_alarm_ceiling` is per photograph.
    `context_floor` is of the boxes found, those found with all around them blurred, judged by the upper end.
    `second_stage`: a detector is not judged to be the better system before the classifier was measured beside it.
    `alpha` is the level at which a challenger counts as worse than the champion.
    """

    unjudged: Literal["hold", "allow"] = "hold"
    map50_floor: float | None = Field(default=0.5, ge=0, le=1)
    recall_floor: float | None = Field(default=0.5, ge=0, le=1)
    false_alarm_ceiling: float | None = Field(default=1.0, ge=0)
    minimum_test_groups: int | None = 30
    maximum_parameters: int | None = 50_000_000
    maximum_latency_ms: float | None = 200
    allowed_weights: tuple[str, ...] | None = ("imagenet", "random", "file", "from scratch")
    leakage: bool = True
    second_stage: bool = True
    context_floor: float | None = Field(default=0.5, ge=0, le=1)
    alpha: float = Field(default=0.05, gt=0, lt=1)


def decide(
    evidence: DetectionEvidence,
    systems: SystemsEvidence,
    context: ContextEvidence,
    violation_groups: int,
    leaks: int,
    params: DetectionGate,
) -> Decision:
    """Return the verdict on the system that is best on validation, with every rule and its figure.

    `violation_groups` of the test side have a box of the violation; `leaks` is as rules.leaks_between counts.
    """
    name, entry = systems.detector, entry_of(evidence, systems)
    rules = apply_rules(entry, evidence.violation_class, violation_groups, leaks, params)
    if params.context_floor is not None:
        rules.append(context_rule(context, params.context_floor))
    if params.second_stage:
        rules.append(second_stage_rule(evidence, systems))
    verdict, more = verdict_on(rules, params.unjudged)
    alarms = entry.alarms.get("validation")
    return Decision(
        verdict=verdict,
        candidate=name,
        reason=_sentence(verdict, evidence, systems, rules, more),
        more_test_groups=more,
        threshold=None if alarms is None else alarms.threshold,
        violation_class=evidence.violation_class,
        selected_on="validation",
        system=systems.system,
        rules=tuple(rules),
    )


def apply_rules(
    entry: DetectorEvidence, violation: str | None, violation_groups: int, leaks: int, params: DetectionGate
) -> list[Rule]:
    """Return every rule that is switched on, judged on a detector's test figures."""
    test, rules = entry.splits["test"], []
    if params.map50_floor is not None:
        name = "mAP at IoU 0.5"
        if test.map50 is None:
            rules.append(not_judged(name, params.map50_floor, "no test photograph has a box, so not judged"))
        else:
            rules.append(floor_rule(name, test.map50, params.map50_floor, test.groups))
    if violation is not None:
        alarms = entry.alarms["test"]
        if params.recall_floor is not None:
            held = max(1, violation_groups)
            rules.append(recall_rule(violation, alarms.recall, params.recall_floor, held, test.groups))
        if params.false_alarm_ceiling is not None:
            value, most = alarms.false_alarms, params.false_alarm_ceiling
            reason = f"{value:.2f} false alarms a photograph, at most {most:g} are allowed"
            rules.append(Rule("false alarms a photograph", value, most, value <= most, reason))
    if params.minimum_test_groups is not None:
        rules.append(groups_rule(test.groups, params.minimum_test_groups))
    if params.maximum_parameters is not None:
        rules.append(budget_rule("parameters", entry.record.parameters, params.maximum_parameters))
    if params.maximum_latency_ms is not None:
        rules.append(latency_rule(entry.cost.latency_ms, params.maximum_latency_ms))
    if params.allowed_weights is not None:
        rules.append(weights_rule(entry.record.weights, params.allowed_weights))
    if params.leakage:
        rules.append(leakage_rule(leaks))
    return rules


def context_rule(context: ContextEvidence, floor: float) -> Rule:
    """Judge whether the detector reads heads: the share of its boxes that it finds without what is around them."""
    name, still = "context", context.still["context blurred"]
    if still is None:
        return not_judged(name, floor, "no box of the test photographs is found as they are, so not judged")
    passed = still.high >= floor
    reason = f"with all around the boxes blurred, it still finds {still.value:.0%} of those that it finds"
    return Rule(name, still.high, floor, passed, reason if passed else f"{reason}: it reads their surroundings")


def second_stage_rule(evidence: DetectionEvidence, systems: SystemsEvidence) -> Rule:
    """Judge whether it was measured which is better on validation: detectors alone or with the classifier."""
    name = "second stage"
    if systems.classifier.wanted is None:
        return not_applicable(name, "measured", "systems.classifier is null: detectors alone are the system")
    if systems.why_not is not None:
        return not_judged(name, "measured", f"not measured, so not judged: {systems.why_not}")
    alone = evidence.detectors[systems.detector].splits["validation"].map50
    judged = systems.judged[systems.detector].splits["validation"].map50
    if alone is None or judged is None:
        return not_judged(name, "measured", "no validation photograph has a box, so not judged")
    value = judged.value - alone.value
    reason = (
        f"{systems.detector} has mAP50 {alone.value:.3f} alone and {judged.value:.3f} with {systems.classifier.called} "
        f"on validation: the system is {in_words(systems)}"
    )
    return Rule(name, value, "measured", True, reason)


def _sentence(
    verdict: str, evidence: DetectionEvidence, systems: SystemsEvidence, rules: list[Rule], more: int | None
) -> str:
    number, name = len(evidence.detectors), systems.detector
    if systems.system == JUDGED:
        name = in_words(systems)
    rivals = number + len(systems.judged)
    how = f"{name} has the highest mAP50 on validation of {rivals}" if rivals > 1 else f"{name} is the only detector"
    if verdict == "PROMOTE":
        return f"{how}. It passes every rule."
    failed = [rule.name for rule in rules if result_of(rule) == FAILED]
    if verdict == "REJECT":
        return f"{how}. It fails on: {', '.join(failed)}."
    parts = [f"{how}."]
    if failed:
        parts.append(f"Too little evidence for: {', '.join(failed)}. About {more} more test groups would settle it.")
    if unjudged := [rule.name for rule in rules if result_of(rule) == NOT_JUDGED]:
        parts.append(f"Not judged, because it was not measured: {', '.join(unjudged)}.")
    return " ".join(parts)


def compare_with_champion(
    photographs: pd.DataFrame,
    boxes: pd.DataFrame,
    champion: pd.DataFrame,
    challenger: pd.DataFrame,
    classes: Sequence[str],
    violation: str | None,
    params: DetectionParams,
    alpha: float,
) -> AgainstChampion:
    """Return whether the challenger may take the champion's place: not worse in mAP50, nor in what its alarms cost.

    Both tables of detections (path, label, score, left, top, right, bottom, alarm) are of the `photographs` (path,
    width, height, group), none of which either was trained on; `alarm` marks what each raises at its own threshold.
    Worse means that the paired difference, bootstrapped over groups, is below 0 with 95% confidence, corrected for the
    number of rules.
    """
    codes = group_codes(photographs["group"])
    draws = draw_groups(int(codes.max()) + 1, params.resamples, params.seed)[:, codes]
    before, after = (_mean_ap50(photographs, boxes, one, classes, draws) for one in (champion, challenger))
    gain, drawn = after[0] - before[0], after[1:] - before[1:]
    parts = [("mAP50", gain, p_value(gain, drawn[np.isfinite(drawn)]) if gain < 0 else 1.0, "in mAP50")]
    if violation is not None:
        costs = Costs(**params.costs.model_dump())
        saved = np.subtract(
            *(alarm_costs(_alarms(photographs, boxes, one, violation), costs) for one in (champion, challenger))
        )
        worse = bootstrap_p(saved, draws) if saved.sum() < 0 else 1.0
        parts.append((f"alarms for {violation}", float(saved.mean()), worse, "saved a photograph in costs of alarms"))
    corrected = holm([p for _, _, p, _ in parts])
    rules = tuple(
        Rule(
            name=f"no worse than the champion: {name}",
            value=value,
            bound=0.0,
            passed=p >= alpha,
            reason=f"{value:+.3f} {unit} on {len(photographs)} photographs (p = {p:.3f} for worse)",
        )
        for (name, value, _, unit), p in zip(parts, corrected, strict=True)
    )
    return AgainstChampion(passed=all(rule.passed for rule in rules), rules=rules)


def _mean_ap50(
    photographs: pd.DataFrame, boxes: pd.DataFrame, detections: pd.DataFrame, classes: Sequence[str], draws: Floats
) -> Floats:
    """Mean over the classes that are there of AP at IoU 0.5, (1 + R,): of the photographs, and of each redrawn set."""
    of_class = []
    for label in classes:
        matches = match(list(scenes_of(photographs, boxes, detections, label)))
        if matches.wanted.any():
            times = [None, *draws]
            of_class.append([average_precision(matches, one)[AT_50] for one in times])
    if not of_class:
        return np.zeros(1 + len(draws))
    values = np.array(of_class)
    there = np.isfinite(values)
    return np.asarray(np.where(there, values, 0).sum(axis=0) / np.where(there.any(axis=0), there.sum(axis=0), np.nan))


def _alarms(photographs: pd.DataFrame, boxes: pd.DataFrame, detections: pd.DataFrame, violation: str) -> Matches:
    return match(list(scenes_of(photographs, boxes, detections[detections["alarm"]], violation)))
