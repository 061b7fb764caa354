"""Find the copies in a collection: many candidates from hashes and embeddings, each verified before it counts.

Cheap searches come first, and a pair whose pictures are joined already is not compared again. Such skipped pairs are
still listed, unverified, for people who take a group apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common.parallel import cores, in_order
from plumbline.common.params import Section
from plumbline.common.progress import progress
from plumbline.leakage.alignment import (
    CELL,
    CELLS,
    FLAT,
    NOTHING,
    UNLIKE,
    Grey,
    Likeness,
    Local,
    Overlap,
    compare_colours,
    compare_overlap,
    compare_thumbnails,
    copy_score,
    grey_of,
    local_features,
    locate,
    locate_local,
    mirrored,
    on_thumbnails,
    turned,
)
from plumbline.leakage.hash_search import Pairs, matches_within, pairs_within

if TYPE_CHECKING:
    import pandas as pd

EQUAL_HASHES = 64  # of more pictures with one hash, each is compared with this many
TRIES = 4  # windows of a pair that are tried before it is given up
FEATURE_CACHE = 4000  # pictures whose local features are kept: about 180 KB each
PACK = 16  # pairs in one task of a thread
# (images, bits): with so many images the search radius is at most so many bits. 11 costs little more than 10, 12 five
# times as much.
WIDEST = ((5_000, 14), (20_000, 12), (50_000, 11), (100_000, 10), (500_000, 8))
MIN_COARSE = 0.4  # correlation of 18 x 24 pixels below which a pair is dropped
MIRROR_COSINE = 0.7  # a backbone sees little difference between a picture and its mirror image
NOT_JOINED = 60  # closest pairs that were compared and not joined, kept for the report
WHOLE = (0.0, 0.0, 1.0, 1.0)
CERTAIN = ("same bytes", "same pixels")
WHOLE_LESS = 0.5  # evidence that a whole picture over a whole other may lack: one way to lie, where parts have seventy
SURE = 1.0  # score beyond group.min_evidence from which group.min_ecc is not needed
SAME_COLOURS = 0.004  # share of places with another colour: one of 400 is noise, two a small helmet


class CopyParams(Section):
    """When two pictures count as copies. Distances are of 64-bit pHashes, scores between -1 and 1."""

    join_radius: int = Field(default=8, ge=0, le=32)
    join_correlation: float = Field(default=0.50, ge=-1, le=1)
    candidate_radius: int = Field(default=16, ge=0, le=20)
    min_correlation: float = Field(default=0.65, ge=-1, le=1)
    min_ecc: float = Field(default=0.85, ge=0, le=1)
    min_overlap_score: float = Field(default=0.75, ge=-1, le=1)
    min_evidence: float = Field(default=6.5, ge=0, le=20)
    max_contrary: float = Field(default=0.02, ge=0, le=1)
    embedding_cosine: float = Field(default=0.60, ge=-1, le=1)
    embedding_neighbours: int = Field(default=30, ge=1, le=1000)
    min_local_score: float = Field(default=0.85, ge=-1, le=1)


_P = TypeVar("_P")
_Result = TypeVar("_Result")


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
    """A pair of pictures `a` and `b` (row numbers) that belong together.

    kind: same bytes, same pixels, near, mirrored, cropped, embedding. distance: bits, or 1 - cosine for `embedding`.
    score: correlation or overlap score, -1 to 1. `verified` is False for candidates whose pictures were joined by
    other pairs first.
    """

    a: int
    b: int
    kind: str
    distance: float
    score: float
    verified: bool = True


@dataclass
class Copies:
    """All edges, the closest pairs that were compared and not joined, and how many pairs each step compared."""

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
    """The N pictures that are searched.

    `thumbnail` returns a row's (81, 96) thumbnail, or (72, 96) grey only, without a comparison of colours; `grey`
    returns its larger grey picture for local features; `embeddings` (N, D), None without a pretrained backbone.
    """

    identity: pd.DataFrame
    fingerprints: Fingerprints
    thumbnail: Callable[[int], Grey]
    grey: Callable[[int], Grey]
    embeddings: NDArray[np.floating[Any]] | None = None


def find_copies(
    pictures: Pictures,
    joined: Joined,
    params: CopyParams,
    merge: bool = True,
    sides: NDArray[np.int64] | None = None,
) -> Copies:
    """Return the verified copies among `pictures`.

    Args:
        pictures: N pictures; `identity` has the columns `id` and `pixels_sha256`.
        joined: what belongs together already; pairs inside one component are not compared. Changed by `merge`.
        params: thresholds.
        merge: join each pair that is found. False lists every pair between the given components.
        sides: (N,) numbers; with `merge`, every pair whose pictures have different numbers is listed all the same.
    """
    search = _Search(pictures, joined, params, merge, sides)
    for column, kind in zip(("id", "pixels_sha256"), CERTAIN, strict=True):
        search.equal(column, kind)
    search.whole()
    search.parts()
    if pictures.embeddings is not None:
        search.neighbours(pictures.embeddings)
    search.copies.apart.sort(key=lambda e: -e.score)
    del search.copies.apart[NOT_JOINED:]
    return search.copies


def candidate_radius(images: int, params: CopyParams) -> int:
    """Return the radius for candidates: as asked, but for large sets no more than `WIDEST` allows.

    Chance neighbours grow with the square of the number of images, and tenfold with every two bits.
    """
    return min([params.candidate_radius, *(radius for size, radius in WIDEST if images >= size)])


def same_picture(a: Grey, b: Grey, distance: int, params: CopyParams) -> bool:
    """Whether two thumbnails, their pHashes `distance` bits apart, are the same shot, by stricter rules than `group`'s.

    Here every place must agree in colour, while `group` also ties pictures that differ a little. Pictures without
    texture are copies only by equal bytes or pixels, because any two plain grounds are alike.
    """
    if min(float(grey_of(a).std()), float(grey_of(b).std())) < FLAT:
        return False
    proof = _prove(a, b, [_Try(WHOLE, 1.0, "near", distance)], params)
    return proof.found and proof.different <= SAME_COLOURS


@dataclass(frozen=True)
class _Try:
    """One way to lay a picture over another: the hash of its part `box` (of side `scale`) is near the other's hash."""

    box: tuple[float, float, float, float]
    scale: float
    kind: str
    distance: int

    @property
    def flip(self) -> bool:
        return self.kind == "mirrored"


