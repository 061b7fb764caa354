"""The architectures trained from scratch are the ones their papers and systems describe."""

import json

import keras
import numpy as np
import pytest
from recorded import backbone_json, model_json

from plumbline.common.errors import UserError
from plumbline.common.params import load_section
from plumbline.models.architectures.densenet_small import dense_layer, transition
from plumbline.models.architectures.inception_small import inception_module
from plumbline.models.architectures.se_resnet import residual_block, squeeze_and_excite
from plumbline.models.assemble import load_candidate
from plumbline.models.candidates import PRESETS, Candidate, architecture_names, build_network

SCRATCH = [
    "simple_cnn",
    "compact_cnn",
    "custom_cnn",
    "lenet5",
    "alexnet",
    "se_resnet",
    "inception_small",
    "densenet_small",
]


def network_of(architecture, size, classes=2, **settings):
    candidate = Candidate(architecture=architecture, backbone="pixels", **settings)
    return build_network(candidate, (size, size, 3), classes)


def parameters_of(block, shape):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, block(inputs))
    return model.count_params(), model.output_shape[1:]


def test_lenet5_has_the_papers_parameters():
    network = network_of("lenet5", 32, classes=10)
    first = next(layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    assert first.count_params() == (5 * 5 * 3 + 1) * 6 == 456
    assert first.output.shape[1:] == (28, 28, 6)
    assert network.count_params() == 456 + 2_416 + 48_120 + 10_164 + 850 == 62_006


@pytest.mark.slow
def test_alexnet_has_the_papers_parameters():
    """The single-tower network: 62,378,344 for ImageNet's 1,000 classes, 55 x 55 x 96 after the first layer."""
    network = network_of("alexnet", 227, classes=1000)
    assert network.count_params() == 62_378_344
    first = next(layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    assert first.output.shape[1:] == (55, 55, 96)


def test_custom_cnn_has_the_systems_parameters():
    convolutions = (27 + 1) * 64 + (576 + 1) * 128 + (1152 + 1) * 256 + (2304 + 1) * 256
    normalisation = 4 * (64 + 128 + 256 + 256)
    dense = (256 + 1) * 512 + (512 + 1) * 2
    network = network_of("custom_cnn", 224, classes=2)
    assert network.count_params() == convolutions + normalisation + dense - 513 == 1_095_809
    assert network_of("custom_cnn", 224, classes=5).count_params() == 1_095_809 + 4 * 513


def test_compact_cnn_counts_as_its_docstring_says():
    convolutions = 27 * 32 + 288 * 64 + 576 * 128 + 1152 * 128
    assert network_of("compact_cnn", 96).count_params() == convolutions + 4 * (32 + 64 + 128 + 128) + 257 == 242_145


def test_the_inception_module_is_googlenets():
    """Inception 3a on 28x28x192: 163,696 parameters and 256 maps (Szegedy et al. 2014, table 1, biases counted)."""

    def module(x):
        return inception_module(x, 64, 96, 128, 16, 32, 32, normalised=False)

    assert parameters_of(module, (28, 28, 192)) == (163_696, (28, 28, 256))


def test_a_residual_block_adds_its_input_back():
    plain = 2 * (9 * 32 * 32 + 4 * 32) + (32 * 4 + 4) + (4 * 32 + 32)
    assert parameters_of(lambda x: residual_block(x, 32, 1), (8, 8, 32)) == (plain, (8, 8, 32))
    inputs = keras.Input((8, 8, 32))
    model = keras.Model(inputs, residual_block(inputs, 32, 1))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(np.zeros(layer.kernel.shape))
    picture = np.abs(np.random.default_rng(0).normal(size=(1, 8, 8, 32))).astype(np.float32)
    np.testing.assert_allclose(model(picture), picture, atol=1e-6)


@pytest.mark.parametrize("architecture", SCRATCH)
def test_no_weights_of_a_1x1_convolution_with_strides_are_trained(architecture):
    """TensorFlow 2.21 writes past its memory for their gradient: sixty such steps crash nearly always."""
    assert not strided_pointwise(network_of(architecture, 96))


def strided_pointwise(network):
    return [
        layer.name
        for layer in network._flatten_layers()
        if type(layer) is keras.layers.Conv2D and layer.kernel_size == (1, 1) and layer.strides != (1, 1)
    ]


def test_squeeze_and_excitation_weighs_each_map_by_one_number():
    inputs = keras.Input((6, 6, 16))
    model = keras.Model(inputs, squeeze_and_excite(inputs))
    picture = np.random.default_rng(0).uniform(1, 2, (1, 6, 6, 16)).astype(np.float32)
    ratio = np.asarray(model(picture)) / picture
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1], ratio.shape), rtol=1e-5)
    assert (ratio > 0).all()
    assert (ratio < 1).all()


