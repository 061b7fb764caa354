"""Which rule of selection loses least, what a race of candidates adds, and whether the 95% intervals cover.

Run `python -m benchmarks.selection` (a quarter of an hour on one idle core; `--only rules` takes five minutes of it).
Everything is simulated: errors of candidates on pictures that come in groups, where pictures of one group and
candidates on one picture tend to err together. docs/decisions/selection.md has the table.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from plumbline.evidence.intervals import (
    draw_groups,
    draw_weights,
    group_codes,
    interval,
    mean_interval,
    rate_with_interval,
)
from plumbline.evidence.race import Answers, Entrant, Terms, race
from plumbline.evidence.records import RaceRecord
from plumbline.evidence.rules import Gate
from plumbline.evidence.selection import best_of, holm, redrawn_means, select_simplest
from plumbline.tasks.scores import Floats, Ints, brier_of_each, log_loss_of_each, score_all

OF_PICTURE, OF_GROUP = 0.4, 0.2
"""Shares of the variance of 'how hard' that all candidates see in a picture, and in a group of pictures.

Measured on a run of the sample: the latent correlation (tetrachoric) of the errors of two candidates that learnt
something is 0.50 to 0.63, of two heads on one backbone 0.72 and more; 0.4 + 0.2 is the middle of it.
"""

FOLDS = 5
DRAWS, MORE_DRAWS = 2000, 600
"""Of validation, as many as the gate's, and with folds: Holm's correction for 19 asks for p-values this small."""
WORLDS = ("spread", "five tied", "one best")
RULES = (
    "the rule before",
    "best on validation",
    "one standard error",
    "shown, validation alone",
    "shown, raced in 2 minutes",
    "shown, raced",
)


def groups_of(groups: int, random: np.random.Generator) -> Ints:
    """Return group codes (N,) of `groups` groups with 1 to 4 pictures, 1.9 on average as in ../shared/data/helmet."""
    sizes = random.choice([1, 2, 3, 4], size=groups, p=[0.45, 0.3, 0.15, 0.1])
    return np.repeat(np.arange(groups), sizes)


def simulate(accuracies: list[float], codes: Ints, random: np.random.Generator) -> tuple[NDArray[np.bool_], Floats]:
    """Return which pictures candidates of these true accuracies get right, and their Brier scores, both (C, N)."""
    shared = np.sqrt(OF_PICTURE) * random.normal(size=len(codes))
    shared += np.sqrt(OF_GROUP) * random.normal(size=int(codes.max()) + 1)[codes]
    own = np.sqrt(1 - OF_PICTURE - OF_GROUP) * random.normal(size=(len(accuracies), len(codes)))
    margin = norm.ppf(accuracies)[:, None] - shared - own
    of_truth = 1 / (1 + np.exp(-2 * margin))
    return margin > 0, (1 - of_truth) ** 2


def optimism(images: int = 95, candidates: int = 10, accuracy: float = 0.95, repeats: int = 2000) -> float:
    """Return what the best of equally good, independent candidates shows on average on one test set."""
    random = np.random.default_rng(0)
    right = random.random((repeats, candidates, images)) < accuracy
    return float(right.mean(axis=2).max(axis=1).mean())


def accuracies_of(world: str) -> Floats:
    """Return the true accuracies (20,) of a world: spread evenly, five tied at the top, or one clearly best."""
    worlds: dict[str, Floats] = {
        "spread": np.linspace(0.80, 0.97, 20),
        "five tied": np.r_[np.linspace(0.80, 0.95, 15), np.full(5, 0.97)],
        "one best": np.r_[np.linspace(0.80, 0.94, 19), 0.97],
    }
    return worlds[world]


def costs_drawn(count: int, random: np.random.Generator) -> list[tuple[float, ...]]:
    """Return costs in random order: who is simple has nothing to do with who is good."""
    return [(float(cost),) for cost in random.permutation(count)]


@dataclass(frozen=True)
class Plan:
    """Pictures that select: `groups` in validation, and as many as five folds of 70/15 times so many hold.

    `until` (6,) says how many pictures validation and each number of folds hold, `times` redraw their groups.
    """

    codes: Ints
    until: list[int]
    times: list[Floats]

    @classmethod
    def of(cls, groups: int, random: np.random.Generator) -> Plan:
        """Draw groups of realistic sizes."""
        more = round(groups * 0.70 / 0.15 / FOLDS)
        codes = groups_of(groups + FOLDS * more, random)
        until = [int(np.searchsorted(codes, groups + fold * more)) for fold in range(FOLDS + 1)]
        return cls(
            codes,
            until,
            [draw_groups(groups + fold * more, MORE_DRAWS if fold else DRAWS, 2) for fold in range(FOLDS + 1)],
        )

    def answers(self, right: NDArray[np.bool_], brier: Floats, folds: int) -> Answers:
        """What candidates made of validation and so many folds."""
        end = self.until[folds]
        return Answers(right[:, :end], brier[:, :end], self.codes[:end], self.times[folds])


def not_told_apart(answers: Answers, costs: list[tuple[float, ...]], alpha: float = 0.05) -> int:
    """Return whom the rule before this one took: the cheapest that no test tells from the best.

    Worse by McNemar's test (mid-p) and the bootstrap on accuracy, or by the bootstrap on Brier scores; Holm.
    """
    right, brier = answers.right, answers.brier
    best = best_of(right, brier, costs)
    gain, excess = right[best].astype(np.float64) - right, brier - brier[best]
    only_best, only_it = (gain > 0).sum(axis=1), (gain < 0).sum(axis=1)
    more, both = np.maximum(only_best, only_it), only_best + only_it
    mid = np.minimum(1, 2 * (binom.sf(more, both, 0.5) + 0.5 * binom.pmf(more, both, 0.5)))

    def bootstrap(values: Floats) -> Floats:
        means = values.mean(axis=1)
        strays = np.abs(redrawn_means(values, answers.codes, answers.times) - means)
        return np.asarray((1 + (strays >= np.abs(means)).sum(axis=0)) / (1 + len(strays)))

    worse = np.where(excess.mean(axis=1) > 0, bootstrap(excess), 1)
    p = np.minimum(1, 2 * np.minimum(np.maximum(mid, bootstrap(gain)), worse))
    others = [c for c in range(len(costs)) if c != best]
    corrected = dict(zip(others, holm([float(p[c]) for c in others]), strict=True))
    return min((c for c in range(len(costs)) if corrected.get(c, 1) >= alpha), key=lambda c: costs[c])


def within_one_error(answers: Answers, costs: list[tuple[float, ...]]) -> int:
    """Return the cheapest within one standard error (over groups) of the best (Breiman et al. 1984)."""
    best = best_of(answers.right, answers.brier, costs)
    means = redrawn_means(answers.right[[best]].astype(np.float64), answers.codes, answers.times)
    accuracies = answers.right.mean(axis=1)
    near = accuracies >= accuracies[best] - means.std()
    return min(np.flatnonzero(near).tolist(), key=lambda c: costs[c])


def shown_as_good(answers: Answers, costs: list[tuple[float, ...]]) -> int:
    """Return whom the gate takes on these pictures."""
    names = [str(place) for place in range(len(costs))]
    gate = Gate()
    selection = select_simplest(
        answers.right,
        answers.brier,
        names,
        costs,
        answers.codes,
        answers.times,
        gate.margin,
        gate.confidence,
        gate.alpha,
    )
    return int(selection.chosen)


def raced(
    plan: Plan, right: NDArray[np.bool_], brier: Floats, costs: list[tuple[float, ...]], seconds: Floats, minutes: float
) -> tuple[int, RaceRecord]:
    """Return whom the gate takes after a race within a budget, and how the race went."""
    gate = Gate()

    def look(names: list[str], folds: int) -> Answers:
        places = [int(name) for name in names]
        return plan.answers(right[places], brier[places], folds)

    entrants = [Entrant(str(c), costs[c], {str(c): float(seconds[c])}) for c in range(len(costs))]
    found = race(entrants, look, Terms(FOLDS, minutes, gate.margin, gate.confidence, gate.alpha))
    finalists = [int(name) for name in found.finalists]
    answers = plan.answers(right[finalists], brier[finalists], found.folds)
    return finalists[shown_as_good(answers, [costs[c] for c in finalists])], found


@dataclass
class Tally:
    """What a rule did over the repeats: points of true accuracy lost, the simplest of the truly best taken, and a
    simpler one taken for the best that is truly more than a point worse than the truth's best."""

    lost: float = 0.0
    simplest: int = 0
    wrongly: int = 0
    asked: float = 0.0

    def add(self, chosen: int, truth: Floats, costs: list[tuple[float, ...]], best: int) -> None:
        """Count one repeat."""
        top = np.flatnonzero(truth == truth.max())
        self.lost += 100 * float(truth.max() - truth[chosen])
        self.simplest += chosen == min(top.tolist(), key=lambda c: costs[c])
        self.wrongly += bool(chosen != best and truth.max() - truth[chosen] > Gate().margin + 1e-9)


