"""Attention: CBAM does what its paper says, attention pooling finds the place that tells, both train and export."""

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from plumbline.common.errors import UserError
from plumbline.models.anatomy import attention
from plumbline.models.attention import cbam
from plumbline.models.candidates import Candidate, Head, build_network
from plumbline.models.export import check_export, export_onnx, with_embedding


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_cbam_weighs_maps_then_places_as_the_paper_says():
    inputs = keras.Input((6, 5, 16))
    model = keras.Model(inputs, cbam(inputs))
    narrow, wide = (layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    (places,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    assert (narrow.units, places.kernel.shape) == (2, (7, 7, 2, 1))
    x = np.random.default_rng(0).normal(size=(3, 6, 5, 16)).astype(np.float32)

    def through(values):
        a, b, c, d = (np.asarray(part) for part in (narrow.kernel, narrow.bias, wide.kernel, wide.bias))
        return np.maximum(values @ a + b, 0) @ c + d

    weighed = x * sigmoid(through(x.mean((1, 2))) + through(x.max((1, 2))))[:, None, None]
    seen = np.pad(np.stack([weighed.mean(-1), weighed.max(-1)], -1), ((0, 0), (3, 3), (3, 3), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(seen, (7, 7), (1, 2))
    told = np.einsum("nhwcij,ijc->nhw", windows, np.asarray(places.kernel)[..., 0])
    np.testing.assert_allclose(model(x), weighed * sigmoid(told)[..., None], atol=1e-5)


def trained(network, x, y, epochs, rate=0.01):
    network.compile(keras.optimizers.Adam(rate), "binary_crossentropy")
    network.fit(x, y, epochs=epochs, batch_size=16, verbose=0)
    return network


def a_place_that_tells(count, seed):
    """Maps (N, 5, 5, 4): each place shows one of two shapes by chance; only where map 0 is lit does its shape tell."""
    random = np.random.default_rng(seed)
    x = random.normal(0, 0.3, (count, 5, 5, 4)).astype(np.float32)
    shapes = random.random((count, 5, 5)) < 0.5
    row, column = random.integers(0, 5, (2, count))
    x[..., 1] += np.where(shapes, 1, -1)
    x[np.arange(count), row, column, 0] += 3
    return x, shapes[np.arange(count), row, column].astype(np.float32)


@pytest.mark.slow
def test_attention_pooling_finds_the_place_that_tells():
    (x, y), (unseen, truth) = a_place_that_tells(400, 0), a_place_that_tells(400, 1)

    def right(pooling):
        keras.utils.set_random_seed(0)
        candidate = Candidate(architecture="transfer", backbone="maps", head=Head(pooling=pooling))
        network = trained(build_network(candidate, (5, 5, 4), 2), x, y, 40, 0.03)
        return ((np.asarray(network(unseen, training=False))[:, 0] > 0.5) == truth).mean(), network

    average, _ = right("average")
    looked, network = right("attention")
    assert looked > 0.9 > average
    assert looked > average + 0.2
    assert attention(network, unseen[:3], np.ones(3, np.intp), inputs_are_maps=True).shape == (3, 5, 5)


def test_attention_pooling_begins_as_an_average():
    keras.utils.set_random_seed(0)
    candidate = Candidate(architecture="transfer", backbone="maps", head=Head(pooling="attention"))
    network = build_network(candidate, (3, 4, 6), 2)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype(np.float32)
    kernel, bias = network.layers[-1].get_weights()
    np.testing.assert_allclose(network(x), sigmoid(x.mean((1, 2)) @ kernel + bias), atol=1e-6)


def test_attention_pooling_of_pooled_features_is_one_sentence():
    candidate = Candidate(architecture="transfer", backbone="mobilenet_v2", head=Head(pooling="attention"))
    with pytest.raises(UserError, match=r"set backbones\.mobilenet_v2\.pooling to none") as told:
        build_network(candidate, (1280,), 2)
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_a_network_with_cbam_learns_and_exports(tmp_path):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 100, (96, 32, 32, 3)).astype(np.float32)
    truth = np.arange(96) % 2
    for number in range(1, 96, 2):
        row, column = random.integers(0, 20, 2)
        pixels[number, row : row + 12, column : column + 12, 0] += 150
    keras.utils.set_random_seed(0)
    candidate = Candidate(architecture="compact_cnn", backbone="pixels", width=0.25, attention="cbam")
    network = trained(build_network(candidate, (32, 32, 3), 2), pixels[:64], truth[:64], 12)
    assert ((np.asarray(network(pixels[64:], training=False))[:, 0] > 0.5) == truth[64:]).mean() > 0.9
    plain = candidate.model_copy(update={"attention": "none"})
    assert network.count_params() > build_network(plain, (32, 32, 3), 2).count_params()
    model = with_embedding(network)
    export_onnx(model, tmp_path / "model.onnx")
    assert check_export(model, tmp_path / "model.onnx", pixels[:8], 1e-4) <= 1e-4


def test_attention_is_refused_where_it_would_be_ignored():
    with pytest.raises(ValidationError, match="'attention' is for architecture compact_cnn"):
        Candidate(architecture="simple_cnn", backbone="pixels", attention="cbam")
