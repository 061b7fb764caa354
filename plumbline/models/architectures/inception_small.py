"""Inception modules with 1x1 bottlenecks (Szegedy et al. 2014), small enough to train from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from plumbline.models.candidates import Candidate

FEATURE_MAPS = {4: "maps_4", 8: "maps_8"}


def build(input_shape: tuple[int, ...], output: keras.layers.Layer, candidate: Candidate) -> keras.Model:
    """Build it from RGB pixels (N, H, W, 3) in [0, 255], scaled to [0, 1] inside.

    Conv 32 by 2 - pool - two modules - pool - one module - average - output. Every convolution is batch normalised.
    """
    import keras

    from plumbline.models.candidates import scaled

    def module(x: keras.KerasTensor, *filters: int, name: str | None = None) -> keras.KerasTensor:
        ones, reduce3, threes, reduce5, fives, pooled = (scaled(count, candidate.width) for count in filters)
        return inception_module(x, ones, reduce3, threes, reduce5, fives, pooled, name=name)

    pixels = keras.Input(input_shape, name="pixels")
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Conv2D(scaled(32, candidate.width), 5, 2, padding="same")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.MaxPooling2D(2)(x)
    x = module(x, 16, 24, 32, 4, 8, 8)
    x = module(x, 32, 32, 48, 8, 24, 16, name="maps_4")
    x = keras.layers.MaxPooling2D(2)(x)
    x = module(x, 48, 48, 96, 8, 24, 24, name="maps_8")
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, output(x), name="inception_small")


def inception_module(
    x: keras.KerasTensor,
    ones: int,
    reduce3: int,
    threes: int,
    reduce5: int,
    fives: int,
    pooled: int,
    normalised: bool = True,
    name: str | None = None,
) -> keras.KerasTensor:
    """Four branches side by side, joined by channel: 1x1; 1x1 then 3x3; 1x1 then 5x5; pool then 1x1.

    (N, h, w, c) to (N, h, w, ones + threes + fives + pooled). `normalised=False` is the paper's own module;
    `name` is that of the last layer.
    """
    import keras

    def convolution(x: keras.KerasTensor, filters: int, size: int) -> keras.KerasTensor:
        x = keras.layers.Conv2D(filters, size, padding="same")(x)
        if normalised:
            # Keras' own momentum, 0.99, needs some 500 steps to forget its start; a small data set has a hundred.
            x = keras.layers.BatchNormalization(momentum=0.9)(x)
        return keras.layers.ReLU()(x)

    return keras.layers.Concatenate(name=name)(
        [
            convolution(x, ones, 1),
            convolution(convolution(x, reduce3, 1), threes, 3),
            convolution(convolution(x, reduce5, 1), fives, 5),
            convolution(keras.layers.MaxPooling2D(3, strides=1, padding="same")(x), pooled, 1),
        ]
    )
