"""95% intervals when images come in groups: images of one photograph or scene are not independent.

Resampling draws whole groups. For a rate near 1 percentiles of those draws are too narrow: with one error in 95 images
they would promise more than the Wilson interval does with none. So for rates the bootstrap gives the variance, the
variance the effective number of images, and Wilson's score interval at that number gives the ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from plumbline.common.wilson import Z_95, wilson
from plumbline.evidence.records import Figure
from plumbline.tasks.scores import Floats, Ints, is_rate

SMALLEST_LOSS = 1e-6
PRIOR_ERRORS = 2.0
"""Weight, in errors, of the prior assumption that all images of a group are right or wrong together."""


def group_codes(groups: object) -> Ints:
    """Return group names (N,) as codes 0..G-1 (N,)."""
    return np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].astype(np.int64)


def some_groups(codes: Ints, most_images: int, seed: int) -> NDArray[np.bool_]:
    """Return which images (N,) to keep: all, or whole groups in random order until `most_images` are reached."""
    sizes = np.bincount(codes)
    order = np.random.default_rng(seed).permutation(len(sizes))
    kept = order[: max(1, int((np.cumsum(sizes[order]) <= most_images).sum()))]
    return np.isin(codes, kept)


def draw_weights(codes: Ints, resamples: int, seed: int) -> Floats:
    """Return how often each image is drawn (R, N) when as many groups as there are get drawn with replacement."""
    return draw_groups(int(codes.max()) + 1, resamples, seed)[:, codes]


def draw_groups(groups: int, resamples: int, seed: int) -> Floats:
    """Return how often each group is drawn (R, G) when as many as there are get drawn with replacement."""
    random = np.random.default_rng(seed)
    return random.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(np.float64)


def interval(score: str, value: float, draws: Floats, images: int, groups: int) -> tuple[float, float]:
    """Return the 95% interval of one score from its bootstrap `draws` (R,).

    `images` and `groups` are those that the score rests on (for a recall: those of its class).
    """
    draws = draws[np.isfinite(draws)]
    if not is_rate(score):
        # A calibration error is skewed; its logarithm is closer to normal. For losses see `mean_interval`.
        factor = float(np.exp(Z_95 * np.log(np.maximum(draws, SMALLEST_LOSS)).std()))
        return value / factor, value * factor
    # A rate counts whole images, so its effective number is at most theirs; an area uses every pair of images.
    least = 0.0 if score.endswith("_auc") else 1.0
    variance = float(draws.var()) if len(draws) else 0.0
    return wilson(value, effective_images(value, variance, images, groups, least))


def mean_interval(losses: Floats, codes: Ints, draws: Floats) -> tuple[float, float]:
    """Return the 95% interval of the mean of `losses` (N,) >= 0 by the studentised bootstrap over groups.

    Losses are so skewed that most draws of few groups miss the images that matter and underestimate the error of the
    mean. So each draw is measured in its own standard error (Hall 1988, Annals of Statistics 16: right to second
    order), on the logarithm, so that no end falls below 0. `codes` (N,) are the groups, `draws` (R, N) redrawings.
    """
    sums = np.asarray(np.bincount(codes, losses), dtype=np.float64)
    sizes = np.bincount(codes).astype(np.float64)
    times = draws[:, np.unique(codes, return_index=True)[1]]
    mean, error = _mean_and_error(np.ones((1, len(sizes))), sums, sizes)
    drawn, errors = _mean_and_error(times, sums, sizes)
    sound = (errors > 0) & (drawn > SMALLEST_LOSS)
    if mean[0] <= SMALLEST_LOSS or not sound.any():
        return float(mean[0]), float(mean[0])
    strays = np.log(drawn[sound] / mean[0]) / (errors[sound] / drawn[sound])
    low, high = np.percentile(strays, [2.5, 97.5])
    relative = error[0] / mean[0]
    return float(mean[0] * np.exp(-high * relative)), float(mean[0] * np.exp(-low * relative))


def _mean_and_error(times: Floats, sums: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """Means (R,) over images, with each group taken `times` (R, G) times, and their standard errors (R,)."""
    images = times @ sizes
    mean = (times @ sums) / images
    # sum of times * (sums - mean * sizes)^2, without a second matrix of that size
    squares = times @ sums**2 - 2 * mean * (times @ (sums * sizes)) + mean**2 * (times @ sizes**2)
    return mean, np.sqrt(np.maximum(squares, 0)) / images


def effective_images(rate: float, variance: float, images: int, groups: int, least: float = 1.0) -> float:
    """Return how many independent images would give `rate` this bootstrap `variance`.

    A few errors say next to nothing about how errors cluster, and none say nothing; so with few errors groups are
    counted instead of images. So the design effect of the bootstrap is weighted by the number of errors, that of
    counting groups (images / groups) by `PRIOR_ERRORS`. Without an error this is Wilson's interval on the groups, and
    one error more never lifts the lower end. `least` is the smallest design effect to believe.
    """
    spread = rate * (1 - rate)
    errors = min(rate, 1 - rate) * images
    observed = max(least, variance * images / spread) if spread > 0 else 1.0
    effect = (errors * observed + PRIOR_ERRORS * images / max(groups, 1)) / (errors + PRIOR_ERRORS)
    return images / effect


def rate_if_any(hit: NDArray[np.bool_], among: NDArray[np.bool_], codes: Ints, draws: Floats) -> Figure | None:
    """Return `rate_with_interval`, None where there is no image `among` them: a share of nothing is no figure."""
    return rate_with_interval(hit, among, codes, draws) if among.any() else None


def rate_with_interval(hit: NDArray[np.bool_], among: NDArray[np.bool_], codes: Ints, draws: Floats) -> Figure:
    """Return the share of images `among` (N,), one at least, for which `hit` (N,) is true, with its 95% interval.

    `codes` (N,) are the images' groups, `draws` (R, N) redrawings of them.
    """
    drawn = draws[:, among].sum(axis=1)
    rates = (draws[:, among] @ hit[among])[drawn > 0] / drawn[drawn > 0]
    value = float(hit[among].mean())
    low, high = interval("recall", value, rates, int(among.sum()), len(np.unique(codes[among])))
    return Figure(value=value, low=low, high=high)
