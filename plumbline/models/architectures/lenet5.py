"""LeNet-5 for colour pictures: 62,006 parameters at 32x32 for ten classes (LeCun et al. 1998, fully connected C3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from plumbline.models.candidates import Candidate

NO_FEATURE_MAPS = "its convolutions are not padded, so that a map's places lie on no grid of the picture"


def build(input_shape: tuple[int, ...], output: keras.layers.Layer, candidate: Candidate) -> keras.Model:
    """Build it from RGB pixels (N, H, W, 3) in [0, 255], scaled to [0, 1] inside.

    Conv 6 of 5x5 - pool - Conv 16 of 5x5 - pool - Dense 120 - Dense 84 - output, unpadded; relu and max pooling where
    the paper had tanh and averages, as in the course notes.
    """
    import keras

    from plumbline.models.candidates import scaled

    layers = [keras.Input(input_shape, name="pixels"), keras.layers.Rescaling(1 / 255)]
    for filters in (6, 16):
        layers.append(keras.layers.Conv2D(scaled(filters, candidate.width), 5, activation="relu"))
        layers.append(keras.layers.MaxPooling2D(2))
    layers.append(keras.layers.Flatten())
    layers += [keras.layers.Dense(scaled(units, candidate.width), activation="relu") for units in (120, 84)]
    return keras.Sequential([*layers, output], name="lenet5")
