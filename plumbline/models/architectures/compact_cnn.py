"""A small network that learns from a few hundred pictures: 242,145 parameters for two classes, at any input size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from plumbline.models.candidates import Candidate

FEATURE_MAPS = {4: "maps_4", 8: "maps_8", 16: "maps_16"}


def build(input_shape: tuple[int, ...], output: keras.layers.Layer, candidate: Candidate) -> keras.Model:
    """Build it from RGB pixels (N, H, W, 3) in [0, 255], scaled to [0, 1] inside.

    Four times convolution 3x3 (32, 64, 128, 128) - pool - batch normalisation - relu, then the mean and the maximum of
    each map side by side: a helmet is small in many pictures and hardly moves a mean. Dropout 0.5 - output.
    """
    import keras

    from plumbline.models.candidates import refined, scaled

    pixels = keras.Input(input_shape, name="pixels")
    x = keras.layers.Rescaling(1 / 255)(pixels)
    for block, filters in enumerate((32, 64, 128, 128), 1):
        x = keras.layers.Conv2D(scaled(filters, candidate.width), 3, padding="same", use_bias=False)(x)
        # Pooling first leaves a quarter of the values to normalise. The momentum is as in custom_cnn.
        x = keras.layers.BatchNormalization(momentum=0.9)(keras.layers.MaxPooling2D(2)(x))
        x = refined(keras.layers.ReLU(name=f"maps_{2**block}")(x), candidate)
    both = [keras.layers.GlobalAveragePooling2D()(x), keras.layers.GlobalMaxPooling2D()(x)]
    x = keras.layers.Dropout(0.5)(keras.layers.Concatenate()(both))
    return keras.Model(pixels, output(x), name="compact_cnn")
