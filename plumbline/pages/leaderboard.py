"""From evaluation and decision to the leaderboard page: what each part of the template shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.evidence import curves
from plumbline.evidence.candidates import SPLITS, TrainedCandidate
from plumbline.evidence.compressed import frontier
from plumbline.evidence.records import (
    CHEAPEST,
    AgainstOriginal,
    CandidateEvidence,
    Comparison,
    Costs,
    Decision,
    Evaluation,
    Figure,
    RaceRecord,
    Selection,
    SplitEvidence,
)
from plumbline.evidence.results import NOT_APPLICABLE, PASSED, result_of
from plumbline.models.records import Speed
from plumbline.pages.charts import Line, bar_chart, line_chart, range_bar
from plumbline.pages.template import data_uri, read_asset, render_page
from plumbline.tasks.known import task_of
from plumbline.tasks.labels import label_texts

STYLES = ("s1", "s2", "s3", "s4", "s5", "s6")
THUMBNAIL = 128
MISTAKES_CHOSEN, MISTAKES_OTHER = 12, 6
Picture = Callable[[str], NDArray[np.uint8]]
Key = list[tuple[str, str]]
"""A legend: (style, name) of each line."""


@dataclass(frozen=True)
class Chart:
    """A drawing with its title, its legend and an optional caption."""

    title: str
    svg: Markup
    key: Key
    words: str = ""


@dataclass(frozen=True)
class Mistake:
    """A picture with a wrong prediction: its path, its pixels as a data address, label, prediction and confidence."""

    path: str
    image: str
    label: str
    guess: str
    confidence: float


@dataclass(frozen=True)
class Row:
    """What the table says of one candidate; `latency` in milliseconds, None where it was not measured."""

    name: str
    entry: CandidateEvidence
    chosen: bool
    latency: float | None
    standing: str
    bars: dict[str, Markup]


@dataclass(frozen=True)
class Rival:
    """A plain rival's row: its accuracy by split."""

    name: str
    splits: dict[str, Figure]


@dataclass(frozen=True)
class Smaller:
    """A row of the table of compressed candidates: one of them, or an original, whose `beside` is None."""

    name: str
    made: str
    entry: CandidateEvidence
    bytes: int
    speed: Speed | None
    beside: AgainstOriginal | None
    frontier: bool = False


@dataclass(frozen=True)
class Panel:
    """What the drill-down of one candidate shows."""

    name: str
    open: bool
    chosen: bool
    entry: CandidateEvidence
    charts: list[Chart]
    by_class: list[dict[str, str | Figure | None]]
    all_scores: list[str]
    mistakes: list[Mistake]


def render(
    evaluation: Evaluation,
    decision: Decision,
    candidates: dict[str, TrainedCandidate],
    picture: Picture,
    links: list[tuple[str, str]],
    cards: dict[str, str],
    forced: str | None = None,
) -> str:
    """Return the whole page as HTML that loads nothing else.

    `picture` returns the pixels (H, W, 3) for a path, `links` are (title, address) of other reports that exist, `cards`
    the address of a candidate's card by name, `forced` the sentence that it was promoted by force, or None.
    """
    chosen, selection = decision.candidate, selection_of(decision)
    names = in_order(evaluation, chosen)
    thumbnails = Thumbnails(picture)
    return render_page(
        "leaderboard.html.j2",
        filters={
            "percent": percent,
            "between": between,
            "number": number,
            "chance": chance,
            "title_of": title_of,
            "figure": figure,
            "result_of": result_of,
            "worst_probe": worst_probe,
        },
        script=Markup(read_asset("leaderboard.js")),
        decision=decision,
        selection=selection,
        evaluation=evaluation,
        task=task_of(evaluation),
        violation=evaluation.violation_class,
        chosen=chosen,
        chosen_entry=evaluation.candidates[chosen],
        headline=headline(decision),
        forced=forced,
        notes=notes(evaluation, decision),
        rows=[row(name, evaluation, decision, selection, candidates[name].latency) for name in names],
        references=references(evaluation),
        smaller=smaller(evaluation, candidates),
        cheaper=CHEAPEST[decision.prefer][1],
        labels=label_chart(evaluation),
        probed=[
            {"name": name, "probes": evaluation.candidates[name].probes}
            for name in names
            if evaluation.candidates[name].probes is not None
        ],
        not_probed=by_reason(evaluation.not_probed),
        panels=[panel(candidates[name], evaluation, name == chosen, thumbnails) for name in names],
        links=links,
        cards=cards,
        splits=SPLITS,
    )


