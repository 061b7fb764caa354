"""How well the label can be predicted without the head. If well, a model learns something else from this data.

Each check is a ridge classifier on features that hold no head, or hardly any, scored by cross-validation over groups.
For fixed folds its scores are linear in the labels, so one matrix (N, N) gives the scores for the true labels and for
any number of permuted ones: the permutation p-value costs one matrix product.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.evidence.intervals import draw_weights, interval
from plumbline.evidence.records import Shortcut
from plumbline.tasks.scores import Floats, Ints, roc_auc
from plumbline.tasks.task import LabelSets

FOLDS = 5
RIDGE = 0.003
"""Penalty as a share of the Gram matrix' trace, whatever the number of features."""
BORDER_GRID, BORDER_CELLS = 20, 2
DESCRIPTORS = ("bytes", "width", "height", "brightness", "contrast", "sharpness", "colourfulness")


@dataclass(frozen=True)
class Source:
    """What a check may look at, what it would mean if that sufficed, and its features (N, F)."""

    what: str
    teaches: str
    features: Floats


SHORTCUTS = ("metadata", "framing", "thumbnail", "border", "site")
"""What may tell a label without the head; `site` only where the pictures are of several."""


def measure_all(
    manifest: pd.DataFrame,
    pixels: NDArray[np.uint8],
    sets: LabelSets,
    codes: Ints,
    permutations: int,
    seed: int,
) -> list[Shortcut]:
    """Check how well metadata, an 8x8 thumbnail and the border of `pixels` (N, H, W, 3) predict the labels."""
    sources = {
        "metadata": Source(
            "file size, format, aspect, brightness, contrast, sharpness, colour",
            "how the files were made",
            metadata_features(manifest),
        ),
        "framing": Source("how coarse the detail in the corners is", "zoom", framing_features(pixels)),
        "thumbnail": Source("an 8x8 thumbnail", "rough colours", thumbnail_features(pixels, 8)),
        "border": Source("the outer tenth of the picture", "the background", border_features(pixels)),
    }
    if "site" in manifest and manifest["site"].nunique() > 1:
        sites = np.asarray(pd.get_dummies(manifest["site"]), dtype=np.float64)
        sources["site"] = Source("where the picture was taken", "the site", sites)
    return [measure(name, source, sets, codes, permutations, seed) for name, source in sources.items()]


def measure(
    name: str,
    source: Source,
    sets: LabelSets,
    codes: Ints,
    permutations: int,
    seed: int,
) -> Shortcut:
    """Check one source; groups `codes` (N,) are never on both sides of a fold."""
    features = source.features
    random = np.random.default_rng(seed)
    has, shown, truth = sets.members, sets.judged, sets.truth
    smoother = cross_validated_smoother(features, folds_of(sets, codes, seed))
    shuffled = np.stack([permute_in_groups(sets.numbers, codes, random) for _ in range(permutations)])
    once = np.ones((1, len(truth)))
    observed = smoother @ truth.astype(np.float64)
    draws = draw_weights(codes, 1000, seed)
    drawn = np.mean([roc_auc(truth[:, k], observed[:, k], draws) for k in shown], axis=0)
    auc = float(np.mean([roc_auc(truth[:, k], observed[:, k], once)[0] for k in shown]))
    null = np.mean([_aucs(has[shuffled, k], has[shuffled, k] @ smoother.T) for k in shown], axis=0)
    low, high = interval("roc_auc", auc, drawn, len(truth), len(np.unique(codes)))
    p = float((1 + (null >= auc).sum()) / (1 + permutations))
    return Shortcut(
        name=name,
        what=source.what,
        teaches=source.teaches,
        auc=auc,
        low=low,
        high=high,
        p=p,
        features=features.shape[1],
    )


