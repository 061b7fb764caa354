"""An embedding in which pictures of one class lie together, learnt from triplets; the answer is the nearest prototype.

A Siamese network: anchor, positive and negative go through the same weights. What it is trained with, and where the
prototypes come from, is in plumbline/models/triplets.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from plumbline.models.candidates import Candidate

NO_FEATURE_MAPS = "it is an embedding of a backbone's features; ask for those of the backbone's network"


def build(input_shape: tuple[int, ...], output: keras.layers.Layer, candidate: Candidate) -> keras.Model:
    """Build it from a frozen backbone's features (N, h, w, c), averaged, or (N, c): a unit vector, then `output`."""
    import keras

    features = keras.Input(input_shape, name="features")
    x = keras.layers.GlobalAveragePooling2D()(features) if len(input_shape) == 3 else features
    x = keras.layers.Dense(candidate.triplet.units)(x)
    x = keras.layers.UnitNormalization(name="embedding")(x)
    return keras.Model(features, output(x), name="triplet")