@dataclass(frozen=True)
class _Proof:
    """Whether a pair was verified, its kind, distance and score, and the number of alignments tried.

    different: the share of places with different colours, of a verified pair.
    """

    found: bool
    kind: str
    distance: float
    score: float
    aligned: int
    different: float = 1.0


def _prove(a: Grey, b: Grey, tries: Sequence[_Try], params: CopyParams) -> _Proof:
    """Lay `a` over `b` in each way until one verifies them as copies; else return the best."""
    best = _Proof(False, tries[0].kind, tries[0].distance, -1.0, 0)
    aligned = 0
    looks: dict[tuple[bool, float], tuple[float, Likeness | None]] = {}
    for one in tries:
        whole = one.kind == "near"
        near = whole and one.distance <= params.join_radius
        way = (one.flip, one.scale)  # where the part lies is looked for: all windows of one size end at one place
        if way not in looks:
            looks[way] = _laid_over(a, b, one, params.join_correlation if near else params.min_correlation, params)
        fit, laid = looks[way]
        aligned += laid is not None
        look = laid or UNLIKE
        asked = params.min_evidence - (WHOLE_LESS if whole else 0.0)
        if is_copy(look, params, 0.0 if near else params.min_ecc, asked):
            return _Proof(True, one.kind, one.distance, look.overlap.score, aligned, look.colours.different)
        score = look.overlap.score if look.overlap.blocks else min(fit, 0.5)
        if score > best.score:
            best = _Proof(False, one.kind, one.distance, score, aligned)
        if aligned >= TRIES:
            break
    return _Proof(False, best.kind, best.distance, best.score, aligned)


