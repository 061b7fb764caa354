"""Which candidate is chosen, and whether it is promoted, held or rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, ValidationInfo, field_validator

from plumbline.common.errors import UserError
from plumbline.common.params import Section
from plumbline.common.wilson import wilson
from plumbline.evidence import probes
from plumbline.evidence.baselines import RIVALS
from plumbline.evidence.candidates import Predictions, TrainedCandidate, sample_of
from plumbline.evidence.intervals import draw_groups, draw_weights
from plumbline.evidence.records import (
    AgainstChampion,
    Decision,
    Evaluation,
    Figure,
    Gain,
    Prefer,
    ProbeEvidence,
    RaceRecord,
    Rule,
    Selection,
    Shortcut,
    SliceEvidence,
    SplitEvidence,
)
from plumbline.evidence.results import FAILED, NOT_APPLICABLE, NOT_JUDGED, result_of, stands_in_the_way, verdict_on
from plumbline.evidence.selection import bootstrap_p, holm, select_simplest
from plumbline.evidence.shortcuts import SHORTCUTS
from plumbline.evidence.slices import Slicing
from plumbline.models.records import NOT_ELIGIBLE, ModelDescription
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.task import Task

MOST_GROUPS = 100_000
"""More test groups than anybody will collect: a rule that would need more fails for good, not for lack of data."""

FAR_BELOW = 4
"""A time below this share of its bound is reported as far below it."""

SHORTCUT_LEVEL = 0.01
"""With a p-value above this a shortcut may be chance and is not counted."""


class Looks(Section):
    """Bounds for the probes of the chosen model; null: not judged.

    `attention` is off by default: Grad-CAM is coarse, and even a model that is known to read only the head may show
    less of it there than chance would (see tests/stages/test_probe.py). Covering the head is the better test.
    """

    head: float | None = Field(default=0.15, ge=0, le=1)
    background: float | None = Field(default=0.3, ge=0, le=1)
    zoom: float | None = Field(default=0.3, ge=0, le=1)
    attention: float | None = Field(default=None, ge=0)


class Gate(Section):
    """params.yaml `gate`: every bound is one rule; null switches a rule off."""

    selection: Literal["auto", "validation", "cross_validation"] = "auto"
    unjudged: Literal["hold", "allow"] = "hold"
    prefer: Prefer = "accuracy"
    margin: float = Field(default=0.01, ge=0, lt=1)
    confidence: float = Field(default=0.9, ge=0.5, lt=1)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    accuracy_floor: float | None = 0.85
    recall_floor: float | None = 0.8
    false_alarm_ceiling: float | None = 0.35
    calibration_tolerance: float | None = 0.05
    minimum_test_groups: int | None = 40
    maximum_parameters: int | None = 50_000_000
    maximum_latency_ms: float | None = 100
    allowed_weights: tuple[str, ...] | None = ("imagenet", "random", "file", "from scratch")
    slice_floor: float | None = 0.8
    beat: tuple[str, ...] = RIVALS
    beat_confidence: float = Field(default=0.8, ge=0.5, lt=1)
    shortcut_auc: dict[str, float] = Field(
        default_factory=lambda: {"metadata": 0.85, "framing": 0.75, "border": 0.8, "site": 0.85}
    )
    probes: Looks = Looks()
    leakage: bool = True
    resamples: int = Field(default=2000, ge=200)
    seed: int = 0

    @field_validator("beat", "shortcut_auc")
    @classmethod
    def _known(cls, names: Any, field: ValidationInfo) -> Any:
        known = RIVALS if field.field_name == "beat" else SHORTCUTS
        for name in names:
            if name not in known:
                raise ValueError(f"{name!r} is none of those that `evaluate` measures: {', '.join(known)}")
        return names


def not_judged(name: str, bound: float | str | None, reason: str) -> Rule:
    """Return a rule whose figure was not measured."""
    return Rule(name, None, bound, False, reason, judged=False)


def not_applicable(name: str, bound: float | str | None, reason: str) -> Rule:
    """Return a rule about something that the data does not have."""
    return Rule(name, None, bound, False, reason, judged=False, applies=False)


def choose(
    candidates: dict[str, TrainedCandidate],
    unseen: dict[str, Predictions],
    evaluation: Evaluation,
    params: Gate,
    latencies: Mapping[str, float] | None = None,
) -> Selection:
    """Return the simplest candidate shown to be as good as the best, on `unseen` pictures: those of each finalist.

    Or the smallest, or the fastest by `latencies`, as gate.prefer says.
    """
    first = next(iter(unseen.values()))
    return select_simplest(
        right=np.stack([sample.right for sample in unseen.values()]),
        brier=np.stack(
            [sample.scaled(evaluation.candidates[name].temperature).brier for name, sample in unseen.items()]
        ),
        names=list(unseen),
        costs=[cost_of(candidates[name], params.prefer, latencies or {}) for name in unseen],
        codes=first.codes,
        times=draw_groups(first.groups, params.resamples, params.seed),
        margin=params.margin,
        confidence=params.confidence,
        alpha=params.alpha,
    )


def cost_of(candidate: TrainedCandidate, prefer: Prefer, latencies: Mapping[str, float]) -> tuple[float, ...]:
    """Return what orders the candidates, the cheapest least: parameters, bytes, or milliseconds as race.json has them.

    Only who asks for the fastest gets milliseconds: they differ from run to run, and so may the choice.
    """
    if prefer == "size":
        return (candidate.bytes,)
    if prefer == "latency":
        if candidate.name not in latencies:
            raise UserError(f"the race did not measure how fast {candidate.name} is: run `dvc repro -f race`.")
        return (latencies[candidate.name],)
    return (candidate.parameters,)


def standing(candidates: dict[str, TrainedCandidate], params: Gate) -> dict[str, TrainedCandidate]:
    """Return the candidates that pass the rules that need no picture; all, where none does.

    Those over the budget, from weights that are not allowed, or whose training failed, don't stand while others do.
    """
    found = {name: one for name, one in candidates.items() if may_stand(one, params)}
    return found or candidates


def may_stand(candidate: TrainedCandidate, params: Gate) -> bool:
    """Return whether a candidate passes the rules on training, size and weights, which need no picture."""
    rules = rules_without_pictures(candidate.model, candidate.latency, params)
    return not any(stands_in_the_way(rule, params.unjudged) for rule in rules)


def rules_without_pictures(model: ModelDescription, latency: float | None, params: Gate) -> list[Rule]:
    """Return the rules on size, speed (`latency` in milliseconds, None: not measured) and origin of the weights."""
    rules = []
    if model.status != "trained":
        reason = f"{model.candidate} can't be chosen: {NOT_ELIGIBLE[model.status]}"
        rules.append(Rule("training", model.status, "trained", False, reason))
    if params.maximum_parameters is not None:
        rules.append(budget_rule("parameters", model.parameters, params.maximum_parameters))
    if params.maximum_latency_ms is not None:
        rules.append(latency_rule(latency, params.maximum_latency_ms))
    if params.allowed_weights is not None:
        rules.append(weights_rule(model.weights, params.allowed_weights))
    return rules


def decide(
    selection: Selection, evaluation: Evaluation, leaks: int, params: Gate, latency: float | None, race: RaceRecord
) -> Decision:
    """Return verdict, candidate, one sentence, every rule with its figure, and how the candidate was selected.

    `latency` is that of the chosen candidate in milliseconds, None where it was not measured; `race` says which
    pictures selected, and who was not among the finalists.
    """
    rules = apply_rules(selection.chosen, evaluation, leaks, params, latency)
    verdict, more = verdict_on(rules, params.unjudged)
    entry = evaluation.candidates[selection.chosen]
    preferred: dict[str, Any] = {} if params.prefer == "accuracy" else {"prefer": params.prefer}
    return Decision(
        verdict=verdict,
        candidate=selection.chosen,
        reason=_sentence(verdict, selection.why(params.prefer), race.on, rules, params.unjudged),
        more_test_groups=more,
        threshold=entry.threshold,
        temperature=entry.temperature,
        violation_class=evaluation.violation_class,
        selected_on=race.on,
        **preferred,
        selection=selection,
        race=race,
        rules=tuple(rules),
    )


def apply_rules(name: str, evaluation: Evaluation, leaks: int, params: Gate, latency: float | None) -> list[Rule]:
    """Return every rule that params.yaml switches on, judged on the chosen candidate's test figures."""
    entry, data = evaluation.candidates[name], evaluation.data["test"]
    test = entry.splits["test"]
    groups, violation, served = data.groups, evaluation.violation_class, test.scores_at_threshold
    rules = []
    if params.accuracy_floor is not None:
        rules.append(floor_rule("accuracy", test.scores["accuracy"], params.accuracy_floor, groups))
    if params.recall_floor is not None and violation is not None and served is not None:
        rules.append(
            recall_rule(violation, served.recall, params.recall_floor, data.by_class[violation].groups, groups)
        )
    if params.false_alarm_ceiling is not None and served is not None:
        rules.append(false_alarm_rule(served.false_alarm_rate, params.false_alarm_ceiling))
    if params.calibration_tolerance is not None:
        rules.append(calibration_rule(test, params.calibration_tolerance))
    if params.slice_floor is not None:
        rules.append(slice_rule(entry.slices, params.slice_floor))
    rules += [beat_rule(rival, entry.versus, groups, params.beat_confidence) for rival in params.beat]
    if params.minimum_test_groups is not None:
        rules.append(groups_rule(groups, params.minimum_test_groups))
    rules += rules_without_pictures(entry.model, latency, params)
    if params.leakage:
        rules.append(leakage_rule(leaks))
    rules += shortcut_rules(evaluation.shortcuts, params.shortcut_auc)
    return rules + probe_rules(entry.probes, params.probes)