def compare_rules(world: str, groups: int, repeats: int) -> dict[str, dict[str, float]]:
    """Return for each rule its mean regret in points, how often it takes the simplest of the truly best, and more.

    Costs are drawn anew in each repeat. A fold takes a candidate 2 to 60 seconds; `raced in 2 minutes` may ask for two
    minutes of them, `raced` for as many as it wants.
    """
    random = np.random.default_rng(groups)
    truth = accuracies_of(world)
    plan = Plan.of(groups, random)
    tallies = {name: Tally() for name in RULES}
    for _ in range(repeats):
        right, brier = simulate(truth.tolist(), plan.codes, random)
        costs = costs_drawn(len(truth), random)
        seconds = np.exp(random.uniform(np.log(2), np.log(60), len(truth)))
        answers = plan.answers(right, brier, 0)
        best = best_of(answers.right, answers.brier, costs)
        chosen = {
            "the rule before": not_told_apart(answers, costs),
            "best on validation": best,
            "one standard error": within_one_error(answers, costs),
            "shown, validation alone": shown_as_good(answers, costs),
        }
        for name, minutes in (("shown, raced in 2 minutes", 2.0), ("shown, raced", 1e9)):
            chosen[name], found = raced(plan, right, brier, costs, seconds, minutes)
            asked = sum(len(one.asked) for one in found.rounds[1:])
            tallies[name].asked += asked / (FOLDS * len(truth))
        for name, place in chosen.items():
            tallies[name].add(place, truth, costs, best)
    return {
        name: {
            "regret": tally.lost / repeats,
            "simplest": tally.simplest / repeats,
            "wrongly": tally.wrongly / repeats,
            "folds asked": tally.asked / repeats,
        }
        for name, tally in tallies.items()
    }


