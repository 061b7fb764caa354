"""Find pictures that are not new or not independent: copies of training images, repeats, near-duplicates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monitoring.site_state import AGAIN, COPY, NEW, REPEAT
from plumbline.leakage.alignment import correlation
from plumbline.leakage.columns import column_edges, moment_edges
from plumbline.leakage.copies import Edge, Joined
from plumbline.leakage.groups import GroupParams
from plumbline.leakage.hash_search import matches_within, pairs_within

if TYPE_CHECKING:
    import pandas as pd

EQUAL_HASHES = 64


def status_of(
    table: pd.DataFrame, training: pd.DataFrame, earlier: pd.DataFrame, delivered: set[str], distance: int
) -> list[str]:
    """Return what each image of `table` (id, pixels_sha256, phash) is: NEW, AGAIN, COPY or REPEAT.

    Args:
        training: the images the champion's data version holds (id, and pixels_sha256 and phash where it brought them).
        earlier: images of the site that count already, in the order they came.
        delivered: ids known before this run: such a file was sent again, its camera is not stuck.
        distance: pHash bits up to which two pictures are the same, encoded or scaled again.
    """
    status = [NEW] * len(table)
    _mark(status, table, training, distance, COPY)
    _mark(status, table, earlier, distance, REPEAT)
    _mark_within(status, table, distance)
    for row, name in enumerate(table["id"]):
        if name in delivered:
            status[row] = AGAIN
    return status


def _mark(status: list[str], table: pd.DataFrame, known: pd.DataFrame, distance: int, name: str) -> None:
    found = np.zeros(len(table), bool)
    for column in ("id", "pixels_sha256"):
        if column in known:
            found |= table[column].isin(set(known[column].dropna())).to_numpy()
    if "phash" in known and len(known) and len(table):
        theirs = known["phash"].dropna().to_numpy(np.uint64)
        found[matches_within(table["phash"].to_numpy(np.uint64), theirs, distance).first] = True
    for row in np.flatnonzero(found):
        if status[row] == NEW:
            status[row] = name


def _mark_within(status: list[str], table: pd.DataFrame, distance: int) -> None:
    """Mark all but the first of several copies within `table` as repeats."""
    joined = Joined(len(table))
    for column in ("id", "pixels_sha256"):
        for rows in table.groupby(column, sort=False).indices.values():
            for row in rows[1:]:
                joined.union(int(rows[0]), int(row))
    pairs = pairs_within(table["phash"].to_numpy(np.uint64), distance, cap=EQUAL_HASHES)
    for a, b in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        joined.union(a, b)
    first: dict[int, int] = {}
    for row, name in enumerate(joined.labels().tolist()):
        if status[row] == NEW and first.setdefault(name, row) != row:
            status[row] = REPEAT


def groups_of(table: pd.DataFrame, small: NDArray[np.uint8], params: GroupParams, where: str) -> NDArray[np.int64]:
    """Return (N,) numbers, equal for images that are not independent of each other.

    By the columns that `group` in params.yaml names (photo, video, person), shots of one camera close in time where it
    says so, and near-duplicates: pHash and thumbnails as alike as the stage `group` asks of copies.

    Args:
        small: (N, 18, 24) greys of the images.
        where: the site's table of metadata, for what has to be put right there.
    """
    joined = Joined(len(table))
    edges: list[Edge] = column_edges(table, params.columns, params.blank_words)
    edges += moment_edges(table, params.camera_column, params.captured_within_seconds, params.blank_words, where)
    for edge in edges:
        joined.union(edge.a, edge.b)
    pairs = pairs_within(table["phash"].to_numpy(np.uint64), params.join_radius, cap=EQUAL_HASHES)
    for a, b in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        if joined.find(a) != joined.find(b) and correlation(small[a], small[b]) >= params.join_correlation:
            joined.union(a, b)
    return np.unique(joined.labels(), return_inverse=True)[1].astype(np.int64)