def floor_rule(name: str, figure: Figure, floor: float, groups: int, scale: float = 1.0) -> Rule:
    """Judge the lower end of an interval. If it is below the floor but the figure is above, only data is missing.

    `groups` are the groups that the figure rests on; `scale` turns groups of that kind into test groups of any kind.
    """
    low, value = figure.low, figure.value
    if low >= floor:
        return Rule(name, low, floor, True, f"{value:.3f}, and at least {low:.3f} with 95% confidence")
    reason = f"{value:.3f}, but perhaps as low as {low:.3f}"
    if value <= floor:
        return Rule(name, low, floor, False, f"{value:.3f} is not above the floor of {floor:.3f}")
    more = groups_to_reach(figure, floor, groups)
    return Rule(name, low, floor, False, reason, None if more is None else int(np.ceil(more * scale)))


def recall_rule(violation: str, figure: Figure | None, floor: float, held: int, groups: int) -> Rule:
    """Judge the recall of the violation, which `held` of the test `groups` show; None: no test picture does."""
    name = f"recall of {violation}"
    if figure is None:
        return not_judged(name, floor, f"no test picture is {violation}, so not judged")
    return floor_rule(name, figure, floor, held, groups / held)


def groups_to_reach(figure: Figure, floor: float, groups: int) -> int | None:
    """Return how many more groups would lift the interval's lower end to `floor` if the rate stays what it is."""
    value = figure.value
    trials = _trials_behind(value, figure.low)
    for wanted in range(groups + 1, MOST_GROUPS):
        if wilson(value, trials * wanted / groups)[0] >= floor:
            return wanted - groups
    return None


