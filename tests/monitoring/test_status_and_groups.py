"""Which images of a site are new: neither training data, nor sent before, nor the same picture twice."""

import numpy as np
import pandas as pd
import pytest

from monitoring.copies import groups_of, status_of
from monitoring.site_state import AGAIN, COPY, NEW, REPEAT
from plumbline.common.errors import UserError
from plumbline.leakage.groups import GroupParams

FAR = [0, 2**64 - 1, 0x00FF00FF00FF00FF, 0xF0F0F0F0F0F0F0F0]  # 32 bits or more from each other


def table(*rows):
    """Rows of id and pHash; the pixels are named by the id."""
    ids, hashes = zip(*rows, strict=True)
    return pd.DataFrame(
        {"id": ids, "pixels_sha256": [f"pixels of {name}" for name in ids], "phash": np.array(hashes, np.uint64)}
    )


NOTHING = table(("x", 0)).iloc[:0]


def status(images, training=NOTHING, earlier=NOTHING, delivered=frozenset(), distance=2):
    return status_of(images, training, earlier, set(delivered), distance)


@pytest.mark.slow
def test_strangers_are_new():
    assert status(table(("a", FAR[0]), ("b", FAR[1]))) == [NEW, NEW]


@pytest.mark.parametrize(("bits", "found"), [(0b11, COPY), (0b111, NEW)])
def test_a_training_picture_within_the_distance_is_a_copy(bits, found):
    assert status(table(("a", FAR[0] ^ bits)), training=table(("t", FAR[0]))) == [found]


def test_the_same_pixels_are_a_copy_whatever_the_hash():
    training = table(("t", FAR[1])).assign(pixels_sha256="pixels of a")
    assert status(table(("a", FAR[0])), training=training) == [COPY]
    assert status(table(("a", FAR[0])), training=training.drop(columns=["pixels_sha256", "phash"])) == [NEW]


def test_what_counted_before_is_a_repeat_and_the_same_file_is_delivered_again():
    earlier = table(("e", FAR[0]))
    assert status(table(("a", FAR[0]), ("e", FAR[0])), earlier=earlier, delivered={"e"}) == [REPEAT, AGAIN]


def test_of_a_picture_that_comes_twice_the_first_counts():
    assert status(table(("a", FAR[0]), ("b", FAR[1]), ("c", FAR[0] ^ 1))) == [NEW, NEW, REPEAT]


def test_a_copy_of_training_data_does_not_stand_in_for_a_repeat():
    images = table(("a", FAR[0]), ("b", FAR[0] ^ 1), ("c", FAR[2]))
    assert status(images, training=table(("t", FAR[0])), earlier=table(("e", FAR[2]))) == [COPY, COPY, REPEAT]


def test_images_are_grouped_by_columns_and_by_looks():
    images = table(("a", FAR[0]), ("b", FAR[0] ^ 0b1111), ("c", FAR[1]), ("d", FAR[2]), ("e", FAR[3])).assign(
        path=list("abcde"), photo=["p", None, None, "p", "unknown"]
    )
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (5, 18, 24), dtype=np.uint8)
    small[1] = small[0]
    groups = groups_of(images, small, GroupParams(columns=["photo"]), "")
    assert groups[0] == groups[1], "near hashes and the same small picture"
    assert groups[0] == groups[3], "the same photograph"
    assert len({groups[0], groups[2], groups[4]}) == 3
    assert sorted(set(groups)) == [0, 1, 2]


def test_near_hashes_alone_do_not_tie():
    images = table(("a", FAR[0]), ("b", FAR[0] ^ 0b1111)).assign(path=list("ab"))
    small = np.random.default_rng(0).integers(0, 256, (2, 18, 24), dtype=np.uint8)
    assert len(set(groups_of(images, small, GroupParams(), ""))) == 2


def test_a_camera_that_a_site_does_not_name_is_asked_for_in_the_sites_own_table():
    images = pd.DataFrame({"captured_at": ["2026-05-01T13:45:10"] * 2, "phash": np.array([1, 2], np.uint64)})
    params = GroupParams(captured_within_seconds=5, camera_column="camera")
    with pytest.raises(UserError, match=r"no column 'camera': add it to incoming/GATE/metadata\.csv, or name yours"):
        groups_of(images, np.zeros((2, 18, 24), np.uint8), params, "incoming/GATE/metadata.csv")
