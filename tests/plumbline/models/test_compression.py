"""A smaller copy of a network gives nearly its answers, from the file that would be served."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pandas as pd
import pytest
from recorded import backbone_json

from plumbline.common.errors import UserError
from plumbline.models.candidates import Candidate, build_network
from plumbline.models.compressed import AT_ONCE, Compressed
from plumbline.models.compression import (
    HALF,
    AfterTraining,
    Original,
    Source,
    answers,
    calibration_paths,
    compress,
    cost_record,
    model_record,
)
from plumbline.models.export import OnnxModel
from plumbline.models.quantisation import RECIPES, inner_nodes
from plumbline.models.records import ModelRecord

pytestmark = pytest.mark.slow

SIZE = 32
CLASSES = ["bare", "helmet"]
INT8 = Compressed(of="one", backbone="pixels", calibration=16)
FLOAT16 = Compressed(of="one", backbone="pixels", how="float16")


def table_of(groups=40, of_each=2):
    """Pictures in groups of two, half of the groups for training."""
    number = np.arange(groups * of_each)
    group = number // of_each
    return pd.DataFrame(
        {
            "path": [f"{n:03d}.png" for n in number],
            "id": [f"{n:03d}" for n in number],
            "label": np.asarray(CLASSES)[group // 4 % 2],
            "split": np.array(["train", "train", "validation", "test"])[group % 4],
            "group": [f"g{g}" for g in group],
        }
    )


def pictures(paths):
    """Bright above for one class, below for the other, before noise."""
    table = table_of().set_index("path")
    for path in paths:
        noise = np.random.default_rng(int(path[:3])).integers(0, 90, (SIZE, SIZE, 3))
        half = slice(0, SIZE // 2) if table.at[path, "label"] == "bare" else slice(SIZE // 2, SIZE)
        noise[half] += 120
        yield noise.astype(np.uint8)


def trained(network):
    """The network after some steps on the training pictures."""
    import keras

    train = table_of().query("split == 'train'")
    pixels = np.stack(list(pictures(train["path"]))).astype(np.float32)
    network.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy")
    network.fit(pixels, (train["label"] == "helmet").to_numpy(np.float32), epochs=6, batch_size=8, verbose=0)
    return network


def on_frozen_maps():
    """A network as plumbline.models.assemble puts it together: residual, with batch normalisation, and a head."""
    import keras

    keras.utils.set_random_seed(1)
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    x = keras.layers.ReLU(max_value=6)(keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3, strides=2)(x)))
    y = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    maps = keras.layers.Add()([x, keras.layers.BatchNormalization()(y)])
    seen = keras.layers.GlobalAveragePooling2D()(maps)
    settings = {"architecture": "transfer", "backbone": "m", "head": {"hidden": [4]}}
    head = build_network(Candidate.model_validate(settings), tuple(seen.shape[1:]), 2)
    return keras.Model(pixels, head(seen), name="candidate")


def from_pixels():
    import keras

    keras.utils.set_random_seed(0)
    return build_network(Candidate(architecture="lenet5", backbone="pixels"), (SIZE, SIZE, 3), 2)


@pytest.fixture(scope="module", params=[from_pixels, on_frozen_maps], ids=["from pixels", "on frozen maps"])
def source(request):
    return Source(trained(request.param()), "letterbox", pictures)


@pytest.fixture(scope="module")
def float32(source):
    table = table_of()
    batch = np.stack(list(pictures(table["path"]))).astype(np.float32)
    return np.asarray(source.network(batch, training=False))[:, 0]


@pytest.fixture(scope="module")
def int8(source, tmp_path_factory):
    return compress("one_int8", INT8, source, table_of(), tmp_path_factory.mktemp("int8"), 0)


def test_every_way_to_int8_is_tried_and_the_best_on_validation_kept(int8):
    assert [one.recipe for one in int8.tried] == [str(recipe) for recipe in RECIPES]
    assert all(one.failed is None for one in int8.tried)
    best = min(int8.tried, key=lambda one: (-one.accuracy, one.log_loss))
    assert (int8.recipe, int8.file.stat().st_size) == (best.recipe, best.bytes)
    assert int8.calibration_pictures == 16


def test_int8_gives_nearly_the_answers_of_float32_with_weights_of_eight_bits(int8, source, float32):
    found = answers(int8.file, source, table_of())
    assert list(found.columns) == ["path", "id", "label", "split", "group", "p_bare", "p_helmet"]
    np.testing.assert_allclose(found[["p_bare", "p_helmet"]].sum(axis=1), 1, atol=1e-5)
    assert np.abs(found["p_helmet"].to_numpy() - float32).max() < 0.15
    graph = onnx.load(str(int8.file)).graph
    kinds = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.INT8}, "every convolution's weights, those of the frozen part too"
    assert OnnxModel(int8.file).fit == "letterbox"


def test_the_layer_that_answers_and_what_makes_the_picture_ready_stay_as_they_are(int8):
    model = onnx.load(str(int8.file.with_name("ready.onnx")))
    inner = inner_nodes(model)
    first = next(place for place, node in enumerate(model.graph.node) if node.op_type == "Conv")
    assert not inner & {node.name for node in model.graph.node[:first]}
    kept = [node.op_type for node in model.graph.node if node.name not in inner]
    assert {"Sigmoid"} <= set(kept)
    assert {"MatMul", "Gemm"} & set(kept)


def test_weights_kept_as_float16_are_half_the_bytes_and_the_same_answers(source, float32, tmp_path):
    made = compress("one_half", FLOAT16, source, table_of(), tmp_path, 0)
    assert (made.recipe, len(made.tried)) == (HALF, 1)
    found = answers(made.file, source, table_of(), "test")
    inside = (table_of()["split"] == "test").to_numpy()
    assert np.abs(found["p_helmet"].to_numpy() - float32[inside]).max() < 5e-3
    sizes = {tensor.data_type for tensor in onnx.load(str(made.file)).graph.initializer if np.prod(tensor.dims) >= 16}
    assert sizes <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}


def test_records_say_what_was_done_and_what_it_costs(int8):
    original = ModelRecord(
        candidate="one",
        architecture="lenet5",
        backbone="pixels",
        image_size=SIZE,
        parameters=100,
        trainable_parameters=100,
        weights="from scratch",
        classes=tuple(CLASSES),
        seed=0,
        epochs_run=6,
    )
    model = model_record("one_int8", INT8, original, int8)
    assert (model.candidate, model.parameters, model.compressed.of) == ("one_int8", 100, "one")
    assert model.compressed.bytes == int8.file.stat().st_size
    assert model.settings == INT8.model_dump(mode="json")
    cost = cost_record(int8, 1.0, 500.0)
    assert cost.latency_ms == cost.speed.one_ms > 0
    assert cost.original_speed.sixteen_ms > cost.original_speed.one_ms
    assert cost.speed.pictures_per_second == pytest.approx(16_000 / cost.speed.sixteen_ms)


def test_calibration_pictures_are_training_pictures_of_different_groups_and_of_all_classes():
    table = table_of()
    paths = calibration_paths(table, 16, 0)
    drawn = table.set_index("path").loc[paths]
    assert len(paths) == 16
    assert set(drawn["split"]) == {"train"}
    assert drawn["group"].is_unique
    assert drawn["label"].value_counts().tolist() == [8, 8]
    assert calibration_paths(table, 16, 1) != paths == calibration_paths(table, 16, 0)
    assert len(calibration_paths(table, 64, 0)) == 20 // AT_ONCE * AT_ONCE


def test_too_few_groups_to_calibrate_with_are_refused(source, tmp_path):
    few = table_of()[lambda table: (table["split"] != "train") | (table["group"].isin(["g0", "g1", "g4"]))]
    with pytest.raises(UserError, match=r"compressed\.one_int8 can't be calibrated: .* makes 3, and 16 are needed"):
        compress("one_int8", INT8, source, few, tmp_path, 0)


def test_what_has_no_weights_to_quantise_is_refused_by_name(tmp_path):
    import keras

    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    maps = keras.layers.AveragePooling2D(8)(pixels / 255.0)
    flat = keras.layers.Dense(1, activation="sigmoid")(keras.layers.GlobalAveragePooling2D()(maps))
    source = Source(keras.Model(pixels, flat), "stretch", pictures)
    with pytest.raises(UserError, match=r"compressed\.one_int8: one can't be made int8: none of its operations"):
        compress("one_int8", INT8, source, table_of(), tmp_path, 0)


def test_in_the_race_the_original_trained_without_a_fold_is_compressed_the_way_that_was_kept(tmp_path):
    (tmp_path / "backbone.json").write_text(json.dumps(backbone_json(image_size=SIZE, shape=[SIZE, SIZE, 3])))
    network, table = trained(from_pixels()), table_of()
    candidate = Candidate(architecture="lenet5", backbone="pixels")
    original = Original(candidate, tmp_path, "stretch", pictures)
    after = AfterTraining("one_int8", INT8, str(RECIPES[1]), original, 0)
    found = after.answers(network, table)
    asked = table[table["split"] == "test"]
    assert found["path"].tolist() == asked["path"].tolist()
    float32 = np.asarray(network(np.stack(list(pictures(asked["path"]))).astype(np.float32), training=False))[:, 0]
    assert 0 < np.abs(found["p_helmet"].to_numpy() - float32).max() < 0.15
    other = AfterTraining("one_int8", INT8, str(RECIPES[0]), original, 0)
    assert other.key != after.key