def folds_of(sets: LabelSets, codes: Ints, seed: int) -> Ints:
    """Return the fold (N,) of each image, whole groups together and classes spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    rarest = int(sets.truth.sum(axis=0).min())
    # A set of labels with fewer groups than folds can't be in all of them; the most frequent one must be.
    number = max(2, min(FOLDS, len(np.unique(codes)), rarest, int(np.bincount(sets.numbers).max())))
    splitter = StratifiedGroupKFold(n_splits=number, shuffle=True, random_state=seed)
    folds = np.empty(len(codes), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        for fold, (_, held_out) in enumerate(splitter.split(np.zeros((len(codes), 1)), sets.numbers, codes)):
            folds[held_out] = fold
    return folds


def cross_validated_smoother(features: Floats, folds: Ints) -> Floats:
    """Return S (N, N): S @ y is each image's ridge score, learned from the other folds only.

    The score leaves out the intercept: a fold with few positives leaves many to learn from, which would lift its
    scores and push the area under the curve below one half where there is nothing to find.
    """
    smoother = np.zeros((len(folds), len(folds)))
    for fold in np.unique(folds):
        learned, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        centre = features[learned].mean(axis=0)
        spread = features[learned].std(axis=0)
        known = (features[learned] - centre) / np.where(spread > 1e-9, spread, 1)
        new = (features[held_out] - centre) / np.where(spread > 1e-9, spread, 1)
        penalty = RIDGE * max(float((known**2).sum()), 1e-9)
        # The same ridge solved over features or over images, whichever is smaller.
        if known.shape[1] < len(known):
            gram = known.T @ known + penalty * np.eye(known.shape[1])
            weights = new @ np.linalg.solve(gram, known.T)
        else:
            gram = known @ known.T + penalty * np.eye(len(known))
            weights = np.linalg.solve(gram, known @ new.T).T
        smoother[np.ix_(held_out, learned)] = weights - weights.mean(axis=1, keepdims=True)
    return smoother


def permute_in_groups(labels: Ints, codes: Ints, random: np.random.Generator) -> Ints:
    """Return the labels (N,) with whole groups' labels in a new order, laid over the images group by group.

    Shuffling single images would tear labels of one group apart and make any dependence between groups' labels and
    features look more surprising than it is.
    """
    order = np.argsort(codes, kind="stable")
    new_place = random.permutation(int(codes.max()) + 1)[codes[order]]
    permuted = np.empty_like(labels)
    permuted[order] = labels[order][np.argsort(new_place, kind="stable")]
    return permuted


def metadata_features(manifest: pd.DataFrame) -> Floats:
    """Return features of the file and plain statistics (N, F): ranks in [-1, 1], their squares and products, format."""
    present = [name for name in DESCRIPTORS if name in manifest]
    table = manifest[present].astype(np.float64)
    table["aspect"] = table["width"] / table["height"]
    table["bytes_per_pixel"] = table["bytes"] / (table["width"] * table["height"])
    ranks = 2 * table.rank(pct=True).to_numpy(np.float64) - 1
    first, second = np.triu_indices(ranks.shape[1])
    formats = np.asarray(pd.get_dummies(manifest["format"]), dtype=np.float64)
    features = np.hstack([ranks, ranks[:, first] * ranks[:, second], formats])
    return np.asarray(features[:, features.std(axis=0) > 1e-9])


def framing_features(pixels: NDArray[np.uint8], side: int = 128, patch: int = 40, bands: int = 8) -> Floats:
    """Return how coarse the four corners are (N, 2 * bands): enlarging a picture moves their detail to coarser scales.

    Shares of the corners' power spectrum in bands of radial frequency, and their squares, so that a middle range can
    be told from both ends. Corners hold background: of the whole picture, the helmet's own edges would show too.
    """
    grey = shrink(pixels, side).mean(axis=3)
    window = np.hanning(patch)[:, None] * np.hanning(patch)[None, :]
    ends = slice(None, patch), slice(-patch, None)
    corners = [grey[:, rows, columns] for rows in ends for columns in ends]
    power = sum(np.abs(np.fft.fft2((c - c.mean(axis=(1, 2), keepdims=True)) * window)) ** 2 for c in corners)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(patch), np.fft.fftfreq(patch)))
    shares = _shares(np.asarray(power), frequency, np.geomspace(0.9 / patch, 0.5, bands + 1))
    return np.hstack([shares, (shares - shares.mean(axis=0)) ** 2])


def _shares(energy: Floats, distance: Floats, edges: Floats) -> Floats:
    """Logarithm of the share of `energy` (N, side, side) between neighbouring `edges` of `distance` (side, side)."""
    inside = [(distance >= low) & (distance < high) for low, high in pairwise(edges)]
    sums = np.stack([energy[:, place].sum(axis=1) for place in inside], axis=1) + 1e-9
    return np.asarray(np.log(sums / sums.sum(axis=1, keepdims=True)))


def thumbnail_features(pixels: NDArray[np.uint8], side: int) -> Floats:
    """Return the pictures (N, H, W, 3) as `side` x `side` area averages in [0, 1], flattened (N, side * side * 3)."""
    return shrink(pixels, side).reshape(len(pixels), -1)


def border_features(pixels: NDArray[np.uint8]) -> Floats:
    """Return the outer tenth on each side of the pictures as area averages on a 20x20 grid (N, 144 * 3)."""
    cells = shrink(pixels, BORDER_GRID)
    inner = np.zeros((BORDER_GRID, BORDER_GRID), dtype=bool)
    inner[BORDER_CELLS:-BORDER_CELLS, BORDER_CELLS:-BORDER_CELLS] = True
    return cells[:, ~inner].reshape(len(pixels), -1)


def shrink(pixels: NDArray[np.uint8], side: int) -> Floats:
    """Return area averages (N, side, side, 3) in [0, 1] of pictures (N, H, W, 3)."""
    import cv2

    return np.stack([cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA) for picture in pixels]) / 255.0


def _aucs(positive: NDArray[np.bool_], scores: Floats) -> Floats:
    """Areas under the curve (P,) for P labelings (P, N) each with its own scores (P, N); ties don't occur in ridge."""
    order = np.argsort(scores, axis=1)
    ranked = np.take_along_axis(positive, order, axis=1)
    ranks = np.arange(1, positive.shape[1] + 1)
    hits = ranked.sum(axis=1)
    return np.asarray(((ranked * ranks).sum(axis=1) - hits * (hits + 1) / 2) / (hits * (positive.shape[1] - hits)))
