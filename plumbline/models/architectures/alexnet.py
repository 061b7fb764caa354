"""AlexNet without its two-GPU split: 62,378,344 parameters at 227x227 for 1,000 classes (Krizhevsky et al. 2012)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from plumbline.models.candidates import Candidate

NO_FEATURE_MAPS = "its convolutions are not padded, so that a map's places lie on no grid of the picture"


def build(input_shape: tuple[int, ...], output: keras.layers.Layer, candidate: Candidate) -> keras.Model:
    """Build it from RGB pixels (N, H, W, 3), H and W at least 67, in [0, 255], scaled to [-1, 1] inside.

    Conv 96 of 11x11 by 4 - pool - Conv 256 of 5x5 - pool - Conv 384 - Conv 384 - Conv 256 - pool - Dense 4096 twice,
    each with dropout 0.5 - output; relu, pools of 3x3 by 2. The local response normalisation is left out, as in later
    use; He's initialisation lets the relus learn without it.
    """
    import keras

    from plumbline.models.candidates import scaled

    def convolution(filters: int, size: int, strides: int = 1, padding: str = "same") -> keras.layers.Layer:
        return keras.layers.Conv2D(
            scaled(filters, candidate.width),
            size,
            strides=strides,
            padding=padding,
            activation="relu",
            kernel_initializer="he_normal",
        )

    layers = [
        keras.Input(input_shape, name="pixels"),
        keras.layers.Rescaling(1 / 127.5, offset=-1.0),
        convolution(96, 11, strides=4, padding="valid"),
        keras.layers.MaxPooling2D(3, strides=2),
        convolution(256, 5),
        keras.layers.MaxPooling2D(3, strides=2),
        convolution(384, 3),
        convolution(384, 3),
        convolution(256, 3),
        keras.layers.MaxPooling2D(3, strides=2),
        keras.layers.Flatten(),
    ]
    for _ in range(2):
        units = scaled(4096, candidate.width)
        layers.append(keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal"))
        layers.append(keras.layers.Dropout(0.5))
    return keras.Sequential([*layers, output], name="alexnet")
