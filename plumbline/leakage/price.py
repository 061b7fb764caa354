"""The price of a careless split: what the same classifier scores when copies may be on both sides, and when not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common.params import Section
from plumbline.leakage.groups import read_embeddings
from plumbline.leakage.records import ClassifierPrice, Price

if TYPE_CHECKING:
    import pandas as pd

    from plumbline.imaging.settings import DataParams

FOLDS = 5
RESAMPLES = 2000
Floats = NDArray[np.float64]
RAW_SIDE = 16  # pixels: stand-in for features without a pretrained backbone
Features = NDArray[np.floating[Any]] | Callable[[NDArray[np.intp]], NDArray[np.floating[Any]]]
Classifier = Callable[[Floats, NDArray[np.int64], Floats], NDArray[np.int64]]


def price(
    features: Features,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    repeats: int,
    most: int,
    seed: int,
) -> Price | None:
    """Score cheap classifiers by repeated 5-fold cross-validation, folds drawn by image and drawn by group.

    Args:
        features: (N, D), or a function that returns those of the rows drawn, (rows, D).
        labels, groups: (N,) numbers.
        repeats: how many times the folds are drawn anew.
        most: from a larger set, whole groups are drawn until there are this many images.
        seed: of every draw.

    Returns accuracies between 0 and 1, and their difference in points with its 95% interval (bootstrap over groups of
    the mean difference per image), or None where a class has fewer than 5 groups, too few to draw folds from.
    """
    rng = np.random.default_rng(seed)
    rows = sample(groups, most, rng)
    drawn = features(rows) if callable(features) else features[rows]
    values, labels, groups = np.asarray(drawn, np.float64), labels[rows], groups[rows]
    if min(len(np.unique(groups[labels == c])) for c in np.unique(labels)) < FOLDS or len(np.unique(labels)) < 2:
        return None
    seeds = rng.integers(2**31, size=repeats)
    scores = {}
    for name, classify in CLASSIFIERS.items():
        naive = _right(classify, values, labels, groups, seeds, grouped=False)
        grouped = _right(classify, values, labels, groups, seeds, grouped=True)
        low, high = _interval(naive - grouped, groups, rng)
        scores[name] = ClassifierPrice(
            naive=float(naive.mean()),
            grouped=float(grouped.mean()),
            points=100 * float((naive - grouped).mean()),
            low=100 * low,
            high=100 * high,
        )
    return Price(images=len(rows), repeats=repeats, folds=FOLDS, classifiers=scores)


def sentence(found: Price | None) -> str:
    """Return in a sentence what a random split would have claimed, for the classifier that would claim most."""
    if found is None:
        return "The price can't be told: it takes two classes, each with at least 5 groups."
    name, best = max(found.classifiers.items(), key=lambda item: item[1].naive)
    claim = (
        f"A random split would have claimed {best.naive:.3f}; honest is {best.grouped:.3f} "
        f"({name.replace('_', ' ')}; {points(best.points)} points, 95% interval {points(best.low)} to "
        f"{points(best.high)})."
    )
    return " ".join(filter(None, [claim, why_negative(best)]))


def points(value: float) -> str:
    """Return points with one decimal; what rounds to nothing has no sign."""
    return f"{value:z.1f}"


def why_negative(found: ClassifierPrice) -> str | None:
    """Return what it means that the random split scored lower, in a sentence; None where it did not.

    Copies on both sides can only help a classifier, unless their labels differ.
    """
    if float(points(found.points)) >= 0:
        return None
    if float(points(found.high)) >= 0:
        return "The random split scored lower, which is chance of the draw: the interval holds 0, no price was found."
    return (
        "The random split scored lower by more than chance of the draw (the interval lies below 0), as it does where "
        "pictures of one group have different labels: look at the label conflicts."
    )


def nearest_neighbour(train: Floats, labels: NDArray[np.int64], test: Floats) -> NDArray[np.int64]:
    """Predict each picture's label from its nearest neighbour by cosine: the value of memorising copies."""
    likeness = _unit(test) @ _unit(train).T
    return np.asarray(labels[likeness.argmax(axis=1)])


def logistic_regression(train: Floats, labels: NDArray[np.int64], test: Floats) -> NDArray[np.int64]:
    """Fit scikit-learn's logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    return np.asarray(model.fit(train, labels).predict(test))


CLASSIFIERS: dict[str, Classifier] = {
    "nearest_neighbour": nearest_neighbour,
    "logistic_regression": logistic_regression,
}


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def sample(groups: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return rows of whole groups (N,), drawn until there are `most`."""
    uniques, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(uniques))
    chosen = order[np.cumsum(sizes[order]) <= max(most, sizes[order[0]])]
    return np.flatnonzero(np.isin(codes, chosen))


def _right(
    classify: Classifier,
    features: Floats,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    seeds: NDArray[np.int64],
    grouped: bool,
) -> Floats:
    """Share of the repeats in which each image, when held out, was classified correctly."""
    from threadpoolctl import threadpool_limits

    def once(seed: int) -> Floats:
        right = np.zeros(len(labels))
        for train, test in _folds(labels, groups, seed, grouped):
            right[test] = classify(features[train], labels[train], features[test]) == labels[test]
        return right

    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.asarray(np.mean(list(pool.map(once, seeds.tolist())), axis=0))


def _folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int, grouped: bool
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if grouped:
        yield from StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels, groups)
    else:
        yield from StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels)


def _interval(difference: Floats, groups: NDArray[np.int64], rng: np.random.Generator) -> tuple[float, float]:
    """95% interval of the mean over images, resampling groups."""
    codes = np.unique(groups, return_inverse=True)[1]
    sums, sizes = np.bincount(codes, difference), np.bincount(codes)
    drawn = rng.integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


class LeakageParams(Section):
    """params.yaml, section `leakage`: how the price is measured."""

    features: str = "mobilenet_v2"
    repeats: int = Field(default=10, ge=2, le=1000)
    most_images: int = Field(default=2000, ge=50)
    seed: int = Field(default=0, ge=0)


def raw_pixels(data: DataParams, paths: list[str]) -> NDArray[np.float32]:
    """Return (N, 768): each picture at 16 x 16, RGB between 0 and 1."""
    from plumbline.imaging.reading import iter_rgb

    rows = [rgb.reshape(-1) for rgb in iter_rgb(data, paths, (RAW_SIDE, RAW_SIDE))]
    return np.asarray(rows, np.float32) / np.float32(255)


def price_features(folder: Path, manifest: pd.DataFrame, data: DataParams) -> tuple[NDArray[np.floating[Any]], str]:
    """Return features (N, D) in manifest order, and what they are in words."""
    vectors, source = read_embeddings(folder, manifest)
    if vectors is not None:
        return vectors, source
    return raw_pixels(data, manifest["path"].tolist()), f"raw {RAW_SIDE}x{RAW_SIDE} pixels, no pretrained weights"


def measure_price(features: Features, sides: pd.DataFrame, params: LeakageParams) -> Price | None:
    """Return the price on the images in use; the rows of `features` are those of `sides`."""
    import pandas as pd

    labels, groups = (pd.factorize(sides[column], sort=True)[0].astype(np.int64) for column in ("label", "group"))
    return price(features, labels, groups, params.repeats, params.most_images, params.seed)