def test_a_dense_layer_keeps_what_it_was_given():
    bottleneck = 4 * 24 + 24 * 64
    grown = 4 * 64 + 9 * 64 * 16
    assert parameters_of(lambda x: dense_layer(x, 16), (8, 8, 24)) == (bottleneck + grown, (8, 8, 40))
    assert parameters_of(transition, (8, 8, 40)) == (4 * 40 + 40 * 20, (4, 4, 20))


@pytest.mark.parametrize("architecture", SCRATCH)
def test_width_scales_the_network(architecture):
    assert network_of(architecture, 96, width=0.25).count_params() < network_of(architecture, 96).count_params() / 3


def test_a_picture_too_small_is_one_sentence():
    with pytest.raises(UserError, match=r"'alexnet' can't be built on features of shape \(32, 32, 3\): give backbones"):
        network_of("alexnet", 32)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_in_what_the_entry_leaves_out(preset):
    candidate = Candidate(architecture="custom_cnn", backbone="pixels", preset=preset, epochs=2)
    assert candidate.epochs == 2
    assert candidate.model_dump(include=PRESETS[preset].keys()) == {**PRESETS[preset], "epochs": 2}
    assert Candidate.model_validate(candidate.model_dump(mode="json")) == candidate


def test_every_architecture_that_params_may_name_can_be_built():
    assert {*SCRATCH, "transfer"} <= set(architecture_names())
    assert "weights" not in architecture_names()
    for name in architecture_names():
        head = {"head": {}} if name == "transfer" else {}
        candidate = Candidate.model_validate({"architecture": name, "backbone": "pixels", **head})
        assert build_network(candidate, (96, 96, 3), 2).output_shape == (None, 1)


@pytest.mark.parametrize(
    "name",
    ["weights", "__init__", "../weights", "architectures/se_resnet", "se_resnet.py", "no_such", "", "SE_ResNet", 5],
)
def test_only_an_architecture_is_accepted_and_those_there_are_are_named(name, tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text(json.dumps({"candidates": {"mine": {"architecture": name, "backbone": "pixels"}}}))
    with pytest.raises(UserError, match=r"params\.yaml: candidates\.mine\.architecture: ") as told:
        load_section("candidates.mine", Candidate, params)
    if isinstance(name, str):
        assert f"there is no architecture '{name}': use one of alexnet, compact_cnn, custom_cnn, " in str(told.value)
    assert "\n" not in str(told.value)


def test_a_trained_candidate_of_an_architecture_that_is_gone_is_one_sentence(tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "backbone.json").write_text(json.dumps(backbone_json()))
    settings = {**Candidate(architecture="lenet5", backbone="pixels").model_dump(mode="json"), "architecture": "gone"}
    (tmp_path / "model.json").write_text(json.dumps(model_json(settings=settings)))
    with pytest.raises(UserError, match=r"model\.json: settings\.architecture: .*there is no architecture 'gone'"):
        load_candidate(tmp_path, tmp_path / "features")