def _laid_over(
    a: Grey, b: Grey, one: _Try, min_correlation: float, params: CopyParams
) -> tuple[float, Likeness | None]:
    """The correlation where `b` fits best in `a`, and how alike they are there; None where that is below the least."""
    wanted = turned(b) if one.flip else b
    fit, place = locate(grey_of(a), grey_of(wanted), one.scale)
    if fit < min_correlation:
        return fit, None
    return fit, compare_thumbnails(a, wanted, place, params.min_overlap_score)


def is_copy(look: Likeness, params: CopyParams, min_ecc: float, min_evidence: float) -> bool:
    """Whether two pictures agree enough, and their colours don't contradict it.

    The ECC is over the whole picture, so a caption over a third of it lowers it: a high score makes up for that.
    """
    known = copy_score(look)
    return (
        (look.ecc >= min_ecc or known >= params.min_evidence + SURE)
        and look.overlap.score >= params.min_overlap_score
        and known >= min_evidence
        and look.colours.contrary <= params.max_contrary
    )


class _Search:
    def __init__(
        self,
        pictures: Pictures,
        joined: Joined,
        params: CopyParams,
        merge: bool,
        sides: NDArray[np.int64] | None,
    ) -> None:
        self.pictures, self.joined, self.params, self.merge = pictures, joined, params, merge
        self.size = len(pictures.fingerprints.whole)
        self.sides = np.zeros(self.size, np.int64) if sides is None else sides
        self.radius = candidate_radius(self.size, params)
        self.copies = Copies()
        self.listed: set[tuple[int, int]] = set()

    def join(self, edge: Edge) -> None:
        self.copies.edges.append(edge)
        self.listed.add((edge.a, edge.b))
        if self.merge and edge.verified:
            self.joined.union(edge.a, edge.b)

    def is_open(self, a: int, b: int) -> bool:
        """Whether a pair must still be compared: not joined, or on two sides, whose pairs are all listed."""
        return self.joined.find(a) != self.joined.find(b) or self.sides[a] != self.sides[b]

    def is_new(self, a: int, b: int) -> bool:
        """Whether a pair needs a comparison: still open, and not listed."""
        return (a, b) not in self.listed and self.is_open(a, b)

    def skip(self, a: int, b: int, kind: str, distance: float) -> bool:
        """Whether a pair is joined already and needs no comparison; it is then listed as unverified."""
        if self.is_new(a, b):
            return False
        if self.merge and (a, b) not in self.listed:
            self.join(Edge(a, b, kind, distance, float("nan"), verified=False))
        return True

    def labels(self) -> NDArray[np.int64]:
        """(N,) numbers, equal for pictures that need no comparison."""
        return self.joined.labels() * (int(self.sides.max(initial=0)) + 1) + self.sides

    def equal(self, column: str, kind: str) -> None:
        """Chain the pictures whose `column` is the same."""
        for rows in self.pictures.identity.groupby(column, sort=False).indices.values():
            if len(rows) < 2:
                continue
            rows = np.sort(rows)
            # Without merging each pair between two components is listed; with it a chain through each side is enough.
            several = len(np.unique(self.sides[rows])) > 1
            for a, b in pairwise(rows) if self.merge and not several else _all_pairs(rows):
                if self.is_open(a, b) and (a, b) not in self.listed:
                    self.join(Edge(int(a), int(b), kind, 0.0, 1.0))

    def whole(self) -> None:
        """Compare pictures whose hashes are near."""
        whole = self.pictures.fingerprints.whole
        labels = self.labels() if not self.merge else self.sides
        found = []
        if self.merge:
            found.append(pairs_within(whole, self.radius, cap=EQUAL_HASHES))
        if not self.merge or self.sides.any():
            pairs = matches_within(whole, whole, self.radius, (labels, labels))
            found.append(_select(pairs, pairs.first < pairs.second))
        ways = [_Ways.of(pairs, -1, flip=False) for pairs in found]
        self.copies.looked_at["near"] = sum(len(way) for way in ways)
        self._verify(_Ways.joined(ways))

    def parts(self) -> None:
        """Compare pairs where the hash of a window of one, or of its mirror image, is near the other's whole hash."""
        prints = self.pictures.fingerprints
        labels = self.labels()
        coarse = _all_coarse(self.pictures.thumbnail, self.size)
        found = []
        looked_at = 0
        queries = [(-1, prints.whole, True)]
        queries += [(w, prints.windows[:, w], flip) for w in range(prints.windows.shape[1]) for flip in (False, True)]
        for window, hashes, flip in progress(queries, "search parts and mirrors", unit="window"):
            target = prints.mirror if flip else prints.whole
            pairs = matches_within(np.ascontiguousarray(hashes), target, self.radius, (labels, labels))
            if window < 0:  # a is like b's mirror image exactly when b is like a's
                pairs = _select(pairs, pairs.first < pairs.second)
            looked_at += len(pairs)
            box = np.array(WHOLE) if window < 0 else prints.boxes[window]
            alike = _correlations(coarse, pairs.first, pairs.second, box, flip)
            found.append(_Ways.of(_select(pairs, alike >= MIN_COARSE), window, flip))
        self.copies.looked_at["cropped or mirrored"] = looked_at
        self._verify(_Ways.joined(found))

    def _verify(self, ways: _Ways) -> None:
        """Join the pairs that align in one of their ways, nearest first, on all cores."""
        thumbnail = self.pictures.thumbnail
        total, pairs = ways.by_pair(self.pictures.fingerprints.boxes)
        aligned = 0
        for pair, proof in self._compared(
            progress(pairs, "verify", total=total, unit="pair"),
            lambda p: (*p.ends, p.tries[0].kind, p.tries[0].distance),
            lambda p: _prove(thumbnail(p.a), thumbnail(p.b), p.tries, self.params),
        ):
            aligned += proof.aligned
            edge = Edge(*pair.ends, proof.kind, proof.distance, proof.score)
            self.join(edge) if proof.found else self._note(edge)
        self.copies.looked_at["aligned"] = self.copies.looked_at.get("aligned", 0) + aligned

    def _compared(
        self,
        pairs: Iterable[_P],
        candidate: Callable[[_P], tuple[int, int, str, float]],
        compare: Callable[[_P], _Result],
    ) -> Iterator[tuple[_P, _Result]]:
        """Yield pairs in order with what `compare` returns, on all cores; what a pair before joined is skipped.

        Args:
            candidate: returns a pair's two rows, kind and distance.
        """

        def look(pack: list[tuple[_P, bool]]) -> list[tuple[_P, _Result | None]]:
            return [(pair, compare(pair) if is_new else None) for pair, is_new in pack]

        marked = ((pair, self.is_new(*candidate(pair)[:2])) for pair in pairs)
        with one_thread_each():
            for pair, result in itertools.chain.from_iterable(in_order(look, _packs(marked, PACK))):
                # Pairs in between may have joined these two: one order of edges, however many were under way at once.
                if not self.skip(*candidate(pair)) and result is not None:
                    yield pair, result

    def _note(self, edge: Edge) -> None:
        """Remember a pair that was not joined if it is among the closest."""
        self.copies.apart.append(edge)
        if len(self.copies.apart) > 50 * NOT_JOINED:
            self.copies.apart.sort(key=lambda e: -e.score)
            del self.copies.apart[NOT_JOINED:]

    def neighbours(self, embeddings: NDArray[np.floating[Any]]) -> None:
        """Search the overlap of pictures that are near each other in embedding space."""
        first, second, cosine = nearest_neighbours(
            embeddings, self.labels(), self.params.embedding_neighbours, self.params.embedding_cosine
        )
        self.copies.looked_at["embedding"] = len(first)
        features = _Cache(lambda row: local_features(self.pictures.grey(row)), FEATURE_CACHE)
        thumbnail = self.pictures.thumbnail

        def overlay(pair: tuple[int, int, float]) -> Overlap:
            a, b, near = pair
            return _overlay(features.get(a), features.get(b), near, (thumbnail(a), thumbnail(b)), self.params)

        pairs = zip(first.tolist(), second.tolist(), cosine.tolist(), strict=True)
        for (a, b, near), overlap in self._compared(
            progress(pairs, "verify neighbours", total=len(first), unit="pair"),
            lambda p: (p[0], p[1], "embedding", 1 - p[2]),
            overlay,
        ):
            edge = Edge(a, b, "embedding", 1 - near, overlap.score)
            self.join(edge) if overlap.score >= self.params.min_local_score else self._note(edge)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """OpenCV and matrix products use one thread each meanwhile, so that a thread per core can work on pairs."""
    import cv2
    from threadpoolctl import threadpool_limits

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        cv2.setNumThreads(threads)


