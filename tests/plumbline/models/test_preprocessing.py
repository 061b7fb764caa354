"""Preprocessing and several sizes: in the features, in the served model and in its ONNX file alike."""

import keras
import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from plumbline.common import artefacts
from plumbline.common.files import write_table
from plumbline.common.records import write_record
from plumbline.models.anatomy import layer_table
from plumbline.models.assemble import load_candidate
from plumbline.models.backbones import Backbone, resolve_entry
from plumbline.models.candidates import Candidate, Head, build_network
from plumbline.models.export import OnnxModel, check_export, export_onnx, with_embedding
from plumbline.models.extraction import featurize
from plumbline.models.features import open_features
from plumbline.models.preprocessing import Preprocess, prepared
from plumbline.models.training import train

SIZE = 64


def apply(pixels, **settings):
    inputs = keras.Input(pixels.shape[1:])
    model = keras.Model(inputs, prepared(inputs, Preprocess(**settings)))
    return np.asarray(model(pixels.astype(np.float32)))


def test_the_median_is_opencvs():
    import cv2

    picture = np.random.default_rng(0).integers(0, 256, (2, 17, 23, 3)).astype(np.uint8)
    found = apply(picture, noise="median")
    for one, original in zip(found, picture, strict=True):
        np.testing.assert_array_equal(one[1:-1, 1:-1], cv2.medianBlur(original, 3)[1:-1, 1:-1])
    assert found.min() >= 0
    assert found.shape == picture.shape


@pytest.mark.parametrize("colour", ["grey_world", "shades_of_grey"])
def test_the_colour_of_the_light_is_taken_out(colour):
    """The same scene under white and under yellow light looks the same afterwards."""
    scene = np.random.default_rng(0).uniform(20, 200, (2, 32, 32, 3))
    light = np.array([1.1, 0.9, 0.5])
    white, yellow = (apply(np.rint(scene * one), colour=colour) for one in (np.ones(3), light))
    assert np.abs(np.rint(scene * light) - np.rint(scene)).mean() > 15
    brighter = yellow.mean(axis=(1, 2, 3)) / white.mean(axis=(1, 2, 3))
    assert np.abs(yellow / brighter[:, None, None, None] - white).mean() < 2
    np.testing.assert_array_equal(apply(np.zeros((1, 8, 8, 3)), colour=colour), 0)
    assert apply(np.full((1, 8, 8, 3), 255.0), colour=colour).min() >= 254


