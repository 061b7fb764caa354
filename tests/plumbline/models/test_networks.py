"""The four HelmNet models have the study's parameter counts, and every backbone is the published one."""

import keras
import numpy as np
import pytest
from recorded import backbone_json

from plumbline.common.errors import UserError
from plumbline.models.candidates import Candidate, Head, build_network
from plumbline.models.networks import (
    NETWORKS,
    build_backbone,
    cut,
    freeze_by_size,
    kernel_layers,
    load_stored,
    scale_pixels,
)
from plumbline.models.records import BackboneRecord
from plumbline.models.trainable import assemble, build_trainable

FFNN = Head(hidden=(256, 128), dropout=0.5)


@pytest.fixture(scope="module")
def vgg16():
    return {"vgg16": (build_backbone("vgg16", 200, None), None)}


def whole_model(head, vgg16):
    candidate = Candidate(architecture="transfer", backbone="vgg16", head=head)
    parts = [{"network": "vgg16", "shape": [6, 6, 512], "start": 0, "stop": 18_432, "parameters": 14_714_688}]
    backbone = BackboneRecord(**backbone_json(network="vgg16", image_size=200, parts=parts, shape=[6, 6, 512]))
    return assemble(candidate, backbone, vgg16, build_trainable(candidate, backbone, None, classes=2))


def trainable(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_simple_cnn_has_the_studys_parameters():
    network = build_network(Candidate(architecture="simple_cnn", backbone="pixels"), (200, 200, 3), classes=2)
    assert network.count_params() == trainable(network) == 413_257


@pytest.mark.parametrize(
    ("head", "parameters", "trained"),
    [(Head(), 14_733_121, 18_433), (FFNN, 19_466_561, 4_751_873), (Head(pooling="average"), 14_715_201, 513)],
    ids=["vgg16_base", "vgg16_ffnn", "vgg16_gap"],
)
def test_vgg16_candidates_have_the_studys_parameters(head, parameters, trained, vgg16):
    model = whole_model(head, vgg16)
    assert (model.count_params(), trainable(model)) == (parameters, trained)


def test_more_than_two_classes_end_in_a_softmax():
    network = build_network(Candidate(architecture="simple_cnn", backbone="pixels"), (64, 64, 3), classes=3)
    output = network(np.zeros((2, 64, 64, 3), dtype=np.float32)).numpy()
    assert output.shape == (2, 3)
    np.testing.assert_allclose(output.sum(axis=1), 1, rtol=1e-6)


KERAS_HAS = sorted(name for name, network in NETWORKS.items() if network.keras_file)


@pytest.mark.parametrize("name", KERAS_HAS)
def test_pixels_are_scaled_as_the_networks_own_preprocess_input(name):
    module = {
        "VGG16": "vgg16",
        "ResNet50": "resnet50",
        "InceptionV3": "inception_v3",
        "EfficientNetB0": "efficientnet",
        "MobileNet": "mobilenet",
        "MobileNetV2": "mobilenet_v2",
        "DenseNet121": "densenet",
    }[NETWORKS[name].application]
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    inputs = keras.Input((8, 8, 3))
    ours = np.asarray(keras.Model(inputs, scale_pixels(inputs, NETWORKS[name].scaling))(pixels))
    if name == "efficientnet_b0":  # its preprocess_input does nothing: the network scales inside, tested below
        theirs = keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode="torch")
    else:
        theirs = getattr(keras.applications, module).preprocess_input(pixels.copy())
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERAS_HAS)
def test_weights_files_are_the_ones_keras_would_fetch(name, monkeypatch):
    """The table of files is checked against what keras.applications itself asks for."""
    from keras.src.utils import file_utils

    class Asked(Exception):
        pass

    def record(file, origin, cache_subdir=None, file_hash=None):
        raise Asked(file, origin, cache_subdir, file_hash)

    monkeypatch.setattr(file_utils, "get_file", record)
    network = NETWORKS[name]
    with pytest.raises(Asked) as asked:
        getattr(keras.applications, network.application)(
            weights="imagenet", include_top=False, input_shape=(224, 224, 3)
        )
    assert asked.value.args == (network.keras_file, network.url, "models", network.md5)


