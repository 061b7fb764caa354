"""The search is exact: compared with looking at every pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from plumbline.leakage import hash_search
from plumbline.leakage.hash_search import chunk_budgets, matches_within, pairs_within


@st.composite
def clustered_hashes(draw):
    """A few centres, copies of them a few flips away, and equal ones: neighbours at every distance."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    centres = rng.integers(0, 2**64, draw(st.integers(1, 6)), dtype=np.uint64)
    hashes = rng.choice(centres, draw(st.integers(0, 120)))
    for _ in range(draw(st.integers(0, 24))):
        bit = np.uint64(1) << rng.integers(0, 64, len(hashes), dtype=np.uint64)
        hashes = np.where(rng.random(len(hashes)) < 0.7, hashes ^ bit, hashes)
    return hashes


def brute_force(a, b):
    return np.bitwise_count(a[:, None] ^ b[None, :]).astype(int)


@pytest.fixture(params=["tables", "brute"])
def path(request, monkeypatch):
    """Both ways through the search, whatever the size."""
    monkeypatch.setattr(hash_search, "BRUTE_FORCE_PAIRS", -1 if request.param == "tables" else 10**9)
    monkeypatch.setattr(hash_search, "WIDE", 100)


@pytest.mark.usefixtures("path")
class TestExact:
    @pytest.mark.slow
    @settings(deadline=None, max_examples=60)
    @given(clustered_hashes(), st.integers(0, 24))
    def test_every_pair_within_the_radius_once(self, hashes, radius):
        found = pairs_within(hashes, radius)
        distance = brute_force(hashes, hashes)
        i, j = np.nonzero(np.triu(distance <= radius, 1))
        assert list(zip(found.first, found.second, strict=True)) == list(zip(i, j, strict=True))
        assert found.distance.tolist() == distance[i, j].tolist()
        assert found.total == len(i)

    @settings(deadline=None, max_examples=60)
    @given(clustered_hashes(), clustered_hashes(), st.integers(0, 24))
    def test_every_match_between_two_sets(self, queries, hashes, radius):
        hashes = np.concatenate([hashes, queries[:10] ^ np.uint64(0b1011)])
        found = matches_within(queries, hashes, radius)
        i, j = np.nonzero(brute_force(queries, hashes) <= radius)
        assert list(zip(found.first, found.second, strict=True)) == list(zip(i, j, strict=True))

    @settings(deadline=None, max_examples=40)
    @given(clustered_hashes(), st.integers(0, 16))
    def test_rows_of_one_label_are_never_matched(self, hashes, radius):
        labels = np.arange(len(hashes)) % 3
        found = matches_within(hashes, hashes, radius, (labels, labels))
        i, j = np.nonzero((brute_force(hashes, hashes) <= radius) & (labels[:, None] != labels[None, :]))
        assert list(zip(found.first, found.second, strict=True)) == list(zip(i, j, strict=True))

    @settings(deadline=None, max_examples=40)
    @given(clustered_hashes(), st.integers(0, 12), st.integers(1, 5))
    def test_a_cap_keeps_components_and_says_what_it_left_out(self, hashes, radius, cap):
        whole, capped = pairs_within(hashes, radius), pairs_within(hashes, radius, cap)
        assert capped.total == whole.total == len(whole)
        assert len(capped) <= len(whole)
        assert same_partition(len(hashes), whole, capped)


def same_partition(size, a, b):
    labels = []
    for pairs in (a, b):
        graph = coo_array((np.ones(len(pairs)), (pairs.first, pairs.second)), shape=(size, size))
        labels.append(connected_components(graph, directed=False)[1])
    return len(set(zip(*labels, strict=True))) == len(set(labels[0])) == len(set(labels[1]))


@pytest.mark.parametrize("radius", range(65))
def test_budgets_leave_no_pair_unseen(radius):
    # d differing bits in four chunks, each over its budget, would need sum(t + 1) of them: more than the radius.
    assert sum(t + 1 for t in chunk_budgets(radius)) == radius + 1


def test_a_thousand_equal_hashes_stay_a_short_list():
    hashes = np.concatenate([np.zeros(1000, np.uint64), np.full(1000, 1, np.uint64)])
    found = pairs_within(hashes, 1, cap=4)
    assert found.total == 2000 * 1999 // 2
    assert len(found) < 20_000


def test_agrees_with_brute_force_on_more_hashes_than_buckets_of_one_table():
    rng = np.random.default_rng(5)
    hashes = rng.integers(0, 2**64, 20_000, dtype=np.uint64)
    near = hashes[:300].copy()
    for _ in range(10):
        near ^= np.uint64(1) << rng.integers(0, 64, 300, dtype=np.uint64)
    hashes = np.concatenate([hashes, near])
    found = pairs_within(hashes, 10)
    expected = [
        (i, j) for j in range(20_000, 20_300) for i in np.flatnonzero(np.bitwise_count(hashes[:j] ^ hashes[j]) <= 10)
    ]
    assert set(expected) <= set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert (np.bitwise_count(hashes[found.first] ^ hashes[found.second]) <= 10).all()
    assert len(expected) >= 300


@pytest.mark.parametrize("size", [0, 1])
def test_nothing_to_compare(size):
    assert len(pairs_within(np.zeros(size, np.uint64), 10)) == 0
    assert len(matches_within(np.zeros(0, np.uint64), np.zeros(size, np.uint64), 10)) == 0


def test_a_wrong_type_or_radius_is_refused():
    with pytest.raises(ValueError, match="uint64"):
        pairs_within(np.zeros(3, np.int64), 10)
    with pytest.raises(ValueError, match="0 to 64"):
        pairs_within(np.zeros(3, np.uint64), 65)


@pytest.mark.parametrize("radius", [10, 12, 14])
def test_tables_and_brute_force_agree_on_thousands(radius, monkeypatch):
    rng = np.random.default_rng(radius)
    hashes = rng.integers(0, 2**64, 4_000, dtype=np.uint64) & np.uint64(0x0F0F_FFFF_0FFF_00FF)
    found = []
    for most in (-1, 10**9):
        monkeypatch.setattr(hash_search, "BRUTE_FORCE_PAIRS", most)
        monkeypatch.setattr(hash_search, "WIDE", 100)
        pairs = pairs_within(hashes, radius)
        found.append((pairs.first.tolist(), pairs.second.tolist(), pairs.distance.tolist()))
    assert found[0] == found[1]
    assert len(found[0][0]) > 1_000
