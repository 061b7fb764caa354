"""Triplets are mined as they are defined; the embedding learns, answers by the nearest prototype, and exports."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from pydantic import ValidationError
from recorded import backbone_json

from plumbline.common.errors import UserError
from plumbline.models.candidates import Candidate, Triplet
from plumbline.models.export import check_export, export_onnx, with_embedding
from plumbline.models.features import Features
from plumbline.models.records import BackboneRecord
from plumbline.models.training import train
from plumbline.models.triplets import embed, nearest, output_weights, prototypes, squared_distances, triplet_loss

WIDE = 12


def units(count, seed=0):
    values = np.random.default_rng(seed).normal(size=(count, 5))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def slow_loss(labels, values, margin, mining):
    """The definition, triplet by triplet."""
    d = ((values[:, None] - values[None]) ** 2).sum(axis=2)
    found = []
    for a in range(len(labels)):
        positives = [p for p in range(len(labels)) if p != a and labels[p] == labels[a]]
        negatives = [n for n in range(len(labels)) if labels[n] != labels[a]]
        if not positives or not negatives:
            continue
        if mining == "hard":
            found.append(max(max(d[a, p] for p in positives) - min(d[a, n] for n in negatives) + margin, 0))
            continue
        for p in positives:
            farther = [d[a, n] for n in negatives if d[a, n] > d[a, p]]
            negative = min(farther) if farther else max(d[a, n] for n in negatives)
            found.append(max(d[a, p] - negative + margin, 0))
    return np.mean(found) if found else 0.0


@pytest.mark.parametrize("mining", ["hard", "semi_hard"])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2, 2, 0], [0, 0, 0, 0, 0, 0, 0, 1], [0] * 8])
def test_the_loss_is_that_of_the_triplets_by_definition(mining, labels):
    values = units(8)
    ours = float(triplet_loss(tf.constant(labels), tf.constant(values), 0.3, mining))
    assert ours == pytest.approx(slow_loss(labels, values.astype(np.float64), 0.3, mining), abs=1e-5)
    np.testing.assert_allclose(
        squared_distances(tf.constant(values)), ((values[:, None] - values) ** 2).sum(2), atol=1e-5
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_the_last_layer_answers_with_the_nearest_prototype(classes):
    values, truth = units(60).astype(np.float64), np.eye(classes, dtype=bool)[np.arange(60) % classes]
    centres = prototypes(values, truth)
    np.testing.assert_allclose(centres[1], values[truth[:, 1]].mean(axis=0))
    kernel, bias = output_weights(centres, 3.0, 1 if classes == 2 else classes)
    score = values @ kernel + bias
    said = (score[:, 0] > 0).astype(int) if classes == 2 else score.argmax(axis=1)
    np.testing.assert_array_equal(said, nearest(values, centres))


def drawn(classes, count, seed=0):
    """Features in which one direction of many tells the classes apart; pictures in groups of two."""
    random = np.random.default_rng(seed)
    label = np.arange(count) % classes
    values = random.normal(size=(count, 1, WIDE)).astype(np.float32)
    values[:, 0, 0] = 0.15 * values[:, 0, 0] + label
    places = ("train", "train", "train", "validation", "test")
    names = [f"{n}" for n in range(count)]
    groups = np.arange(count) // (2 * classes)
    splits = pd.DataFrame({"path": names, "id": names, "label": [f"c{k}" for k in label], "group": groups.astype(str)})
    splits["split"] = [places[n % 5] for n in groups]
    backbone = BackboneRecord(**backbone_json(network="mobilenet", shape=[WIDE], freeze="head"))
    return splits, Features(values, splits[["path", "id"]], backbone, None)


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "mining"), [(2, "semi_hard"), (3, "hard")])
def test_an_embedding_learns_and_exports(classes, mining, tmp_path):
    splits, features = drawn(classes, 300)
    candidate = Candidate(
        architecture="triplet",
        backbone="mobilenet",
        triplet=Triplet(units=8, mining=mining, margin=0.5),
        epochs=30,
        batch_size=64,
        learning_rate=0.02,
        early_stopping_patience=30,
    )
    result = train("one", candidate, splits, features, seed=0)
    test = (splits["split"] == "test").to_numpy()
    p = result.predictions[[f"p_c{k}" for k in range(classes)]].to_numpy()
    assert (p.argmax(axis=1) == np.arange(300) % classes)[test].mean() > 0.85
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    embedded = embed(result.network, features.values, np.arange(300))
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)
    truth = np.eye(classes, dtype=bool)[np.arange(300) % classes]
    train_rows = (splits["split"] == "train").to_numpy()
    centres = prototypes(embedded[train_rows], truth[train_rows])
    np.testing.assert_array_equal(nearest(embedded, centres), p.argmax(axis=1))
    again = train("one", candidate, splits, features, seed=0)
    np.testing.assert_array_equal(again.predictions["p_c1"], result.predictions["p_c1"])
    # as it is exported: on pixels, behind something that makes features of them
    pixels = keras.Input((4, 4, 3), name="pixels")
    seen = keras.layers.Dense(WIDE)(keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pixels)))
    model = with_embedding(keras.Model(pixels, result.network(seen)))
    export_onnx(model, tmp_path / "model.onnx")
    pictures = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3))
    assert check_export(model, tmp_path / "model.onnx", pictures, 1e-4) <= 1e-4


@pytest.mark.slow
def test_a_new_class_needs_five_pictures():
    """Prototypes of an embedding trained on three classes: a fourth is told from five of its pictures."""
    splits, features = drawn(3, 300)
    candidate = Candidate(
        architecture="triplet", backbone="m", epochs=12, batch_size=64, learning_rate=0.02, triplet=Triplet(margin=0.5)
    )
    network = train("one", candidate, splits, features, seed=0).network
    known = embed(network, features.values, np.arange(300))
    fresh = np.random.default_rng(5).normal(size=(60, 1, WIDE)).astype(np.float32)
    fresh[:, 0, 0] = 0.15 * fresh[:, 0, 0] - 1.5
    new = embed(network, fresh, np.arange(60))
    truth = np.eye(3, dtype=bool)[np.arange(300) % 3]
    centres = np.vstack([prototypes(known, truth), new[:5].mean(axis=0)])
    assert (nearest(new[5:], centres) == 3).mean() > 0.7
    assert (nearest(known, centres) == np.arange(300) % 3).mean() > 0.8


def test_what_can_not_learn_from_triplets_is_one_sentence():
    with pytest.raises(ValidationError, match="'triplet' is for architecture 'triplet'"):
        Candidate(architecture="simple_cnn", backbone="pixels", triplet={"units": 3})
    splits, features = drawn(2, 40)
    candidate = Candidate(architecture="triplet", backbone="m", epochs=1)
    with pytest.raises(UserError, match="need one label a picture"):
        train("one", candidate, splits.assign(label=splits["label"] + ";x"), features, seed=0)
