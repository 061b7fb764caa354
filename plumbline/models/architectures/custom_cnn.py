"""The "enterprise" system's custom CNN: 1,095,809 parameters for two classes, at any input size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from plumbline.models.candidates import Candidate

FEATURE_MAPS = {4: "maps_4", 8: "maps_8"}


def build(input_shape: tuple[int, ...], output: keras.layers.Layer, candidate: Candidate) -> keras.Model:
    """Build it from RGB pixels (N, H, W, 3) in [0, 255], scaled to [0, 1] inside.

    Conv 64 - pool - Conv 128 - pool - Conv 256 - Conv 256 - pool - average - Dense 512 - Dropout 0.5 - output; each
    convolution 3x3, batch normalised, relu.
    """
    import keras

    from plumbline.models.candidates import scaled

    layers = [keras.Input(input_shape, name="pixels"), keras.layers.Rescaling(1 / 255)]
    for filters, pooled, name in ((64, True, None), (128, True, None), (256, False, None), (256, True, "maps_4")):
        layers += [
            keras.layers.Conv2D(scaled(filters, candidate.width), 3, padding="same"),
            # Keras' own momentum, 0.99, needs some 500 steps to forget its start; a small data set has a hundred.
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(name=name),
        ]
        if pooled:
            layers.append(keras.layers.MaxPooling2D(2, name="maps_8" if name else None))
    layers += [
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(scaled(512, candidate.width), activation="relu"),
        keras.layers.Dropout(0.5),
    ]
    return keras.Sequential([*layers, output], name="custom_cnn")
