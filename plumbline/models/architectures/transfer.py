"""A head on a frozen backbone's features: linear, pooled, or a feed-forward network (the HelmNet study's second to
fourth models and its recommended simplification)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plumbline.common.errors import UserError

if TYPE_CHECKING:
    import keras

    from plumbline.models.candidates import Candidate

NO_FEATURE_MAPS = "it is a head that reads the features of a backbone; ask for those of the backbone's network"


def build(input_shape: tuple[int, ...], output: keras.layers.Layer, candidate: Candidate) -> keras.Model:
    """Build the head from features (N, h, w, c), or pooled ones (N, c), as `candidate.head` says."""
    import keras

    from plumbline.models.candidates import Head

    head = candidate.head or Head()
    features = keras.Input(input_shape, name="features")
    x = features
    if len(input_shape) == 1 and head.pooling == "attention":
        raise UserError(
            f"params.yaml: pooling: attention needs feature maps: set backbones.{candidate.backbone}.pooling to none."
        )
    if len(input_shape) > 1:
        x = _pooled(x, head.pooling)
    for number, units in enumerate(head.hidden):
        x = keras.layers.Dense(units, activation="relu")(x)
        if number == 0 and head.dropout:
            x = keras.layers.Dropout(head.dropout)(x)
    return keras.Model(features, output(x), name="head")


def _pooled(maps: keras.KerasTensor, how: str) -> keras.KerasTensor:
    import keras

    from plumbline.models.attention import attention_pooled

    if how == "attention":
        return attention_pooled(maps)
    return (keras.layers.GlobalAveragePooling2D() if how == "average" else keras.layers.Flatten())(maps)
