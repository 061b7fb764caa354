"""A start without labels: what it learns from, that it tells pictures apart, and that few labels then do."""

import hashlib
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from plumbline.common.errors import UserError
from plumbline.imaging.settings import DataParams
from plumbline.models.backbones import Backbone, resolve_entry
from plumbline.models.candidates import Candidate, Start, build_network
from plumbline.models.extraction import featurize
from plumbline.models.features import open_features
from plumbline.models.simsiam import away, fit_pairs, unlabelled, varied
from plumbline.models.training import TrainingSet, train

SIZE, COUNT = 32, 80
SETTINGS = {"architecture": "compact_cnn", "backbone": "pixels", "width": 0.25, "batch_size": 16, "epochs": 6}


def picture(number):
    """Stripes along or across, of any colour and place."""
    random = np.random.default_rng(number)
    lit = (np.arange(SIZE) + random.integers(8)) % 8 < 4
    pixels = np.broadcast_to(random.uniform(0, 120, 3), (SIZE, SIZE, 3)).copy()
    pixels[lit] += random.uniform(60, 135, 3)
    pixels = pixels if number % 2 else pixels.transpose(1, 0, 2)
    return (pixels + random.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    places = ("train", "train", "train", "validation", "test")
    rows = [(f"{n}", f"id{n}", "ab"[n % 2], f"g{n // 2}", places[n // 2 % 5]) for n in range(COUNT)]
    splits = pd.DataFrame(rows, columns=["path", "id", "label", "group", "split"])
    entry = Backbone(network="pixels", image_size=SIZE)
    out = tmp_path_factory.mktemp("features") / "pixels"
    weights = resolve_entry("pixels", entry)
    featurize(splits, lambda paths, ids, size: (picture(int(path)) for path in paths), "pixels", entry, weights, out)
    return splits, open_features(out)


def test_views_vary_by_their_number_alone():
    images = tf.constant(np.stack([picture(n) for n in range(4)]).astype(np.float32))
    number = tf.constant([7, 3])
    one, same, other, later = (
        varied(images, n, side).numpy() for n, side in ((number, 0), (number, 0), (number, 1), (number + 1, 0))
    )
    np.testing.assert_array_equal(one, same)
    for different in (other, later):
        assert np.abs(one - different).mean() > 5
    assert one.shape == images.shape
    assert one.min() >= 0
    assert one.max() <= 255


def test_the_loss_is_the_negative_cosine_and_does_not_move_the_target():
    p, z = (np.random.default_rng(n).normal(size=(5, 4)).astype(np.float32) for n in (0, 1))
    expected = -(p * z).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(z, axis=1)
    given = tf.constant(z)
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = away(tf.constant(p), given)
    assert float(loss) == pytest.approx(expected.mean(), abs=1e-6)
    assert tape.gradient(loss, given) is None


def separation(network, pixels):
    """How well the direction of a picture's nearest other tells its kind, without any label having been used."""
    trunk = keras.Model(network.inputs[0], network.layers[-1].input)
    seen = np.asarray(trunk(pixels.astype(np.float32), training=False), np.float64)
    seen = seen - seen.mean(axis=0)
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    likeness = seen @ seen.T - 2 * np.eye(len(seen))
    return (likeness.argmax(axis=1) % 2 == np.arange(len(seen)) % 2).mean()


@pytest.mark.slow
def test_it_learns_what_makes_pictures_alike_without_labels():
    pixels = np.stack([picture(n) for n in range(COUNT)])
    start = Start(epochs=12)
    found = {}
    for name in ("before", "after", "again"):
        keras.utils.set_random_seed(0)
        network = build_network(Candidate(**SETTINGS), (SIZE, SIZE, 3), 2)
        spread = fit_pairs(network, pixels, Candidate(**SETTINGS, start=start), seed=1)[1] if name != "before" else None
        found[name] = separation(network, pixels), spread, network.get_weights()[0]
    assert found["after"][0] > 0.9
    assert found["after"][0] >= found["before"][0]
    assert found["after"][1] > 0.3, "not collapsed"
    np.testing.assert_array_equal(found["after"][2], found["again"][2])


@pytest.mark.slow
def test_training_starts_there_and_says_what_it_learnt_from(data, tmp_path, monkeypatch):
    splits, features = data
    for number in range(200, 206):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "params.yaml").write_text("data: {}")
    monkeypatch.chdir(tmp_path)
    candidate = Candidate(**SETTINGS, start=Start(epochs=2, unlabelled=str(tmp_path)), labels=0.25)
    result = train("one", candidate, splits, features, seed=0)
    start = result.model.start
    assert (start.known, start.unlabelled, start.unreadable) == ((splits["split"] != "test").sum(), 6, 1)
    assert (
        start.sha256
        == hashlib.sha256(
            "".join(hashlib.sha256((tmp_path / f"{n}.png").read_bytes()).hexdigest() for n in range(200, 206)).encode()
        ).hexdigest()
    )
    pd.testing.assert_series_equal(result.predictions["split"], splits["split"])


def test_pictures_that_are_known_teach_nothing_twice(data, tmp_path):
    Image.fromarray(picture(1)).save(tmp_path / "one.png")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "copy.png").write_bytes((tmp_path / "one.png").read_bytes())
    image_id = hashlib.sha256((tmp_path / "one.png").read_bytes()).hexdigest()
    backbone = data[1].backbone
    for name in ("@eaDir/one.png/SYNOPHOTO_THUMB_M.png", "__MACOSX/._one.png", "site/.thumbnails/two.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(picture(2)).save(tmp_path / name)
    assert len(unlabelled(DataParams(), str(tmp_path), backbone, set())[0]) == 1, "what systems leave is no picture"
    assert len(unlabelled(DataParams(), str(tmp_path), backbone, {image_id})[0]) == 0
    with pytest.raises(UserError, match=r"names .*nowhere, which is no folder"):
        unlabelled(DataParams(), str(Path("nowhere")), backbone, set())


def test_unlabelled_pictures_keep_to_the_limits_of_data_and_litter_is_none(data, tmp_path):
    for name in ("one.png", ".two.png", "@eaDir/three.png", "$RECYCLE.BIN/four.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(len(name))).save(tmp_path / name)
    backbone, folder = data[1].backbone, str(tmp_path)
    found = {
        limit: [len(part[0]), part[1]]
        for limit, part in {
            "none": unlabelled(DataParams(), folder, backbone, set()),
            "bytes": unlabelled(DataParams(max_bytes=10), folder, backbone, set()),
            "pixels": unlabelled(DataParams(max_pixels=10), folder, backbone, set()),
        }.items()
    }
    assert found == {"none": [1, 0], "bytes": [0, 1], "pixels": [0, 1]}


def test_a_share_of_the_labels_is_part_of_a_larger_one(data):
    whole = TrainingSet.of(*data)
    before = whole.inside("train")
    kept = {share: whole.with_labels(share, 3).inside("train") for share in (0.1, 0.25, 0.5, 1.0)}
    assert [round(rows.sum() / before.sum(), 2) for rows in kept.values()] == [0.08, 0.25, 0.5, 1.0]
    for small, large in ((0.1, 0.25), (0.25, 0.5), (0.5, 1.0)):
        assert (kept[large] | ~kept[small]).all()
    assert set(data[0]["label"][kept[0.1]]) == {"a", "b"}
