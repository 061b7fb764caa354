"""What a model must beat to be worth its weights: the majority class, and logistic regression on 16x16 pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from plumbline.evidence.candidates import Predictions
from plumbline.evidence.records import SiteLeftOut
from plumbline.evidence.shortcuts import cross_validated_smoother, folds_of, shrink
from plumbline.tasks.scores import Floats, Ints, roc_auc
from plumbline.tasks.task import LabelSets

SIDE = 16
MAJORITY, PIXELS = RIVALS = ("majority class", "16x16 pixels")
PENALTIES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Values of scikit-learn's C that are tried; validation chooses."""


def majority(sample: Predictions, train: NDArray[np.bool_]) -> Floats:
    """Return probabilities (N, K), the same for every picture: the shares of the training labels."""
    return np.tile(sample.task.usual(sample.truth[train]), (len(sample.truth), 1))


def pixel_regression(
    pixels: NDArray[np.uint8], sample: Predictions, train: NDArray[np.bool_], validation: NDArray[np.bool_]
) -> Floats:
    """Return probabilities (N, K) of logistic regression on `pixels` (N, H, W, 3) shrunk to 16x16, fitted on `train`.

    Its penalty is the one with the highest accuracy on `validation`, of equals the strongest. Several labels get a
    regression each.
    """
    features = shrink(pixels, SIDE).reshape(len(pixels), -1)
    centre, spread = features[train].mean(axis=0), features[train].std(axis=0)
    standard = (features - centre) / np.where(spread > 1e-9, spread, 1)
    fitted = [(c, sample.answering(_regression(standard, sample, train, c))) for c in PENALTIES]
    best = max(fitted, key=lambda item: (item[1].right[validation].mean(), -item[0]))
    return best[1].probabilities


def _regression(features: Floats, sample: Predictions, train: NDArray[np.bool_], c: float) -> Floats:
    from sklearn.linear_model import LogisticRegression

    probabilities = np.zeros(sample.truth.shape)
    for answers, classes in sample.task.questions(sample.truth):
        known, shares = np.unique(answers[train]), np.ones((len(features), 1))
        if len(known) > 1:
            model = LogisticRegression(C=c, max_iter=400).fit(features[train], answers[train])
            shares = model.predict_proba(features)
        for place, answer in enumerate(known):
            if (k := classes[answer]) is not None:
                probabilities[:, k] = shares[:, place]
    return probabilities


def leave_one_site_out(
    features: Floats,
    sets: LabelSets,
    codes: Ints,
    sites: NDArray[np.object_],
    seed: int,
) -> list[SiteLeftOut]:
    """Return for each site the area under the curve when trained on other sites, and when trained on its own as well.

    `features` (N, F) go through the ridge classifier of the shortcut checks, holding out once whole sites and once
    groups (`codes`). Sites that hold one class only, or no name, are left out.
    """
    names = sorted(set(sites) - {""})
    known = np.asarray(sites != "")
    features, codes, sites = features[known], codes[known], sites[known]
    sets = replace(sets, numbers=sets.numbers[known])
    if len(names) < 2:
        return []
    place = np.asarray([names.index(site) for site in sites])
    truth, shown = sets.truth, sets.judged
    elsewhere = cross_validated_smoother(features, place) @ truth
    everywhere = cross_validated_smoother(features, folds_of(sets, codes, seed)) @ truth
    rows: list[SiteLeftOut] = []
    for number, name in enumerate(names):
        inside = place == number
        if truth[inside].all(axis=0).any() or not truth[inside].any(axis=0).all():
            continue
        rows.append(
            SiteLeftOut(
                site=name,
                images=int(inside.sum()),
                auc_unseen=_auc(truth[inside], elsewhere[inside], shown),
                auc_seen=_auc(truth[inside], everywhere[inside], shown),
            )
        )
    return rows


def _auc(truth: NDArray[np.bool_], scores: Floats, shown: list[int]) -> float:
    once = np.ones((1, len(truth)))
    return float(np.mean([roc_auc(truth[:, k], scores[:, k], once)[0] for k in shown]))
