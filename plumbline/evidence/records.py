"""The records that this room writes: build/evaluation.json, leaderboard.json, decision.json and others.

Rates are shares between 0 and 1; an interval goes from `low` to `high` and covers the true value with 95% confidence.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from plumbline.common.records import Record
from plumbline.models.records import ModelDescription
from plumbline.tasks.records import Confusion

KNOWN_KEYS = ConfigDict(extra="forbid")
Verdict = Literal["PROMOTE", "HOLD", "REJECT"]
Prefer = Literal["accuracy", "size", "latency"]
Ended = Literal["settled", "folds", "minutes", "unmeasured", "validation", "cross_validation"]


class Figure(Record):
    """A figure and its 95% interval."""

    value: float
    low: float
    high: float


class Gain(Figure):
    """How much more accurate a candidate is than a plain rival on the same pictures.

    `spread` is the standard deviation over redrawn test sets, `share_better` the share of them on which it is better.
    """

    spread: float
    share_better: float


class Count(Record):
    """How many images, in how many groups."""

    images: int
    groups: int


class SplitSize(Count):
    """What a split holds, in all and by class."""

    by_class: dict[str, Count]


class Costs(Record):
    """What a mistake costs, in any one unit."""

    missed_violation: float
    false_alarm: float


class Shortcut(Record):
    """How well one source alone predicts the label: area under the ROC curve (macro over classes) with its interval.

    `p` is the permutation p-value; `teaches` says what a model would learn from the data set if this source sufficed.
    """

    name: str
    what: str
    teaches: str
    auc: float
    low: float
    high: float
    p: float
    features: int


class SiteLeftOut(Record):
    """Area under the ROC curve at one site, when trained on other sites, and on its own pictures as well."""

    site: str
    images: int
    auc_unseen: float
    auc_seen: float


class Bin(Record):
    """The predictions of one range of confidence: how many, their mean confidence, and how many are right."""

    start: float = Field(validation_alias="from", serialization_alias="from")
    end: float = Field(validation_alias="to", serialization_alias="to")
    images: int
    confidence: float
    accuracy: float


class Reliability(Record):
    """Confidence against accuracy, before and after temperature scaling."""

    before: tuple[Bin, ...]
    after: tuple[Bin, ...]


class CalibrationNull(Record):
    """The calibration error that a truly calibrated model would show on as many images: mean and quantiles."""

    mean: float
    in_95: float = Field(validation_alias="95%", serialization_alias="95%")
    in_99: float = Field(validation_alias="99%", serialization_alias="99%")


class OperatingPoint(Record):
    """What happens when an alarm is raised from one threshold on. A rate of no picture is None."""

    threshold: float
    caught: int
    missed: int
    false_alarms: int
    quiet: int
    recall: float | None
    precision: float
    false_alarm_rate: float | None
    accuracy: float
    chosen: bool


class AtThreshold(Record):
    """The rates of alarms at the chosen threshold; None: the split holds no violation, or nobody who complies."""

    accuracy: Figure
    recall: Figure | None
    false_alarm_rate: Figure | None


class CostCurve(Record):
    """The cost per picture at each threshold."""

    threshold: tuple[float, ...]
    cost: tuple[float, ...]


class SplitEvidence(Record):
    """One candidate on one split. Figures on alarms exist only where one class is a violation.

    A score that these pictures can't give, such as the recall of a class that none of them shows, is not in `scores`.
    """

    scores: dict[str, Figure]
    confusion: tuple[Confusion, ...]
    reliability: Reliability
    calibration_null: CalibrationNull
    operating_points: tuple[OperatingPoint, ...] | None = None
    scores_at_threshold: AtThreshold | None = None
    cost_curve: CostCurve | None = None


class SliceEvidence(Record):
    """One candidate on the test pictures that share a value; with too few groups it is not judged."""

    column: str
    value: str
    images: int
    groups: int
    judged: bool
    accuracy: Figure
    recall: Figure | None = None


class ConditionAnswers(Record):
    """Under one condition of the probes: how many answers change, and how many are right."""

    changed: Figure
    right: Figure


class AttentionEvidence(Record):
    """The share of Grad-CAM that falls on the head, and the head's share of the picture."""

    images: int
    mass: Figure
    area: float


class ProbeEvidence(Record):
    """A candidate's answers when framing, background or head are taken away; `lines` are in words."""

    images: int
    groups: int
    test_images: int
    right: Figure
    conditions: dict[str, ConditionAnswers]
    attention: AttentionEvidence | None
    lines: tuple[str, ...] = ()


class Disturbing(Record):
    """Whether a backbone is worth looking into (disturbed test pictures, Grad-CAM): `not_measured` says why not."""

    not_measured: str | None


class ConformalSets(Record):
    """Sets of classes that hold the right one with probability `level`, from the `groups` of validation.

    An option is in the set where 1 - its probability is at most `bound`, and the likeliest always is; without a bound
    validation holds too few groups to say, and every class is. On test: the `coverage`, the share whose set is
    `undecided` (more than one class), and the coverage under each of the `probes`.
    """

    level: float
    groups: int
    bound: float | None
    coverage: Figure | None = None
    undecided: Figure | None = None
    probes: dict[str, Figure] = Field(default_factory=dict)
    note: str


