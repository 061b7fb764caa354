"""Dense blocks: each layer reads all earlier maps (Huang et al. 2017), small enough to train from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from plumbline.models.candidates import Candidate

BLOCKS = (4, 4, 4)
GROWTH = 16
BOTTLENECK = 4
COMPRESSION = 0.5
FEATURE_MAPS = {4: "maps_4", 8: "maps_8", 16: "maps_16"}


def build(input_shape: tuple[int, ...], output: keras.layers.Layer, candidate: Candidate) -> keras.Model:
    """Build it from RGB pixels (N, H, W, 3) in [0, 255], scaled to [0, 1] inside.

    A DenseNet-BC: Conv 32 by 2 - pool - three blocks of four layers of growth 16, a transition that halves maps and
    size between them - average - output.
    """
    import keras

    from plumbline.models.candidates import scaled

    growth = scaled(GROWTH, candidate.width)
    pixels = keras.Input(input_shape, name="pixels")
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Conv2D(2 * growth, 5, 2, padding="same", use_bias=False)(x)
    x = keras.layers.MaxPooling2D(2)(x)
    for number, layers in enumerate(BLOCKS):
        if number:
            x = transition(x, f"maps_{2 ** (number + 1)}")
        for _ in range(layers):
            x = dense_layer(x, growth)
    x = keras.layers.GlobalAveragePooling2D()(_active(x, f"maps_{2 ** (len(BLOCKS) + 1)}"))
    return keras.Model(pixels, output(x), name="densenet_small")


def dense_layer(x: keras.KerasTensor, growth: int) -> keras.KerasTensor:
    """Add `growth` maps to x (N, h, w, c), by a 1x1 bottleneck of 4 growth filters and a 3x3 convolution."""
    import keras

    y = keras.layers.Conv2D(BOTTLENECK * growth, 1, use_bias=False)(_active(x))
    y = keras.layers.Conv2D(growth, 3, padding="same", use_bias=False)(_active(y))
    return keras.layers.Concatenate()([x, y])


def transition(x: keras.KerasTensor, name: str | None = None) -> keras.KerasTensor:
    """Halve the number of maps and their size: (N, h, w, c) to (N, h / 2, w / 2, c / 2).

    `name` is that of the layer whose maps are as large as `x`.
    """
    import keras

    x = keras.layers.Conv2D(int(x.shape[-1] * COMPRESSION), 1, use_bias=False)(_active(x, name))
    return keras.layers.AveragePooling2D(2)(x)


def _active(x: keras.KerasTensor, name: str | None = None) -> keras.KerasTensor:
    import keras

    # Keras' own momentum, 0.99, needs some 500 steps to forget its start; a small data set has a hundred.
    return keras.layers.ReLU(name=name)(keras.layers.BatchNormalization(momentum=0.9)(x))
