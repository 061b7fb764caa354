"""Residual blocks with squeeze-and-excitation (He et al. 2015, Hu et al. 2018), small enough to train from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from plumbline.models.candidates import Candidate

STAGES = (32, 64, 128)
BLOCKS = 2
REDUCTION = 8
FEATURE_MAPS = {4: "maps_4", 8: "maps_8"}


def build(input_shape: tuple[int, ...], output: keras.layers.Layer, candidate: Candidate) -> keras.Model:
    """Build it from RGB pixels (N, H, W, 3) in [0, 255], scaled to [0, 1] inside.

    Conv 32 by 2, then two blocks each of 32, 64 (by 2) and 128 (by 2) filters, then average and output.
    """
    import keras

    from plumbline.models.candidates import scaled

    pixels = keras.Input(input_shape, name="pixels")
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = _normalised(keras.layers.Conv2D(scaled(STAGES[0], candidate.width), 3, 2, padding="same", use_bias=False)(x))
    x = keras.layers.ReLU()(x)
    for stage, filters in enumerate(STAGES):
        for block in range(BLOCKS):
            name = f"maps_{2 ** (stage + 1)}" if block == BLOCKS - 1 else None
            x = residual_block(x, scaled(filters, candidate.width), 2 if stage and not block else 1, name)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, output(x), name="se_resnet")


def residual_block(x: keras.KerasTensor, filters: int, strides: int, name: str | None = None) -> keras.KerasTensor:
    """Two 3x3 convolutions whose maps are weighed by squeeze-and-excitation and added to the input.

    (N, h, w, c) to (N, h / strides, w / strides, filters); where the shape changes, the shortcut is a 1x1 convolution.
    `name` is that of the last layer.
    """
    import keras

    past = x
    if strides != 1 or x.shape[-1] != filters:
        past = shortcut(x, filters, strides)
    y = _normalised(keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x))
    y = keras.layers.ReLU()(y)
    y = _normalised(keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(y))
    return keras.layers.ReLU(name=name)(keras.layers.Add()([past, squeeze_and_excite(y)]))


def shortcut(x: keras.KerasTensor, filters: int, strides: int) -> keras.KerasTensor:
    """Every `strides`-th place of x (N, h, w, c) through a 1x1 convolution: (N, h / strides, w / strides, filters).

    What a 1x1 convolution with strides computes, but by a pooling of one place before it: with strides TensorFlow 2.21
    (oneDNN) writes past the end of its memory for the gradient of the weights where h is even: a crash now and then.
    """
    import keras

    if strides != 1:
        x = keras.layers.MaxPooling2D(1, strides)(x)
    return _normalised(keras.layers.Conv2D(filters, 1, use_bias=False)(x))


def squeeze_and_excite(x: keras.KerasTensor) -> keras.KerasTensor:
    """Weigh each map of x (N, h, w, c) by a number in [0, 1] computed from the averages of all maps."""
    import keras

    channels = x.shape[-1]
    weights = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    weights = keras.layers.Dense(max(1, channels // REDUCTION), activation="relu")(weights)
    weights = keras.layers.Dense(channels, activation="sigmoid")(weights)
    return keras.layers.Multiply()([x, weights])


def _normalised(x: keras.KerasTensor) -> keras.KerasTensor:
    import keras

    # Keras' own momentum, 0.99, needs some 500 steps to forget its start; a small data set has a hundred.
    return keras.layers.BatchNormalization(momentum=0.9)(x)
