"""What a model must beat to be worth its weights: the majority class, and logistic regression on 16x16 pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.evidence.scores import Floats, Ints, roc_auc
from stages.evidence.shortcuts import cross_validated_smoother, folds_of, shrink

SIDE = 16
PENALTIES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Values of scikit-learn's C that are tried; validation chooses."""


def majority(labels: Ints, train: NDArray[np.bool_], classes: int) -> Floats:
    """Return probabilities (N, K): the shares of the classes among the training labels, for every picture."""
    shares = np.bincount(labels[train], minlength=classes) / train.sum()
    return np.tile(shares, (len(labels), 1))


def pixel_regression(
    pixels: NDArray[np.uint8], labels: Ints, train: NDArray[np.bool_], validation: NDArray[np.bool_], classes: int
) -> Floats:
    """Return probabilities (N, K) of logistic regression on `pixels` (N, H, W, 3) shrunk to 16x16, fitted on `train`.

    Its penalty is the one with the highest accuracy on `validation`, the stronger of equals.
    """
    from sklearn.linear_model import LogisticRegression

    features = shrink(pixels, SIDE).reshape(len(pixels), -1)
    centre, spread = features[train].mean(axis=0), features[train].std(axis=0)
    standard = (features - centre) / np.where(spread > 1e-9, spread, 1)
    fitted = [LogisticRegression(C=c, max_iter=400).fit(standard[train], labels[train]) for c in PENALTIES]
    best = max(fitted, key=lambda model: (model.score(standard[validation], labels[validation]), -model.C))
    probabilities = np.zeros((len(labels), classes))
    probabilities[:, best.classes_] = best.predict_proba(standard)
    return probabilities


def leave_one_site_out(
    features: Floats, labels: Ints, codes: Ints, sites: NDArray[np.object_], seed: int
) -> list[dict[str, float | str | int]]:
    """Return per site the area under the curve there when learned elsewhere, beside that when its own site helped too.

    `features` (N, F) go through the ridge classifier of the shortcut audits, once with sites and once with groups
    (`codes`) as what is held out. Sites that hold one class only, or no name, are left out. Two classes: class 1.
    """
    names = sorted(set(sites) - {""})
    known = np.asarray(sites != "")
    features, labels, codes, sites = features[known], labels[known], codes[known], sites[known]
    if len(names) < 2:
        return []
    place = np.asarray([names.index(site) for site in sites])
    classes = int(labels.max()) + 1
    one_hot = np.eye(classes)[labels]
    elsewhere = cross_validated_smoother(features, place) @ one_hot
    everywhere = cross_validated_smoother(features, folds_of(labels, codes, seed)) @ one_hot
    rows: list[dict[str, float | str | int]] = []
    for number, name in enumerate(names):
        inside = place == number
        if len(np.unique(labels[inside])) < classes:
            continue
        rows.append(
            {
                "site": name,
                "images": int(inside.sum()),
                "auc_unseen": _auc(labels[inside], elsewhere[inside]),
                "auc_seen": _auc(labels[inside], everywhere[inside]),
            }
        )
    return rows


def _auc(labels: Ints, scores: Floats) -> float:
    classes = scores.shape[1]
    once = np.ones((1, len(labels)))
    shown = range(classes) if classes > 2 else [1]
    return float(np.mean([roc_auc(labels == k, scores[:, k], once)[0] for k in shown]))