class MembersSpread(Record):
    """How often an ensemble's members disagree on test, and how often it is right where they agree and where not."""

    members: tuple[str, ...]
    disagree: Figure
    right_where_agreed: Figure | None
    right_where_not: Figure | None


class SliceGain(Record):
    """By how much a compressed candidate is more accurate than its original on the test pictures that share a value."""

    column: str
    value: str
    accuracy: Figure


class AgainstOriginal(Record):
    """A compressed candidate against its original on test, paired by picture: negative is what it lost.

    `agreement` is the share of pictures with the same answer, `by_class` the differences in recall.
    """

    of: str
    agreement: Figure
    accuracy: Figure
    by_class: dict[str, Figure]
    slices: tuple[SliceGain, ...] = ()


class CandidateEvidence(Record):
    """All figures on one candidate. `splits`: train, validation and test; `original` for a compressed one."""

    model: ModelDescription
    temperature: float
    threshold: float | None
    train_test_difference: float
    splits: dict[str, SplitEvidence]
    slices: tuple[SliceEvidence, ...] = ()
    versus: dict[str, Gain] = Field(default_factory=dict)
    probes: ProbeEvidence | None = None
    sets: tuple[ConformalSets, ...] = ()
    spread: MembersSpread | None = None
    original: AgainstOriginal | None = None


class Evaluation(Record):
    """build/evaluation.json: all figures on the candidates and their data, without a verdict.

    `missing` names candidates of params.yaml without a result, `not_made` ensembles that could not be made, and why,
    `not_probed` candidates whose probes were left out, and why.
    """

    classes: tuple[str, ...]
    several_labels: bool = False
    task: str | None = None
    violation_class: str | None
    costs: Costs
    data: dict[str, SplitSize]
    missing: tuple[str, ...]
    slices_skipped: tuple[str, ...]
    shortcuts: tuple[Shortcut, ...]
    sites: tuple[SiteLeftOut, ...]
    baselines: dict[str, dict[str, Figure]]
    candidates: dict[str, CandidateEvidence]
    not_made: dict[str, str] = Field(default_factory=dict)
    not_probed: dict[str, str] = Field(default_factory=dict)


class LeaderboardRow(Record):
    """A row of build/leaderboard.json: by split the scores and the ends of their intervals."""

    candidate: str
    parameters: int
    trainable_parameters: int
    weights: str
    metrics: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, tuple[float, float]]]

    def accuracy(self, split: str) -> float:
        return self.metrics[split]["accuracy"]


@dataclass(frozen=True, config=KNOWN_KEYS)
class Rule:
    """One rule's verdict. `more_test_groups` is how many more would settle a rule that fails for lack of data.

    A rule whose figure was not measured has not passed: `judged` is False. One about something that the data does not
    have has not either: `applies` and `judged` are False.
    """

    name: str
    value: int | float | str | None
    bound: int | float | str | None
    passed: bool
    reason: str
    more_test_groups: int | None = None
    judged: bool = True
    applies: bool = True


@dataclass(frozen=True, config=KNOWN_KEYS)
class Comparison:
    """One candidate against the best on the same pictures: the accuracy it lacks, and what it lacks at most.

    `shown`: that is no more than the margin, and its probabilities are no worse (`p_brier`, corrected for many).
    """

    candidate: str
    difference: float
    at_most: float
    only_best_right: int
    only_it_right: int
    brier_difference: float
    p_brier: float
    shown: bool


CHEAPEST: dict[Prefer, tuple[str, str]] = {
    "accuracy": ("simplest", "simpler"),
    "size": ("smallest", "smaller"),
    "latency": ("fastest", "faster"),
}
"""How the cheapest candidate is called, and one that is cheaper, by gate.prefer."""


@dataclass(frozen=True, config=KNOWN_KEYS)
class Selection:
    """`chosen` is the first of `order` (cheapest first) shown to lack no more than `margin` of `best`, or `best`."""

    best: str
    chosen: str
    order: list[str]
    comparisons: list[Comparison]
    margin: float
    confidence: float

    def why(self, prefer: Prefer = "accuracy") -> str:
        """One plain sentence on who was chosen and why, `order` being that of gate.prefer."""
        most, more = CHEAPEST[prefer]
        if self.chosen != self.best:
            item = next(one for one in self.comparisons if one.candidate == self.chosen)
            return (
                f"{self.chosen} is the {most} candidate shown to be at most {_points(self.margin)} less accurate "
                f"than the best, {self.best}: it lacks {_points(item.difference)}, and no more than "
                f"{_points(item.at_most)} with {self.confidence:.0%} confidence"
            )
        if self.order[0] == self.best:
            return f"{self.best} is the most accurate candidate, and no other of the finalists is {more}"
        return (
            f"{self.best} is the most accurate candidate, and no {more} one is shown to be within "
            f"{_points(self.margin)} of it"
        )


