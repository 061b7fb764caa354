"""Small or easy pictures first: the lesson is what it says, and the network learns."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from plumbline.common.errors import UserError
from plumbline.models.backbones import Backbone, resolve_entry
from plumbline.models.candidates import Candidate
from plumbline.models.curriculum import confidence, easiest, shrunk
from plumbline.models.extraction import featurize
from plumbline.models.features import open_features
from plumbline.models.training import TrainingSet, train

SIZE = 32
SETTINGS = {"architecture": "compact_cnn", "backbone": "pixels", "width": 0.25, "batch_size": 8, "epochs": 12}
COUNT = 80


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Stripes or none; in every fifth picture the stripes are faint: (splits, features, which are faint)."""
    random = np.random.default_rng(0)
    pixels = random.uniform(60, 100, (COUNT, SIZE, SIZE, 3))
    faint = np.arange(COUNT) // 2 % 5 == 4
    for number in range(1, COUNT, 2):
        pixels[number, np.arange(SIZE) % 16 < 8] += 10 if faint[number] else 90
    places = ("train", "train", "train", "validation", "test")
    rows = [(f"{n}", f"id{n}", "ab"[n % 2], f"g{n // 4}", places[n // 4 % 5]) for n in range(COUNT)]
    splits = pd.DataFrame(rows, columns=["path", "id", "label", "group", "split"])
    entry = Backbone(network="pixels", image_size=SIZE, views=1)
    out = tmp_path_factory.mktemp("features") / "pixels"

    def pictures(paths, ids, size):
        return (pixels[int(path)].astype(np.uint8) for path in paths)

    featurize(splits, pictures, "pixels", entry, resolve_entry("pixels", entry), out)
    return splits, open_features(out), faint


def test_small_pictures_are_the_mean_of_four_places(data):
    whole = TrainingSet.of(data[0], data[1])
    small = shrunk(whole)
    assert small.features.values.shape == (COUNT, 2, SIZE // 2, SIZE // 2, 3)
    expected = np.asarray(whole.features.values[7, 1], float).reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(small.features.values[small.rows[7], 1], np.rint(expected))


def test_the_faint_ones_are_left_for_later(data):
    splits, features, faint = data
    whole = TrainingSet.of(splits, features)
    train_rows = np.flatnonzero(whole.inside("train"))
    sure = confidence(whole, train_rows, 0)
    striped = train_rows % 2 == 1
    assert sure[striped & faint[train_rows]].mean() < sure[striped & ~faint[train_rows]].mean() - 0.1
    easy = easiest(whole, 0)
    kept, later = (easy.splits["split"] == side for side in ("train", "later"))
    assert kept.sum() == later.sum() == len(train_rows) / 2
    assert set(easy.splits["label"][kept]) == {"a", "b"}
    assert not (faint & kept & (np.arange(COUNT) % 2 == 1)).any()
    pd.testing.assert_series_equal(easy.splits["split"][~(kept | later)], splits["split"][~(kept | later)])


@pytest.mark.slow
@pytest.mark.parametrize("curriculum", ["sizes", "confidence"])
def test_a_network_learns_in_order_and_repeats(data, curriculum):
    splits, features, faint = data
    candidate = Candidate(**SETTINGS, curriculum=curriculum, early_stopping_patience=12, augmented=True)
    one, same = (train("one", candidate, splits, features, seed=3) for _ in range(2))
    test = (splits["split"] == "test").to_numpy() & ~faint
    assert ((one.predictions["p_b"] > 0.5) == (splits["label"] == "b"))[test].mean() > 0.9
    assert list(one.history["epoch"]) == list(range(1, len(one.history) + 1))
    assert len(one.history) == 12
    np.testing.assert_array_equal(one.predictions["p_b"], same.predictions["p_b"])


@pytest.mark.slow
def test_what_can_not_be_ordered_is_one_sentence(data):
    splits, features, _ = data
    dense = Candidate(architecture="simple_cnn", backbone="pixels", epochs=2, curriculum="sizes")
    with pytest.raises(UserError, match="curriculum: sizes needs an architecture whose weights are the same"):
        train("one", dense, splits, features, seed=0)
    few = splits.assign(group=np.where(splits["label"] == "a", "one", splits["group"]))
    easy = Candidate(**SETTINGS, curriculum="confidence")
    with pytest.raises(UserError, match="curriculum: confidence needs 5 groups"):
        train("one", easy, few, features, seed=0)
    with pytest.raises(ValidationError, match="'curriculum' and 'start' are for architectures that read pixels"):
        Candidate(architecture="transfer", backbone="mobilenet", head={}, curriculum="sizes")