def _trials_behind(value: float, low: float) -> float:
    """The number of trials whose Wilson interval for `value` has the lower end `low` (by bisection)."""
    few, many = 0.5, 1e7
    for _ in range(80):
        middle = (few * many) ** 0.5
        few, many = (middle, many) if wilson(value, middle)[0] < low else (few, middle)
    return many


def false_alarm_rule(figure: Figure | None, ceiling: float) -> Rule:
    """Judge the rate of false alarms at the served threshold: high recall must not come from alarming at everybody.

    None: no test picture complies.
    """
    if figure is None:
        return not_judged("false alarms", ceiling, "no test picture complies, so not judged")
    value = figure.value
    return Rule("false alarms", value, ceiling, value <= ceiling, f"{value:.3f} of those who comply raise an alarm")


def calibration_rule(test: SplitEvidence, tolerance: float) -> Rule:
    """Judge the calibration error after scaling against what a truly calibrated model would show on as many images."""
    error, null = test.scores["ece_scaled"].value, test.calibration_null
    bound = max(null.in_99, null.mean + tolerance)
    reason = f"a truly calibrated model would show {null.mean:.3f} on average here, below {null.in_99:.3f} in 99%"
    return Rule("calibration error", error, bound, error <= bound, reason)


def slice_rule(slices: Sequence[SliceEvidence], floor: float) -> Rule:
    """Judge the slice with the lowest accuracy, of those with enough groups to judge, by the upper end of its interval.

    The worst of many small slices looks bad by chance alone; only one that is surely below the floor fails.
    """
    judged = [item for item in slices if item.judged]
    if not judged:
        return not_judged("worst slice", floor, "no slice of the test set holds enough groups, so not judged")
    worst = min(judged, key=lambda item: (item.accuracy.high, item.accuracy.value))
    figure = worst.accuracy
    reason = (
        f"{worst.column} {worst.value}: {figure.value:.3f} on {worst.images} pictures, "
        f"at most {figure.high:.3f} with 95% confidence"
    )
    return Rule("worst slice", figure.high, floor, figure.high >= floor, reason)


