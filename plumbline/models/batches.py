"""Batches of stored features for Keras: from memory where they fit, else read ahead; the same seed, the same batches.

What varies from epoch to epoch is drawn by stateless operations from the seed and the epoch's number alone, so tf.data
may prepare batches before they are wanted, on whichever core is free, without changing what is in them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plumbline.models.features import ROWS_AT_ONCE, read_rows, release

if TYPE_CHECKING:
    import tensorflow as tf

HELD_BYTES = 2**30
"""Features of one side of a split that are copied to memory at most; more is read from disk batch by batch."""
AHEAD = 3


class Draw(NamedTuple):
    """One epoch: for each of N places which picture stands there, which view of it, mirrored or not, and its gain."""

    order: tf.Tensor
    view: tf.Tensor
    mirrored: tf.Tensor
    gain: tf.Tensor


class Batches:
    """Batches of (features of one view, targets[, weights]) of `rows` (N,) of `values` (M, 1 + V, ...).

    With a `seed` each epoch is shuffled anew, and each picture shows one of its 1 + `views` views, drawn anew; so are
    whether it is mirrored and the factor 1 - `brightness` to 1 + `brightness` of its pixels. `maps` (N, h, w, c) are
    learnt behind the targets (N, T), which become (N, T + h w c): mirrored with their picture.
    """

    def __init__(
        self,
        values: NDArray[Any],
        rows: NDArray[np.intp],
        targets: NDArray[Any],
        batch_size: int,
        views: int = 0,
        seed: int | None = None,
        weights: NDArray[np.float32] | None = None,
        mirror: bool = False,
        brightness: float = 0.0,
        maps: NDArray[Any] | None = None,
    ) -> None:
        self.values, self.rows, self.targets, self.weights, self.maps = values, rows, targets, weights, maps
        self.batch_size, self.views, self.mirror, self.brightness = batch_size, views, mirror, brightness
        self.seed = seed

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    @property
    def held(self) -> bool:
        """Whether the features are copied to memory."""
        of_one = int(np.prod(self.values.shape[2:])) * held_type(self.values.dtype).itemsize
        of_maps = 0 if self.maps is None else self.maps.nbytes
        return len(self.rows) * (1 + self.views) * of_one + of_maps <= HELD_BYTES

    def draw(self, epoch: Any) -> Draw:
        """Draw epoch number `epoch` (0, 1, ...): the same for the same seed, whatever was drawn before."""
        import tensorflow as tf

        count = len(self.rows)
        if self.seed is None:
            nothing = tf.zeros(count, tf.int32)
            return Draw(tf.range(count), nothing, tf.zeros(count, tf.bool), tf.ones(count))
        seeds = [tf.stack([tf.cast(self.seed, tf.int64), 4 * tf.cast(epoch, tf.int64) + n]) for n in range(4)]
        return Draw(
            tf.random.experimental.stateless_shuffle(tf.range(count), seeds[0]),
            tf.random.stateless_uniform([count], seeds[1], maxval=self.views + 1, dtype=tf.int32),
            tf.random.stateless_uniform([count], seeds[2]) < 0.5,
            tf.random.stateless_uniform([count], seeds[3], 1 - self.brightness, 1 + self.brightness),
        )

    def some(self) -> NDArray[np.float32]:
        """One batch (n, ...) from all over the rows, as they are, without their views."""
        spread = self.rows[:: -(-len(self.rows) // self.batch_size)]
        return read_rows(self.values, spread, np.zeros(len(spread), np.intp))

    def dataset(self, epochs: int = 1, first: int = 0) -> tf.data.Dataset:
        """The batches of `epochs` epochs from number `first` on, one epoch after the other."""
        import tensorflow as tf

        made = self._from_memory(epochs, first) if self.held else self._from_disk(epochs, first)
        return made.prefetch(AHEAD).apply(tf.data.experimental.assert_cardinality(epochs * len(self)))

    def _from_memory(self, epochs: int, first: int) -> tf.data.Dataset:
        import tensorflow as tf

        values, answered = self._copy, [tf.constant(part) for part in self._answers]

        def batch(order: tf.Tensor, view: tf.Tensor, *varied: tf.Tensor) -> tuple[tf.Tensor, ...]:
            features = tf.gather_nd(values, tf.stack([order, view], axis=1))
            answers = (tf.gather(one, order) for one in answered)
            return (self._vary(features, *varied), *self._joined(varied[0], *answers))

        def batches_of(epoch: tf.Tensor) -> tf.data.Dataset:
            return tf.data.Dataset.from_tensor_slices(tuple(self.draw(epoch))).batch(self.batch_size)

        epochs_drawn = tf.data.Dataset.range(first, first + epochs).flat_map(batches_of)
        return epochs_drawn.map(batch, num_parallel_calls=2, deterministic=True)

    def _from_disk(self, epochs: int, first: int) -> tf.data.Dataset:
        import tensorflow as tf

        def read() -> Iterator[tuple[Any, ...]]:
            with ThreadPoolExecutor(1) as reader:
                waiting: deque[Future[tuple[Any, ...]]] = deque()
                for epoch in range(first, first + epochs):
                    drawn = [np.asarray(part) for part in self.draw(epoch)]
                    for start in range(0, len(self.rows), self.batch_size):
                        some = [part[start : start + self.batch_size] for part in drawn]
                        waiting.append(reader.submit(self._read, *some))
                        if len(waiting) > AHEAD:
                            yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()

        nothing = [np.asarray(part)[:0] for part in self.draw(0)]
        kinds = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in self._read(*nothing))
        batches = tf.data.Dataset.from_generator(read, output_signature=kinds)

        def varied(
            features: tf.Tensor, mirrored: tf.Tensor, gain: tf.Tensor, *rest: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            return (self._vary(features, mirrored, gain), *self._joined(mirrored, *rest))

        return batches.map(varied)

    def _read(
        self, order: NDArray[Any], view: NDArray[Any], mirrored: NDArray[Any], gain: NDArray[Any]
    ) -> tuple[Any, ...]:
        features = read_rows(self.values, self.rows[order], view)
        return (features, mirrored, gain, *(part[order] for part in self._answers))

    @property
    def _answers(self) -> tuple[NDArray[Any], ...]:
        """Targets, weights and maps of every picture, as far as there are any."""
        return tuple(part for part in (self.targets, self.weights, self.maps) if part is not None)

    def _joined(self, mirrored: tf.Tensor, *answers: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The answers of a batch with the maps behind the targets."""
        import tensorflow as tf

        if self.maps is None:
            return answers
        targets, *weights, maps = answers
        maps = tf.cast(maps, tf.float32)
        if self.mirror:
            maps = tf.where(mirrored[:, None, None, None], tf.reverse(maps, [2]), maps)
        flat = tf.reshape(maps, [-1, int(np.prod(self.maps.shape[1:]))])
        return (tf.concat([targets, flat], axis=1), *weights)

    @cached_property
    def _copy(self) -> tf.Tensor:
        import tensorflow as tf

        return tf.constant(copied(self.values, self.rows, 1 + self.views))

    def _vary(self, features: tf.Tensor, mirrored: tf.Tensor, gain: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        features = tf.cast(features, tf.float32)
        if self.mirror:
            features = tf.where(mirrored[:, None, None, None], tf.reverse(features, [2]), features)
        if self.brightness:
            features = tf.clip_by_value(features * gain[:, None, None, None], 0.0, 255.0)
        return features


def held_type(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Half precision is held as single: TensorFlow has no quick kernels for it on many processors, and says so."""
    return np.dtype(np.float32) if stored == np.float16 else stored


def copied(values: NDArray[Any], rows: NDArray[np.intp], views: int) -> NDArray[Any]:
    """Copy the first `views` views of `rows` from a mapped array (M, V, ...)."""
    copy = np.empty((len(rows), views, *values.shape[2:]), held_type(values.dtype))
    for first in range(0, len(rows), ROWS_AT_ONCE):
        few = slice(first, first + ROWS_AT_ONCE)
        copy[few] = values[rows[few], :views]
        release(values)
    return copy
