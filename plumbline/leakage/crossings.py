"""Pairs across the splits: recorded edges, copies from a new search, and values of grouping columns on two sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.imaging.metadata import BLANK_WORDS, grouping_values
from plumbline.leakage.copies import (
    CERTAIN,
    CopyParams,
    Fingerprints,
    Joined,
    Pictures,
    candidate_radius,
    find_copies,
)
from plumbline.leakage.records import GroupSize, KindOfEdge

if TYPE_CHECKING:
    import pandas as pd

LISTED = 200  # pairs named in leakage.json; `pairs_across_splits` counts all


def crossing_pairs(
    sides: pd.DataFrame,
    edges: pd.DataFrame,
    pictures: Pictures,
    columns: Sequence[str],
    params: CopyParams,
    blank_words: Sequence[str] = BLANK_WORDS,
) -> pd.DataFrame:
    """Return path_a, path_b, kind, distance, score of pairs on different sides; empty when nothing leaks.

    Copies are searched again between the sides, without trusting the groups. A column value on several sides is listed
    once for each two sides.

    Args:
        sides: path, split of the images in use, with their metadata columns.
        edges: path_a, path_b, kind, distance, score, verified: what grouping recorded.
        pictures: of the whole manifest; `identity` has the column path.
        columns: grouping columns.
        blank_words: values of these that say nothing.
    """
    side = dict(zip(sides["path"], sides["split"], strict=True))
    return _once(
        [_recorded(side, edges), _searched_anew(side, pictures, params), _shared_values(sides, columns, blank_words)]
    )


def recorded_crossings(
    sides: pd.DataFrame, edges: pd.DataFrame, columns: Sequence[str], blank_words: Sequence[str] = BLANK_WORDS
) -> pd.DataFrame:
    """Return the same without a new search, where `edges` already name every pair of copies on two sides."""
    side = dict(zip(sides["path"], sides["split"], strict=True))
    return _once([_recorded(side, edges), _shared_values(sides, columns, blank_words)])


def removals(crossing: pd.DataFrame, sides: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Return every crossing pair with what to drop so that none is left, the most certain pairs first.

    Of each pair the picture on the side that comes first in `order` is dropped: training before validation, validation
    before test, so that the test set stays comparable.

    Args:
        crossing: path_a, path_b, kind, distance, score, of `crossing_pairs`.
        sides: path, label, split.
        order: the names of the sides, training first.

    Returns drop, drop_from, drop_label, keep, keep_in, keep_label, kind, distance, score.
    """
    about = sides.set_index("path")
    rank = {name: place for place, name in enumerate(order)}
    first, second = crossing["path_a"], crossing["path_b"]
    swapped = first.map(about["split"]).map(rank) > second.map(about["split"]).map(rank)
    drop, keep = first.where(~swapped, second), second.where(~swapped, first)
    table = crossing[["kind", "distance", "score"]].copy()
    for place, (name, role, paths) in enumerate((("drop", "drop_from", drop), ("keep", "keep_in", keep))):
        table.insert(3 * place, name, paths)
        table.insert(3 * place + 1, role, paths.map(about["split"]))
        table.insert(3 * place + 2, f"{name}_label", paths.map(about["label"]))
    likely = table["kind"].map({kind: place for place, kind in enumerate(CERTAIN)}).fillna(len(CERTAIN))
    table = table.assign(likely=likely).sort_values(
        ["likely", "score", "distance", "drop", "keep"], ascending=[True, False, True, True, True]
    )
    return table.drop(columns="likely").reset_index(drop=True)


def _recorded(side: dict[str, str], edges: pd.DataFrame) -> pd.DataFrame:
    verified = edges[edges["verified"] & edges["path_a"].isin(side) & edges["path_b"].isin(side)]
    return verified[verified["path_a"].map(side) != verified["path_b"].map(side)].drop(columns="verified")


def _once(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All tables in one, each pair of paths once."""
    import pandas as pd

    table = pd.concat([t for t in tables if len(t)] or [tables[-1]])
    ends = pd.DataFrame(np.sort(table[["path_a", "path_b"]].to_numpy(str), axis=1), index=table.index)
    return table[~ends.duplicated().to_numpy()].reset_index(drop=True)


def _searched_anew(side: dict[str, str], pictures: Pictures, params: CopyParams) -> pd.DataFrame:
    import pandas as pd

    paths = pictures.identity["path"].to_numpy()
    rows = np.flatnonzero([path in side for path in paths])
    here = subset(pictures, rows)
    joined = Joined(len(rows))
    first: dict[str, int] = {}
    for row, path in enumerate(paths[rows]):
        joined.union(first.setdefault(side[path], row), row)
    # The radius that grouping used; it also had the images that were set aside since.
    radius = candidate_radius(len(paths), params)
    found = find_copies(here, joined, params.model_copy(update={"candidate_radius": radius}), merge=False)
    return pd.DataFrame(
        [(paths[rows[e.a]], paths[rows[e.b]], e.kind, e.distance, e.score) for e in found.edges],
        columns=["path_a", "path_b", "kind", "distance", "score"],
    )


def subset(pictures: Pictures, rows: Any) -> Pictures:
    """Return the pictures of some rows, without embeddings: their neighbours depend on all the other pictures."""
    prints = pictures.fingerprints
    return replace(
        pictures,
        identity=pictures.identity.iloc[rows].reset_index(drop=True),
        fingerprints=Fingerprints(prints.whole[rows], prints.windows[rows], prints.mirror[rows], prints.boxes),
        thumbnail=lambda row: pictures.thumbnail(int(rows[row])),
        grey=lambda row: pictures.grey(int(rows[row])),
        embeddings=None,
    )


def _shared_values(sides: pd.DataFrame, columns: Sequence[str], blank_words: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    rows: list[tuple[str, str, str, float, float]] = []
    for column in (c for c in columns if c in sides):
        text = grouping_values(sides, column, blank_words)
        for _, same in sides[text != ""].groupby(text[text != ""], sort=True):
            firsts = same.drop_duplicates("split")["path"].tolist()
            rows += [(a, b, column, 0.0, 1.0) for i, a in enumerate(firsts) for b in firsts[i + 1 :]]
    return pd.DataFrame(rows, columns=["path_a", "path_b", "kind", "distance", "score"])


def group_sizes(groups: pd.Series) -> tuple[GroupSize, ...]:
    """Return how many groups there are of each size, the smallest first."""
    sizes, counts = np.unique(groups.value_counts().to_numpy(), return_counts=True)
    return tuple(GroupSize(images=int(size), groups=int(n)) for size, n in zip(sizes, counts, strict=True))


def kinds_of(edges: pd.DataFrame, groups: dict[str, str]) -> tuple[KindOfEdge, ...]:
    """Return for each kind of edge their number and the groups that they hold together."""
    verified = edges[edges["verified"]]
    counted = verified.assign(group=verified["path_a"].map(groups)).groupby("kind")["group"].agg(["size", "nunique"])
    return tuple(
        KindOfEdge(kind=str(kind), edges=int(row["size"]), groups=int(row["nunique"]))
        for kind, row in counted.sort_values("size", ascending=False).iterrows()
    )
