"""From a network's maps to the features that are stored: averaged or whole, one network's or several side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plumbline.models.records import Recipe

if TYPE_CHECKING:
    import keras


def pooled(maps: keras.KerasTensor, backbone: Recipe) -> keras.KerasTensor:
    """Average feature maps (N, h, w, c) to (N, c) in float32, where backbone.json says so."""
    import keras

    if backbone.pooling == "average":
        return keras.layers.GlobalAveragePooling2D(dtype="float32")(maps)
    return maps


def join(maps: list[keras.KerasTensor]) -> keras.KerasTensor:
    """One network's features as they are, those of several flattened side by side (N, D)."""
    import keras

    if len(maps) == 1:
        return maps[0]
    flat = [x if len(x.shape) == 2 else keras.layers.Flatten(dtype="float32")(x) for x in maps]
    return keras.layers.Concatenate(dtype="float32")(flat)
