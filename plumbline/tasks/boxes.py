"""Boxes (plumbline.common.overlap): which of several around one object is kept, and which sizes they come in."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from plumbline.common.overlap import iou
from plumbline.tasks.scores import Floats, Ints

Band = Literal["best", "good", "satisfactory", "poor"]
BANDS: tuple[tuple[float, Band], ...] = ((0.9, "best"), (0.7, "good"), (0.5, "satisfactory"))
"""The course's words for an IoU, each with the least that it takes."""


def band(overlap: float) -> Band:
    """Return the course's word for an IoU: best from 0.9 on, good from 0.7, satisfactory from 0.5, else poor."""
    return next((name for least, name in BANDS if overlap >= least), "poor")


def nms(boxes: Floats, scores: Floats, most_overlap: float) -> Ints:
    """Non-maximum suppression: return the rows kept of boxes (N, 4), the highest of `scores` (N,) first.

    In that order, a box goes that overlaps one already kept by an IoU greater than `most_overlap`.
    """
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        kept.append(order[0])
        overlap = iou(boxes[order[:1]], boxes[order[1:]])[0]
        order = order[1:][overlap <= most_overlap]
    return np.array(kept, dtype=np.int64)


def nms_per_class(boxes: Floats, scores: Floats, classes: Ints, most_overlap: float, most: int) -> Ints:
    """Return the `most` best rows, highest score first, after `nms` among the boxes of each class (N,) on its own."""
    kept = [
        rows[nms(boxes[rows], scores[rows], most_overlap)]
        for rows in (np.flatnonzero(classes == one) for one in np.unique(classes))
    ]
    rows = np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)
    return np.asarray(rows[np.argsort(-scores[rows], kind="stable")][:most])


def soft_nms(boxes: Floats, scores: Floats, sigma: float = 0.5) -> Floats:
    """Return scores (N,) lowered by exp(-IoU^2 / sigma) for each better box of boxes (N, 4) that overlaps (Soft-NMS).

    Boxes are taken in the order of what is left of their scores (Bodla et al. 2017, arXiv:1704.04503).
    """
    left = np.array(scores, dtype=np.float64)
    waiting: NDArray[np.bool_] = np.ones(len(left), dtype=bool)
    for _ in range(len(left)):
        best = int(np.argmax(np.where(waiting, left, -np.inf)))
        waiting[best] = False
        overlap = iou(boxes[best : best + 1], boxes)[0]
        left = np.where(waiting, left * np.exp(-(overlap**2) / sigma), left)
    return left


def soft_nms_per_class(boxes: Floats, scores: Floats, classes: Ints, sigma: float = 0.5) -> Floats:
    """Return scores (N,) lowered by `soft_nms` among the boxes of each class (N,) on its own."""
    left = np.array(scores, dtype=np.float64)
    for one in np.unique(classes):
        rows = np.flatnonzero(classes == one)
        left[rows] = soft_nms(boxes[rows], scores[rows], sigma)
    return left


def anchors(sizes: Floats, count: int, seed: int, rounds: int = 100) -> Floats:
    """Return the `count` widths and heights (count, 2), the smallest first, nearest to `sizes` (N, 2) by 1 - IoU.

    k-means as in YOLO9000 (Redmon and Farhadi 2016, arXiv:1612.08242): boxes of one centre, compared by IoU. Each
    mean is the median of its boxes, of which a few huge ones don't change much. Fewer distinct sizes than `count` give
    as many anchors as there are.
    """
    distinct = np.unique(sizes, axis=0)
    if len(distinct) <= count:
        return distinct[np.argsort(distinct.prod(axis=1), kind="stable")]
    random = np.random.default_rng(seed)
    means = distinct[random.choice(len(distinct), count, replace=False)]
    nearest = np.full(len(sizes), -1)
    for _ in range(rounds):
        found = size_iou(sizes, means).argmax(axis=1)
        if (found == nearest).all():
            break
        nearest = found
        means = np.array(
            [np.median(sizes[nearest == one], axis=0) if (nearest == one).any() else means[one] for one in range(count)]
        )
    return np.asarray(means[np.argsort(means.prod(axis=1), kind="stable")])


def size_iou(first: Floats, second: Floats) -> Floats:
    """Return the IoU (N, M) of boxes of one centre that have widths and heights (N, 2) and (M, 2)."""

    def centred(sizes: Floats) -> Floats:
        return np.concatenate([-sizes / 2, sizes / 2], axis=1)

    return iou(centred(np.asarray(first, dtype=np.float64)), centred(np.asarray(second, dtype=np.float64)))