def _points(share: float) -> str:
    value = f"{100 * share:.2g}" if abs(share) < 0.1 else f"{100 * share:.0f}"
    return f"{value} point" + ("" if value == "1" else "s")


class RaceRound(Record):
    """One look at the race: who was `asked` about validation and so many `folds`, and who stayed `in_question`."""

    folds: int
    asked: list[str]
    images: int
    groups: int
    in_question: list[str]


class RaceRecord(Record):
    """build/race.json: how candidates were told apart on pictures that are not test.

    `ended` is `settled` (told apart), `folds` (all were asked), `minutes` (the budget was spent), `unmeasured` (no
    candidate's training time is known, so nothing says what a fold takes), or, where there was no race, `validation` or
    `cross_validation` as gate.selection says. `finalists` are chosen among on validation and the first `folds` of
    `of_folds` folds; `left` says why each of the others is not; `failed` names those of them that could not answer,
    such as a copy that could not be made again without a fold. The budget is
    `minutes` of training; what was spent is not recorded, since no two runs take the same time. With gate.prefer:
    latency, `latencies` holds what each candidate that stands takes for a picture as it is served, in milliseconds.
    """

    ended: Ended
    finalists: list[str]
    folds: int
    of_folds: int
    rounds: tuple[RaceRound, ...]
    left: dict[str, str]
    minutes: float
    latencies: dict[str, float] = Field(default_factory=dict)
    failed: list[str] = Field(default_factory=list)

    @property
    def on(self) -> str:
        """The pictures that select, as words: `validation`, or `validation and 3 folds`."""
        if not self.folds:
            return "validation"
        return f"validation and {self.folds} fold{'' if self.folds == 1 else 's'} of the training pictures"

    @property
    def why(self) -> str:
        """In plain words: which pictures select, and why; who could not be asked about them."""
        failed = "".join(f" {name} could not be asked: {self.left[name]}." for name in self.failed)
        return f"{self._how}{failed}"

    @property
    def _how(self) -> str:
        first, last = self.rounds[0], self.rounds[-1]
        if self.ended == "validation":
            return f"Selected on validation alone ({first.groups} groups), as gate.selection asks."
        if self.ended == "cross_validation":
            return f"Selected on validation and all {self.folds} folds ({last.groups} groups), as gate.selection asks."
        if len(first.asked) == 1:
            return "Only one candidate stands for selection."
        if not self.folds and self.ended == "settled":
            return f"Selected on validation alone: its {first.groups} groups tell the candidates apart."
        asked = f"{len(first.in_question)} of {len(first.asked)} candidates could not be told apart on validation"
        if self.ended == "unmeasured":
            return (
                f"Selected on validation alone ({first.groups} groups): {asked}, but no candidate's training time is "
                "known (cost.json), so none could be asked about a fold within train.minutes: `dvc repro -f` a "
                "candidate's train stage, and the race with it."
            )
        if not self.folds:
            return (
                f"Selected on validation alone ({first.groups} groups): {asked}, but {self.minutes:g} minutes "
                "(train.minutes) don't pay for a fold of two of them."
            )
        ended = {
            "settled": "until they were told apart",
            "folds": "which are all there are",
            "minutes": f"until {self.minutes:g} minutes (train.minutes) did not pay for another",
        }[self.ended]
        return (
            f"{asked} ({first.groups} groups), so those in question were asked about {self.folds} of {self.of_folds} "
            f"folds of the training pictures as well ({last.groups} groups in all), {ended}; "
            f"{len(self.finalists)} stayed in question."
        )


System = Literal["detector", "detector+classifier"]


class Decision(Record):
    """build/decision.json: the verdict on the one candidate chosen, every rule with its figure, and how it was chosen.

    `more_test_groups` would settle a HOLD; `threshold` and `temperature` are those that would serve. Of a detector,
    `system` says whether a classifier judges the heads that it finds.
    """

    verdict: Verdict
    candidate: str
    reason: str = ""
    more_test_groups: int | None = None
    threshold: float | None = None
    temperature: float | None = None
    violation_class: str | None = None
    selected_on: str | None = None
    prefer: Prefer = "accuracy"
    selection: Selection | None = None
    race: RaceRecord | None = None
    system: System | None = None
    rules: tuple[Rule, ...]


class AgainstChampion(Record):
    """A challenger against the champion: whether it may take its place, and the rules that say so."""

    passed: bool
    rules: tuple[Rule, ...]


class SubsetAccuracy(Record):
    """Some of a backbone's networks: how many parameters, and by condition the accuracy with each seed."""

    networks: tuple[str, ...]
    parameters: int
    accuracy: dict[str, list[float]]


class AblationResult(Record):
    """build/ablations/CANDIDATE.json: every subset of a candidate's networks, and what that says."""

    candidate: str
    weights: dict[str, str]
    test_images: int
    seeds: int
    conditions: dict[str, int | float]
    rows: tuple[SubsetAccuracy, ...]
    verdict: tuple[str, ...]
