"""All pairs of 64-bit hashes within a Hamming radius: exact, in far less than N * N steps.

Multi-index hashing (Norouzi, Punjani, Fleet 2012, "Fast search in Hamming space with multi-index hashing"): cut each
hash into four chunks of 16 bits and give chunk k a budget of t_k flips with sum(t_k + 1) > radius. Two hashes within
the radius then agree within t_k in some chunk k (else they would differ in sum(t_k + 1) bits), so it is enough to
compare hashes whose buckets in table k are at most t_k flips apart. A pair is reported by the first table that sees it.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

BITS = 64
CHUNKS = 4
CHUNK_BITS = BITS // CHUNKS
BUCKETS = 1 << CHUNK_BITS
BRUTE_FORCE_PAIRS = 4_000_000  # below this, comparing everything is faster than filling the tables
WIDE = 0.05  # where a table would compare this share of all pairs, comparing everything in order is faster
VECTOR = 256  # hashes compared before looking whether there was a hit
SLICES = 64  # pieces of one table handed to the threads

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]
Found = tuple[Indices, Indices, NDArray[np.uint8]]


@dataclass(frozen=True)
class Pairs:
    """Pairs of row numbers and their Hamming distance, sorted by (first, second).

    `total` counts every pair within the radius; it exceeds `len(first)` only where a cap left some out.
    """

    first: Indices
    second: Indices
    distance: NDArray[np.uint8]
    total: int

    def __len__(self) -> int:
        return len(self.first)


def pairs_within(hashes: Hashes, radius: int, cap: int | None = None) -> Pairs:
    """Return every pair i < j with popcount(hashes[i] ^ hashes[j]) <= radius; nothing is missed.

    Args:
        hashes: shape (N,), uint64.
        radius: 0 to 64 bits.
        cap: where more than `cap` rows share one hash, every row of it is paired with the first `cap` of these rows
            only (a thousand black frames make half a million pairs that add nothing). Connected
            components are the same with and without it. None: no cap.
    """
    hashes = _checked(hashes, radius)
    values, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    left, right, distance = _search(values, values, radius, same=True)
    rows = np.argsort(inverse, kind="stable").astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    alone = np.flatnonzero(counts > 1)
    left, right = np.concatenate([left, alone]), np.concatenate([right, alone])
    distance = np.concatenate([distance, np.zeros(len(alone), np.uint8)])
    c = counts.astype(np.int64)
    total = int(np.where(left == right, c[left] * (c[left] - 1) // 2, c[left] * c[right]).sum())
    first, second, distance = _expand(rows, starts, left, right, distance, cap if cap else np.iinfo(np.int64).max)
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((high, low))
    return Pairs(low[order], high[order], distance[order], total)


def matches_within(
    queries: Hashes, hashes: Hashes, radius: int, labels: tuple[Indices, Indices] | None = None
) -> Pairs:
    """Return every (i, j) with popcount(queries[i] ^ hashes[j]) <= radius, as `first` = i and `second` = j.

    Args:
        queries: shape (M,), uint64.
        hashes: shape (N,), uint64.
        radius: 0 to 64 bits.
        labels: shapes (M,) and (N,), one number per row; pairs of rows with one label (joined already) are skipped
            during the search and cost no memory.
    """
    queries, hashes = _checked(queries, radius), _checked(hashes, radius)
    first, second, distance = _search(queries, hashes, radius, same=False, labels=labels)
    order = np.lexsort((second, first))
    return Pairs(first[order], second[order], distance[order], len(first))


def chunk_budgets(radius: int) -> list[int]:
    """Return how many flips each chunk is searched with: sum(t + 1) = radius + 1, spread evenly (10: 2, 2, 2, 1)."""
    share, rest = divmod(radius + 1, CHUNKS)
    return [share - (0 if k < rest else 1) for k in range(CHUNKS)]


def _checked(hashes: Hashes, radius: int) -> Hashes:
    if not 0 <= radius <= BITS:
        raise ValueError(f"radius must be 0 to {BITS} bits, got {radius}")
    if hashes.dtype != np.uint64 or hashes.ndim != 1:
        raise ValueError(f"hashes must be a vector of uint64, got {hashes.dtype} {hashes.shape}")
    return np.ascontiguousarray(hashes)


def _search(a: Hashes, b: Hashes, radius: int, same: bool, labels: tuple[Indices, Indices] | None = None) -> Found:
    """Pairs between two vectors of hashes (or inside one whose hashes are unique: each pair once)."""
    none = np.zeros(0, np.int64)
    label_a, label_b = labels if labels is not None else (none, none)
    probes = [_flips(t) for t in chunk_budgets(radius)]
    if len(a) * len(b) <= BRUTE_FORCE_PAIRS or sum(map(len, probes)) > WIDE * BUCKETS:
        return _over_slices(_compare_all, len(a), (a, b, radius, same, label_a, label_b))
    budgets = np.array(chunk_budgets(radius), np.int64)
    found = []
    for table, masks in enumerate(probes):
        if len(masks):
            left = _bucketed(a, table, label_a)
            right = left if same else _bucketed(b, table, label_b)
            probe = Probe(table, masks, budgets, radius, same)
            found.append(_over_slices(_compare_buckets, BUCKETS, (left, right, probe)))
    return _joined(found)


@functools.cache
def _flips(budget: int) -> NDArray[np.int64]:
    """All 16-bit masks with at most `budget` bits set, fewest first; none for a negative budget."""
    positions = range(CHUNK_BITS)
    sets = (c for k in range(min(budget, CHUNK_BITS) + 1) for c in itertools.combinations(positions, k))
    return np.array([sum(1 << p for p in chosen) for chosen in sets], np.int64)


class Buckets(NamedTuple):
    """Hashes and their row numbers sorted by one chunk, where each of its 65,536 buckets starts, and rows' labels."""

    hashes: Hashes
    rows: NDArray[np.int32]
    starts: Indices
    labels: Indices


