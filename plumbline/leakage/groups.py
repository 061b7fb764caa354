"""Groups that a split must keep together: verified copies, and pictures that share a value of a grouping column."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common.errors import UserError
from plumbline.imaging.hashing import WINDOWS
from plumbline.imaging.metadata import BLANK_WORDS
from plumbline.leakage.alignment import Grey, shrink
from plumbline.leakage.chains import refuse_chain
from plumbline.leakage.columns import Tied, column_edges, moment_edges
from plumbline.leakage.copies import (
    Copies,
    CopyParams,
    Edge,
    Fingerprints,
    Joined,
    Pictures,
    candidate_radius,
    find_copies,
)
from plumbline.leakage.records import Grouping

if TYPE_CHECKING:
    import pandas as pd

    from plumbline.imaging.settings import DataParams


class GroupParams(CopyParams):
    """params.yaml, section `group`."""

    columns: tuple[str, ...] = ("photo", "video", "person")
    blank_words: tuple[str, ...] = BLANK_WORDS
    camera_column: str = "camera"
    captured_within_seconds: float = Field(default=0, ge=0)
    embedding: str | None = "mobilenet_v2"
    max_share: float = Field(default=0.25, gt=0, le=1)
    label_conflicts: Literal["fail", "set_aside"] = "set_aside"


@dataclass(frozen=True)
class Grouped:
    """groups: path, group. edges, apart: path_a, path_b, kind, distance, score, verified. looked_at: pairs per step."""

    groups: pd.DataFrame
    edges: pd.DataFrame
    apart: pd.DataFrame
    looked_at: dict[str, int]


def group_images(
    manifest: pd.DataFrame, pictures: Pictures, params: GroupParams, sides: NDArray[np.int64] | None = None
) -> Grouped:
    """Tie copies and the user's columns into groups: connected components, each named by its smallest image id.

    Args:
        manifest: path, id, pixels_sha256 and grouping columns.
        pictures: of the manifest's rows.
        params: thresholds.
        sides: (N,) numbers of a published split; the edges then name every pair of copies on two sides.

    Raises UserError where likeness chains more than `params.max_share` of the images into one group.
    """
    import pandas as pd

    paths = manifest["path"].to_numpy()
    given = column_edges(manifest, params.columns, params.blank_words)
    given += moment_edges(manifest, params.camera_column, params.captured_within_seconds, params.blank_words)
    component, copies = _tie(pictures, given, params, sides)
    if params.max_share < 1:
        words = partial(_remedy, paths.tolist(), pictures, given, copies.edges, params)
        refuse_chain(paths.tolist(), component, copies.edges, given, params.max_share, words)
    smallest = manifest["id"].groupby(component).transform("min")
    groups = pd.DataFrame({"path": paths, "group": "g" + smallest.str[:16]})
    return Grouped(groups, edge_table(paths, given + copies.edges), edge_table(paths, copies.apart), copies.looked_at)


def _tie(
    pictures: Pictures, given: list[Edge], params: GroupParams, sides: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], Copies]:
    """Return each picture's component, and the copies that were found beyond what is `given`."""
    joined = Joined(len(pictures.identity))
    for edge in given:
        joined.union(edge.a, edge.b)
    copies = find_copies(pictures, joined, params, sides=sides)
    return joined.labels(), copies


def _remedy(paths: list[str], pictures: Pictures, given: list[Edge], found: list[Edge], params: GroupParams) -> str:
    """Say which radius leaves no chain in this very set: the widest that does, tried by grouping the set again.

    What was `found` already tells which radii are too wide, so that mostly one is tried.
    """
    print("one group is too large: looking for the radius that parts it", file=sys.stderr)

    def is_parted(component: NDArray[np.int64], edges: list[Edge]) -> bool:
        try:
            refuse_chain(paths, component, edges, given, params.max_share)
        except UserError:
            return False
        return True

    def would_part(radius: int) -> bool:
        near = [e for e in found if e.verified and (e.kind == "embedding" or e.distance <= radius)]
        joined = Joined(len(paths))
        for edge in given + near:
            joined.union(edge.a, edge.b)
        return is_parted(joined.labels(), near)

    def parts_it(radius: int) -> bool:
        narrower = params.model_copy(
            update={"candidate_radius": radius, "join_radius": min(params.join_radius, radius)}
        )
        component, copies = _tie(pictures, given, narrower)
        return is_parted(component, copies.edges)

    high = candidate_radius(len(paths), params)  # doesn't, or there were nothing to say
    widest = next((radius for radius in range(high - 1, -1, -1) if would_part(radius)), -1)
    low = widest if widest >= 0 and parts_it(widest) else 0
    if low == 0 and not (widest >= 0 and parts_it(0)):
        return "say in group.columns which images belong together (no group.candidate_radius, not even 0, parts them)"
    high = widest if low < widest else low + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parts_it(middle) else (low, middle)
    return (
        f"set group.candidate_radius: {low} and group.join_radius: {min(params.join_radius, low)} (tried on this set: "
        "no group is too large then)"
    )


