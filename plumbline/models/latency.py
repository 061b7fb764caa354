"""How long a network takes on this machine: where it is trained, and as a file that ONNX Runtime serves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plumbline.models.export import OnnxModel
from plumbline.models.records import Speed
from plumbline.tasks.scores import Floats

if TYPE_CHECKING:
    import keras

TIMED = 20
TURNS = 10
SEVERAL = 16


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


def speeds(files: Sequence[Path]) -> list[Speed]:
    """Return how fast each ONNX file is, see `fastest_served`."""
    found = fastest_served(files, (1, SEVERAL))
    return [Speed(one_ms=round(one, 3), sixteen_ms=round(many, 3)) for one, many in found.tolist()]


def latencies_served(files: Sequence[Path]) -> list[float]:
    """Return the milliseconds of each ONNX file for one picture, see `fastest_served`."""
    return [round(one, 3) for one in fastest_served(files, (1,))[:, 0].tolist()]


def fastest_served(files: Sequence[Path], counts: Sequence[int]) -> Floats:
    """Return milliseconds (files, counts) for so many pictures at once, on one thread as serving has it.

    The fastest of ten passes after a warm-up, taken in turns: so what else the machine does disturbs all files alike.
    """
    networks = [OnnxModel(file, 1) for file in files]
    random = np.random.default_rng(0)
    sizes = [network.image_size for network in networks]
    fastest = np.full((len(files), len(counts)), np.inf)
    for turn in range(TURNS + 1):
        for place, network in enumerate(networks):
            for column, count in enumerate(counts):
                pictures = random.integers(0, 256, (count, sizes[place], sizes[place], 3)).astype(np.float32)
                start = time.perf_counter()
                network(pictures)
                if turn:
                    fastest[place, column] = min(fastest[place, column], time.perf_counter() - start)
    return 1000 * fastest