def _packs(items: Iterable[_P], size: int) -> Iterator[list[_P]]:
    """Lists of `size` items, each made when it is asked for."""
    items = iter(items)
    while pack := list(islice(items, size)):
        yield pack


def _overlay(a: Local, b: Local, cosine: float, thumbs: tuple[Grey, Grey], params: CopyParams) -> Overlap:
    """The overlap of two pictures; where they are near enough, also of one with the other's mirror image: the better
    one.

    NOTHING where the colours contradict each other.
    """
    upright = _coloured_overlap(a, b, thumbs, params)
    if upright.score > 0.5 or cosine < MIRROR_COSINE:
        return upright
    other = _coloured_overlap(mirrored(a), b, (turned(thumbs[0]), thumbs[1]), params)
    return max(upright, other, key=lambda o: o.score)


def _coloured_overlap(a: Local, b: Local, thumbs: tuple[Grey, Grey], params: CopyParams) -> Overlap:
    _, affine = locate_local(a, b)
    if affine is None:
        return NOTHING
    overlap = compare_overlap(a.grey, b.grey, affine)
    if overlap.score < params.min_local_score:
        return overlap
    colours = compare_colours(*thumbs, on_thumbnails(affine, a.grey, b.grey))
    return overlap if colours.contrary <= params.max_contrary else NOTHING


