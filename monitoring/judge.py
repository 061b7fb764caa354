"""The verdict on a window: every test, corrected for the number of tests and of windows, and in words.

Three families of tests share the level (EMBEDDINGS, DESCRIPTORS, SAID): what embeddings of the pictures through drift's
own eyes say, and their descriptors, both compared with pictures of all the data set, and what the champion says of
them, compared with pictures that it did not train on. Looks are compared of the newest window and of it together with
those before it since the last DRIFT, so that evidence adds up; within a family one correction is for all tests and
pools (`permutation.p_values`).

False alarms. Each window is judged at alpha / horizon: however windows depend on each other, the chance that a site
without drift is called DRIFT even once in `horizon` windows is at most alpha, on average over references. One fixed
reference is a sample too, which many images would tell from the site they are both of: so a window, or pool, of more
than half the reference's size is held to what chance does to windows of that size (`permutation.MARGIN`).
docs/decisions/drift.md says what was measured, docs/decisions/no-martingale.md why nothing is multiplied over windows.

WATCH asks for a look, not for action: a test that reached alpha but not alpha / horizon, changed class shares (the
champion is as good as before on each class), many repeats or unreadable files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from monitoring.accuracy import Estimate, estimate_accuracy, estimate_recall, uncalibrated
from monitoring.anomaly import cross_distances, nearness, reconstruction_errors
from monitoring.looks import ON_EMBEDDINGS, Known, Looks, drawn, statistics_of
from monitoring.observations import Floats, Observations
from monitoring.permutation import Found, Layout, Statistic, kolmogorov, more_often, p_values, share_moved
from monitoring.reference import Reference, comparable
from monitoring.result import ShareMoved
from monitoring.settings import DriftParams
from monitoring.shares import estimate_shares
from monitoring.words import sentence
from plumbline.common.served import KNOWN_SHARE

# How the level is shared. What few, many-sided tests of embeddings find is the hardest to find; whatever changes a
# descriptor changes it a lot (docs/decisions/drift.md).
EMBEDDINGS, DESCRIPTORS, SAID = 0.6, 0.2, 0.2
POOLS = (1, 3, 10)  # windows that are judged together: the newest alone, and with those before it
FAR = 0.95  # of both sides together: the furthest are counted on each
# Different groups may show the same scene, and the reference has more such pairs within itself than with a window.
# Distances to the nearest image depend on that: in benchmarks/drift.py they alone gave a false alarm in 15 of 200
# windows. So they are shown and can lead to WATCH, but never to DRIFT.
ONLY_WATCHED = ("far from the reference",)


@dataclass(frozen=True)
class Test:
    """One test: its p-value, corrected, what it found in words, the figures it compared, of how many windows together.

    A test of several windows compares figures of all of them; `window` shows those of the newest.
    """

    __test__ = False  # pytest would collect a class of this name

    name: str
    p: float
    adjusted: float
    words: str
    window: dict[str, float]
    reference: dict[str, float]
    windows: int = 1


@dataclass(frozen=True)
class Judgement:
    """The verdict on a window and what it rests on. Arrays have one value per image, (N,)."""

    verdict: str
    reasons: list[str]
    tests: list[Test] = field(default_factory=list)
    shares: list[ShareMoved] = field(default_factory=list)
    accuracy: Estimate | None = None
    average_confidence: float | None = None
    recall: Estimate | None = None
    far_share: float | None = None
    notes: list[str] = field(default_factory=list)
    distance: Floats | None = None
    error: Floats | None = None
    nearest: NDArray[np.int64] | None = None


def judge(
    reference: Reference,
    window: Observations,
    formats: list[str],
    params: DriftParams,
    looks: Sequence[Looks] | None = None,
) -> Judgement:
    """Judge a window of independent images; `formats` (N,) are its files' formats.

    Args:
        looks: what the window's images look like and, before it, those of earlier windows, newest first; None where
            nothing but the champion has seen them.
    """
    why = too_few(reference, window, params)
    if why:
        return Judgement("NOT ENOUGH IMAGES", [why])
    known = reference.observations
    own = nearness(known.embeddings, known.embeddings, known.groups, known.groups)
    near = nearness(window.embeddings, known.embeddings, None, known.groups)
    limit = float(np.quantile(own.distances, KNOWN_SHARE))
    far_share = float(np.mean(near.distances > limit))
    notes = []
    if len(window) > params.most_images:
        kept = drawn(window.groups, params.most_images, params.seed)
        notes.append(f"The tests rest on {len(kept):,} of the {len(window):,} images, whole groups drawn at random.")
    if params.permutations < (needed := permutations_needed(params)):
        notes.append(
            f"drift.permutations is {params.permutations:,}: with fewer than {needed:,} not every test can reach the "
            "level at which DRIFT is said."
        )
    found, unseen, left_out = run_tests(reference, window, formats, params, looks)
    ours = reference.through_eyes.looks.measures if looks and reference.through_eyes else known.measures
    names = [str(name) for name in window.measures if name in ours]
    figures = {name: (ours[name].to_numpy(), window.measures[name].to_numpy()) for name in names}
    figures |= score_figures(reference, window)
    figures["far from the reference"] = (own.distances, near.distances)
    tests = [told(one, figures.get(one.name), far_share) for one in found]
    notes += left_out
    shares, moved = class_shares(reference, window, params)
    verdict, reasons = decide(tests, unseen + moved, params)
    recall, no_recall = recall_of_violation(reference, window)
    notes += no_recall
    confidence, window_confidence = (
        uncalibrated(one.probabilities, reference.temperature).max(axis=1) for one in (known, window)
    )
    return Judgement(
        verdict=verdict,
        reasons=reasons,
        tests=tests,
        shares=shares,
        accuracy=estimate_accuracy(confidence, reference.right, known.groups, window_confidence, window.groups)
        if reference.task.exclusive
        else None,
        average_confidence=float(window.probabilities.max(axis=1).mean()) if reference.task.exclusive else None,
        recall=recall,
        far_share=far_share,
        notes=notes,
        distance=near.distances,
        error=reconstruction_errors(known.embeddings, known.groups, window.embeddings, window.groups)[1],
        nearest=near.nearest,
    )


@dataclass(frozen=True)
class Tested:
    """A test's name, its p-value alone and corrected for all tests of the window, and of how many windows together."""

    name: str
    p: float
    adjusted: float
    newest: int