def by_reason(reasons: dict[str, str]) -> dict[str, list[str]]:
    """Return the names that share a reason, by reason."""
    found: dict[str, list[str]] = {}
    for name, why in reasons.items():
        found.setdefault(why, []).append(name)
    return found


def selection_of(decision: Decision) -> Selection:
    """Return how the candidate was selected; UserError where an old decision does not say."""
    if decision.selection is None:
        again = f"dvc repro -f {artefacts.DECISION.by}"
        raise UserError(f"{artefacts.DECISION} does not say how the candidate was selected: run `{again}`.")
    return decision.selection


def in_order(evaluation: Evaluation, chosen: str) -> list[str]:
    """Return the candidates' names, the chosen one first, then by accuracy on validation."""
    entries = evaluation.candidates

    def validation(name: str) -> float:
        return entries[name].splits["validation"].scores["accuracy"].value

    return sorted(entries, key=lambda name: (name != chosen, -validation(name), name))


def headline(decision: Decision) -> str:
    """Return what happens, as one short sentence."""
    return {
        "PROMOTE": f"{decision.candidate} may serve",
        "HOLD": f"{decision.candidate} waits for more evidence",
        "REJECT": f"{decision.candidate} is rejected",
    }[decision.verdict]


def notes(evaluation: Evaluation, decision: Decision) -> list[tuple[bool, str]]:
    """Return what a reader must know besides the verdict, as (alarming, sentence)."""
    found = [
        (result_of(rule) != NOT_APPLICABLE, f"{rule.name[0].upper()}{rule.name[1:]}: {rule.reason}.")
        for rule in decision.rules
        if result_of(rule) != PASSED
    ]
    areas = ", ".join(f"{one.name} {one.auc:.2f}" for one in evaluation.shortcuts)
    found.append((False, f"How well each of these alone predicts the label (AUC, 0.5 is chance): {areas}."))
    probed = evaluation.candidates[decision.candidate].probes
    if probed is not None:
        looked = f"on {probed.images} test pictures"
        found += [(False, f"{line[0].upper()}{line[1:]} ({looked}).") for line in probed.lines]
    origin = evaluation.candidates[decision.candidate].model.weights
    begun = "trained from scratch" if origin == "from scratch" else f"training started from {origin} weights"
    found.append((origin.startswith("random"), f"Weights: {begun}."))
    if evaluation.missing:
        found.append((True, f"Failed, so not compared: {', '.join(evaluation.missing)}."))
    for reason in dict.fromkeys(evaluation.not_made.values()):
        names = ", ".join(name for name, why in evaluation.not_made.items() if why == reason)
        found.append((False, f"No ensemble ({names}), which takes two candidates of one picture size: {reason}."))
    return found


def row(name: str, evaluation: Evaluation, decision: Decision, selection: Selection, latency: float | None) -> Row:
    """Return what the table says of one candidate; `latency` in milliseconds, None where it was not measured."""
    entry = evaluation.candidates[name]
    accuracies = [
        figures.splits[split].scores["accuracy"].low
        for figures in evaluation.candidates.values()
        for split in ("validation", "test")
    ]
    start = min(0.9, np.floor(min(accuracies) * 10) / 10)
    comparison = next((item for item in selection.comparisons if item.candidate == name), None)
    return Row(
        name=name,
        entry=entry,
        chosen=name == decision.candidate,
        latency=latency,
        standing=standing(name, name == decision.candidate, selection, comparison, decision.race),
        bars={
            split: range_bar(*_ends(entry.splits[split].scores["accuracy"]), start, 1.0)
            for split in ("validation", "test")
        },
    )