class Probe(NamedTuple):
    """Which buckets are compared: those whose chunk `table` differs by one of `masks`; `budgets` are all chunks'."""

    table: int
    masks: Indices
    budgets: Indices
    radius: int
    same: bool


def _bucketed(hashes: Hashes, table: int, labels: Indices) -> Buckets:
    """Sort hashes by chunk `table`."""
    chunk = ((hashes >> np.uint64(table * CHUNK_BITS)) & np.uint64(BUCKETS - 1)).astype(np.uint16)
    rows = np.argsort(chunk, kind="stable").astype(np.int32)  # a radix sort for 16 bits
    starts = np.zeros(BUCKETS + 1, np.int64)
    np.cumsum(np.bincount(chunk, minlength=BUCKETS), out=starts[1:])
    return Buckets(hashes[rows], rows, starts, labels)


def _over_slices(kernel: Callable[..., Found], size: int, arguments: Sequence[object]) -> Found:
    """Run a nogil kernel over slices of range(size) on all cores."""
    edges = np.linspace(0, size, SLICES + 1).astype(int)
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # the kernels release the interpreter's lock
        return _joined(list(threads.map(lambda s: kernel(int(s[0]), int(s[1]), *arguments), itertools.pairwise(edges))))


def _joined(found: Sequence[Found]) -> Found:
    first, second, distance = (np.concatenate([f[k] for f in found]) for k in range(3))
    return first, second, distance


