"""The layer table agrees with figures worked out by hand; Grad-CAM looks where the answer is."""

import math

import keras
import numpy as np
import pytest

from plumbline.models.anatomy import WHOLE, attention, layer_table
from plumbline.models.candidates import Candidate, build_network


def table_of(model):
    return {row.name: row for row in layer_table(model)}


def test_the_course_notes_first_layer():
    """6 filters of 5x5x3 on 32x32x3: 456 parameters, 28x28x6 = 4,704 values, each seeing 5x5 pixels."""
    network = build_network(Candidate(architecture="lenet5", backbone="pixels"), (32, 32, 3), 10)
    rows = [row for row in layer_table(network) if row.kind == "Conv2D"]
    assert (rows[0].parameters, rows[0].shape, rows[0].activation) == (456, (28, 28, 6), 4_704)
    # pool: 5 + (2 - 1) * 1 = 6, jump 2; second convolution: 6 + (5 - 1) * 2 = 14
    assert [row.receptive_field for row in rows] == [5, 14]
    assert sum(row.parameters for row in layer_table(network)) == network.count_params()


@pytest.mark.parametrize(("layers", "size"), [(1, 3), (3, 3), (4, 5)])
def test_stride_one_follows_the_course_notes_formula(layers, size):
    """1 + L (f - 1)."""
    network = keras.Sequential([keras.Input((32, 32, 3)), *[keras.layers.Conv2D(2, size) for _ in range(layers)]])
    assert layer_table(network)[-1].receptive_field == 1 + layers * (size - 1)


def test_receptive_field_is_what_the_output_really_depends_on():
    """Strides, dilation, pooling and a way past: counted by disturbing one pixel at a time."""
    inputs = keras.Input((41, 41, 1))
    x = keras.layers.Conv2D(1, 3, strides=2)(inputs)
    y = keras.layers.Conv2D(1, 3, dilation_rate=2, padding="same")(x)
    x = keras.layers.Add()([x, y])
    x = keras.layers.AveragePooling2D(2)(x)
    model = keras.Model(inputs, keras.layers.Conv2D(1, 3)(x))
    for weight in model.weights:
        weight.assign(np.full(weight.shape, float(len(weight.shape) == 4)))  # kernels 1, biases 0
    stated = layer_table(model)[-1].receptive_field
    pictures = np.eye(41, dtype=np.float32)[:, :, None, None] * np.ones((1, 1, 41, 1), dtype=np.float32)
    middle = np.asarray(model(pictures))
    middle = middle[:, middle.shape[1] // 2, middle.shape[2] // 2, 0]
    touched = np.flatnonzero(middle)
    assert stated == touched[-1] - touched[0] + 1


def test_models_inside_models_are_opened():
    inner = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(4, 3, name="inner")])
    outer = keras.Sequential([keras.Input((10, 10, 3)), keras.layers.Conv2D(4, 3, name="outer"), inner])
    rows = table_of(outer)
    assert rows["outer"].receptive_field == 3
    assert rows["inner"].receptive_field == 5
    assert rows["inner"].shape == (6, 6, 4)


def test_behind_an_average_over_all_places_everything_is_seen():
    network = build_network(Candidate(architecture="se_resnet", backbone="pixels"), (32, 32, 3), 2)
    rows = layer_table(network)
    assert rows[-1].receptive_field == WHOLE
    assert math.isinf(rows[-1].receptive_field)
    assert sum(row.parameters for row in rows) == network.count_params()


@pytest.mark.parametrize("classes", [1, 3])
def test_grad_cam_looks_where_the_answer_is(classes):
    """A network that answers by the brightness of bright places must look at the one bright place."""
    inputs = keras.Input((16, 16, 3))
    maps = keras.layers.Conv2D(1, 3, padding="same", activation="relu", name="maps")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    activation = "sigmoid" if classes == 1 else "softmax"
    model = keras.Model(inputs, keras.layers.Dense(classes, activation=activation, name="out")(pooled))
    model.get_layer("maps").set_weights([np.full((3, 3, 3, 1), 0.1), np.zeros(1)])
    kernel = np.zeros((1, classes))
    kernel[0, -1] = 1
    model.get_layer("out").set_weights([kernel, np.zeros(classes)])
    pixels = np.zeros((2, 16, 16, 3), dtype=np.float32)
    pixels[0, 2:4, 10:12] = 1
    pixels[1, 11:13, 3:5] = 1
    heat = attention(model, pixels, np.array([max(classes, 2) - 1] * 2))
    assert heat.shape == (2, 16, 16)
    assert heat.max() == pytest.approx(1)
    for number, (row, column) in enumerate([(2.5, 10.5), (11.5, 3.5)]):
        place = np.argwhere(heat[number] > 0.9).mean(axis=0)
        np.testing.assert_allclose(place, [row, column], atol=1)
    assert heat[0, 11:, :6].max() == 0
    assert attention(model, pixels, np.array([0, 0])).max() == 0, "nothing there speaks for the other class"


def test_grad_cam_says_where_there_is_nothing_to_look_into():
    """Maps that shrink to one place inside a frozen backbone; the scaled pixels before it are nobody's maps."""
    inner = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 4)], name="backbone")
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(inner(keras.layers.Rescaling(1 / 255)(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
    assert attention(model, np.zeros((1, 4, 4, 3), np.float32), np.array([1])) is None


def test_grad_cam_on_features_is_that_on_the_whole_network():
    """Where the features are the last maps, the head alone tells the same."""
    lower = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, activation="relu")], name="lower")
    head = keras.Sequential([keras.Input((14, 14, 4)), keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")])
    inputs = keras.Input((16, 16, 3))
    pixels = np.random.default_rng(0).random((3, 16, 16, 3)).astype(np.float32)
    told = np.array([1, 0, 1])
    whole = attention(keras.Model(inputs, head(lower(inputs))), pixels, told)
    on_features = attention(head, np.asarray(lower(pixels)), told, inputs_are_maps=True)
    np.testing.assert_allclose(on_features, whole, atol=1e-5)