def standing(
    name: str, chosen: bool, selection: Selection, comparison: Comparison | None, race: RaceRecord | None = None
) -> str:
    """Return how a candidate compares with the best one on the pictures that select."""
    if comparison is not None:
        place = "shown as good as the best" if comparison.shown else "not shown as good as the best"
    elif race is not None and name in race.left:
        place = f"left the race: {race.left[name]}"
    else:
        place = "most accurate" if name == selection.best else "does not stand: size, speed, weights or training"
    return f"chosen, {place}" if chosen else place


def worst_probe(coverage: dict[str, Figure]) -> tuple[str, Figure]:
    """Return the condition of the probes under which sets hold the right class least often."""
    return min(coverage.items(), key=lambda item: item[1].value)


def smaller(evaluation: Evaluation, candidates: dict[str, TrainedCandidate]) -> list[Smaller]:
    """Return each original with its compressed copies behind it, those on the frontier marked."""
    found: dict[str, Smaller] = {}
    copies = {name: one.model.compressed for name, one in candidates.items() if one.model.compressed}
    for of in dict.fromkeys(record.of for record in copies.values()):
        for name, record in copies.items():
            if record.of != of:
                continue
            if of in candidates and of not in found:
                speed = candidates[name].original_speed
                found[of] = Smaller(of, "in float32", evaluation.candidates[of], record.original_bytes, speed, None)
            entry, one = evaluation.candidates[name], candidates[name]
            found[name] = Smaller(name, record.recipe, entry, record.bytes, one.speed, entry.original)
    best = frontier(
        {
            name: (-row.entry.splits["validation"].scores["accuracy"].value, row.bytes, row.speed.one_ms)
            for name, row in found.items()
            if row.speed
        }
    )
    return [replace(row, frontier=name in best) for name, row in found.items()]


def references(evaluation: Evaluation) -> list[Rival]:
    """Return the plain rivals' rows."""
    return [Rival(name, splits) for name, splits in evaluation.baselines.items()]


def label_chart(evaluation: Evaluation) -> Chart | None:
    """Return test accuracy by the share of the labels that was used, a line for candidates alike in all else.

    None where no candidates differ in `labels` alone.
    """
    families: dict[str, list[tuple[float, Figure, str]]] = {}
    for name, entry in evaluation.candidates.items():
        settings = dict(entry.model.settings)
        share = settings.pop("labels", None)
        if share is not None:
            alike = json.dumps(settings, sort_keys=True)
            families.setdefault(alike, []).append((share, entry.splits["test"].scores["accuracy"], name))
    lines: list[Line] = []
    words: list[str] = []
    for points in families.values():
        if len({share for share, *_ in points}) < 2:
            continue
        points.sort(key=lambda point: point[0])
        name = points[-1][2]
        style = STYLES[len(lines) % len(STYLES)]
        lines.append(Line(name, [100 * share for share, *_ in points], [one.value for _, one, _ in points], style))
        told = [f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f}) with {share:.0%}" for share, one, _ in points]
        words.append(f"{name}: {', '.join(told)}")
    if not lines:
        return None
    svg = line_chart(lines, "% of the labels", "accuracy on test", f"Accuracy by labels. {'; '.join(words)}")
    key = [(line.style, line.name) for line in lines]
    return Chart("What labels bring", svg, key, f"{'; '.join(words)}. Validation kept all its labels.")


def panel(candidate: TrainedCandidate, evaluation: Evaluation, chosen: bool, thumbnails: Thumbnails) -> Panel:
    """Return what the drill-down of one candidate shows."""
    entry = evaluation.candidates[candidate.name]
    scores = entry.splits["test"].scores
    return Panel(
        name=candidate.name,
        open=chosen,
        chosen=chosen,
        entry=entry,
        charts=charts(candidate, evaluation),
        by_class=[
            {"name": name} | {score: scores.get(f"{score}:{name}") for score in ("precision", "recall", "f1")}
            for name in candidate.classes
        ],
        all_scores=list(dict.fromkeys(name for one in entry.splits.values() for name in one.scores if ":" not in name)),
        mistakes=mistakes(candidate, entry, MISTAKES_CHOSEN if chosen else MISTAKES_OTHER, thumbnails),
    )