def run_tests(
    reference: Reference,
    window: Observations,
    formats: list[str],
    params: DriftParams,
    looks: Sequence[Looks] | None = None,
) -> tuple[list[Tested], list[str], list[str]]:
    """Return the tests of a window, the strongest first, a reason to look and notes (`not_compared`); as `judge`."""
    names = comparable(reference, window.measures, formats)
    if looks is None:
        looks = [Looks(window.measures, window.embeddings, None, window.groups)]
        through = reference.through_champion
    else:
        through = reference.through_eyes or reference.through_champion
    newest = looks[0].take(drawn(looks[0].groups, params.most_images, params.seed))
    together = pooled([newest, *looks[1:]], len(through.looks))
    shown = [name for name in names if all(name in one.measures for one in (through.looks, *together))]
    said, unseen, left_out = scores_moved(reference, window, params)
    pools = tuple(sorted({min(size, len(together)) for size in POOLS}))
    if through.kinds is None:
        embedded, described, _ = looks_moved(through, together, shown, pools, params)
    else:
        # Each pool shows its own mix of the kinds that were accepted, and so has a reference of its own.
        apart = [looks_moved(through, together[:size], shown, (size,), params) for size in pools]
        embedded, described = strongest([one for one, _, _ in apart]), strongest([one for _, one, _ in apart])
        left_out.append(
            f"Of the {len(through.looks):,} images in the reference {apart[0][2]:,} are compared with what the window "
            "looks like: those of the data set and of accepted windows in the shares that it shows."
        )
    families = [(EMBEDDINGS, embedded), (DESCRIPTORS, described), (SAID, said)]
    tests = [
        Tested(name, found.p, min(1.0, found.adjusted / share), found.newest)
        for share, family in families
        for name, found in family.items()
    ]
    return sorted(tests, key=lambda one: (one.adjusted, one.p)), unseen, left_out


def looks_moved(
    known: Known, windows: Sequence[Looks], names: Sequence[str], pools: tuple[int, ...], params: DriftParams
) -> tuple[dict[str, Found], dict[str, Found], int]:
    """Test what pictures look like: by test what is found on embeddings, then on all else, of how many known images."""
    layout, statistics = statistics_of(known, windows, names)
    embedded = {name: one for name, one in statistics.items() if name in ON_EMBEDDINGS}
    described = {name: one for name, one in statistics.items() if name not in ON_EMBEDDINGS}
    return (
        p_values(layout, embedded, pools, params.permutations, params.seed),
        p_values(layout, described, pools, params.permutations, params.seed),
        int(np.sum(layout.age == 0)),
    )