@intrinsic
def _ctpop(typing_context: Any, value: Any) -> Any:
    """LLVM's ctpop on a uint64: one instruction, or eight at once where the processor can."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = builder.module.declare_intrinsic("llvm.ctpop", [ir.IntType(64)])
        return builder.call(function, args)

    return types.uint64(types.uint64), code


_popcount: Any = _ctpop


@njit(cache=True, nogil=True)
def _grown(array: Any) -> Any:
    larger = np.empty(2 * len(array), array.dtype)
    larger[: len(array)] = array
    return larger


@njit(cache=True, nogil=True)
def _compare_all(
    low: int, high: int, a: Hashes, b: Hashes, radius: int, same: bool, label_a: Indices, label_b: Indices
) -> Found:
    first, second, distance = np.empty(256, np.int64), np.empty(256, np.int64), np.empty(256, np.uint8)
    n = 0
    for i in range(low, high):
        value = a[i]
        for start in range(i + 1 if same else 0, len(b), VECTOR):
            stop = min(start + VECTOR, len(b))
            hits = 0
            for j in range(start, stop):  # without a branch, so that it runs on whole vectors
                hits += _popcount(value ^ b[j]) <= radius
            if hits == 0:
                continue
            for j in range(start, stop):
                d = _popcount(value ^ b[j])
                if d <= radius and (len(label_a) == 0 or label_a[i] != label_b[j]):
                    if n == len(first):
                        first, second, distance = _grown(first), _grown(second), _grown(distance)
                    first[n], second[n], distance[n] = i, j, d
                    n += 1
    return first[:n].copy(), second[:n].copy(), distance[:n].copy()


@njit(cache=True, nogil=True)
def _compare_buckets(low: int, high: int, left: Buckets, right: Buckets, probe: Probe) -> Found:
    """Pairs of the buckets `low` to `high` of `left`, except those that an earlier chunk's probe has found."""
    a, b, radius, same, labelled = left.hashes, right.hashes, probe.radius, probe.same, len(left.labels) > 0
    first, second, distance = np.empty(256, np.int64), np.empty(256, np.int64), np.empty(256, np.uint8)
    n = 0
    for bucket in range(low, high):
        begin, end = left.starts[bucket], left.starts[bucket + 1]
        if begin == end:
            continue
        for mask in probe.masks:
            other = bucket ^ mask
            if same and other < bucket:
                continue  # the other bucket meets this one
            for i in range(begin, end):
                value = a[i]
                start, stop = i + 1 if same and mask == 0 else right.starts[other], right.starts[other + 1]
                # The same loop as in _compare_all, kept here: as a function of its own, inlined or not, it takes 11%
                # more time (0.31 s against 0.28 s of a processor for 300,000 hashes at radius 8, the best of 11 runs).
                hits = 0
                for j in range(start, stop):
                    hits += _popcount(value ^ b[j]) <= radius
                if hits == 0:
                    continue
                for j in range(start, stop):
                    d = _popcount(value ^ b[j])
                    if d > radius or (labelled and left.labels[left.rows[i]] == right.labels[right.rows[j]]):
                        continue
                    if not _seen_before(value ^ b[j], probe.budgets, probe.table):
                        if n == len(first):
                            first, second, distance = _grown(first), _grown(second), _grown(distance)
                        first[n], second[n], distance[n] = left.rows[i], right.rows[j], d
                        n += 1
    return first[:n].copy(), second[:n].copy(), distance[:n].copy()


@njit(cache=True, nogil=True)
def _seen_before(difference: np.uint64, budgets: Indices, table: int) -> bool:
    for earlier in range(table):
        chunk = (difference >> np.uint64(earlier * CHUNK_BITS)) & np.uint64(BUCKETS - 1)
        if np.int64(_popcount(chunk)) <= budgets[earlier]:
            return True
    return False


@njit(cache=True, nogil=True)
def _expand(
    rows: Indices, starts: Indices, left: Indices, right: Indices, distance: NDArray[np.uint8], cap: int
) -> Found:
    """Turn pairs of distinct hashes into pairs of rows; each row meets the first `cap` rows of the other hash."""
    size = 0
    for k in range(len(left)):
        a, b = starts[left[k] + 1] - starts[left[k]], starts[right[k] + 1] - starts[right[k]]
        if left[k] == right[k]:
            m = min(cap, a)
            size += m * (m - 1) // 2 + m * (a - m)
        else:
            size += min(a, cap) * b + min(b, cap) * max(a - cap, 0)
    first, second, apart = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.uint8)
    n = 0
    for k in range(len(left)):
        a0, a1, b0, b1 = starts[left[k]], starts[left[k] + 1], starts[right[k]], starts[right[k] + 1]
        for i in range(a0, a1):
            if left[k] == right[k]:
                begin, end = (i + 1, a1) if i - a0 < cap else (a1, a1)
            else:
                begin, end = (b0, b1) if i - a0 < cap else (b0, min(b0 + cap, b1))
            for j in range(begin, end):
                first[n], second[n], apart[n] = rows[i], rows[j], distance[k]
                n += 1
    return first[:n], second[:n], apart[:n]