def pictures(count):
    """Plain pictures and striped ones, under lights of any colour, with single wrong pixels."""
    random = np.random.default_rng(2)
    pixels = random.uniform(60, 100, (count, SIZE, SIZE, 3))
    for number in range(1, count, 2):
        pixels[number, (np.arange(SIZE) + random.integers(16)) % 16 < 8] += 100
    pixels *= random.uniform(0.6, 1.3, (count, 1, 1, 3))
    pixels[random.random(pixels.shape[:3]) < 0.02] = 255
    places = ("train", "train", "validation", "test")
    rows = [(f"{n}.png", f"id{n}", "ab"[n % 2], f"g{n}", places[n // 2 % 4]) for n in range(count)]
    return pixels.clip(0, 255).astype(np.uint8), pd.DataFrame(rows, columns=["path", "id", "label", "group", "split"])


def featurized(pixels, table, entry, out):
    weights = resolve_entry(out.name, entry)
    featurize(
        table,
        lambda paths, ids, size: (pixels[int(path.split(".")[0])] for path in paths),
        out.name,
        entry,
        weights,
        out,
    )
    return open_features(out)


def trained(tmp_path, entry, **settings):
    """Through features, training and the candidate's folder to the model that serves: (model, pixels, predictions)."""
    pixels, splits = pictures(64)
    out = tmp_path / "features" / "mine"
    out.parent.mkdir()
    features = featurized(pixels, splits, entry, out)
    result = train("one", Candidate(backbone="mine", **settings), splits, features, seed=0)
    folder = tmp_path / "one"
    folder.mkdir()
    result.network.save_weights(folder / artefacts.HEAD_WEIGHTS)
    write_record(folder / artefacts.MODEL, result.model)
    write_table(folder / artefacts.PREDICTIONS, result.predictions)
    return load_candidate(folder, out), pixels, result.predictions


def check_served(model, pixels, predictions, tmp_path, tolerance):
    """What serves answers as was evaluated, in Keras and in ONNX; returns test accuracy."""
    exported = with_embedding(model)
    export_onnx(exported, tmp_path / "model.onnx")
    assert check_export(exported, tmp_path / "model.onnx", pixels[:8], 1e-4) <= 1e-4
    served, embeddings = OnnxModel(tmp_path / "model.onnx").score(pixels)
    assert embeddings.shape[1] > 3
    np.testing.assert_allclose(served[:, 1], predictions["p_b"], atol=tolerance)
    test = (predictions["split"] == "test").to_numpy()
    return ((served[:, 1] > 0.5) == (predictions["label"] == "b"))[test].mean()


@pytest.mark.slow
def test_a_network_on_prepared_pixels_serves_what_was_evaluated(tmp_path):
    entry = Backbone(network="pixels", image_size=SIZE, preprocess=Preprocess(noise="median", colour="shades_of_grey"))
    settings = {"architecture": "compact_cnn", "width": 0.25, "batch_size": 8, "epochs": 20, "precision": "float32"}
    model, pixels, predictions = trained(tmp_path, entry, **settings, early_stopping_patience=20)
    stored = open_features(tmp_path / "features" / "mine")
    assert stored.values.dtype == np.uint8
    expected = np.rint(apply(pixels[:4], noise="median", colour="shades_of_grey"))
    np.testing.assert_array_equal(stored.values[:4, 0], expected)
    assert check_served(model, pixels, predictions, tmp_path, 1e-3) > 0.9


@pytest.mark.slow
def test_a_frozen_network_at_several_sizes_serves_what_was_evaluated(tmp_path):
    entry = Backbone(
        network="efficientnet_lite0",
        image_size=SIZE,
        pooling="average",
        scales=(32, SIZE),
        preprocess=Preprocess(colour="grey_world"),
    )
    settings = {"architecture": "transfer", "head": Head(), "batch_size": 8, "epochs": 30, "learning_rate": 0.01}
    model, pixels, predictions = trained(tmp_path, entry, **settings, early_stopping_patience=30)
    assert check_served(model, pixels, predictions, tmp_path, 0.02) > 0.8
    stored = open_features(tmp_path / "features" / "mine")
    assert stored.shape == (1280,)
    assert model.count_params() == stored.backbone.parameters + 1281
    rows = layer_table(model)
    assert sum(row.parameters for row in rows) == model.count_params(), "each layer once, though it sees two sizes"


@pytest.mark.slow
def test_several_sizes_are_the_mean_of_each(tmp_path):
    pixels, table = pictures(2)
    shrunk = np.asarray(keras.layers.Resizing(32, 32)(pixels))
    both = {"image_size": SIZE, "scales": (32, SIZE)}

    def found(name, shown, **settings):
        entry = Backbone(network="vgg16", pooling="average", precision="float32", **settings)
        return np.asarray(featurized(shown, table, entry, tmp_path / name).values[:, 0], np.float32)

    small, large = found("small", shrunk, image_size=32), found("large", pixels, image_size=SIZE)
    error = np.abs(found("both", pixels, **both) - (small + large) / 2)
    assert error.max() < 0.02 * np.abs(small - large).max()


REFUSED = [
    {"scales": (32, 64), "pooling": "none"},
    {"scales": (64, 96)},
    {"scales": (50,)},
    {"scales": (32, 32)},
    {"preprocess": {"noise": "magic"}},
    {"preprocess": {"colours": "grey_world"}},
]


@pytest.mark.parametrize("settings", REFUSED)
def test_what_makes_no_sense_is_refused(settings):
    with pytest.raises(ValidationError):
        Backbone.model_validate({"network": "vgg16", "image_size": SIZE, "pooling": "average", **settings})


def test_a_letterbox_keeps_proportions_from_training_to_the_served_file(tmp_path):
    """A wide picture keeps its shape in features; the exported file says so, and drift reads its pictures alike."""
    from PIL import Image

    from monitoring.collect import Source, measure_all
    from plumbline.imaging.reading import iter_rgb
    from plumbline.imaging.settings import DataParams
    from plumbline.models.extraction import describe_backbone

    wide = np.zeros((50, 200, 3), np.uint8)
    wide[:, 75:125] = 255
    (tmp_path / "data" / "a").mkdir(parents=True)
    for suffix in ("png", "jpg"):
        Image.fromarray(wide.repeat(4, 0).repeat(4, 1)).save(tmp_path / "data" / "a" / f"one.{suffix}", quality=95)
    data = DataParams.model_validate({"root": tmp_path / "data"})
    entry = Backbone(network="pixels", image_size=SIZE, preprocess=Preprocess(fit="letterbox"))
    assert describe_backbone("mine", entry, resolve_entry("mine", entry)).fit == "letterbox"
    paths = ["a/one.jpg", "a/one.png"]
    for one in iter_rgb(data, paths, (SIZE, SIZE), fit="letterbox"):
        assert (one[:24] == 127).all()
        assert (one[40:] == 127).all()
        bright = one[32, :, 0] > 127
        assert abs(bright.sum() - (one[24:40, 32, 0] > 127).sum()) <= 1, "a square stays a square"
    source = Source(str(tmp_path / "data"))
    drift = measure_all(source, source.list(), SIZE, data, 8, "letterbox")
    seen = {one.row["path"]: one.rgb for one in drift}
    for path, theirs in zip(paths, iter_rgb(data, paths, (SIZE, SIZE), fit="letterbox"), strict=True):
        np.testing.assert_array_equal(seen[path], theirs)
    network = build_network(Candidate(architecture="simple_cnn", backbone="mine"), (SIZE, SIZE, 3), 2)
    for fit in ("letterbox", "stretch"):
        export_onnx(with_embedding(network), tmp_path / "model.onnx", fit)
        assert OnnxModel(tmp_path / "model.onnx").fit == fit
