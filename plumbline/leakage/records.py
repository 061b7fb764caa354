"""The records that this room writes: build/group.json and leakage.json."""

from __future__ import annotations

from plumbline.common.records import Record


class Grouping(Record):
    """build/group.json: pairs compared by step, edges by kind, where embeddings came from."""

    images: int
    groups: int
    edges: dict[str, int]
    looked_at: dict[str, int]
    embeddings: str
    label_conflicts: int
    columns: tuple[dict[str, object], ...] = ()  # of each grouping column: what it ties, and its largest groups


class Pair(Record):
    """Two pictures, and what joins or nearly joins them."""

    a: str
    b: str
    kind: str
    distance: float
    score: float | None


class Side(Record):
    """What one side of the split holds; `share` of all images."""

    images: int
    groups: int
    share: float


class SetAside(Record):
    """A picture on no side, and why."""

    path: str
    reason: str


class GroupSize(Record):
    """The number of groups of one size."""

    images: int
    groups: int


class KindOfEdge(Record):
    """How many pairs of one kind were joined, and in how many groups."""

    kind: str
    edges: int
    groups: int


class ClassifierPrice(Record):
    """Accuracies with folds drawn by image (naive) and by group; the difference in points with its 95% interval."""

    naive: float
    grouped: float
    points: float
    low: float
    high: float


class Price(Record):
    """What cheap classifiers score when copies may be on both sides, and when not."""

    features: str = ""
    images: int
    repeats: int
    folds: int
    classifiers: dict[str, ClassifierPrice]


class Certificate(Record):
    """build/leakage.json: counts, edges, pairs across the splits (0 when nothing leaks), the price of a random one.

    `price` is None where there are too few groups to measure it.
    """

    pairs_across_splits: int
    pairs: tuple[Pair, ...]
    images: int
    groups: int
    sides: dict[str, Side]
    set_aside: tuple[SetAside, ...]
    group_sizes: tuple[GroupSize, ...]
    kinds: tuple[KindOfEdge, ...]
    closest_apart: tuple[Pair, ...]
    embeddings: str
    price: Price | None
    price_sentence: str
    pairs_table: str | None = None  # of an audit: the file with every pair
    to_drop: dict[str, int] | None = None  # of an audit: pictures to drop from each side so that no pair is left