def test_random_weights_follow_their_seed():
    one, same, other = (build_backbone("vgg16", 32, None, seed).get_weights()[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def published_efficientnet(size, normalization):
    """EfficientNetB0 as Keras builds it for ImageNet weights, with these values in its normalisation layer."""
    import math

    from keras.src.applications import efficientnet

    network = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(size, size, 3))
    behind = next(n for n, layer in enumerate(network.layers) if isinstance(layer, keras.layers.Normalization))
    rest = keras.Model(network.layers[behind].output, network.output)
    pixels = keras.Input((size, size, 3))
    mean, variance = normalization
    x = (pixels / 255 - np.float32(mean)) / np.sqrt(np.float32(variance))
    # Keras adds this layer for weights="imagenet" only: the published variances are standard deviations.
    x = x * np.float32([1 / math.sqrt(d) for d in efficientnet.IMAGENET_STDDEV_RGB])
    return network, keras.Model(pixels, rest(x))


@pytest.mark.slow
def test_efficientnet_without_its_scaling_layers_gives_the_published_networks_outputs(tmp_path):
    """ONNX has no Normalization layer, and Keras leaves part of the scaling out where it builds without weights."""
    keras.utils.set_random_seed(5)
    network, published = published_efficientnet(64, ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    for variable in network.weights:
        if "gamma" in variable.path:  # untrained maps vanish on the way down, and nothing is easily equal to nothing
            variable.assign(variable * 2.0)
    network.save_weights(tmp_path / "published.weights.h5")
    backbone = build_backbone("efficientnet_b0", 64, str(tmp_path / "published.weights.h5"))
    assert backbone.count_params() == 4_049_571 - 7
    assert not any(isinstance(layer, keras.layers.Normalization) for layer in backbone.layers)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    inputs = keras.Input((64, 64, 3))
    ours = np.asarray(keras.Model(inputs, backbone(scale_pixels(inputs, "torch")))(pixels, training=False))
    theirs = np.asarray(published(pixels, training=False))
    assert np.abs(theirs).max() > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())
    backbone.save_weights(tmp_path / "ours.weights.h5")
    again = build_backbone("efficientnet_b0", 64, str(tmp_path / "ours.weights.h5"))
    unsettled = build_backbone("efficientnet_b0", 64, None, settled=False)
    load_stored(unsettled, tmp_path / "ours.weights.h5")
    for left, right in zip(backbone.get_weights(), unsettled.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    for left, right in zip(backbone.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "cut_at", "kernels"),
    [
        ("vgg16", 32, "block4_conv2", 4),
        ("mobilenet", 32, "conv_pad_12", 4),
        ("mobilenet_v2", 32, "block_15_add", 4),
        ("resnet50", 32, "conv5_block1_out", 6),  # a residual block can't be cut inside
    ],
)
def test_the_last_four_layers_are_cut_off_where_one_tensor_passes(name, size, cut_at, kernels):
    backbone = build_backbone(name, size, None)
    lower, upper = cut(backbone, "last_4")
    assert lower.layers[-1].name == cut_at
    assert len(kernel_layers(upper)) == kernels
    assert not lower.trainable_variables
    assert upper.trainable_variables
    pixels = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    np.testing.assert_allclose(
        upper(lower(pixels), training=False), backbone(pixels, training=False), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_no_1x1_convolution_with_strides_is_trained_further():
    """TensorFlow 2.21 writes past its memory for the gradient of its weights, where the map's side is even."""
    backbone = build_backbone("resnet50", 64, None)
    _, upper = cut(backbone, "all")
    convolutions = [layer for layer in upper.layers if type(layer) is keras.layers.Conv2D]
    assert not [layer.name for layer in convolutions if layer.kernel_size == (1, 1) and layer.strides != (1, 1)]
    assert [one.path for one in upper.trainable_variables], "trained further"
    pixels = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(upper(pixels, training=False), backbone(pixels, training=False), rtol=1e-4, atol=1e-5)


def test_the_course_rule_says_how_much_to_train():
    sizes = [9_999, 10_000, 49_999, 50_000]
    assert [freeze_by_size(size) for size in sizes] == ["head", "last_4", "last_4", "all"]


def test_stored_weights_that_do_not_fit_are_one_sentence_with_the_file(tmp_path):
    def network(units, layers=1):
        return keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(units) for _ in range(layers))])

    file = tmp_path / "head.weights.h5"
    with pytest.raises(UserError, match=r"head\.weights\.h5 is missing, damaged or of another network .*`dvc repro`"):
        load_stored(network(3), file)
    network(3).save_weights(file)
    load_stored(network(3), file)
    for other in (network(5), network(3, 2)):
        with pytest.raises(UserError, match=r"head\.weights\.h5 is .*: run `dvc repro -f train@one`") as error:
            load_stored(other, file, "train@one")
        assert "\n" not in str(error.value)
    file.write_bytes(b"torn")
    with pytest.raises(UserError, match="damaged"):
        load_stored(network(3), file)
