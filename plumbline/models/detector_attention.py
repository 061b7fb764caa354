"""Grad-CAM on a detector's class head: which places of a photograph its classes rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.models.detecting import SCORES, from_maps
from plumbline.models.detector import Design

if TYPE_CHECKING:
    import keras

CLASS_HEADS = ("score", "cells", "classify", "class_head")
"""What detectors call the layer that ends in classes."""
SUREST = 10
"""Places of a photograph whose scores are explained, at most."""


def seen_by_class_head(network: keras.Model) -> list[Any]:
    """Return the maps (N, h, w, c) from which the class head reads, a tensor for each level; empty: it has none."""
    names = {layer.name for layer in network.layers}
    name = next((one for one in CLASS_HEADS if one in names), None)
    if name is None:
        return []
    own = {id(node) for nodes in network._nodes_by_depth.values() for node in nodes}
    nodes = [node for node in network.get_layer(name)._inbound_nodes if id(node) in own]
    return [_with_places(tensor) for node in nodes for tensor in node.input_tensors]


def _with_places(tensor: Any) -> Any:
    """The maps themselves, where a head reads their average."""
    while len(tensor.shape) != 4:
        tensor = tensor._keras_history.operation._inbound_nodes[0].input_tensors[0]
    return tensor


def grad_cam(network: keras.Model, design: Design, maps: NDArray[Any]) -> NDArray[np.float32] | None:
    """Return (N, h, w) in [0, 1]: where on the canvas the surest scores of each photograph come from.

    `maps` (N, ...) are what the network reads. Selvaraju et al. 2017, arXiv:1610.02391; levels are added. None where no
    class head with maps is known.
    """
    import keras
    import tensorflow as tf

    seen = seen_by_class_head(network)
    if not seen:
        return None
    whole = keras.Model(network.inputs[0], [*seen, from_maps(network, design).output[SCORES]])
    given = tf.cast(maps, tf.float32)
    with tf.GradientTape(watch_accessed_variables=False) as tape:  # of the weights' gradients none is asked for
        tape.watch(given)
        *levels, scores = whole(given, training=False)
        best = tf.reduce_max(scores, axis=-1)
        surest = tf.clip_by_value(tf.math.top_k(best, min(SUREST, best.shape[-1])).values, 1e-7, 1 - 1e-7)
        told = tf.reduce_sum(tf.math.log(surest) - tf.math.log(1 - surest))  # the score itself is flat near 0 and 1
    side = max(level.shape[1] for level in levels)
    total = np.zeros((len(maps), side, side), np.float32)
    for level, gradient in zip(levels, tape.gradient(told, levels), strict=True):
        if gradient is None:
            continue
        weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
        cam = tf.nn.relu(tf.reduce_sum(weights * level, axis=-1, keepdims=True))
        total += tf.image.resize(cam, (side, side)).numpy()[..., 0]
    return np.asarray(total / np.maximum(total.max(axis=(1, 2), keepdims=True), 1e-12))
