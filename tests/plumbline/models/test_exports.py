"""SavedModel and TFLite say what the network says, and one that says something else does not pass."""

from __future__ import annotations

import numpy as np
import pytest

from plumbline.models.candidates import Candidate, build_network
from plumbline.models.export import EMBEDDING, PROBABILITIES, with_embedding
from plumbline.models.exports import (
    SIGNATURES,
    TOLERANCES,
    Agreement,
    ExportError,
    ask_saved_model,
    ask_tflite,
    checked,
    write_saved_model,
    write_tflite,
)
from plumbline.models.fitting import make_deterministic

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
    model.layers[-1].set_weights([4 * kernel, bias])
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
    np.testing.assert_allclose(ask_saved_model(tmp_path / "1", pictures()), expected, atol=1e-5)
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    assert set(loaded.signatures) == set(SIGNATURES)
    both = loaded.signatures["all"](pixels=tf.constant(pictures(), tf.float32))
    assert set(both) == {PROBABILITIES, EMBEDDING}
    seen = np.asarray(model(pictures().astype(np.float32), training=False)[EMBEDDING])
    np.testing.assert_allclose(both[EMBEDDING], seen, atol=1e-4)


def test_tflite_in_float32_and_int8(model, expected, tmp_path):
    write_tflite(model, tmp_path / "float.tflite")
    np.testing.assert_allclose(ask_tflite(tmp_path / "float.tflite", pictures()), expected, atol=1e-5)
    write_tflite(model, tmp_path / "int8.tflite", list(pictures()))
    found = ask_tflite(tmp_path / "int8.tflite", pictures())
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).mean() < TOLERANCES["tflite-int8"].mean
    assert (tmp_path / "int8.tflite").stat().st_size < 0.7 * (tmp_path / "float.tflite").stat().st_size


def test_one_that_says_something_else_does_not_pass(model, expected):
    agreed = checked(model, lambda _: expected, pictures(), "tflite")
    assert (agreed.pictures, agreed.within(TOLERANCES["tflite"])) == (len(expected), True)
    for off in (expected + 2e-4, np.full_like(expected, np.nan)):
        with pytest.raises(
            ExportError, match=r"differ from the network's by up .* of 24 pictures, and at most 0\.0001"
        ):
            checked(model, lambda _, off=off: off, pictures(), "tflite")
    assert checked(model, lambda _: expected + 0.04, pictures(), "tflite-int8").most == pytest.approx(0.04)
    assert not Agreement(9, 0.6, 0.01).within(TOLERANCES["tflite-int8"])