@dataclass(frozen=True)
class _Pair:
    """Two rows, and the ways in which `a` may lie over `b`, the most likely first."""

    a: int
    b: int
    tries: list[_Try]

    @property
    def ends(self) -> tuple[int, int]:
        return min(self.a, self.b), max(self.a, self.b)


@dataclass(frozen=True)
class _Ways:
    """Ways to lay one picture over another, one in each column of `table`: a, b, window (-1 whole), flip, distance."""

    table: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.table[0])

    @staticmethod
    def of(pairs: Pairs, window: int, flip: bool) -> _Ways:
        rows = (pairs.first, pairs.second, np.full(len(pairs), window), np.full(len(pairs), flip), pairs.distance)
        return _Ways(np.stack([np.asarray(row, np.int32) for row in rows]))

    @staticmethod
    def joined(ways: Sequence[_Ways]) -> _Ways:
        return _Ways(np.concatenate([way.table for way in ways], axis=1))

    def by_pair(self, boxes: NDArray[np.float64]) -> tuple[int, Iterator[_Pair]]:
        """The number of pairs, and the pairs, nearest first; (a, b) and (b, a) are different pairs."""
        a, b, window, flip, distance = self.table
        order = np.lexsort((window, b, a, flip, window >= 0, distance))
        key = a[order].astype(np.int64) << 32 | b[order]
        _, first, number = np.unique(key, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))[number]  # pairs are numbered in order of first appearance
        order = order[np.argsort(rank, kind="stable")]
        ends = np.cumsum(np.bincount(rank, minlength=len(first)))

        def pairs() -> Iterator[_Pair]:
            start = 0
            for end in ends.tolist():
                here = self.table[:, order[start:end]].T.tolist()
                yield _Pair(here[0][0], here[0][1], [_try_of(w, flip, d, boxes) for _, _, w, flip, d in here])
                start = end

        return len(ends), pairs()