def strongest(pools: Sequence[dict[str, Found]]) -> dict[str, Found]:
    """Return by test its strongest finding in pools that were tested apart, corrected for their number (Bonferroni)."""
    best: dict[str, Found] = {}
    for name, found in sorted(((n, f) for pool in pools for n, f in pool.items()), key=lambda one: one[1].adjusted):
        best.setdefault(name, Found(found.p, min(1.0, found.adjusted * len(pools)), found.newest))
    return best


def permutations_needed(params: DriftParams) -> int:
    """Return how many permutations the smallest p-value needs to be DRIFT in every family of tests."""
    return math.ceil(round(params.horizon / (params.alpha * min(EMBEDDINGS, DESCRIPTORS, SAID)), 6)) - 1


def told(found: Tested, figures: tuple[Floats, Floats] | None, far_share: float) -> Test:
    """Return a test with what it found in words; `figures` are those of reference and newest window that it has."""
    before, now = figures or (None, None)
    words = sentence(found.name, before, now, far_share, found.newest)
    return Test(found.name, found.p, found.adjusted, words, _summary(now), _summary(before), found.newest)


def too_few(reference: Reference, window: Observations, params: DriftParams) -> str | None:
    """Return why there can be no verdict yet, None where there can."""
    if reference.observations.group_count < params.minimum_groups:
        return (
            f"The champion's reference has only {reference.observations.group_count} independent groups of images "
            f"that it did not train on, drift.minimum_groups asks for {params.minimum_groups}: train on more "
            "photographs."
        )
    if not len(window):
        return "No new image."
    if len(window) < params.minimum_images:
        return f"{len(window)} new images, drift.minimum_images asks for {params.minimum_images}."
    if window.group_count < params.minimum_groups:
        return (
            f"{len(window)} new images come from only {window.group_count} independent photographs or videos, "
            f"drift.minimum_groups asks for {params.minimum_groups}: more photographs or videos are needed, "
            "more frames of the same ones would not help."
        )
    return None


def layout_of(reference: Observations, window: Observations) -> Layout:
    """Return both sides, reference first, as the permutations need them."""
    groups = np.concatenate([reference.groups, window.groups + reference.groups.max() + 1])
    sides = (np.arange(len(groups)) >= len(reference)).astype(np.int64)
    predicted = np.concatenate([reference.predicted, window.predicted])
    return Layout(sides, np.unique(groups, return_inverse=True)[1], predicted)


def pooled(looks: Sequence[Looks], reference: int) -> list[Looks]:
    """Return the newest window and those before it that are judged with it, while all are at most twice `reference`.

    More would tell nothing: beyond half of its size the reference itself is what is not known well enough.
    """
    found, images = [looks[0]], len(looks[0])
    for one in looks[1 : max(POOLS)]:
        images += len(one)
        if images > 2 * reference:
            break
        found.append(one)
    return found


def scores_moved(
    reference: Reference, window: Observations, params: DriftParams
) -> tuple[dict[str, Found], list[str], list[str]]:
    """Test what the champion says: findings by test, a reason to look, and notes, as `not_compared`."""
    known = reference.observations
    kept = drawn(window.groups, params.most_images, params.seed)
    layout = layout_of(known, window.take(kept))
    unseen, left_out = not_compared(layout, reference.classes)
    if unseen:
        return {}, unseen, left_out
    statistics: dict[str, Statistic] = {}
    for name, (ours, theirs) in score_figures(reference, window).items():
        both = np.concatenate([ours, theirs[kept]])
        if np.ptp(both) > 0:
            statistics[name] = kolmogorov(both)
    distances = np.concatenate(
        cross_distances(known.embeddings, known.groups, window.embeddings[kept], window.groups[kept])
    )
    statistics["far from the reference"] = more_often(distances > np.quantile(distances, FAR))
    return p_values(layout, statistics, (1,), params.permutations, params.seed), unseen, left_out


