"""Attention inside a network: which maps count, which places count."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

REDUCTION = 8
SPATIAL_KERNEL = 7


def cbam(x: keras.KerasTensor) -> keras.KerasTensor:
    """Weigh first the maps, then the places of x (N, h, w, c) by numbers in [0, 1] (CBAM, Woo et al. 2018).

    The maps' weights come from each map's mean and maximum, through the same two dense layers; the places' weights from
    the mean and maximum over the maps, through one 7x7 convolution.
    """
    import keras

    channels = x.shape[-1]
    narrow = keras.layers.Dense(max(1, channels // REDUCTION), activation="relu")
    wide = keras.layers.Dense(channels)
    means = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    highest = keras.layers.GlobalMaxPooling2D(keepdims=True)(x)
    both = keras.layers.Add()([wide(narrow(means)), wide(narrow(highest))])
    x = keras.layers.Multiply()([x, keras.layers.Activation("sigmoid")(both)])
    seen = keras.layers.Concatenate()(
        [keras.ops.mean(x, axis=-1, keepdims=True), keras.ops.max(x, axis=-1, keepdims=True)]
    )
    places = keras.layers.Conv2D(1, SPATIAL_KERNEL, padding="same", activation="sigmoid", use_bias=False)(seen)
    return keras.layers.Multiply()([x, places])


def attention_pooled(x: keras.KerasTensor) -> keras.KerasTensor:
    """Average x (N, h, w, c) over its places to (N, c), each place weighed by what one learnt unit sees in it.

    The weights of a picture's places are a softmax. They begin equal: an untrained unit would choose places by chance.
    """
    import keras

    height, width, channels = x.shape[1:]
    flat = keras.layers.Reshape((height * width, channels))(x)
    scores = keras.layers.Dense(1, kernel_initializer="zeros", use_bias=False, name="places")(flat)
    weights = keras.layers.Softmax(axis=1)(scores)
    return keras.layers.Flatten()(keras.layers.Dot(axes=1)([weights, flat]))