def coverage(groups: int, accuracy: float, repeats: int = 200) -> dict[str, float]:
    """Return how often the 95% intervals hold the truth when the whole procedure is repeated on new samples.

    Each repeat draws `groups` groups from a synthetic population of 20,000 with correlated errors in each of them.
    The truth is the population's own figure.
    """
    random = np.random.default_rng(3)
    codes, labels, probabilities = population(20_000, accuracy, random)
    truth = {n: float(v[0]) for n, v in score_all(labels, probabilities, np.ones((1, len(labels))), 1, 15).items()}
    starts = np.searchsorted(codes, np.arange(codes.max() + 2))
    names = ["accuracy", "balanced_accuracy", "recall:1", "precision:1", "f1_macro", "roc_auc", "log_loss", "brier"]
    losses = {"log_loss": log_loss_of_each, "brier": brier_of_each}
    held = dict.fromkeys(names, 0)
    for repeat in range(repeats):
        picked = random.choice(codes.max() + 1, size=groups, replace=False)
        rows = np.concatenate([np.arange(starts[g], starts[g + 1]) for g in picked])
        sample_codes = group_codes(codes[rows])
        weights = np.vstack([np.ones((1, len(rows))), draw_weights(sample_codes, 1000, repeat)])
        figures = score_all(labels[rows], probabilities[rows], weights, 1, 15)
        for name in names:
            if name in losses:
                low, high = mean_interval(losses[name](labels[rows], probabilities[rows]), sample_codes, weights[1:])
            else:
                on = labels[rows] == 1 if name == "recall:1" else np.full(len(rows), True)
                low, high = interval(
                    name, float(figures[name][0]), figures[name][1:], int(on.sum()), len(np.unique(sample_codes[on]))
                )
            held[name] += low <= truth[name] <= high
    return {name: hits / repeats for name, hits in held.items()}