def score_figures(reference: Reference, window: Observations) -> dict[str, tuple[Floats, Floats]]:
    """Return the champion's confidence and, by class, its scores: black-box shift detection (Rabanser et al. 2019)."""
    known = reference.observations.probabilities
    found = {"confidence": (known.max(axis=1), window.probabilities.max(axis=1))}
    # With two classes one score determines the other.
    for place, name in list(enumerate(reference.classes))[1 if len(reference.classes) == 2 else 0 :]:
        found[f"score of {name}"] = (known[:, place], window.probabilities[:, place])
    return found


def class_shares(reference: Reference, window: Observations, params: DriftParams) -> tuple[list[ShareMoved], list[str]]:
    """Return each class's share in reference and window, and a sentence on the largest change significant at alpha."""
    if not reference.task.exclusive:
        return [], []
    known = reference.observations
    estimate = estimate_shares(
        reference.labels, known.predicted, known.groups, window.predicted, window.groups, len(reference.classes)
    )
    layout = layout_of(known, window)
    p = share_moved(layout, params.permutations, params.seed)
    usual = np.bincount(reference.labels, minlength=len(reference.classes)) / len(known)
    rows: list[ShareMoved] = [
        {
            "class": name,
            "reference": float(usual[place]),
            "value": float(estimate["value"][place]),
            "low": float(estimate["low"][place]),
            "high": float(estimate["high"][place]),
            "p": p,
        }
        for place, name in enumerate(reference.classes)
    ]
    if p > params.alpha:
        return rows, []
    most = max(rows, key=lambda row: abs(row["value"] - row["reference"]))
    more = "more" if most["value"] > most["reference"] else "fewer"
    return rows, [
        f"{more} {most['class']} than usual: about {most['value']:.0%} ({most['low']:.0%} to {most['high']:.0%}) "
        f"against {most['reference']:.0%} in the reference"
    ]


def not_compared(layout: Layout, classes: list[str]) -> tuple[list[str], list[str]]:
    """Return a reason to look where no image of the window is tested, a note where some are not; else nothing.

    The tests of its scores compare images that the champion calls alike, so they say nothing of a class that only one
    side has.
    """
    left = layout.in_window & ~layout.compared
    if not left.any():
        return [], []
    names = " or ".join(classes[place] for place in np.unique(layout.predicted[left]))
    if layout.compared.any():
        count = f"{int(left.sum()):,} of the window's {int(layout.in_window.sum()):,} images"
        why = f"the champion calls them {names}, and none of the reference so."
        return [], [f"The tests of its scores say nothing of {count}: {why}"]
    return [f"its scores are not tested: the champion calls every image {names}, and none of the reference so"], []


def recall_of_violation(reference: Reference, window: Observations) -> tuple[Estimate | None, list[str]]:
    """Return the expected share of violations that raise the alarm, and a note where too few are expected to say.

    None without a note where no class is a violation.
    """
    if reference.violation is None or reference.threshold is None or not reference.task.exclusive:
        return None, []
    probability = window.probabilities[:, reference.classes.index(reference.violation)]
    found = estimate_recall(probability, probability >= reference.threshold, window.groups)
    note = f"Recall of {reference.violation}: no figure, since fewer than one image of it is expected here."
    return found, [] if found else [note]


def decide(tests: list[Test], moved: list[str], params: DriftParams) -> tuple[str, list[str]]:
    """Return the verdict and its reasons, weightiest first; `moved` are reasons that no test gives."""
    level = params.alpha / params.horizon
    found = [test for test in tests if test.adjusted <= level and test.name not in ONLY_WATCHED]
    hints = [test for test in tests if test.adjusted <= params.alpha and test not in found]
    reasons = [test.words for test in found] + moved
    if found:
        return "DRIFT", reasons
    if hints:
        first = hints[0]
        bound = "this alone is never called DRIFT" if first.name in ONLY_WATCHED else f"DRIFT is said from {level:.4f}"
        reasons.append(
            f"perhaps {first.words}: p {first.adjusted:.3f} after correction, which one window in "
            f"{1 / params.alpha:.0f} shows without any drift; {bound}"
        )
    return ("WATCH" if reasons else "OK"), reasons


def _summary(values: Floats | None) -> dict[str, float]:
    if values is None:
        return {}
    low, middle, high = (float(value) for value in np.quantile(values, [0.05, 0.5, 0.95]))
    return {"low": low, "median": middle, "high": high}
