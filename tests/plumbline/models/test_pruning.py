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
from plumbline.models.pruning import norm_parts, prune_in_steps, take_over, taylor_parts
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


def halves(folder, count=60, size=16):
    """Pictures that are brighter above (a) or below (b), as a stage stores them: features and splits."""
    random = np.random.default_rng(0)
    above = np.arange(count) % 2 == 0
    values = random.integers(0, 90, (count, 1, size, size, 3)).astype(np.uint8)
    values[above, :, : size // 2] += 120
    values[~above, :, size // 2 :] += 120
    folder.mkdir(exist_ok=True)
    np.save(folder / "features.npy", values)
    names = [f"{n:02d}.png" for n in range(count)]
    pd.DataFrame({"path": names, "id": names}).to_parquet(folder / "index.parquet")
    (folder / "backbone.json").write_text(json.dumps(backbone_json(image_size=size, shape=[size, size, 3])))
    split = np.array(["train", "train", "train", "validation", "test"])[np.arange(count) // 2 % 5]
    splits = pd.DataFrame({"path": names, "id": names, "label": np.where(above, "a", "b"), "group": names})
    return open_features(folder), splits.assign(split=split)


@pytest.mark.parametrize("by", ["norm", "taylor"])
def test_a_pruned_network_still_tells_the_classes_apart(tmp_path, by):
    features, splits = halves(tmp_path)
    settings = {"architecture": "lenet5", "backbone": "pixels", "epochs": 8, "batch_size": 16, "learning_rate": 0.003}
    candidate = Candidate.model_validate(settings)
    network = train("x", candidate, splits, features, 0, told=False).network
    data = TrainingSet.of(splits, features)
    small, narrow = prune_in_steps(network, candidate, Pruning(by=by, keep=0.5, epochs=3), data, "compressed.x")
    assert narrow.width == pytest.approx(0.5)
    assert small.count_params() < 0.35 * network.count_params()
    found = data.predictions(small, 16)
    right = ((found["p_a"] > 0.5) == (found["label"] == "a"))[found["split"] == "test"]
    assert right.mean() > 0.9


def two_filters(units, answer):
    """Pixels to one answer through `units` 1x1 filters and their means."""
    import keras

    pixels = keras.Input((16, 16, 3), name="pixels")
    x = keras.layers.Conv2D(units, 1)(keras.layers.Rescaling(1 / 255)(pixels))
    network = keras.Model(pixels, keras.layers.Dense(1, activation="sigmoid")(keras.layers.GlobalAveragePooling2D()(x)))
    if answer is not None:
        kernel = np.stack([np.full(3, 2.0), np.full(3, 0.05)], axis=-1)[None, None]  # a strong filter, a weak one
        network.layers[2].set_weights([kernel.astype(np.float32), np.zeros(2, np.float32)])
        network.layers[-1].set_weights([np.asarray(answer, np.float32)[:, None], np.zeros(1, np.float32)])
    return network


def test_taylor_keeps_the_filter_that_the_answer_hangs_on_though_its_norm_is_small(tmp_path):
    """The strong filter's map is read with a weight of 0.001, the weak one's with 20."""
    features, splits = halves(tmp_path)
    large, data = two_filters(2, [0.001, 20.0]), TrainingSet.of(splits, features)
    pictures = features.values[:, 0].astype(np.float32)
    expected = np.asarray(large(pictures, training=False))
    off = {}
    for by, parts in (("norm", norm_parts), ("taylor", taylor_parts(large, data, 16))):
        small = two_filters(1, None)
        take_over(large, small, by, parts)
        kept = small.layers[2].get_weights()[0]
        assert kept[0, 0, 0, 0] == np.float32(2.0 if by == "norm" else 0.05)
        off[by] = float(np.abs(np.asarray(small(pictures, training=False)) - expected).max())
    assert off["taylor"] < 0.001 < 0.1 < off["norm"], "without the filter that the norm takes out the answer is another"


def filling(network, kind):
    """The nodes of one kind of layer, from the pixels on."""
    levels = (getattr(network, "_functional", None) or network)._nodes_by_depth
    nodes = [node for depth in sorted(levels, reverse=True) for node in levels[depth]]
    return [node for node in nodes if type(node.operation).__name__ == kind]


def test_a_taylor_score_is_what_the_loss_changes_where_the_map_does(tmp_path):
    """Against what a hundredth more of each channel of the last maps does, batch normalisation and pooling between."""
    import keras

    features, splits = halves(tmp_path)
    keras.utils.set_random_seed(3)
    network = built("compact_cnn", 0.125, size=16, classes=2)
    data = TrainingSet.of(splits, features)
    inside = data.inside("train")
    pictures, truth = features.values[inside, 0].astype(np.float32), data.targets.values[inside]
    last = filling(network, "Conv2D")[-1]
    found = taylor_parts(network, data, 16)(last)
    assert found.shape == (int(inside.sum()), last.operation.filters)
    normalised = filling(network, "BatchNormalization")[-1].operation

    def losses():
        p = np.asarray(network(pictures, training=False), np.float64)[:, 0]
        return -np.log(np.where(truth == 1, p, 1 - p))

    before, (gamma, beta, *rest) = losses(), normalised.get_weights()
    for channel in range(last.operation.filters):
        more = np.where(np.arange(len(gamma)) == channel, 1.01, 1.0).astype(np.float32)
        normalised.set_weights([gamma * more, beta * more, *rest])
        change = (losses() - before) / 0.01
        np.testing.assert_allclose(found[:, channel], change, atol=1e-4 + 0.01 * np.abs(change).max())
    assert np.abs(found).max() > 0.01, "there is something to compare"


@pytest.mark.parametrize("name", FROM_PIXELS)
def test_every_architecture_from_pixels_has_taylor_scores(tmp_path, name):
    features, splits = halves(tmp_path, 20, SIZE)
    large, small = built(name, 0.25, classes=2), built(name, 0.125, classes=2)
    parts = taylor_parts(large, TrainingSet.of(splits, features), 8)
    for kind in ("Conv2D", "Dense"):
        for node in filling(large, kind):
            assert parts(node).shape == (12, node.outputs[0].shape[-1])
            assert np.isfinite(parts(node)).all()
    take_over(large, small, name, parts)


def test_what_is_written_of_pruning_by_norm_is_what_it_was_before_taylor():
    assert "by" not in Pruning(keep=0.5).model_dump(mode="json")
    assert Pruning(by="taylor", keep=0.5).model_dump(mode="json")["by"] == "taylor"


def test_what_one_branch_gives_and_the_other_takes_away_is_not_missed(tmp_path):
    """Channel 0 is strong in both branches and cancels in their sum; channel 1 is weak and what is left."""
    import keras

    def branches(units):
        pixels = keras.Input((16, 16, 3), name="pixels")
        convs = [keras.layers.Conv2D(units, 1, use_bias=False) for _ in range(2)]
        seen = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([conv(pixels) for conv in convs]))
        return keras.Model(pixels, keras.layers.Dense(1, activation="sigmoid")(seen)), convs

    features, splits = halves(tmp_path)
    large, convs = branches(2)
    for conv, sign in zip(convs, (1, -1), strict=True):
        kernel = np.stack([np.full(3, 2.0 * sign), np.full(3, 0.001)], axis=-1)[None, None]
        conv.set_weights([kernel.astype(np.float32)])
    for parts, kept in ((norm_parts, 2.0), (taylor_parts(large, TrainingSet.of(splits, features), 16), 0.001)):
        small, narrow = branches(1)
        take_over(large, small, "branches", parts)
        assert narrow[0].get_weights()[0][0, 0, 0, 0] == np.float32(kept)
