"""A start without labels by giving back what was taken from a picture: its noise or its colours (an autoencoder).

The network up to its last feature maps is the encoder; a decoder that doubles them until they are as large as the
picture is trained with it and then thrown away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.models.candidates import Candidate

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

NOISE = 50.0
DECODED = (64, 32, 16)


def autoencoder(network: keras.Model) -> keras.Model:
    """From pixels (N, S, S, 3) in [0, 255] to pixels in [0, 1], by way of the last feature maps of `network`."""
    import keras

    graph = getattr(network, "_functional", None) or network
    maps = [
        node.outputs[0]
        for depth in sorted(graph._nodes_by_depth, reverse=True)
        for node in graph._nodes_by_depth[depth]
        if len(node.outputs[0].shape) == 4 and node.outputs[0].shape[1] > 1
    ]
    x, size = maps[-1], network.input_shape[1]
    place = 0
    while x.shape[1] * 2 <= size:
        x = keras.layers.UpSampling2D(2, dtype="float32")(x)
        filters = DECODED[min(place, len(DECODED) - 1)]
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", dtype="float32")(x)
        place += 1
    if x.shape[1] != size:
        x = keras.layers.Resizing(size, size, dtype="float32")(x)
    return keras.Model(
        network.inputs[0], keras.layers.Conv2D(3, 3, padding="same", activation="sigmoid", dtype="float32")(x)
    )


def spoilt(images: tf.Tensor, method: str, number: tf.Tensor) -> tf.Tensor:
    """Images (N, S, S, 3) in [0, 255] with noise drawn from `number` (2,) (`denoising`), or grey (`colourisation`)."""
    import tensorflow as tf

    if method == "denoising":
        noise = tf.random.stateless_normal(tf.shape(images), number, stddev=NOISE)
        return tf.clip_by_value(images + noise, 0.0, 255.0)
    return tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(images))


def fit_pretext(
    network: keras.Model, pixels: NDArray[np.uint8], candidate: Candidate, seed: int
) -> tuple[float, float]:
    """Train the encoder in `network` on pixels (N, S, S, 3) to give back what `candidate.start.method` takes away.

    Returns the last epoch's mean squared error of pixels in [0, 1], and the share of the pixels' variance explained.
    """
    import keras
    import tensorflow as tf

    assert candidate.start is not None
    settings, model = candidate.start, autoencoder(network)
    batch, epochs = min(candidate.batch_size, len(pixels)), settings.epochs
    steps = max(1, len(pixels) // batch)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(settings.learning_rate, epochs * steps))

    @tf.function  # type: ignore[untyped-decorator]
    def step(images: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            given = model(spoilt(images, settings.method, number), training=True)
            loss = tf.reduce_mean(tf.square(given - images / 255.0))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    random, losses = np.random.default_rng(seed), [0.0]
    for epoch in range(epochs):
        order = random.permutation(len(pixels))
        told: list[Any] = []
        for number in range(steps):
            some = np.sort(order[number * batch : (number + 1) * batch])
            images = tf.constant(pixels[some].astype(np.float32))
            told.append(step(images, tf.constant([seed % 2**31, epoch * steps + number])))
        losses = [float(one) for one in told]
    error, variance = float(np.mean(losses)), float((pixels / np.float32(255)).var())
    return error, 1 - error / max(variance, 1e-12)
