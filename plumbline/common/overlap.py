"""How much boxes overlap.

A box is (left, top, right, bottom), in pixels or as shares of a picture; arrays of them are (N, 4). Overlaps are ratios
of areas, so both units give the same.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]


def areas(boxes: Floats) -> Floats:
    """Return the areas (N,) of boxes (N, 4); a box whose sides are the wrong way round has none."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return np.asarray(np.maximum(width, 0) * np.maximum(height, 0))


def iou(first: Floats, second: Floats) -> Floats:
    """Return intersection over union of every pair of boxes (N, 4) and (M, 4), (N, M); 0 where neither has an area."""
    shared, union = _shared_and_union(first, second)
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)


def giou(first: Floats, second: Floats) -> Floats:
    """Return the generalised IoU of every pair of boxes, (N, M), in [-1, 1].

    IoU less the share of the smallest box around both that neither covers, so that boxes apart are told from boxes far
    apart (Rezatofighi et al. 2019, arXiv:1902.09630).
    """
    shared, union = _shared_and_union(first, second)
    low = np.minimum(first[:, None, :2], second[None, :, :2])
    high = np.maximum(first[:, None, 2:], second[None, :, 2:])
    around = areas(np.concatenate([low, high], axis=-1))
    overlap = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    return overlap - np.divide(around - union, around, out=np.zeros_like(around), where=around > 0)


def _shared_and_union(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = areas(np.concatenate([low, high], axis=-1).astype(np.float64))
    return shared, areas(first)[:, None] + areas(second)[None, :] - shared
