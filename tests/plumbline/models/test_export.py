"""ONNX export: the same probabilities as Keras, both classes named, an embedding beside them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from plumbline.common.errors import UserError
from plumbline.models.candidates import Candidate, build_network
from plumbline.models.combination import combine, write_head
from plumbline.models.export import (
    EMBEDDING,
    INPUT,
    PROBABILITIES,
    OnnxModel,
    check_export,
    export_onnx,
    with_embedding,
)
from plumbline.tasks.one_label import ONE_LABEL

SIZE = 32


def pixels(count=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def from_pixels(classes=2):
    return build_network(Candidate(architecture="simple_cnn", backbone="pixels"), (SIZE, SIZE, 3), classes)


def on_backbone(pooling):
    """A network as plumbline.models.assemble puts it together: frozen backbone, perhaps pooled, and a head."""
    import keras

    picture = keras.Input((SIZE, SIZE, 3), name="pixels")
    maps = keras.layers.Conv2D(6, 3, strides=4, activation="relu", name="backbone")(picture / 255.0)
    if pooling:
        maps = keras.layers.GlobalAveragePooling2D()(maps)
    candidate = Candidate.model_validate({"architecture": "transfer", "backbone": "m", "head": {"hidden": [4]}})
    head = build_network(candidate, tuple(maps.shape[1:]), 2)
    return keras.Model(picture, head(maps), name="candidate")


def averaged_maps(model, batch):
    import keras

    maps = keras.Model(model.inputs[0], model.get_layer("backbone").output)
    return np.asarray(maps(batch)).mean(axis=(1, 2))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = from_pixels()
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    whole = with_embedding(model)
    export_onnx(whole, path)
    return model, whole, path


def test_onnx_gives_what_keras_gives(exported):
    model, whole, path = exported
    probabilities, _ = OnnxModel(path)(pixels())
    expected = ONE_LABEL.probabilities(model(pixels().astype(np.float32), training=False))
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert check_export(whole, path, pixels(), 1e-4) < 1e-4


def test_scores_come_in_the_order_of_the_pictures_whatever_the_batch(exported):
    _, _, path = exported
    probabilities, embeddings = OnnxModel(path).score(iter(pixels(7)), batch_size=3)
    one_by_one = np.concatenate([OnnxModel(path)(picture[None])[0] for picture in pixels(7)])
    assert probabilities.shape == (7, 2)
    assert embeddings.shape == (7, 128)
    np.testing.assert_allclose(probabilities, one_by_one, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)


def test_inputs_and_outputs_have_names_and_a_free_batch_size(exported):
    _, _, path = exported
    graph = onnx.load(path).graph
    assert [axis.name for axis in graph.input] == [INPUT]
    assert {axis.name for axis in graph.output} == {PROBABILITIES, EMBEDDING}
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert OnnxModel(path).image_size == SIZE


def test_three_classes_keep_their_softmax(tmp_path):
    model = from_pixels(classes=3)
    whole = with_embedding(model)
    export_onnx(whole, tmp_path / "model.onnx")
    probabilities, _ = OnnxModel(tmp_path / "model.onnx")(pixels())
    np.testing.assert_allclose(probabilities, model(pixels().astype(np.float32), training=False), atol=1e-5)


@pytest.mark.parametrize("pooling", [True, False])
def test_embedding_of_a_backbone_is_its_maps_averaged(pooling):
    model = on_backbone(pooling)
    batch = pixels().astype(np.float32)
    found = with_embedding(model)(batch, training=False)[EMBEDDING]
    np.testing.assert_allclose(found, averaged_maps(model, batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["soft_vote", "stacking"])
def test_an_ensemble_keeps_its_output_and_its_members_embeddings_side_by_side(tmp_path, kind):
    members = [on_backbone(True), on_backbone(False)]
    batch = pixels().astype(np.float32)
    expected = np.hstack([averaged_maps(member, batch) for member in members])
    write_head(tmp_path / "head.weights.h5", np.array([[0.7], [0.4]]), np.array([0.1]))
    model = combine(members, kind, tmp_path / "head.weights.h5", ONE_LABEL)
    whole = with_embedding(model)
    export_onnx(whole, tmp_path / "model.onnx")
    probabilities, embeddings = OnnxModel(tmp_path / "model.onnx")(pixels())
    np.testing.assert_allclose(probabilities, ONE_LABEL.probabilities(model(batch, training=False)), atol=1e-5)
    np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-5)
    convolutions = [node for node in onnx.load(tmp_path / "model.onnx").graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2, "a member is computed twice"


def test_an_export_that_differs_is_refused(exported, tmp_path):
    _, _, path = exported
    other = with_embedding(from_pixels())
    with pytest.raises(UserError, match=r"differs from the Keras model by .* promote\.onnx_tolerance"):
        check_export(other, path, pixels(), 1e-6)


def test_a_model_of_nan_is_no_match(exported):
    _, _, path = exported
    broken = from_pixels()
    broken.layers[-1].bias.assign([np.nan])
    with pytest.raises(UserError, match="differs from the Keras model by nan"):
        check_export(with_embedding(broken), path, pixels(), 1e-4)


def test_a_file_that_is_no_onnx_is_named(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not onnx")
    with pytest.raises(UserError, match=r"model\.onnx can't be loaded as ONNX"):
        OnnxModel(tmp_path / "model.onnx")
