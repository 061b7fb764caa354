"""The verdict on a window: every test, corrected for the number of tests and of windows, and in words.

False alarms. Each window is judged at alpha / horizon, and Holm's correction spreads that over its tests: however
tests and windows depend on each other, the chance that a site without drift is called DRIFT even once in `horizon`
windows is at most alpha. A sequential method would not be valid here: all windows are compared with the same reference,
so their p-values are correlated. A test martingale (or online FDR) needs each p-value to be valid given the earlier
ones; it would accumulate the reference's own chance deviations and in time always raise a false alarm.

WATCH asks for a look, not for action: a test that reached alpha but not alpha / horizon, changed class shares (the
champion is as good as before on each class), many repeats or unreadable files.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from monitoring.accuracy import Estimate, estimate_accuracy, estimate_recall
from monitoring.anomaly import cross_distances, nearness, reconstruction_errors
from monitoring.observations import Floats, Observations
from monitoring.permutation import (
    Layout,
    Statistic,
    centred,
    classifier,
    kolmogorov,
    mean_discrepancy,
    more_often,
    p_values,
    share_moved,
)
from monitoring.reference import Reference, comparable
from monitoring.result import ShareMoved
from monitoring.settings import DriftParams
from monitoring.shares import estimate_shares
from monitoring.words import sentence
from plumbline.common.served import KNOWN_SHARE
from plumbline.evidence.selection import holm

COMPONENTS = 32  # principal components of the embeddings that the tests look at
FAR = 0.95  # of both sides together: the furthest are counted on each
# Different groups may show the same scene, and the reference has more such pairs within itself than with a window.
# Distances to the nearest image depend on that: in benchmarks/drift.py they alone gave a false alarm in 15 of 200
# windows. So they are shown and can lead to WATCH, but never to DRIFT.
ONLY_WATCHED = ("far from the reference",)


@dataclass(frozen=True)
class Test:
    """One test: its p-value, Holm's correction of it, what it found in words, and the figures it compared."""

    __test__ = False  # pytest would collect a class of this name

    name: str
    p: float
    adjusted: float
    words: str
    window: dict[str, float]
    reference: dict[str, float]


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


def judge(reference: Reference, window: Observations, formats: list[str], params: DriftParams) -> Judgement:
    """Judge a window of independent images; `formats` (N,) are its files' formats."""
    why = too_few(reference, window, params)
    if why:
        return Judgement("NOT ENOUGH IMAGES", [why])
    known = reference.observations
    error, window_error = reconstruction_errors(known.embeddings, known.groups, window.embeddings, window.groups)
    own = nearness(known.embeddings, known.embeddings, known.groups, known.groups)
    near = nearness(window.embeddings, known.embeddings, None, known.groups)
    limit = float(np.quantile(own.distances, KNOWN_SHARE))
    names = comparable(reference, window.measures, formats)
    figures = {name: (known.measures[name].to_numpy(), window.measures[name].to_numpy()) for name in names}
    figures |= score_figures(reference, window)
    figures["reconstruction error"] = (error, window_error)
    notes = []
    rows, kept = drawn(known, params), drawn(window, params)
    if len(kept) < len(window):
        notes.append(f"The tests rest on {len(kept):,} of the {len(window):,} images, whole groups drawn at random.")
    layout = layout_of(known.take(rows), window.take(kept))
    statistics: dict[str, Statistic] = {}
    for name, (ours, theirs) in figures.items():
        both = np.concatenate([ours[rows], theirs[kept]])
        if np.ptp(both) > 0:
            statistics[name] = kolmogorov(both)
    crossed = cross_distances(known.embeddings, known.groups, window.embeddings, window.groups)
    distances = np.concatenate([crossed[0][rows], crossed[1][kept]])
    statistics["far from the reference"] = more_often(distances > np.quantile(distances, FAR))
    statistics |= embedding_tests(np.concatenate([known.embeddings[rows], window.embeddings[kept]]), layout)
    unseen, left_out = not_compared(layout, reference.classes)
    notes += left_out
    if unseen:
        statistics = {}
    raw = p_values(layout, statistics, params.permutations, params.seed)
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    far_share = float(np.mean(near.distances > limit))
    figures["far from the reference"] = (own.distances, near.distances)
    tests = []
    for name in sorted(statistics, key=lambda name: (adjusted[name], raw[name])):
        before, now = figures.get(name, (None, None))
        words = sentence(name, before, now, far_share)
        tests.append(Test(name, raw[name], adjusted[name], words, _summary(now), _summary(before)))
    shares, moved = class_shares(reference, window, params)
    verdict, reasons = decide(tests, unseen + moved, params)
    recall, no_recall = recall_of_violation(reference, window)
    notes += no_recall
    confidence, window_confidence = known.probabilities.max(axis=1), window.probabilities.max(axis=1)
    return Judgement(
        verdict=verdict,
        reasons=reasons,
        tests=tests,
        shares=shares,
        accuracy=estimate_accuracy(confidence, reference.right, known.groups, window_confidence, window.groups)
        if reference.task.exclusive
        else None,
        average_confidence=float(window_confidence.mean()) if reference.task.exclusive else None,
        recall=recall,
        far_share=far_share,
        notes=notes,
        distance=near.distances,
        error=window_error,
        nearest=near.nearest,
    )


def too_few(reference: Reference, window: Observations, params: DriftParams) -> str | None:
    """Return why there can be no verdict yet, None where there can."""
    if reference.observations.group_count < params.minimum_groups:
        return (
            f"The champion's reference has only {reference.observations.group_count} independent groups of validation "
            f"images, drift.minimum_groups asks for {params.minimum_groups}: train on more photographs."
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
    sides = np.arange(len(groups)) >= len(reference)
    predicted = np.concatenate([reference.predicted, window.predicted])
    return Layout(sides, np.unique(groups, return_inverse=True)[1], predicted)


def drawn(side: Observations, params: DriftParams) -> NDArray[np.intp]:
    """Return all rows, or those of whole groups drawn at random up to params.most_images."""
    if len(side) <= params.most_images:
        return np.arange(len(side))
    random = np.random.default_rng(params.seed)
    names, counts = np.unique(side.groups, return_counts=True)
    order = random.permutation(len(names))
    chosen = names[order[np.cumsum(counts[order]) <= params.most_images]]
    return np.flatnonzero(np.isin(side.groups, chosen))


def embedding_tests(vectors: Floats, layout: Layout) -> dict[str, Statistic]:
    """Return the two tests on the champion's embeddings (N, D) of both sides, by their principal components."""
    from sklearn.decomposition import PCA

    moved = centred(vectors, layout.predicted)
    components = min(COMPONENTS, moved.shape[1], len(moved) - 1)
    parts = PCA(components, random_state=0).fit_transform(moved)
    parts = parts[:, parts.std(axis=0) > 1e-9]
    if not parts.shape[1]:
        return {}
    return {
        "embeddings (MMD)": mean_discrepancy(parts),
        "embeddings (classifier)": classifier(parts / parts.std(axis=0), layout),
    }


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

    The tests compare images that the champion calls alike, so they say nothing of a class that only one side has.
    """
    left = layout.in_window & ~layout.compared
    if not left.any():
        return [], []
    names = " or ".join(classes[place] for place in np.unique(layout.predicted[left]))
    if layout.compared.any():
        count = f"{int(left.sum()):,} of the window's {int(layout.in_window.sum()):,} images"
        return [], [f"The tests say nothing of {count}: the champion calls them {names}, and none of the reference so."]
    return [f"not tested: the champion calls every image {names}, and none of the reference so"], []


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
