"""A head on a frozen backbone's features: linear, pooled, or a feed-forward network (the HelmNet study's second to
fourth models and its recommended simplification)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from plumbline.models.candidates import Candidate

NO_FEATURE_MAPS = "it is a head that reads the features of a backbone; ask for those of the backbone's network"


def build(input_shape: tuple[int, ...], output: keras.layers.Layer, candidate: Candidate) -> keras.Model:
    """Build the head from features (N, h, w, c), or pooled ones (N, c), as `candidate.head` says."""
    import keras

    from plumbline.models.candidates import Head

    head = candidate.head or Head()
    layers = [keras.Input(input_shape, name="features")]
    if len(input_shape) > 1:
        pool = head.pooling == "average"
        layers.append(keras.layers.GlobalAveragePooling2D() if pool else keras.layers.Flatten())
    for number, units in enumerate(head.hidden):
        layers.append(keras.layers.Dense(units, activation="relu"))
        if number == 0 and head.dropout:
            layers.append(keras.layers.Dropout(head.dropout))
    return keras.Sequential([*layers, output], name="head")
