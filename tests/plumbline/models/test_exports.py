"""SavedModel and TFLite say what the network says, and one that says something else does not pass."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from plumbline.models.candidates import Candidate, build_network
from plumbline.models.combination import combine, write_head
from plumbline.models.export import EMBEDDING, PROBABILITIES, with_embedding
from plumbline.models.exports import (
    SIGNATURES,
    TOLERANCES,
    Agreement,
    ExportError,
    checked,
    open_saved_model,
    open_tflite,
    write_saved_model,
    write_tflite,
)
from plumbline.models.fitting import make_deterministic
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.several_labels import SEVERAL_LABELS

pytestmark = pytest.mark.slow

SIDE = 32


def pictures(count=24):
    """Noise of all brightnesses, so that answers differ."""
    random = np.random.default_rng(0)
    levels = np.linspace(0, 200, count)[:, None, None, None]
    return (random.integers(0, 56, (count, SIDE, SIDE, 3)) + levels).astype(np.uint8)


def network(classes=3):
    """A network whose answers to the pictures differ, though it learnt nothing: its last layer is made steep."""
    settings = {"architecture": "compact_cnn", "backbone": "pixels", "width": 0.125}
    model = build_network(Candidate.model_validate(settings), (SIDE, SIDE, 3), classes)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([40 * kernel, bias])
    return with_embedding(model)


@pytest.fixture(scope="module")
def model():
    make_deterministic(1)
    return network()


@pytest.fixture(scope="module")
def expected(model):
    found = np.asarray(model(pictures().astype(np.float32), training=False)[PROBABILITIES])
    assert np.ptp(found, axis=0).max() > 0.2, "there is something to compare"
    return found


def test_a_saved_model_answers_by_each_signature(model, expected, tmp_path):
    import tensorflow as tf

    write_saved_model(model, tmp_path / "1")
    assert (tmp_path / "1" / "saved_model.pb").is_file()
    np.testing.assert_allclose(open_saved_model(tmp_path / "1")(pictures()), expected, atol=1e-5)
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    assert set(loaded.signatures) == set(SIGNATURES)
    both = loaded.signatures["all"](pixels=tf.constant(pictures(), tf.float32))
    assert set(both) == {PROBABILITIES, EMBEDDING}
    seen = np.asarray(model(pictures().astype(np.float32), training=False)[EMBEDDING])
    np.testing.assert_allclose(both[EMBEDDING], seen, atol=1e-4)


def test_tflite_in_float32_and_int8(model, expected, tmp_path):
    write_tflite(model, tmp_path / "float.tflite")
    np.testing.assert_allclose(open_tflite(tmp_path / "float.tflite")(pictures()), expected, atol=1e-5)
    write_tflite(model, tmp_path / "int8.tflite", list(pictures()))
    found = open_tflite(tmp_path / "int8.tflite")(pictures())
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).mean() < TOLERANCES["tflite-int8"].mean
    assert (tmp_path / "int8.tflite").stat().st_size < 0.7 * (tmp_path / "float.tflite").stat().st_size


def said(answers):
    """What gives these answers, in batches, as often as it is asked about all of the pictures."""
    rest = iter([])

    def ask(batch):
        nonlocal rest
        found = list(islice(rest, len(batch)))
        if not found:
            rest = iter(answers)
            found = list(islice(rest, len(batch)))
        return np.stack(found)

    return ask


def test_one_that_says_something_else_does_not_pass(expected):
    agreed = checked(said(expected), said(expected), pictures(), ONE_LABEL, "tflite")
    assert agreed == Agreement(len(expected), 0, 0, len(expected))
    for off in (expected + 2e-4, np.full_like(expected, np.nan)):
        for kind in ("saved-model", "tflite"):
            with pytest.raises(ExportError, match=r"disagrees with its source .* allowed: at most 0\.0001 in any prob"):
                checked(said(expected), said(off), pictures(), ONE_LABEL, kind)
    assert checked(said(expected), said(expected + 0.04), pictures(), ONE_LABEL, "tflite-int8").same == len(expected)
    turned = expected.copy()
    turned[:2] = np.roll(turned[:2], 1, axis=1)  # two of 24 pictures are 8%, the mean hardly moves
    with pytest.raises(ExportError, match=r"same class on 22 of 24 .* allowed: 0\.05 in the mean and 95% of the same"):
        checked(said(expected), said(turned), pictures(), ONE_LABEL, "tflite-int8")
    with pytest.raises(ExportError, match=r"allowed: 0\.05 in the mean"):
        checked(said(expected), said(np.full_like(expected, np.nan)), pictures(), ONE_LABEL, "tflite-int8")


def test_of_several_labels_all_must_be_the_same():
    expected = np.array([[0.9, 0.8], [0.1, 0.6]])
    found = np.array([[0.9, 0.4], [0.2, 0.7]])
    assert Agreement.of(expected, found, SEVERAL_LABELS).same == 1
    assert Agreement.of(expected, found, ONE_LABEL).same == 2


def test_a_network_that_tflite_can_not_hold_is_named(tmp_path):
    import keras
    import tensorflow as tf

    class Odd(keras.layers.Layer):
        def call(self, values):
            return tf.ensure_shape(tf.py_function(lambda one: one, [values], tf.float32), values.shape)

    pixels = keras.Input((SIDE, SIDE, 3))
    flat = keras.layers.Flatten()(Odd()(pixels))
    outputs = {PROBABILITIES: keras.layers.Dense(2)(flat), EMBEDDING: flat}
    with pytest.raises(ExportError, match=r"^TFLite can't hold it \(.+\)$"):
        write_tflite(keras.Model(pixels, outputs), tmp_path / "odd.tflite")
    assert not (tmp_path / "odd.tflite").exists()


def test_a_network_read_from_a_file_gets_its_embedding_whatever_its_layers_are_called(tmp_path):
    import keras

    settings = Candidate.model_validate({"architecture": "compact_cnn", "backbone": "pixels", "width": 0.125})
    keras.utils.clear_session()
    members = [build_network(settings, (SIDE, SIDE, 3), 2) for _ in range(2)]
    write_head(tmp_path / "head.h5", np.ones((2, 1)), np.zeros(1))
    whole = combine(members, "stacking", tmp_path / "head.h5", ONE_LABEL)
    said_before = ONE_LABEL.probabilities(whole(pictures().astype(np.float32), training=False))
    whole.save_weights(tmp_path / "model.weights.h5")
    text = whole.to_json()
    keras.utils.clear_session()  # as in another process: Keras counts its names from the start
    read = keras.models.model_from_json(text)
    read.load_weights(tmp_path / "model.weights.h5")
    found = with_embedding(read)(pictures().astype(np.float32), training=False)
    np.testing.assert_allclose(found[PROBABILITIES], said_before, atol=1e-6)