def edge_table(paths: NDArray[np.object_], edges: list[Edge]) -> pd.DataFrame:
    """Return edges as a table: path_a, path_b, kind, distance, score, verified."""
    import pandas as pd

    return pd.DataFrame(
        {
            "path_a": paths[[e.a for e in edges]] if edges else np.array([], object),
            "path_b": paths[[e.b for e in edges]] if edges else np.array([], object),
            "kind": pd.Series([e.kind for e in edges], dtype=object),
            "distance": np.array([e.distance for e in edges], float),
            "score": np.array([e.score for e in edges], float),
            "verified": np.array([e.verified for e in edges], bool),
        }
    )


def describe_pictures(
    manifest: pd.DataFrame,
    fingerprints: NDArray[np.uint64],
    thumbnails: NDArray[np.uint8],
    grey: Callable[[int], Grey],
    embeddings: NDArray[np.floating[Any]] | None,
) -> Pictures:
    """Return ingest's results as `find_copies` takes them: fingerprints (N, 2, 37), thumbnails (N, 81, 96)."""
    boxes = np.array([(x * (1 - s), y * (1 - s), x * (1 - s) + s, y * (1 - s) + s) for s, y, x in WINDOWS[1:]])
    prints = Fingerprints(manifest["phash"].to_numpy(np.uint64), fingerprints[:, 0, 1:], fingerprints[:, 1, 0], boxes)
    return Pictures(manifest, prints, lambda row: thumbnails[row], grey, embeddings)


def grey_reader(data: DataParams, paths: NDArray[np.object_]) -> Callable[[int], Grey]:
    """Return a function that returns the grey picture of a row of the manifest, its longer side at most 320."""
    import cv2

    from plumbline.imaging.reading import load_rgb

    return lambda row: shrink(np.asarray(cv2.cvtColor(load_rgb(data, paths[row]), cv2.COLOR_RGB2GRAY), np.uint8))


def read_embeddings(folder: Path, manifest: pd.DataFrame) -> tuple[NDArray[np.floating[Any]] | None, str]:
    """Return the embeddings (N, D) in manifest order, or None, and a sentence on where they come from.

    Embeddings of random weights reflect brightness, not content: they are not used, and the sentence says so.
    """
    from plumbline.models.features import open_features

    features = open_features(folder)
    origin = features.backbone.weights.origin
    if origin not in ("imagenet", "file"):
        return None, f"SKIPPED: {folder.name} has {origin} weights, so no embedding neighbours were looked at"
    view = features.values[features.rows_of(manifest["path"].tolist()), 0]
    vectors = view.reshape(len(view), -1, view.shape[-1]).astype(np.float32).mean(axis=1)
    return vectors, f"{folder.name}, {origin} weights"


def summary(found: Grouped, conflicts: pd.DataFrame, embeddings: str, tied: list[Tied]) -> Grouping:
    """Return build/group.json: pairs compared by step, edges by kind, where embeddings came from, columns."""
    verified = found.edges[found.edges["verified"]]
    return Grouping(
        images=len(found.groups),
        groups=int(found.groups["group"].nunique()),
        edges={str(k): int(n) for k, n in verified["kind"].value_counts().items()},
        looked_at=found.looked_at,
        embeddings=embeddings,
        label_conflicts=len(conflicts),
        columns=tuple(asdict(one) for one in tied),
    )
