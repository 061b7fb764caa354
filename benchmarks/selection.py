"""How often selection is right, how optimistic the best of many is, and whether the 95% intervals cover.

Run `python -m benchmarks.selection` (about two minutes on two cores). Everything is simulated: errors of candidates on
pictures that come in groups, where pictures of one group and candidates on one picture tend to err together.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from plumbline.evidence.intervals import draw_weights, group_codes, interval, mean_interval, rate_with_interval
from plumbline.evidence.selection import select_simplest
from plumbline.tasks.scores import Floats, Ints, brier_of_each, log_loss_of_each, score_all

OF_PICTURE, OF_GROUP = 0.4, 0.2
"""Shares of the variance of 'how hard' that all candidates see in a picture, and in a group of pictures."""


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


def chosen_share(accuracies: list[float], groups: int, wanted: int, repeats: int, alpha: float = 0.05) -> float:
    """Return how often candidate `wanted` is chosen; candidates are given cheapest first, judged on `groups` groups."""
    random = np.random.default_rng(1)
    names = [f"candidate_{place}" for place in range(len(accuracies))]
    hits = 0
    codes = groups_of(groups, random)
    draws = draw_weights(codes, 1000, 2)
    for _ in range(repeats):
        right, brier = simulate(accuracies, codes, random)
        selection = select_simplest(
            right=right,
            brier=brier,
            names=names,
            costs=[(float(place),) for place in range(len(names))],
            draws=draws,
            alpha=alpha,
        )
        hits += selection.chosen == names[wanted]
    return hits / repeats


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


def champion_coverage(groups: int, accuracies: list[float], repeats: int = 200) -> dict[str, float]:
    """Return how often the champion's 95% interval holds its true accuracy when the whole procedure is repeated.

    Each repeat draws `groups` validation and as many test groups from a synthetic population of 20,000, selects among
    candidates of these true accuracies (cheapest first) on validation, and looks at the chosen one's test interval.
    Beside it: the same had the most accurate on the test set itself been chosen, and by how much its figure flatters.
    """
    random = np.random.default_rng(4)
    codes = groups_of(20_000, random)
    right, brier = simulate(accuracies, codes, random)
    truth = right.mean(axis=1)
    starts = np.searchsorted(codes, np.arange(codes.max() + 2))
    names = [str(place) for place in range(len(accuracies))]
    held = naive = 0
    flattery = 0.0
    for repeat in range(repeats):
        picked = random.choice(codes.max() + 1, size=2 * groups, replace=False)
        sides = [np.concatenate([np.arange(starts[g], starts[g + 1]) for g in half]) for half in np.split(picked, 2)]
        (validation, validation_draws), (test, test_draws) = (
            (rows, draw_weights(group_codes(codes[rows]), 1000, repeat)) for rows in sides
        )
        selection = select_simplest(
            right=right[:, validation],
            brier=brier[:, validation],
            names=names,
            costs=[(float(place),) for place in range(len(names))],
            draws=validation_draws,
            alpha=0.05,
        )
        everywhere = np.full(len(test), True)
        best_on_test = int(right[:, test].mean(axis=1).argmax())
        for place, by_validation in ((int(selection.chosen), True), (best_on_test, False)):
            shown = rate_with_interval(right[place, test], everywhere, group_codes(codes[test]), test_draws)
            inside = shown.low <= truth[place] <= shown.high
            held, naive = held + (inside and by_validation), naive + (inside and not by_validation)
            flattery += 0 if by_validation else shown.value - truth[place]
    found = {"champion": held / repeats, "best on test": naive / repeats, "its optimism": flattery / repeats}
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
    repeats = parser.parse_args().repeats
    print(f"best of 10 independent candidates, all 0.95, on 95 images shows {optimism():.4f}")
    results: dict[str, object] = {"optimism": optimism()}
    for groups in (50, 100, 250, 500):
        for name, accuracies, wanted in (
            ("2 tied at 0.95: simplest", [0.95] * 2, 0),
            ("10 tied at 0.95: simplest", [0.95] * 10, 0),
            ("0.95 against 0.98: bigger", [0.95, 0.98], 1),
            ("five at 0.95 against 0.98: bigger", [0.95] * 5 + [0.98], 5),
            ("nine at 0.95 against 0.98: bigger", [0.95] * 9 + [0.98], 9),
        ):
            share = chosen_share(accuracies, groups, wanted, repeats)
            results[f"{groups} groups, {name}"] = share
            print(f"{groups} validation groups, {name} chosen in {share:.3f} of {repeats}")
    for groups, accuracy in ((50, 0.95), (50, 0.98), (100, 0.95), (100, 0.98), (250, 0.97), (500, 0.97)):
        covered = coverage(groups, accuracy)
        results[f"coverage, {groups} groups at {accuracy}"] = covered
        print(f"{groups} test groups, true accuracy {accuracy}: 95% intervals hold the truth in {covered}")
    for groups, accuracies in (
        (50, [0.95] * 5),
        (50, [0.93, 0.95, 0.97]),
        (100, [0.93, 0.95, 0.97]),
        (500, [0.95] * 10),
    ):
        found = champion_coverage(groups, accuracies)
        results[f"whole procedure, {groups} groups of {accuracies}"] = found
        print(f"{groups} validation and test groups, candidates {accuracies}: the 95% interval covers in {found}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
