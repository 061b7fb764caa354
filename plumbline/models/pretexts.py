"""A start without labels by giving back what was taken from a picture: its noise or its colours (an autoencoder).

The network up to its last feature maps is the encoder; a decoder that doubles them until they are as large as the
picture is trained with it and then thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.models.candidates import Candidate, Start

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
    import tensorflow as tf

    assert candidate.start is not None
    settings, model = candidate.start, autoencoder(network)

    def losses(images: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor]:
        given = model(spoilt(images, settings.method, number), training=True)
        return (tf.reduce_mean(tf.square(given - images / 255.0)),)

    (error,) = descend(losses, [model], pixels, settings, candidate.batch_size, seed)
    variance = float((pixels / np.float32(255)).var())
    return error, 1 - error / max(variance, 1e-12)


def descend(
    figures: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, ...]],
    models: list[keras.Model],
    pixels: NDArray[np.uint8],
    settings: Start,
    batch_size: int,
    seed: int,
) -> list[float]:
    """Train `models` by Adam (cosine decay) on the first of `figures`; returns the last epoch's mean of each figure.

    `figures` maps pictures (n, S, S, 3) in [0, 255] and two numbers to draw from to scalars.
    """
    import keras
    import tensorflow as tf

    batch = min(batch_size, len(pixels))
    steps = max(1, len(pixels) // batch)
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.epochs * steps)
    optimizer = keras.optimizers.Adam(rate)

    @tf.function  # type: ignore[untyped-decorator]
    def step(images: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with tf.GradientTape() as tape:
            found = figures(images, number)
        variables = [variable for model in models for variable in model.trainable_variables]
        optimizer.apply_gradients(zip(tape.gradient(found[0], variables), variables, strict=True))
        return found

    random = np.random.default_rng(seed)
    rows: list[Any] = []
    for epoch in range(settings.epochs):
        order = random.permutation(len(pixels))
        rows.clear()
        for number in range(steps):
            some = np.sort(order[number * batch : (number + 1) * batch])
            images = tf.constant(pixels[some].astype(np.float32))
            rows.append(step(images, tf.constant([seed % 2**31, epoch * steps + number])))
    return [float(one) for one in np.mean(np.array(rows, np.float64), axis=0)]