def charts(candidate: TrainedCandidate, evaluation: Evaluation) -> list[Chart]:
    """Return the charts of one candidate: title, drawing, and legend as (style, name)."""
    entry = evaluation.candidates[candidate.name]
    sample = candidate.sample("test")
    violation = evaluation.violation_class
    test = entry.splits["test"]
    drawn = learning_charts(candidate)
    drawn.append(
        curve_chart("ROC on test", curves.roc(sample, candidate.classes, violation), test.scores.get("roc_auc"))
    )
    recall = curves.precision_recall(sample, candidate.classes, violation)
    drawn.append(curve_chart("Precision and recall on test", recall, test.scores.get("pr_auc")))
    drawn.append(confidence_chart(candidate, entry, violation))
    drawn.append(reliability_chart(test))
    if violation is not None:
        drawn.append(cost_chart(entry, evaluation.costs))
    return drawn


def learning_charts(candidate: TrainedCandidate) -> list[Chart]:
    """Return loss and accuracy by epoch, on training and validation pictures."""
    table = curves.learning(candidate.history)
    if table.empty:
        return []
    drawn = []
    for score in ("loss", "accuracy"):
        lines = [
            Line(name, table["epoch"].tolist(), table[f"{name}_{score}"].tolist(), style)
            for name, style in (("train", "s1"), ("validation", "s2"))
        ]
        last = ", ".join(f"{line.name} ends at {line.y[-1]:.3f}" for line in lines)
        drawn.append(
            Chart(
                title=f"Learning: {score}",
                svg=line_chart(
                    lines,
                    "epoch",
                    score,
                    f"{score} over {len(lines[0].x)} epochs: {last}",
                    y_range=(0.0, 1.0) if score == "accuracy" else None,
                ),
                key=[(line.style, line.name) for line in lines],
            )
        )
    return drawn


def curve_chart(title: str, table: Any, area: Figure | None) -> Chart:
    """Return a ROC curve or a precision-recall curve, with a line per class shown."""
    across, up = (
        ("false_positive_rate", "true_positive_rate") if "false_positive_rate" in table else ("recall", "precision")
    )
    lines = [
        Line(str(name), part[across].tolist(), part[up].tolist(), STYLES[place % len(STYLES)])
        for place, (name, part) in enumerate(table.groupby("class", sort=False))
    ]
    key = [(line.style, line.name) for line in lines]
    if across == "false_positive_rate":
        lines.append(Line("chance", [0, 1], [0, 1], "faint"))
    words = f"area {area.value:.3f} ({area.low:.3f} to {area.high:.3f})" if area else "area not measured"
    labels = across.replace("_", " "), up.replace("_", " ")
    return Chart(
        title=title,
        svg=line_chart(lines, *labels, f"{title}: {words}", (0.0, 1.0), (0.0, 1.0)),
        key=key,
        words=words,
    )


def confidence_chart(candidate: TrainedCandidate, entry: CandidateEvidence, violation: str | None) -> Chart:
    """Return how confident the model is on test pictures: by true class with two classes, else by right and wrong.

    With several labels the labels are counted, not the pictures.
    """
    sample = candidate.sample("test").scaled(entry.temperature)
    edges = np.linspace(0, 1, 21)
    shown, *more = sample.task.shown_classes(candidate.classes, violation)
    if not more:
        values = sample.probabilities[:, candidate.classes.index(shown)]
        parts = {name: values[sample.truth[:, k]] for k, name in enumerate(candidate.classes)}
        label = f"probability of {shown}"
    else:
        labels, probabilities = sample.decisions
        values, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        parts = {"right": values[right], "wrong": values[~right]}
        label = "confidence"
    groups = [
        (name, STYLES[place], np.histogram(part, edges)[0].tolist()) for place, (name, part) in enumerate(parts.items())
    ]
    marks = [] if entry.threshold is None else [(entry.threshold, f"alarm from {entry.threshold:.2f}")]
    sure = float(np.mean((values < 0.1) | (values > 0.9)))
    return Chart(
        title="Confidence on test",
        svg=bar_chart(
            groups,
            edges.tolist(),
            label,
            sample.task.counted,
            f"Histogram: {sure:.0%} of {sample.task.counted} below 0.1 or above 0.9",
            marks,
        ),
        key=[(style, name) for name, style, _ in groups],
    )