def beat_rule(rival: str, versus: Mapping[str, Gain], groups: int, sure: float) -> Rule:
    """Judge on how many redrawn test sets the model is more accurate than a plain rival on the same pictures."""
    name, gain = f"better than {rival}", versus[rival]
    value, share = gain.value, gain.share_better
    if value <= 0:
        return Rule(name, share, sure, False, f"{value:+.3f} in accuracy: the plain rival does as well")
    reason = (
        f"{value:+.3f} in accuracy ({gain.low:+.3f} to {gain.high:+.3f}), better on {share:.1%} of redrawn test sets"
    )
    if share >= sure:
        return Rule(name, share, sure, True, reason)
    # A gain in units of its standard error grows with the square root of the number of groups.
    wanted = (NormalDist().inv_cdf(sure) * gain.spread / value) ** 2
    return Rule(name, share, sure, False, reason, max(1, int(np.ceil(groups * (wanted - 1)))))


def shortcut_rules(found: Sequence[Shortcut], bounds: Mapping[str, float]) -> list[Rule]:
    """Judge the shortcuts that have a bound. Pictures of a single site have none called `site`."""
    names = [shortcut.name for shortcut in found]
    rules = [shortcut_rule(shortcut, bounds[shortcut.name]) for shortcut in found if shortcut.name in bounds]
    if "site" in set(bounds) - set(names):
        reason = "the pictures have no column `site`, or are all of one"
        rules.append(not_applicable("shortcut: site", bounds["site"], reason))
    return rules


def shortcut_rule(shortcut: Shortcut, bound: float) -> Rule:
    """Judge how well the label can be predicted without the head: by the lower end of the area under the curve."""
    passed = shortcut.low < bound or shortcut.p > SHORTCUT_LEVEL
    line = f"{shortcut.name} alone predicts the label with AUC {shortcut.auc:.2f}"
    reason = line if passed else f"{line}: this data set teaches {shortcut.teaches}"
    return Rule(f"shortcut: {shortcut.name}", shortcut.low, bound, passed, reason)


def probe_rules(found: ProbeEvidence | None, bounds: Looks) -> list[Rule]:
    """Judge whether the model looks at the head, by the end of each interval that is in its favour."""
    if found is None:
        bound = [name for name in ("head", "background", "zoom", "attention") if getattr(bounds, name) is not None]
        return [
            not_judged(f"probe: {name}", getattr(bounds, name), "not probed in this run, so not judged")
            for name in bound
        ]
    rules, conditions = [], found.conditions
    worst = probes.worst_zoom(conditions)
    if bounds.head is not None:
        high = conditions[probes.COVERED].changed.high
        line, passed = probes.head_line(conditions), high >= bounds.head
        rules.append(_probe_rule("head", high, bounds.head, passed, line, "this model looks elsewhere"))
    if bounds.background is not None:
        low = conditions[probes.SWAPPED].changed.low
        line, passed = probes.background_line(conditions), low <= bounds.background
        rules.append(_probe_rule("background", low, bounds.background, passed, line, "this model reads the background"))
    if bounds.zoom is not None and worst is None:
        rules.append(not_judged("probe: zoom", bounds.zoom, "probe.zooms in params.yaml names none, so not judged"))
    elif bounds.zoom is not None and worst is not None:
        low = conditions[worst].changed.low
        line, passed = probes.zoom_line(conditions), low <= bounds.zoom
        rules.append(_probe_rule("zoom", low, bounds.zoom, passed, line, "this model reads the framing"))
    if bounds.attention is not None and found.attention is None:
        reason = "Grad-CAM has nothing to show of this network, so not judged"
        rules.append(not_judged("probe: attention", bounds.attention, reason))
    elif bounds.attention is not None and found.attention is not None:
        figure = found.attention.mass.high / found.attention.area
        line, passed = probes.attention_line(found.attention), figure >= bounds.attention
        rules.append(_probe_rule("attention", figure, bounds.attention, passed, line, "this model looks elsewhere"))
    return rules


def _probe_rule(name: str, figure: float, bound: float, passed: bool, line: str, meaning: str) -> Rule:
    judged = f"{line}; judged by {figure:.2f}, the end of its 95% interval that speaks for the model"
    return Rule(f"probe: {name}", figure, bound, passed, judged if passed else f"{judged}: {meaning}")


def groups_rule(groups: int, minimum: int) -> Rule:
    """Judge the number of test groups: few can't tell a good model from a lucky one."""
    enough = groups >= minimum
    reason = f"the test set holds {groups} independent groups"
    return Rule("test groups", groups, minimum, enough, reason, None if enough else minimum - groups)