def champion_coverage(world: str, groups: int, repeats: int, minutes: float = 1e9) -> dict[str, float]:
    """Return how often the champion's 95% interval holds its true accuracy when the whole procedure is repeated.

    Each repeat draws validation, folds and as many test groups as validation has, races the candidates, selects, and
    looks at the chosen one's test interval. Beside it: the same for a candidate named beforehand, for the most accurate
    on the test set itself, and by how much that one's figure flatters.
    """
    random = np.random.default_rng(4 + groups)
    truth = accuracies_of(world)
    plan, test = Plan.of(groups, random), groups_of(groups, random)
    test_draws, everywhere = draw_weights(test, 1000, 5), np.full(len(test), True)
    held = naive = named = 0
    flattery = 0.0
    for _ in range(repeats):
        right, brier = simulate(truth.tolist(), plan.codes, random)
        costs = costs_drawn(len(truth), random)
        seconds = np.exp(random.uniform(np.log(2), np.log(60), len(truth)))
        chosen, _ = raced(plan, right, brier, costs, seconds, minutes)
        seen, _ = simulate(truth.tolist(), test, random)
        best_on_test = int(seen.mean(axis=1).argmax())
        shown = rate_with_interval(seen[chosen], everywhere, test, test_draws)
        held += shown.low <= truth[chosen] <= shown.high
        plain = rate_with_interval(seen[-1], everywhere, test, test_draws)
        named += plain.low <= truth[-1] <= plain.high
        flattering = rate_with_interval(seen[best_on_test], everywhere, test, test_draws)
        naive += flattering.low <= truth[best_on_test] <= flattering.high
        flattery += flattering.value - truth[best_on_test]
    found = {
        "champion": held / repeats,
        "one named beforehand": named / repeats,
        "best on test": naive / repeats,
        "its optimism": flattery / repeats,
    }
    return {name: float(value) for name, value in found.items()}


def population(groups: int, accuracy: float, random: np.random.Generator) -> tuple[Ints, Ints, Floats]:
    """Return group codes (N,), labels (N,) and calibrated-looking probabilities (N, 2) of a clustered population."""
    codes = groups_of(groups, random)
    labels = np.where(random.random(groups) < 0.5, 0, 1)[codes]
    hard = np.sqrt(0.5) * random.normal(size=groups)[codes] + np.sqrt(0.5) * random.normal(size=len(codes))
    margin = norm.ppf(accuracy) + hard
    of_one = 1 / (1 + np.exp(-2 * np.where(labels == 1, margin, -margin)))
    return codes, labels, np.column_stack([1 - of_one, of_one])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--only", choices=("rules", "champion", "intervals"))
    arguments = parser.parse_args()
    repeats, only = arguments.repeats, arguments.only
    results: dict[str, object] = {}
    if only in (None, "rules"):
        for groups in (50, 100, 250, 500):
            for world in WORLDS:
                found = compare_rules(world, groups, repeats)
                results[f"{groups} groups, {world}"] = found
                for name, figures in found.items():
                    print(f"| {groups} | {world} | {name} | " + " | ".join(f"{v:.3f}" for v in figures.values()) + " |")
    if only in (None, "champion"):
        for groups in (50, 100, 250):
            for world in WORLDS:
                for minutes in (2.0, 1e9):
                    champion = champion_coverage(world, groups, repeats, minutes)
                    results[f"champion, {groups} groups, {world}, {minutes:g} minutes"] = champion
                    print(f"{groups} groups, {world}, {minutes:g} minutes: the 95% interval covers in {champion}")
    if only in (None, "intervals"):
        results["optimism"] = optimism()
        print(f"best of 10 independent candidates, all 0.95, on 95 images shows {optimism():.4f}")
        for groups, accuracy in ((50, 0.95), (50, 0.98), (100, 0.95), (100, 0.98), (250, 0.97), (500, 0.97)):
            covered = coverage(groups, accuracy)
            results[f"coverage, {groups} groups at {accuracy}"] = covered
            print(f"{groups} test groups, true accuracy {accuracy}: 95% intervals hold the truth in {covered}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
