"""Every architecture and pretrained network hands out its maps by stride, or says why it has none."""

import keras
import numpy as np
import pytest

from plumbline.common.errors import UserError
from plumbline.models.candidates import Candidate, Head, architecture_names, build_network
from plumbline.models.feature_maps import STRIDES, feature_maps, maps_offered, pyramid
from plumbline.models.networks import NETWORKS, build_backbone

CHANNELS = {
    "simple_cnn": {4: 64, 8: 128},
    "compact_cnn": {4: 64, 8: 128, 16: 128},
    "custom_cnn": {4: 256, 8: 256},
    "se_resnet": {4: 64, 8: 128},
    "inception_small": {4: 120, 8: 192},
    "densenet_small": {4: 96, 8: 112, 16: 120},
    "vgg16": {4: 256, 8: 512, 16: 512, 32: 512},
    "resnet50": {4: 256, 8: 512, 16: 1024, 32: 2048},
    "efficientnet_b0": {4: 144, 8: 240, 16: 672, 32: 1280},
    "mobilenet": {4: 128, 8: 256, 16: 512, 32: 1024},
    "mobilenet_v2": {4: 144, 8: 192, 16: 576, 32: 1280},
    "efficientnet_lite0": {4: 144, 8: 240, 16: 672, 32: 1280},
    "densenet121": {4: 256, 8: 512, 16: 1024, 32: 1024},
}
WITHOUT = {
    "triplet": "it is an embedding of a backbone's features",
    "alexnet": "its convolutions are not padded",
    "lenet5": "its convolutions are not padded",
    "inception_v3": "its convolutions are not padded",
    "transfer": "it is a head that reads the features of a backbone",
}
SCRATCH = [name for name in CHANNELS if name not in NETWORKS]


def classifier(name, size=64, **settings):
    return build_network(Candidate(architecture=name, backbone="pixels", **settings), (size, size, 3), 2)


def network_of(name, size):
    return build_backbone(name, size, None, settled=False) if name in NETWORKS else classifier(name, size)


def pictures(size, count=2):
    return np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def test_every_architecture_and_network_has_maps_or_says_why_not():
    assert {*CHANNELS, *WITHOUT} <= {*architecture_names(), *NETWORKS}
    for name in {*architecture_names(), *NETWORKS} - set(WITHOUT):
        offered = maps_offered(name)
        assert set(offered) <= set(STRIDES)
        assert list(offered) == list(CHANNELS.get(name, offered))
    for name, reason in WITHOUT.items():
        with pytest.raises(UserError, match=f"^{name} has no feature maps to build on: {reason}") as told:
            maps_offered(name)
        assert "\n" not in str(told.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANNELS)
def test_maps_have_a_place_for_every_stride_pixels(name):
    size = 96
    maps = feature_maps(network_of(name, size), name)
    assert {stride: tuple(tensor.shape[1:]) for stride, tensor in maps.items()} == {
        stride: (size // stride, size // stride, channels) for stride, channels in CHANNELS[name].items()
    }


@pytest.mark.parametrize("name", SCRATCH)
def test_maps_are_the_classifiers_own(name):
    """The classifier's answer is a function of its coarsest maps, and training the one changes the other."""
    network, seen = classifier(name), pictures(64)
    maps = pyramid(network, name)
    before = {stride: np.asarray(values) for stride, values in maps(seen, training=False).items()}
    coarsest = max(before)
    rest = keras.Model(feature_maps(network, name)[coarsest], network.outputs[0])
    np.testing.assert_allclose(rest(before[coarsest], training=False), network(seen, training=False), atol=1e-5)
    own = {id(weight) for weight in network.weights}
    assert maps.weights
    assert all(id(weight) in own for weight in maps.weights)
    for weight in network.trainable_weights:
        weight.assign(weight * 1.5 + 0.01)
    after = maps(seen, training=False)
    assert all(np.abs(np.asarray(after[stride]) - before[stride]).max() > 1e-3 for stride in before)


def test_maps_know_where_things_are():
    """What changes in one corner of the picture changes the maps there and not in the opposite corner."""
    network = classifier("se_resnet", 128)
    maps = pyramid(network, "se_resnet", [8])
    for layer in network.layers:  # squeeze-and-excitation weighs by the whole picture: let it weigh nothing
        if isinstance(layer, keras.layers.Dense) and layer.activation.__name__ == "sigmoid":
            layer.kernel.assign(layer.kernel * 0)
    plain, marked = np.full((1, 128, 128, 3), 90, np.float32), np.full((1, 128, 128, 3), 90, np.float32)
    marked[:, :16, :16] = 250
    changed = np.abs(np.asarray(maps(marked)[8]) - np.asarray(maps(plain)[8])).max(axis=-1)[0]
    assert changed.shape == (16, 16)
    assert changed[:2, :2].min() > 0
    assert changed[10:, 10:].max() == 0


def test_a_pretrained_networks_maps_are_its_backbones():
    backbone = build_backbone("mobilenet_v2", 64, None)
    maps = pyramid(backbone, "mobilenet_v2")
    scaled = pictures(64) / 127.5 - 1
    np.testing.assert_array_equal(maps(scaled, training=False)[32], backbone(scaled, training=False))


def test_width_and_task_leave_the_strides_alone():
    maps = feature_maps(classifier("se_resnet", width=0.5), "se_resnet")
    assert {stride: tensor.shape[-1] for stride, tensor in maps.items()} == {4: 32, 8: 64}


def test_what_is_missing_is_one_sentence():
    network = classifier("se_resnet", 64)
    with pytest.raises(UserError, match=r"^se_resnet has no feature maps of stride 32: it has 4, 8\.$"):
        feature_maps(network, "se_resnet", [8, 32])
    odd = classifier("se_resnet", 100)
    assert list(feature_maps(odd, "se_resnet")) == [4]
    with pytest.raises(UserError, match=r"^pictures of 100 x 100 pixels have no feature maps of stride 8: give them"):
        feature_maps(odd, "se_resnet", [8])
    with pytest.raises(UserError, match=r"pictures of 66 x 66 pixels have no feature maps of stride 4: .* of 8\."):
        feature_maps(classifier("se_resnet", 66), "se_resnet")
    with pytest.raises(UserError, match="nothing is called 'yolo'"):
        feature_maps(network, "yolo")
    head = build_network(Candidate(architecture="transfer", backbone="b", head=Head()), (2, 2, 8), 2)
    with pytest.raises(UserError, match="ask for those of the backbone's network"):
        feature_maps(head, "transfer")
