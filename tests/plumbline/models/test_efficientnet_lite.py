"""EfficientNet-Lite0 is the published network, and goes the way of the others: weights, features, hybrid, ONNX."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from plumbline.common.errors import UserError
from plumbline.models.assemble import assemble
from plumbline.models.backbones import Backbone, record_entry, resolve_entry
from plumbline.models.candidates import Candidate, Head
from plumbline.models.efficientnet_lite import build, load_arrays
from plumbline.models.export import check_export, export_onnx, with_embedding
from plumbline.models.extraction import featurize
from plumbline.models.features import open_features
from plumbline.models.networks import build_backbone, cut, scale_pixels
from plumbline.models.trainable import cut_networks
from plumbline.models.training import train

pytestmark = pytest.mark.slow

SIZE = 64
NAME = "efficientnet_lite0"
FIRST, STRIDES = (0, 1, 3, 5, 8, 11, 15), (1, 2, 2, 2, 1, 2, 1)
PUBLISHED = Path(__file__).parents[4] / "shared/weights/efficientnet_lite0_imagenet.npz"


def published_arrays(path):
    """Arrays called and shaped as the published ones, but random."""
    random = np.random.default_rng(0)
    arrays = {}
    for layer in build_backbone(NAME, SIZE, None, settled=False).layers:
        for weight, kind in zip(layer.get_weights(), ("kernel", "bias"), strict=False):
            inputs = weight[..., 0, 0].size if "depthwise" in layer.name and kind == "kernel" else weight[..., 0].size
            scale = 1 / np.sqrt(inputs)
            drawn = random.normal(0, 1.4 * scale if kind == "kernel" else 0.2, weight.shape)
            arrays[f"{layer.name.replace('_', '.')}.{kind}"] = drawn.astype(np.float32)
    arrays["classes.kernel"] = np.zeros((1280, 1000), np.float32)
    np.savez(path, **arrays)
    return arrays


def as_described(arrays, x):
    """The README's words, step by step, in TensorFlow's own operations."""

    def convolution(x, name, stride=1, relu6=True):
        kernel, strides = arrays[f"{name}.kernel"], [1, stride, stride, 1]
        depthwise = "depthwise" in name
        y = (tf.nn.depthwise_conv2d if depthwise else tf.nn.conv2d)(x, kernel, strides, "SAME")
        y = y + arrays[f"{name}.bias"]
        return tf.nn.relu6(y) if relu6 else y

    x = convolution(x, "stem", 2)
    for number in range(16):
        name, past = f"block{number:02}", x
        stride = STRIDES[FIRST.index(number)] if number in FIRST else 1
        y = convolution(x, f"{name}.expand") if number else x
        y = convolution(y, f"{name}.depthwise", stride)
        y = convolution(y, f"{name}.project", relu6=False)
        x = y if number in FIRST else y + past
    return np.asarray(convolution(x, "head"))


def test_an_array_that_is_missing_is_named(tmp_path):
    network = build((SIZE, SIZE, 3), "lite")
    assert network.output_shape == (None, SIZE // 32, SIZE // 32, 1280)
    np.savez(tmp_path / "part.npz", **{"stem.kernel": np.zeros((3, 3, 3, 32), np.float32)})
    with pytest.raises(ValueError, match=r"it has no array stem\.bias"):
        load_arrays(network, tmp_path / "part.npz")


def test_the_network_is_what_its_readme_describes(tmp_path):
    file = tmp_path / "efficientnet_lite0_imagenet.npz"
    arrays = published_arrays(file)
    network = build_backbone(NAME, SIZE, str(file))
    assert network.count_params() == 3_350_000
    pixels = np.random.default_rng(1).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    inputs = keras.Input((SIZE, SIZE, 3))
    ours = np.asarray(keras.Model(inputs, network(scale_pixels(inputs, "lite")))(pixels, training=False))
    theirs = as_described(arrays, (pixels - 127) / 128)
    assert np.ptp(theirs) > 0.5
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_file_that_lacks_an_array_is_named(tmp_path):
    arrays = published_arrays(tmp_path / "whole.npz")
    short = tmp_path / "short.npz"
    np.savez(short, **{name: one for name, one in arrays.items() if name != "block03.expand.bias"})
    with pytest.raises(UserError, match=r"short\.npz does not hold .*block03\.expand\.bias"):
        build_backbone(NAME, SIZE, str(short))
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(UserError, match=r"text\.npz does not hold the weights of EfficientNetLite0"):
        build_backbone(NAME, SIZE, str(tmp_path / "text.npz"))


def test_an_untrained_one_still_tells_pictures_apart():
    pixels = np.random.default_rng(1).uniform(0, 255, (8, 8, 8, 3)).astype(np.float32)
    pixels = np.asarray(keras.ops.image.resize(pixels, (SIZE, SIZE)))
    inputs = keras.Input((SIZE, SIZE, 3))
    maps = build_backbone(NAME, SIZE, None)(scale_pixels(inputs, "lite"))
    values = np.asarray(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(maps))(pixels, training=False))
    assert values.std(axis=0).mean() > 0.02 * values.mean() > 0


def test_it_can_be_cut_for_fine_tuning():
    lower, upper = cut(build_backbone(NAME, SIZE, None), "last_4")
    assert upper.layers[-1].name == "head_relu"
    assert lower.layers[-1].name == "block14_add"


def pictures(count):
    """Noise, the second half with a bright block: (N, S, S, 3), and a table of splits."""
    random = np.random.default_rng(2)
    pixels = random.integers(0, 120, (count, SIZE, SIZE, 3)).astype(np.uint8)
    for number in range(1, count, 2):
        row, column = random.integers(0, SIZE // 2, 2)
        pixels[number, row : row + SIZE // 2, column : column + SIZE // 2] += 120
    rows = [
        (f"{n}.png", f"id{n}", "ab"[n % 2], f"g{n}", ("train", "train", "validation", "test")[n // 2 % 4])
        for n in range(count)
    ]
    return pixels, pd.DataFrame(rows, columns=["path", "id", "label", "group", "split"])


def test_a_hybrid_of_three_families_learns_and_exports(tmp_path, monkeypatch):
    """As params.yaml's `hybrid_pretrained`, on files found in PLUMBLINE_WEIGHTS, from features to ONNX."""
    weights = tmp_path / "weights"
    weights.mkdir()
    published_arrays(weights / "efficientnet_lite0_imagenet.npz")
    monkeypatch.setenv("PLUMBLINE_WEIGHTS", str(weights))
    monkeypatch.setenv("PLUMBLINE_OFFLINE", "1")
    entry = Backbone(networks=("mobilenet", "mobilenet_v2", NAME), image_size=SIZE, weights="auto", pooling="average")
    found = resolve_entry("hybrid_pretrained", entry)
    assert (
        record_entry("hybrid_pretrained", entry, found).origin == f"random (mobilenet, mobilenet_v2), imagenet ({NAME})"
    )
    pixels, splits = pictures(64)
    out = tmp_path / "features"
    featurize(splits, lambda paths, ids, size: (pixels[int(p.split(".")[0])] for p in paths), "h", entry, found, out)
    features = open_features(out)
    assert [part.stop - part.start for part in features.backbone.parts] == [1024, 1280, 1280]
    candidate = Candidate(
        architecture="transfer",
        backbone="h",
        networks=(NAME,),
        head=Head(),
        epochs=30,
        batch_size=8,
        early_stopping_patience=30,
    )
    alone = train("alone", candidate, splits, features, seed=0)
    test = alone.predictions[alone.predictions["split"] == "test"]
    assert ((test["p_b"] > 0.5) == (test["label"] == "b")).mean() > 0.8
    whole = candidate.model_copy(update={"networks": (), "epochs": 2})
    trained = train("all", whole, splits, features, seed=0)
    networks = cut_networks(features.backbone, str(out / "backbone.weights.h5"))
    model = with_embedding(assemble(whole, features.backbone, networks, trained.network))
    export_onnx(model, tmp_path / "model.onnx")
    assert check_export(model, tmp_path / "model.onnx", pixels[:4], 1e-4) <= 1e-4
