"""Find the copies in a collection: generous candidates from hashes and embeddings, each proved before it counts.

Order matters for cost: pairs that say the same thing for less come first, and a pair whose pictures are joined already
is not looked at again. What was skipped that way is still listed, unverified, for whoever takes a group apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common.params import Section
from plumbline.common.progress import progress
from plumbline.leakage.alignment import (
    NOTHING,
    Grey,
    Local,
    Overlap,
    align_local,
    align_thumbnails,
    correlation,
    local_features,
    locate,
    mirrored,
    part,
)
from plumbline.leakage.hash_search import Pairs, matches_within, pairs_within

if TYPE_CHECKING:
    import pandas as pd

EQUAL_HASHES = 64  # of more pictures with one hash, each is compared with this many
TRIES = 4  # windows of one pair that are tried before it is given up
FEATURE_CACHE = 4000  # pictures whose local features are kept: about 180 KB each
BATCH = 512
WIDEST = ((5_000, 14), (20_000, 12), (50_000, 10), (500_000, 8))  # from so many images on, at most so many bits
MIN_COARSE = 0.3  # correlation there, below which a pair is not looked at again
MIRROR_COSINE = 0.7  # a backbone sees little difference between a picture and its mirror image
COARSE = (24, 18)  # width, height at which candidates are compared first, all at once
NOT_JOINED = 60  # closest pairs that were looked at and not joined, kept for the report


class CopyParams(Section):
    """When two pictures count as copies. Distances are of 64-bit pHashes, scores between -1 and 1."""

    join_radius: int = Field(default=8, ge=0, le=32)
    join_correlation: float = Field(default=0.50, ge=-1, le=1)
    candidate_radius: int = Field(default=16, ge=0, le=20)
    min_correlation: float = Field(default=0.65, ge=-1, le=1)
    min_ecc: float = Field(default=0.85, ge=0, le=1)
    min_overlap_score: float = Field(default=0.75, ge=-1, le=1)
    embedding_cosine: float = Field(default=0.60, ge=-1, le=1)
    embedding_neighbours: int = Field(default=30, ge=1, le=1000)
    min_local_score: float = Field(default=0.85, ge=-1, le=1)


@dataclass(frozen=True)
class Fingerprints:
    """Hashes of N pictures: `whole` (N,), `windows` (N, W) of parts, `mirror` (N,) of the mirror image, all uint64.

    `boxes` (W, 4) are the windows' left, top, right and bottom as shares of the picture.
    """

    whole: NDArray[np.uint64]
    windows: NDArray[np.uint64]
    mirror: NDArray[np.uint64]
    boxes: NDArray[np.float64]


@dataclass(frozen=True)
class Edge:
    """Evidence that pictures `a` and `b` (row numbers) belong together.

    kind: same bytes, same pixels, near, mirrored, cropped, embedding. distance: bits, or 1 - cosine for `embedding`.
    score: correlation or overlap score, -1 to 1. `verified` is False for candidates that were joined by others first.
    """

    a: int
    b: int
    kind: str
    distance: float
    score: float
    verified: bool = True


@dataclass
class Copies:
    """All edges, the closest pairs that were looked at and not joined, and how many pairs each step looked at."""

    edges: list[Edge] = field(default_factory=list)
    apart: list[Edge] = field(default_factory=list)
    looked_at: dict[str, int] = field(default_factory=dict)


class Joined:
    """Union-find with path halving; `find(row)` names a row's component."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, row: int) -> int:
        parent = self.parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def union(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        if a != b:
            self.parent[max(a, b)] = min(a, b)

    def labels(self) -> NDArray[np.int64]:
        return np.array([self.find(row) for row in range(len(self.parent))], np.int64)


@dataclass(frozen=True)
class Pictures:
    """What the search knows of N pictures.

    `thumbnails` gives the (72, 96) grey of a row; `grey` its larger grey for local features; `embeddings` (N, D) or
    None where no pretrained backbone is at hand.
    """

    identity: pd.DataFrame
    fingerprints: Fingerprints
    thumbnail: Callable[[int], Grey]
    grey: Callable[[int], Grey]
    embeddings: NDArray[np.floating[Any]] | None = None


def find_copies(pictures: Pictures, joined: Joined, params: CopyParams, merge: bool = True) -> Copies:
    """Return the verified copies among `pictures`.

    Args:
        pictures: N pictures; `identity` has the columns `id` and `pixels_sha256`.
        joined: what belongs together already; pairs inside one component are not looked at. Changed by `merge`.
        params: thresholds.
        merge: join what is found, so that it is found once. False lists every pair between the given components.
    """
    search = _Search(pictures, joined, params, merge)
    search.equal("id", "same bytes")
    search.equal("pixels_sha256", "same pixels")
    search.whole()
    search.parts()
    if pictures.embeddings is not None:
        search.neighbours(pictures.embeddings)
    search.copies.apart.sort(key=lambda e: -e.score)
    del search.copies.apart[NOT_JOINED:]
    return search.copies


def candidate_radius(images: int, params: CopyParams) -> int:
    """Return the radius for candidates: as asked, but from some size on no more than `WIDEST` says.

    Chance neighbours grow with the square of the number of images, and tenfold with every two bits.
    """
    return min([params.candidate_radius, *(radius for size, radius in WIDEST if images >= size)])


class _Search:
    def __init__(self, pictures: Pictures, joined: Joined, params: CopyParams, merge: bool) -> None:
        self.pictures, self.joined, self.params, self.merge = pictures, joined, params, merge
        self.size = len(pictures.fingerprints.whole)
        self.radius = candidate_radius(self.size, params)
        self.copies = Copies()
        self.listed: set[tuple[int, int]] = set()

    def join(self, edge: Edge) -> None:
        self.copies.edges.append(edge)
        self.listed.add((edge.a, edge.b))
        if self.merge and edge.verified:
            self.joined.union(edge.a, edge.b)

    def skip(self, a: int, b: int, kind: str, distance: float) -> bool:
        """Whether a pair needs no look: joined already, in which case it is listed as unverified."""
        if (a, b) in self.listed:
            return True
        if self.joined.find(a) != self.joined.find(b):
            return False
        if self.merge:
            self.join(Edge(a, b, kind, distance, float("nan"), verified=False))
        return True

    def equal(self, column: str, kind: str) -> None:
        """Chain the pictures whose `column` is the same."""
        for rows in self.pictures.identity.groupby(column, sort=False).indices.values():
            rows = np.sort(rows)
            # Without merging each pair between two components counts; with it a chain says all.
            pairs = pairwise(rows) if self.merge else _all_pairs(rows)
            for a, b in pairs:
                if self.joined.find(a) != self.joined.find(b) and (a, b) not in self.listed:
                    self.join(Edge(int(a), int(b), kind, 0.0, 1.0))

    def whole(self) -> None:
        """Join pictures whose hashes are near; look at those that are nearly so."""
        whole = self.pictures.fingerprints.whole
        if self.merge:
            pairs = pairs_within(whole, self.radius, cap=EQUAL_HASHES)
        else:
            labels = self.joined.labels()
            pairs = matches_within(whole, whole, self.radius, (labels, labels))
            pairs = _select(pairs, pairs.first < pairs.second)
        self.copies.looked_at["near"] = len(pairs)
        order = np.argsort(pairs.distance, kind="stable")
        unsure = []
        for k in order.tolist():
            a, b, distance = int(pairs.first[k]), int(pairs.second[k]), int(pairs.distance[k])
            if (a, b) in self.listed:
                continue
            likeness = correlation(self.pictures.thumbnail(a), self.pictures.thumbnail(b))
            if distance <= self.params.join_radius and likeness >= self.params.join_correlation:
                self.join(Edge(a, b, "near", distance, likeness))
            else:
                unsure.append((a, b, -1, False, distance))
        self._verify(unsure)

    def parts(self) -> None:
        """Look at pairs where a window of one, or of its mirror image, looks like the whole of the other."""
        prints = self.pictures.fingerprints
        found: list[tuple[int, int, int, bool, int]] = []
        looked_at = 0
        labels = self.joined.labels()
        rows = np.arange(self.size)
        queries = [(-1, prints.whole, True)]
        queries += [(w, prints.windows[:, w], flip) for w in range(prints.windows.shape[1]) for flip in (False, True)]
        for window, hashes, flip in queries:
            target = prints.mirror if flip else prints.whole
            pairs = matches_within(np.ascontiguousarray(hashes), target, self.radius, (labels, labels))
            if window < 0:  # a's mirror image is like b just when b's is like a
                pairs = _select(pairs, rows[pairs.first] < rows[pairs.second])
            looked_at += len(pairs)
            pairs = _select(pairs, self._alike(pairs, window, flip))
            found += zip(
                pairs.first.tolist(),
                pairs.second.tolist(),
                [window] * len(pairs),
                [flip] * len(pairs),
                pairs.distance.tolist(),
                strict=True,
            )
        self.copies.looked_at["cropped or mirrored"] = looked_at
        self._verify(found)

    def _alike(self, pairs: Pairs, window: int, flip: bool) -> NDArray[np.bool_]:
        """Whether each pair's thumbnails correlate, coarsely: what leaves a few of many chance neighbours."""
        keep = np.zeros(len(pairs), bool)
        if not len(pairs):
            return keep
        rows_a, at_a = np.unique(pairs.first, return_inverse=True)
        rows_b, at_b = np.unique(pairs.second, return_inverse=True)
        box = self.pictures.fingerprints.boxes[window] if window >= 0 else None
        a = _standardised([_coarse(self.pictures.thumbnail(int(r)), box) for r in rows_a])
        b = _standardised([_coarse(self.pictures.thumbnail(int(r)), None)[:, :: -1 if flip else 1] for r in rows_b])
        for start in range(0, len(pairs), 20_000):
            chunk = slice(start, start + 20_000)
            keep[chunk] = np.einsum("ij,ij->i", a[at_a[chunk]], b[at_b[chunk]]) >= MIN_COARSE
        return keep

    def _verify(self, candidates: list[tuple[int, int, int, bool, int]]) -> None:
        """Join the candidates (a, b, window of a or -1, mirrored, distance) that align, nearest first."""
        candidates.sort(key=lambda c: (c[4], c[2] >= 0, c[3], c[0], c[1], c[2]))
        tries: dict[tuple[int, int], int] = {}
        aligned = 0
        for a, b, window, flip, distance in candidates:
            pair = (min(a, b), max(a, b))
            kind = "mirrored" if flip else "cropped" if window >= 0 else "near"
            if tries.get(pair, 0) >= TRIES or self.skip(*pair, kind, distance):
                continue
            thumb_a, thumb_b = self.pictures.thumbnail(a), self.pictures.thumbnail(b)
            wanted = np.ascontiguousarray(thumb_b[:, ::-1]) if flip else thumb_b
            likeness, place = locate(thumb_a, wanted, self._scale(window))
            ecc, overlap = 0.0, NOTHING
            if likeness >= self.params.min_correlation:
                aligned += 1
                tries[pair] = tries.get(pair, 0) + 1
                ecc, overlap = align_thumbnails(part(thumb_a, place), wanted)
            if ecc >= self.params.min_ecc and overlap.score >= self.params.min_overlap_score:
                self.join(Edge(*pair, kind, distance, overlap.score))
            else:
                self._note(Edge(*pair, kind, distance, overlap.score if overlap.blocks else min(likeness, 0.5)))
        self.copies.looked_at["aligned"] = self.copies.looked_at.get("aligned", 0) + aligned

    def _scale(self, window: int) -> float:
        box = self.pictures.fingerprints.boxes[window]
        return float(box[2] - box[0]) if window >= 0 else 1.0

    def _note(self, edge: Edge) -> None:
        """Keep a pair that was not joined if it is among the closest."""
        self.copies.apart.append(edge)
        if len(self.copies.apart) > 50 * NOT_JOINED:
            self.copies.apart.sort(key=lambda e: -e.score)
            del self.copies.apart[NOT_JOINED:]

    def neighbours(self, embeddings: NDArray[np.floating[Any]]) -> None:
        """Look for the overlap of pictures that are near each other in embedding space."""
        import cv2
        from threadpoolctl import threadpool_limits

        first, second, cosine = nearest_neighbours(
            embeddings, self.joined.labels(), self.params.embedding_neighbours, self.params.embedding_cosine
        )
        self.copies.looked_at["embedding"] = len(first)
        features = _Cache(lambda row: local_features(self.pictures.grey(row)), FEATURE_CACHE)
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # one pair per core is faster than all cores on one pair
        try:
            with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
                pairs = iter(zip(first.tolist(), second.tolist(), cosine.tolist(), strict=True))
                bar = progress(range(len(first)), "verify neighbours", unit="pair")
                while batch := list(islice(pairs, BATCH)):
                    list(islice(bar, len(batch)))
                    fresh = [p for p in batch if not self.skip(p[0], p[1], "embedding", 1 - p[2])]
                    features.fill({row for p in fresh for row in p[:2]}, pool)
                    looks = pool.map(lambda p: _overlay(features.get(p[0]), features.get(p[1]), p[2]), fresh)
                    for (a, b, near), overlap in zip(fresh, looks, strict=True):
                        edge = Edge(a, b, "embedding", 1 - near, overlap.score)
                        good = overlap.score >= self.params.min_local_score
                        self.join(edge) if good else self._note(edge)
                list(bar)
        finally:
            cv2.setNumThreads(threads)


def _overlay(a: Local, b: Local, cosine: float) -> Overlap:
    """The overlap of two pictures, or, where they are near enough, of one and the other's mirror image if better."""
    upright = align_local(a, b)[1]
    if upright.score > 0.5 or cosine < MIRROR_COSINE:
        return upright
    turned = align_local(mirrored(a), b)[1]
    return max(upright, turned, key=lambda o: o.score)


def nearest_neighbours(
    embeddings: NDArray[np.floating[Any]], labels: NDArray[np.int64], neighbours: int, cosine: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return pairs a < b of different labels that are among either's nearest and at `cosine` or more, closest first."""
    vectors = embeddings.astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    parts = []
    for start in range(0, len(vectors), 1024):
        likeness = vectors[start : start + 1024] @ vectors.T
        likeness[labels[start : start + 1024, None] == labels[None, :]] = -2
        k = min(neighbours, len(vectors) - 1)
        if k < 1:
            break
        nearest = np.argpartition(-likeness, k, axis=1)[:, :k]
        values = np.take_along_axis(likeness, nearest, axis=1)
        row, place = np.nonzero(values >= cosine)
        parts.append(np.stack([row + start, nearest[row, place]], axis=1))
    pairs = np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0).astype(np.int64)
    values = (
        np.einsum("ij,ij->i", vectors[pairs[:, 0]], vectors[pairs[:, 1]]) if len(pairs) else np.zeros(0, np.float32)
    )
    order = np.argsort(-values, kind="stable")
    return pairs[order, 0], pairs[order, 1], values[order]


class _Cache:
    """Local features of the pictures used last, filled by threads, emptied oldest first."""

    def __init__(self, compute: Callable[[int], Local], size: int) -> None:
        self.compute, self.size = compute, size
        self.values: dict[int, Local] = {}

    def fill(self, rows: set[int], pool: ThreadPoolExecutor) -> None:
        missing = sorted(rows - self.values.keys())
        for row in [r for r in self.values if r not in rows][: max(0, len(self.values) + len(missing) - self.size)]:
            del self.values[row]
        self.values.update(zip(missing, pool.map(self.compute, missing), strict=True))

    def get(self, row: int) -> Local:
        return self.values[row]


def _coarse(thumb: Grey, box: NDArray[np.float64] | None) -> Grey:
    """Return (18, 24): a thumbnail, or the part of it inside `box` (shares of left, top, right, bottom)."""
    import cv2

    if box is not None:
        height, width = thumb.shape
        left, top, right, bottom = np.rint(box * (width, height, width, height)).astype(int)
        thumb = thumb[top:bottom, left:right]
    return np.asarray(cv2.resize(thumb, COARSE, interpolation=cv2.INTER_AREA), np.uint8)


def _standardised(images: list[Grey]) -> NDArray[np.float32]:
    """One row per image, of mean 0 and length 1: products of rows are correlations."""
    rows = np.stack(images).reshape(len(images), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-3)
    return rows


def _select(pairs: Pairs, keep: NDArray[np.bool_]) -> Pairs:
    return Pairs(pairs.first[keep], pairs.second[keep], pairs.distance[keep], int(keep.sum()))


def _all_pairs(rows: Iterable[int]) -> Iterator[tuple[int, int]]:
    seen: list[int] = []
    for row in rows:
        yield from ((other, row) for other in seen)
        seen.append(row)
