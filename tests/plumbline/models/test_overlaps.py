"""Overlaps as tensors are those of arrays, pair by pair."""

import numpy as np

from plumbline.common.overlap import giou, iou
from plumbline.models.overlaps import overlaps


def test_overlaps_are_those_of_arrays():
    random = np.random.default_rng(0)
    corners = np.sort(random.random((2, 200, 2, 2)), axis=2)
    first, second = corners.reshape(2, 200, 4).astype(np.float32)
    second[:20] = first[:20]
    overlap, general = overlaps(first, second)
    np.testing.assert_allclose(overlap, np.diag(iou(first, second)), atol=1e-5)
    np.testing.assert_allclose(general, np.diag(giou(first, second)), atol=1e-5)
    np.testing.assert_allclose(overlap[:20], 1, atol=1e-5)
