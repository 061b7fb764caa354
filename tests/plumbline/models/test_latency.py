"""The latency is that of the fastest pass, counted without the warm-up."""

import itertools

import keras

from plumbline.models import latency


def test_the_fastest_of_the_timed_passes_counts(monkeypatch):
    passes = []

    class Counting(keras.layers.Layer):
        def call(self, pixels):
            import tensorflow as tf

            tf.py_function(lambda: passes.append(1), [], [])
            return pixels

    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, Counting()(inputs))
    times = itertools.chain.from_iterable((t, t + d) for t, d in zip(range(20), [0.5, 0.25, *[0.75] * 18], strict=True))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(times))
    before = len(passes)
    assert latency.latency_ms(model) == 250.0
    assert len(passes) - before == 3 + latency.TIMED
    assert next(times, None) is None, "every pass that was timed counts"
