"""Overlaps of boxes as tensors, for losses; plumbline.common.overlap has them for arrays."""

from __future__ import annotations

from typing import Any


def overlaps(first: Any, second: Any) -> tuple[Any, Any]:
    """IoU and GIoU, (...), of boxes (..., 4) that belong together."""
    import keras

    ops = keras.ops

    def area(low: Any, high: Any) -> Any:
        sides = ops.maximum(high - low, 0.0)
        return sides[..., 0] * sides[..., 1]

    shared = area(ops.maximum(first[..., :2], second[..., :2]), ops.minimum(first[..., 2:], second[..., 2:]))
    around = area(ops.minimum(first[..., :2], second[..., :2]), ops.maximum(first[..., 2:], second[..., 2:]))
    union = area(first[..., :2], first[..., 2:]) + area(second[..., :2], second[..., 2:]) - shared
    overlap = shared / ops.maximum(union, 1e-9)
    return overlap, overlap - (around - union) / ops.maximum(around, 1e-9)
