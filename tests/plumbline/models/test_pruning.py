"""Pruning keeps the strongest filters of every architecture, and the graph shrinks with what is joined to it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from recorded import backbone_json

from plumbline.common.errors import UserError
from plumbline.models.candidates import ARCHITECTURES, TRANSFER, TRIPLET, Candidate, architecture_names, build_network
from plumbline.models.compressed import Compressed, Pruning
from plumbline.models.features import open_features
from plumbline.models.pruning import prune_in_steps, take_over
from plumbline.models.training import TrainingSet, train

pytestmark = pytest.mark.slow

FROM_PIXELS = [name for name in architecture_names() if name not in (TRANSFER, TRIPLET)]
SIZE = 67  # the least that alexnet can be built on


def built(name, width, size=SIZE, classes=3, **settings):
    candidate = Candidate.model_validate({"architecture": name, "backbone": "pixels", "width": width, **settings})
    return build_network(candidate, (size, size, 3), classes)


@pytest.mark.parametrize("name", FROM_PIXELS)
def test_every_architecture_from_pixels_can_be_pruned(name):
    assert (ARCHITECTURES / f"{name}.py").is_file()
    large, small = built(name, 0.25), built(name, 0.125)
    before = [weight.shape for weight in small.get_weights()]
    take_over(large, small, name)
    assert [weight.shape for weight in small.get_weights()] == before
    assert small.count_params() < 0.6 * large.count_params()


@pytest.mark.parametrize("name", ["simple_cnn", "se_resnet", "inception_small", "densenet_small"])
def test_filters_that_do_nothing_are_the_ones_that_go(name):
    """Without them the network says the same: residual connections, concatenations and flattening keep their order."""
    import keras

    keras.utils.set_random_seed(0)
    width = 1.0 if name == "simple_cnn" else 0.25  # narrower, its four units behind the maps may all be dead
    small, large = built(name, width), built(name, 2 * width)
    silence(large, small, np.random.default_rng(1))
    take_over(large, small, name)
    pictures = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3)).astype(np.float32)
    expected = np.asarray(large(pictures, training=False))
    assert np.ptp(expected, axis=0).max() > 1e-4, "it says something of pictures"
    np.testing.assert_allclose(np.asarray(small(pictures, training=False)), expected, atol=1e-5)


def silence(large, small, random):
    """Set so many filters of each layer of `large` to zero that as many speak as `small` has; the same places where
    layers of one size are added."""
    places = {}
    for wide, narrow in zip(large.layers, small.layers, strict=True):
        if type(wide).__name__ not in ("Conv2D", "Dense"):
            continue
        weights = wide.get_weights()
        size, count = weights[0].shape[-1], narrow.get_weights()[0].shape[-1]
        quiet = places.setdefault((size, count), random.permutation(size)[count:])
        for one in weights:
            one[..., quiet] = 0
        wide.set_weights(weights)


def test_a_layer_that_is_not_known_is_named():
    with pytest.raises(UserError, match=r"x can't be pruned: its layer .* is not known to it"):
        take_over(built("compact_cnn", 0.25, attention="cbam"), built("compact_cnn", 0.125, attention="cbam"), "x")


def test_a_frozen_backbone_is_refused():
    settings = Candidate.model_validate({"architecture": "transfer", "backbone": "m", "head": {}})
    with pytest.raises(UserError, match=r"compressed\.x\.pruning is for networks trained from pixels"):
        prune_in_steps(None, settings, Pruning(keep=0.5), None, "compressed.x")


def test_float32_without_pruning_is_refused():
    with pytest.raises(ValidationError, match="leaves a candidate as it is"):
        Compressed(of="a", backbone="b", how="float32")


def test_a_pruned_network_still_tells_the_classes_apart(tmp_path):
    random = np.random.default_rng(0)
    above = np.arange(60) % 2 == 0
    values = random.integers(0, 90, (60, 1, 16, 16, 3)).astype(np.uint8)
    values[above, :, :8] += 120
    values[~above, :, 8:] += 120
    np.save(tmp_path / "features.npy", values)
    names = [f"{n:02d}.png" for n in range(60)]
    pd.DataFrame({"path": names, "id": names}).to_parquet(tmp_path / "index.parquet")
    (tmp_path / "backbone.json").write_text(json.dumps(backbone_json(image_size=16, shape=[16, 16, 3])))
    split = np.array(["train", "train", "train", "validation", "test"])[np.arange(60) // 2 % 5]
    splits = pd.DataFrame({"path": names, "id": names, "label": np.where(above, "a", "b"), "group": names})
    splits = splits.assign(split=split)
    settings = {"architecture": "lenet5", "backbone": "pixels", "epochs": 8, "batch_size": 16, "learning_rate": 0.003}
    candidate = Candidate.model_validate(settings)
    features = open_features(tmp_path)
    network = train("x", candidate, splits, features, 0, told=False).network
    data = TrainingSet.of(splits, features)
    small, narrow = prune_in_steps(network, candidate, Pruning(keep=0.5, epochs=3), data, "compressed.x")
    assert narrow.width == pytest.approx(0.5)
    assert small.count_params() < 0.35 * network.count_params()
    found = data.predictions(small, 16)
    right = ((found["p_a"] > 0.5) == (found["label"] == "a"))[found["split"] == "test"]
    assert right.mean() > 0.9
