"""From a network's maps to the features that are stored: averaged or whole, one network's or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from plumbline.models.networks import find_network, scale_pixels
from plumbline.models.records import Recipe

if TYPE_CHECKING:
    import keras


def features_of(
    pixels: keras.KerasTensor, network: str, halves: Sequence[keras.Model | None], backbone: Recipe
) -> keras.KerasTensor:
    """One network's features of prepared RGB pixels (N, S, S, 3): its halves one after the other, pooled.

    Where backbone.json has `scales`, the picture is shrunk to each of these sides and the pooled features are averaged.
    """
    import keras

    found = []
    for side in backbone.scales or (backbone.image_size,):
        x = pixels if side == backbone.image_size else keras.layers.Resizing(side, side, dtype="float32")(pixels)
        # Scaling stays in float32: bfloat16 has 8 bits of precision and pixel values need all of them.
        x = scale_pixels(x, find_network(network).scaling)
        for half in halves:
            x = x if half is None else half(x, training=False)
        found.append(pooled(x, backbone))
    return found[0] if len(found) == 1 else keras.layers.Average(dtype="float32")(found)


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
