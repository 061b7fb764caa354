"""How long a network takes for one picture on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

TIMED = 20


def latency_ms(model: keras.Model) -> float:
    """Milliseconds that the compiled model takes for one picture: the fastest of 20 passes, after a warm-up.

    `model` maps pixels (1, S, S, 3) to its output. The fastest pass is the one that other programs disturbed least.
    """
    import tensorflow as tf

    compiled = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
    picture = np.random.default_rng(0).integers(0, 256, (1, *model.inputs[0].shape[1:])).astype(np.float32)
    single = tf.constant(picture)
    for _ in range(3):
        compiled(single)
    seconds = []
    for _ in range(TIMED):
        start = time.perf_counter()
        np.asarray(compiled(single))
        seconds.append(time.perf_counter() - start)
    return min(seconds) * 1000