def reliability_chart(test: SplitEvidence) -> Chart:
    """Return accuracy against confidence, before and after temperature scaling."""
    lines = [
        Line(name, [one.confidence for one in bins], [one.accuracy for one in bins], style)
        for name, bins, style in (
            ("before", test.reliability.before, "s2"),
            ("after", test.reliability.after, "s1"),
        )
    ]
    before, after = test.scores["ece"].value, test.scores["ece_scaled"].value
    words = (
        f"error {before:.3f} before, {after:.3f} after temperature scaling; "
        f"a truly calibrated model would show {test.calibration_null.mean:.3f}"
    )
    key = [(line.style, f"{line.name} scaling") for line in lines]
    lines.append(Line("ideal", [0, 1], [0, 1], "faint"))
    return Chart(
        title="Calibration on test",
        svg=line_chart(lines, "confidence", "accuracy", f"Calibration: {words}", (0.0, 1.0), (0.0, 1.0)),
        key=key,
        words=words,
    )


def cost_chart(entry: CandidateEvidence, costs: Costs) -> Chart:
    """Return the cost per picture at every threshold, on validation (which chose it) and on test."""
    threshold = entry.threshold
    assert threshold is not None, "drawn where one class is a violation: then there is a threshold"
    lines = [
        Line(split, list(curve.threshold), list(curve.cost), style)
        for split, style in (("validation", "s2"), ("test", "s1"))
        if (curve := entry.splits[split].cost_curve) is not None
    ]
    words = f"a miss costs {costs.missed_violation:g}, a false alarm {costs.false_alarm:g}"
    return Chart(
        title="Cost by threshold",
        svg=line_chart(
            lines,
            "threshold of the alarm",
            "cost per picture",
            f"Cost by threshold: {words}; cheapest on validation at {threshold:.2f}",
            x_range=(0.0, 1.0),
            marks=[(threshold, f"chosen {threshold:.2f}")],
        ),
        key=[(line.style, line.name) for line in lines],
        words=words,
    )


def mistakes(candidate: TrainedCandidate, entry: CandidateEvidence, most: int, thumbnails: Thumbnails) -> list[Mistake]:
    """Return the test pictures that the model was most confidently wrong about, worst first."""
    sample = candidate.sample("test").scaled(entry.temperature)
    confidence = sample.task.sure_of_mistake(sample.truth, sample.probabilities)
    wrong = np.flatnonzero(~sample.right)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    labels, guesses = (label_texts(table, candidate.classes) for table in (sample.truth, sample.predicted))
    return [
        Mistake(
            path=sample.paths[place],
            image=thumbnails.of(sample.paths[place]),
            label=labels[place],
            guess=guesses[place],
            confidence=float(confidence[place]),
        )
        for place in worst
    ]


class Thumbnails:
    """Small JPEGs as data addresses, each made once however many candidates show it."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.made: dict[str, str] = {}

    def of(self, path: str) -> str:
        """Return the data address of one picture."""
        if path not in self.made:
            self.made[path] = data_uri(self.picture(path), THUMBNAIL)
        return self.made[path]


def percent(value: float, digits: int = 1) -> str:
    """Return a share as a percentage."""
    return f"{100 * value:.{digits}f}%"


def between(figures: Figure) -> str:
    """Return an interval of a share in words: 91.0 to 98.9%."""
    return f"{100 * figures.low:.1f} to {100 * figures.high:.1f}%"


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure with a fixed number of digits, a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def chance(p: float) -> str:
    """Return a p-value for reading; a very small one is not shown as 0."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def figure(value: object) -> str:
    """Return a rule's figure or bound for reading."""
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) >= 2):
        return f"{int(value):,}"
    return f"{value:.3f}"


def title_of(score: str) -> str:
    """Return a score's name for reading."""
    known = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "ece": "calibration error", "brier": "Brier score"}
    base, scaled = score.removesuffix("_scaled"), " (scaled)" if score.endswith("_scaled") else ""
    return known.get(base, base.replace("f1", "F1").replace("_", " ")) + scaled


def _ends(figures: Figure) -> tuple[float, float, float]:
    return figures.value, figures.low, figures.high
