"""Batches: the same seed gives the same, from memory and from disk, and each epoch is another."""

import numpy as np
import pytest

from plumbline.models import batches
from plumbline.models.batches import Batches

VALUES = np.random.default_rng(0).integers(0, 256, (12, 3, 4, 4, 3), dtype=np.uint8)
ROWS = np.arange(10) + 1


def made(**changes):
    return Batches(VALUES, ROWS, np.arange(10), **{"batch_size": 4, "seed": 1, **changes})


def epochs(data, count=1, first=0):
    """Each epoch's features and targets, its batches joined."""
    streamed = list(data.dataset(count, first).as_numpy_iterator())
    assert [len(batch[0]) for batch in streamed] == [4, 4, 2] * count
    parts = [streamed[n : n + 3] for n in range(0, len(streamed), 3)]
    return [tuple(np.concatenate(column) for column in zip(*part, strict=True)) for part in parts]


@pytest.fixture(params=["from memory", "from disk"])
def way(request, monkeypatch):
    if request.param == "from disk":
        monkeypatch.setattr(batches, "HELD_BYTES", 0)
    return request.param


def test_without_a_seed_pictures_come_as_they_are_and_in_order(way):
    features, targets = epochs(made(seed=None))[0]
    np.testing.assert_array_equal(features, VALUES[ROWS, 0].astype(np.float32))
    np.testing.assert_array_equal(targets, np.arange(10))


def test_every_picture_comes_once_an_epoch_in_another_order(way):
    (first, one), (_, two) = epochs(made(), 2)
    assert sorted(one) == sorted(two) == list(range(10))
    assert list(one) != list(two)
    np.testing.assert_array_equal(first, VALUES[ROWS[one], 0].astype(np.float32))


def test_an_epoch_is_the_same_whichever_were_drawn_before(way):
    for left, right in zip(epochs(made(), 3)[2], epochs(made(), 1, first=2)[0], strict=True):
        np.testing.assert_array_equal(left, right)


def test_memory_and_disk_give_the_same_batches(monkeypatch):
    weights = np.arange(10, dtype=np.float32)
    settings = {"views": 2, "mirror": True, "brightness": 0.5, "weights": weights}
    held = epochs(made(**settings), 2)
    monkeypatch.setattr(batches, "HELD_BYTES", 0)
    assert not made(**settings).held
    for one, other in zip(held, epochs(made(**settings), 2), strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


def test_views_are_drawn_picture_by_picture(way):
    seen = set()
    for features, targets in epochs(made(views=2), 6):
        for picture, number in zip(features, targets, strict=True):
            (view,) = [v for v in range(3) if np.array_equal(picture, VALUES[ROWS[number], v])]
            seen.add((number, view))
    assert len(seen) > 20


def test_pictures_are_mirrored_or_not_and_brightened_within_bounds(way):
    (plain, order), (mirrored, _) = epochs(made())[0], epochs(made(mirror=True))[0]
    flipped = [np.array_equal(mirrored[n], plain[n, :, ::-1]) for n in range(10)]
    kept = [np.array_equal(mirrored[n], plain[n]) for n in range(10)]
    assert all(f != k for f, k in zip(flipped, kept, strict=True))
    assert any(flipped)
    assert any(kept)
    bright, again = epochs(made(brightness=0.5))[0]
    np.testing.assert_array_equal(again, order)
    assert bright.min() >= 0
    assert bright.max() <= 255
    gains = np.median(bright / np.maximum(plain, 1), axis=(1, 2, 3))
    assert gains.min() < 0.9 < 1.1 < gains.max()


def test_weights_go_with_their_pictures(way):
    _, targets, weights = epochs(made(weights=np.arange(10, dtype=np.float32) * 2))[0]
    np.testing.assert_array_equal(weights, targets * 2)


def test_another_seed_is_another_order(way):
    assert list(epochs(made())[0][1]) != list(epochs(made(seed=2))[0][1])
