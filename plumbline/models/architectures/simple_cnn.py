"""The HelmNet study's simple CNN: 413,257 parameters at 200x200 for two classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from plumbline.models.candidates import Candidate

FEATURE_MAPS = {4: "maps_4", 8: "maps_8"}


def build(input_shape: tuple[int, ...], output: keras.layers.Layer, candidate: Candidate) -> keras.Model:
    """Build it from RGB pixels (N, H, W, 3) in [0, 255], scaled to [0, 1] inside.

    Conv 32 - MaxPool 4x4 - Conv 64 - MaxPool 2x2 - Conv 128 - Flatten - Dense 4 - output; 3x3, relu, same padding.
    """
    import keras

    from plumbline.models.candidates import scaled

    def convolution(filters: int, name: str | None = None) -> keras.layers.Layer:
        return keras.layers.Conv2D(scaled(filters, candidate.width), 3, padding="same", activation="relu", name=name)

    return keras.Sequential(
        [
            keras.Input(input_shape, name="pixels"),
            keras.layers.Rescaling(1 / 255),
            convolution(32),
            keras.layers.MaxPooling2D(4, padding="same"),
            convolution(64, "maps_4"),
            keras.layers.MaxPooling2D(2, padding="same"),
            convolution(128, "maps_8"),
            keras.layers.Flatten(),
            keras.layers.Dense(scaled(4, candidate.width), activation="relu"),
            output,
        ],
        name="simple_cnn",
    )