def latency_rule(milliseconds: float | None, most: float) -> Rule:
    """Judge the time of one picture against its bound.

    A time differs from run to run, but the same data should give the same decision: far below the bound only that is
    reported, without the time.
    """
    name, far_below = "latency in ms", most / FAR_BELOW
    if milliseconds is None:
        return not_judged(name, most, "not measured in this run, so not judged")
    if milliseconds < far_below:
        return Rule(name, f"under {far_below:g}", most, True, f"under {far_below:g} where it was trained: far below")
    return Rule(name, milliseconds, most, milliseconds <= most, f"{milliseconds:.1f} of at most {most:g}")


def budget_rule(name: str, value: float, budget: float) -> Rule:
    """Judge a size against its budget."""
    return Rule(name, value, budget, value <= budget, f"{value:,.10g} of at most {budget:,.10g}")


def weights_rule(origin: str, allowed: tuple[str, ...]) -> Rule:
    """Judge where the starting weights came from by how their origin begins."""
    known = origin.lower().startswith(allowed)
    return Rule("weights' origin", origin, ", ".join(allowed), known, f"the weights' origin is: {origin}")


def leakage_rule(leaks: int) -> Rule:
    """No group and no near-duplicate may stand in two splits."""
    reason = "no picture has a twin in another split" if leaks == 0 else f"{leaks} leaks between the splits"
    return Rule("leakage", leaks, 0, leaks == 0, reason)


def leaks_between(splits: pd.DataFrame, pairs_across_splits: int) -> int:
    """Return groups that stand in two splits, plus the pairs across splits that the leakage certificate counted."""
    torn = int((splits.groupby("group")["split"].nunique() > 1).sum())
    return torn + pairs_across_splits


def _sentence(verdict: str, why: str, on: str, rules: list[Rule], unjudged: Literal["hold", "allow"]) -> str:
    how = f"On {on} {why}"
    open_rules = ", ".join(rule.name for rule in rules if result_of(rule) == NOT_JUDGED)
    if verdict == "PROMOTE":
        left = f" that could be judged; not judged, and allowed so by gate.unjudged: {open_rules}" if open_rules else ""
        absent = ", ".join(rule.name for rule in rules if result_of(rule) == NOT_APPLICABLE)
        return f"{how}. It passes every rule{left}{absent and f'; not applicable: {absent}'}."
    failed = [rule for rule in rules if result_of(rule) == FAILED]
    if verdict == "REJECT":
        return f"{how}. It fails on: {', '.join(rule.name for rule in failed)}."
    parts = [f"{how}."]
    if failed:
        more = max(rule.more_test_groups or 0 for rule in failed)
        names = ", ".join(rule.name for rule in failed)
        parts.append(f"Too little evidence for: {names}. About {more} more test groups would settle it.")
    if open_rules and unjudged == "hold":
        parts.append(f"Not judged, because it was not measured: {open_rules}.")
    return " ".join(parts)


def compare_with_champion(
    champion: pd.DataFrame,
    challenger: pd.DataFrame,
    classes: list[str],
    cuts: list[Slicing],
    params: Gate,
    task: Task = ONE_LABEL,
) -> AgainstChampion:
    """Return whether the challenger may take the champion's place: worse neither overall nor in any protected slice.

    Both tables (path, label, group, p_CLASS) must hold the same pictures, none of which either was trained on; `cuts`
    slice them in the order of the sorted paths. Worse means that the paired difference, bootstrapped over groups, is
    below 0 with 95% confidence, corrected for the number of slices.
    """
    first, second = (table.sort_values("path", ignore_index=True) for table in (champion, challenger))
    if not first[["path", "label"]].equals(second[["path", "label"]]):
        raise UserError("champion and challenger were not scored on the same pictures: score both again on one set.")
    if len(first) == 0:
        raise UserError("there is no picture that neither champion nor challenger was trained on: add labelled ones.")
    old, new = (sample_of(table, classes, task=task) for table in (first, second))
    gain = new.right.astype(np.float64) - old.right
    draws = draw_weights(new.codes, params.resamples, params.seed)
    parts = [("overall", np.full(len(gain), True))]
    for cut in cuts:
        parts += [
            (f"{cut.column} {value}", np.asarray(cut.values == value)) for value in sorted(set(cut.values) - {""})
        ]
    p_values = holm([bootstrap_p(gain[part], draws[:, part]) if gain[part].sum() < 0 else 1.0 for _, part in parts])
    rules = [
        Rule(
            name=f"no worse than the champion: {name}",
            value=float(gain[part].mean()),
            bound=0.0,
            passed=p >= params.alpha,
            reason=f"{gain[part].mean():+.3f} in accuracy on {int(part.sum())} pictures (p = {p:.3f} for worse)",
        )
        for (name, part), p in zip(parts, p_values, strict=True)
    ]
    return AgainstChampion(passed=all(rule.passed for rule in rules), rules=tuple(rules))