def _try_of(window: int, flip: int, distance: int, boxes: NDArray[np.float64]) -> _Try:
    box = WHOLE if window < 0 else tuple(boxes[window].tolist())
    kind = "mirrored" if flip else "cropped" if window >= 0 else "near"
    return _Try(box, box[2] - box[0], kind, distance)


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
    """A cache of local features for several threads; the least recently used go first."""

    def __init__(self, compute: Callable[[int], Local], size: int) -> None:
        self.compute, self.size = compute, size
        self.lock = Lock()
        self.values: dict[int, _Slot] = {}

    def get(self, row: int) -> Local:
        with self.lock:
            slot = self.values.pop(row, None) or _Slot()
            self.values[row] = slot
            if len(self.values) > self.size:
                del self.values[next(iter(self.values))]
        with slot.lock:  # another thread may be at it
            if slot.value is None:
                slot.value = self.compute(row)
            return slot.value


@dataclass
class _Slot:
    lock: Lock = field(default_factory=Lock)
    value: Local | None = None


def _all_coarse(thumbnail: Callable[[int], Grey], size: int) -> NDArray[np.uint8]:
    """Return (N, 18, 24): every thumbnail's grey, averaged over cells of 4 x 4 pixels."""
    rows, columns = CELLS
    coarse = np.empty((size, rows, columns), np.uint8)
    for row in range(size):
        grey = thumbnail(row)[: rows * CELL].reshape(rows, CELL, columns, CELL)
        coarse[row] = grey.mean(axis=(1, 3), dtype=np.float32)
    return coarse


def _correlations(
    coarse: NDArray[np.uint8], first: NDArray[np.int64], second: NDArray[np.int64], box: NDArray[np.float64], flip: bool
) -> NDArray[np.float32]:
    """Return for each pair the correlation of the part `box` of one picture with the (mirrored) other, over all cores.

    A coarse filter for all pairs at once: it removes most chance neighbours.
    """
    cuts = np.linspace(0, len(first), 8 * cores() + 1).astype(int)
    pieces = [slice(start, stop) for start, stop in pairwise(cuts)]
    with ThreadPoolExecutor(cores()) as pool:
        parts = pool.map(lambda p: _correlate(coarse, first[p], second[p], box, flip), pieces)
        return np.concatenate(list(parts))


@njit(cache=True, nogil=True)
def _correlate(
    coarse: NDArray[np.uint8], first: NDArray[np.int64], second: NDArray[np.int64], box: NDArray[np.float64], flip: bool
) -> NDArray[np.float32]:
    rows, columns = coarse.shape[1], coarse.shape[2]
    found = np.empty(len(first), np.float32)
    size = rows * columns
    for k in range(len(first)):
        a, b = coarse[first[k]], coarse[second[k]]
        sx, sy, sxx, syy, sxy = 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(rows):
            y = (box[1] + (i + 0.5) / rows * (box[3] - box[1])) * rows - 0.5
            top = min(max(int(np.floor(y)), 0), rows - 2)
            down = min(max(y - top, 0.0), 1.0)
            for j in range(columns):
                x = (box[0] + (j + 0.5) / columns * (box[2] - box[0])) * columns - 0.5
                left = min(max(int(np.floor(x)), 0), columns - 2)
                along = min(max(x - left, 0.0), 1.0)
                above = a[top, left] * (1 - along) + a[top, left + 1] * along
                below = a[top + 1, left] * (1 - along) + a[top + 1, left + 1] * along
                p = above * (1 - down) + below * down
                q = np.float64(b[i, columns - 1 - j if flip else j])
                sx, sy, sxx, syy, sxy = sx + p, sy + q, sxx + p * p, syy + q * q, sxy + p * q
        spread = max(sxx - sx * sx / size, 0.0) * max(syy - sy * sy / size, 0.0)
        found[k] = (sxy - sx * sy / size) / np.sqrt(spread) if spread > 1.0 else 0.0
    return found


def _select(pairs: Pairs, keep: NDArray[np.bool_]) -> Pairs:
    return Pairs(pairs.first[keep], pairs.second[keep], pairs.distance[keep], int(keep.sum()))


def _all_pairs(rows: Iterable[int]) -> Iterator[tuple[int, int]]:
    seen: list[int] = []
    for row in rows:
        yield from ((other, row) for other in seen)
        seen.append(row)
