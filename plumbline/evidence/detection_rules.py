"""Whether the best detector is promoted, held or rejected: a rule for each bound of detection/params.yaml's `gate`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plumbline.common.params import Section
from plumbline.evidence.detection import DetectionEvidence, DetectorEvidence
from plumbline.evidence.records import Decision, Rule
from plumbline.evidence.results import FAILED, NOT_JUDGED, result_of, verdict_on
from plumbline.evidence.rules import (
    budget_rule,
    floor_rule,
    groups_rule,
    latency_rule,
    leakage_rule,
    not_judged,
    recall_rule,
    weights_rule,
)


class DetectionGate(Section):
    """Every bound is one rule, judged on the test figures of the one detector chosen; null switches a rule off.

    Floors are judged by the lower end of the 95% interval: `map50_floor` of the mean average precision at IoU 0.5,
    `recall_floor` of the violations found at the alarm's threshold. `false_alarm_ceiling` is per photograph.
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


def decide(evidence: DetectionEvidence, violation_groups: int, leaks: int, params: DetectionGate) -> Decision:
    """Return the verdict on the detector that is best on validation, with every rule and its figure.

    `violation_groups` of the test side have a box of the violation; `leaks` is as rules.leaks_between counts.
    """
    name = evidence.best
    entry = evidence.detectors[name]
    rules = apply_rules(entry, evidence.violation_class, violation_groups, leaks, params)
    verdict, more = verdict_on(rules, params.unjudged)
    alarms = entry.alarms.get("validation")
    return Decision(
        verdict=verdict,
        candidate=name,
        reason=_sentence(verdict, name, len(evidence.detectors), rules, more),
        more_test_groups=more,
        threshold=None if alarms is None else alarms.threshold,
        violation_class=evidence.violation_class,
        selected_on="validation",
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


def _sentence(verdict: str, name: str, number: int, rules: list[Rule], more: int | None) -> str:
    how = f"{name} has the highest mAP50 on validation of {number}" if number > 1 else f"{name} is the only detector"
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
