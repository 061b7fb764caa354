"""Denoising and colourisation: what is taken away, and that the network learns to give it back."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from plumbline.models.candidates import Candidate, Start, build_network
from plumbline.models.pretexts import autoencoder, fit_pretext, spoilt

SIZE, COUNT = 32, 64
SETTINGS = {"architecture": "compact_cnn", "backbone": "pixels", "width": 0.5, "batch_size": 16}


def pictures():
    """A disc on plain ground: bright ones are red, dark ones blue, so that grey tells the colour."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    pixels = np.empty((COUNT, SIZE, SIZE, 3), np.uint8)
    for number in range(COUNT):
        row, column = random.integers(8, 24, 2)
        disc = (rows - row) ** 2 + (columns - column) ** 2 < 49
        pixels[number] = (120, 120, 120)
        pixels[number][disc] = (250, 160, 160) if number % 2 else (20, 20, 110)
    return pixels


def test_what_is_taken_away():
    images = tf.constant(pictures()[:4].astype(np.float32))
    grey = spoilt(images, "colourisation", tf.constant([1, 2])).numpy()
    assert np.ptp(grey, axis=3).max() < 1e-3
    one, same, other = (spoilt(images, "denoising", tf.constant([1, n])).numpy() for n in (2, 2, 3))
    np.testing.assert_array_equal(one, same)
    assert 25 < np.abs(one - images).mean() < 50
    assert np.abs(one - other).mean() > 25


@pytest.mark.parametrize("architecture", ["compact_cnn", "simple_cnn", "lenet5"])
def test_any_size_of_maps_is_decoded_to_the_pictures_size(architecture):
    network = build_network(Candidate(architecture=architecture, backbone="pixels"), (40, 40, 3), 2)
    model = autoencoder(network)
    assert model.output_shape == (None, 40, 40, 3)
    shared = {id(variable) for variable in network.trainable_variables}
    assert any(id(variable) in shared for variable in model.trainable_variables)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["denoising", "colourisation"])
def test_it_gives_back_more_than_the_mean_and_repeats(method):
    found = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        candidate = Candidate(**SETTINGS, start=Start(method=method, epochs=15, learning_rate=0.003))
        network = build_network(candidate, (SIZE, SIZE, 3), 2)
        before = network.get_weights()[0].copy()
        error, explained = fit_pretext(network, pictures(), candidate, seed=1)
        assert np.abs(network.get_weights()[0] - before).max() > 1e-3, "what is kept has learnt"
        found.append((error, explained))
    assert found[0] == found[1]
    assert found[0][1] > 0.4
