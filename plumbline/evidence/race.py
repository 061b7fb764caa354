"""Racing: candidates that validation does not tell apart are asked about more pictures, the others are not.

Every candidate is judged on validation. Those still in question are trained again without one fold of the training
pictures, and judged on it: it adds pictures that model never saw (Maron and Moore 1994, Hoeffding races). Where the
budget can't pay a fold for all of them, the less accurate half stays behind (successive halving, Jamieson and Talwalkar
2016). What a fold costs is what training took, as recorded: on the same records the race runs the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.evidence.records import Disturbing, Ended, RaceRecord, RaceRound
from plumbline.evidence.selection import best_of, shortfalls
from plumbline.models.records import WeightsRecord
from plumbline.tasks.scores import Floats, Ints


@dataclass(frozen=True)
class Entrant:
    """A candidate in the race: the simplest has the least `cost`.

    `seconds` says what a fold takes: its own time, or that of an ensemble's members, by name.
    """

    name: str
    cost: tuple[float, ...]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Answers:
    """What C candidates made of the same N pictures: which they got `right` (C, N), their Brier scores (C, N).

    `codes` (N,) are the pictures' groups, 0 to G - 1; `times` (R, G) says how often each group is in a redrawing.
    `failed` says of those who were asked and have no answer, and no row, what stood in the way.
    """

    right: NDArray[np.bool_]
    brier: Floats
    codes: Ints
    times: Floats
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> int:
        return int(self.codes.max()) + 1

    def of(self, places: list[int]) -> Answers:
        """The answers of some of the candidates."""
        return replace(self, right=self.right[places], brier=self.brier[places])


@dataclass(frozen=True)
class Terms:
    """How the race is run; `level` is the chance that a candidate is sent home wrongly, over all of them and looks."""

    folds: int
    minutes: float
    margin: float
    confidence: float
    level: float


Look = Callable[[list[str], int], Answers]
"""Answers of the candidates named, on validation and so many folds; it trains what was not trained before."""


def race(entrants: list[Entrant], look: Look, terms: Terms) -> RaceRecord:
    """Run the race: who was asked about how many folds, who left when and why, and why it ended.

    `finalists` are those still in question; the choice among them is `select_simplest`'s, on all that they were asked.
    Who fails to answer leaves. Where that leaves nobody, the race is run again without those who failed: who was sent
    home was compared with them. Raises UserError where everybody fails.
    """
    return _race(entrants, look, terms, {})


def _race(entrants: list[Entrant], look: Look, terms: Terms, before: Mapping[str, str]) -> RaceRecord:
    """Run it where those of `before` failed already."""
    running = list(entrants)
    left: dict[str, str] = dict(before)
    failed = dict(before)
    rounds: list[RaceRound] = []
    seconds = 0.0
    for folds in range(terms.folds + 1):
        asked = [one.name for one in running]
        answers = look(asked, folds)
        failed |= answers.failed
        left |= answers.failed
        running = [one for one in running if one.name not in failed]
        if not running:
            return _race(_without(entrants, failed), look, terms, failed)
        sent_home = out_of_question(running, answers, terms, len(entrants))
        kept = [place for place, one in enumerate(running) if one.name not in sent_home]
        left |= sent_home
        rounds.append(
            RaceRound(
                folds=folds,
                asked=asked,
                images=len(answers.codes),
                groups=answers.groups,
                in_question=[running[place].name for place in kept],
            )
        )
        running, answers = [running[place] for place in kept], answers.of(kept)
        if is_settled(running, answers, terms):
            return _record("settled", rounds, left, terms, failed)
        if folds == terms.folds:
            break
        affordable = within_budget(running, answers, 60 * terms.minutes - seconds)
        if not affordable:
            return _record("minutes" if np.isfinite(seconds_of(running)) else "unmeasured", rounds, left, terms, failed)
        left |= {
            one.name: "among the less accurate half when the time left (train.minutes) did not pay a fold for all"
            for one in running
            if one not in affordable
        }
        running = affordable
        seconds += seconds_of(running)
    return _record("folds", rounds, left, terms, failed)


def _without(entrants: list[Entrant], failed: Mapping[str, str]) -> list[Entrant]:
    """The entrants that did not fail; UserError where all did."""
    rest = [one for one in entrants if one.name not in failed]
    if not rest:
        reasons = "; ".join(failed.values())
        raise UserError(
            f"params.yaml: no candidate that stands could be asked about a fold ({reasons}): take these entries out, "
            "or set gate.selection: validation."
        )
    return rest


def validation_alone(entrants: list[Entrant], look: Look, terms: Terms) -> RaceRecord:
    """Return the record where gate.selection asks for validation alone: everybody is a finalist."""
    return _without_race("validation", entrants, look, 0, terms)


def all_folds(entrants: list[Entrant], look: Look, terms: Terms) -> RaceRecord:
    """Return the record where gate.selection asks everybody about every fold, whatever it takes."""
    return _without_race("cross_validation", entrants, look, terms.folds, terms)


def _without_race(ended: Ended, entrants: list[Entrant], look: Look, folds: int, terms: Terms) -> RaceRecord:
    names = [one.name for one in entrants]
    answers = look(names, folds)
    rest = [one.name for one in _without(entrants, answers.failed)]
    one = RaceRound(folds=folds, asked=names, images=len(answers.codes), groups=answers.groups, in_question=rest)
    return _record(ended, [one], dict(answers.failed), terms, answers.failed)


def _record(
    ended: Ended, rounds: list[RaceRound], left: dict[str, str], terms: Terms, failed: Mapping[str, str]
) -> RaceRecord:
    record = RaceRecord(
        ended=ended,
        finalists=[name for name in rounds[-1].in_question if name not in left],
        folds=rounds[-1].folds,
        of_folds=terms.folds,
        rounds=tuple(rounds),
        left=left,
        minutes=terms.minutes,
    )
    # Only where there is something to say: a race without failures leaves the bytes that it always left.
    return record.model_copy(update={"failed": sorted(failed)}) if failed else record


def out_of_question(running: list[Entrant], answers: Answers, terms: Terms, entered: int) -> dict[str, str]:
    """Return who can't be chosen any more, with the reason: surely behind the best, or by more than the margin.

    A simpler one may be chosen while it may lie within the margin; one that is no simpler has to be better.
    """
    best = best_of(answers.right, answers.brier, [one.cost for one in running])
    lacking = shortfalls(answers.right, best, answers.codes, answers.times)
    least = lacking.at_least(1 - terms.level / (entered * (terms.folds + 1)))
    found = {}
    for place, one in enumerate(running):
        bound = terms.margin if one.cost < running[best].cost else 0.0
        if place != best and least[place] > bound:
            found[one.name] = f"at least {100 * least[place]:.1f} points less accurate than {running[best].name}"
    return found


def is_settled(running: list[Entrant], answers: Answers, terms: Terms) -> bool:
    """Return whether more pictures would change nothing: the simplest is surely within the margin of every other."""
    simplest = min(range(len(running)), key=lambda place: (running[place].cost, running[place].name))
    ahead = shortfalls(answers.right, simplest, answers.codes, answers.times)
    # The others' lead is what the simplest has less; each look is a chance to be wrong.
    highest = -ahead.at_least(1 - (1 - terms.confidence) / (terms.folds + 1))
    return bool((np.delete(highest, simplest) <= terms.margin).all())


def within_budget(running: list[Entrant], answers: Answers, seconds: float) -> list[Entrant]:
    """Return those who are asked about the next fold: all, or the most accurate half, quarter, ... that it pays for.

    Fewer than two have nobody to be compared with: then nobody.
    """
    accuracies, scores = answers.right.mean(axis=1), answers.brier.mean(axis=1)
    ranked = sorted(range(len(running)), key=lambda place: (-accuracies[place], scores[place], running[place].cost))
    count = len(ranked)
    while count >= 2 and seconds_of(running[place] for place in ranked[:count]) > seconds:
        count //= 2
    return [running[place] for place in sorted(ranked[:count])] if count >= 2 else []


def seconds_of(entrants: Iterable[Entrant]) -> float:
    """Return what a fold takes for all of them: who is asked for itself and as a member is asked once."""
    asked: dict[str, float] = {}
    for one in entrants:
        asked.update(one.seconds)
    return sum(asked.values())


def disturbing(weights: WeightsRecord, stands_on_it: bool) -> Disturbing:
    """Return whether a backbone is to see disturbed test pictures, six passes of it, which only judge who is chosen.

    One whose weights are random for want of others is worth that only where a finalist stands on it.
    """
    if stands_on_it or not weights.worthless:
        return Disturbing(not_measured=None)
    return Disturbing(
        not_measured="its backbone's weights are random for want of others, and no candidate on it is still in question"
    )
