"""Stage `group`: what must never be parted. Proved copies, and whatever the user's grouping columns say.

python -m stages.group                       the stage: groups, edges (the evidence) and label conflicts
python -m stages.group audit TRAIN TEST ...  any published split: certificate; exit 1 when it leaks, 2 for bad input
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.errors import UserError, run
from common.files import write_json, write_table
from common.params import load_section
from imaging.alignment import Grey, shrink
from imaging.copies import CopyParams, Edge, Fingerprints, Joined, Pictures, find_copies
from imaging.hashing import WINDOWS
from stages.grouping.chains import refuse_chain
from stages.grouping.columns import BLANK_WORDS, Tied, column_edges, moment_edges, sentence, tied_by_column

if TYPE_CHECKING:
    import pandas as pd

    from imaging.collection import DataParams

BUILD = Path("build")
CONFLICTS_PAGE = Path("reports/label_conflicts.html")


class GroupParams(CopyParams):
    """params.yaml, section `group`."""

    columns: tuple[str, ...] = ("photo", "video", "person")
    blank_words: tuple[str, ...] = BLANK_WORDS
    camera_column: str = "camera"
    captured_within_seconds: float = Field(default=0, ge=0)
    embedding: str | None = None
    max_share: float = Field(default=0.25, gt=0, le=1)
    label_conflicts: Literal["fail", "set_aside"] = "fail"


@dataclass(frozen=True)
class Grouped:
    """groups: path, group. edges, apart: path_a, path_b, kind, distance, score, verified. looked_at: pairs per step."""

    groups: pd.DataFrame
    edges: pd.DataFrame
    apart: pd.DataFrame
    looked_at: dict[str, int]


def group_images(manifest: pd.DataFrame, pictures: Pictures, params: GroupParams) -> Grouped:
    """Tie copies and the user's columns into groups: connected components, each named by its smallest image id.

    Raises UserError where likeness chains more than `params.max_share` of the images into one group.
    """
    import pandas as pd

    paths = manifest["path"].to_numpy()
    given = column_edges(manifest, params.columns, params.blank_words)
    given += moment_edges(manifest, params.camera_column, params.captured_within_seconds, params.blank_words)
    joined = Joined(len(manifest))
    for edge in given:
        joined.union(edge.a, edge.b)
    copies = find_copies(pictures, joined, params)
    component = joined.labels()
    refuse_chain(paths.tolist(), component, copies.edges, given, params.max_share)
    smallest = manifest["id"].groupby(component).transform("min")
    groups = pd.DataFrame({"path": paths, "group": "g" + smallest.str[:16]})
    return Grouped(groups, edge_table(paths, given + copies.edges), edge_table(paths, copies.apart), copies.looked_at)


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
    """Put together what ingest found for `find_copies`: fingerprints (N, 2, 37), thumbnails (N, 72, 96)."""
    boxes = np.array([(x * (1 - s), y * (1 - s), x * (1 - s) + s, y * (1 - s) + s) for s, y, x in WINDOWS[1:]])
    prints = Fingerprints(manifest["phash"].to_numpy(np.uint64), fingerprints[:, 0, 1:], fingerprints[:, 1, 0], boxes)
    return Pictures(manifest, prints, lambda row: thumbnails[row], grey, embeddings)


def grey_reader(data: DataParams, paths: NDArray[np.object_]) -> Callable[[int], Grey]:
    """Return a function from a row of the manifest to its picture in grey, longer side at most 320."""
    import cv2

    from imaging.collection import load_rgb

    return lambda row: shrink(np.asarray(cv2.cvtColor(load_rgb(data, paths[row]), cv2.COLOR_RGB2GRAY), np.uint8))


def read_embeddings(folder: Path, manifest: pd.DataFrame) -> tuple[NDArray[np.floating[Any]] | None, str]:
    """Return the embeddings (N, D) in manifest order, or None, and a sentence on where they come from.

    Random weights tell a picture's brightness, not its content: they are passed over, and that is said.
    """
    from models.features import open_features

    features = open_features(folder)
    origin = features.backbone["weights"]["origin"]
    if origin not in ("imagenet", "file"):
        return None, f"SKIPPED: {folder.name} has {origin} weights, so no embedding neighbours were looked at"
    view = features.values[features.rows_of(manifest["path"].tolist()), 0]
    vectors = view.reshape(len(view), -1, view.shape[-1]).astype(np.float32).mean(axis=1)
    return vectors, f"{folder.name}, {origin} weights"


def main() -> None:
    """Run the stage, or the audit."""
    if sys.argv[1:2] == ["audit"]:
        from stages.certificate.audit import audit

        sys.exit(audit(sys.argv[2:]))
    import pandas as pd

    from imaging.collection import DataParams, load_rgb
    from stages.grouping.conflicts import settle

    params = load_section("group", GroupParams)
    data = load_section("data", DataParams)
    manifest = pd.read_parquet(BUILD / "manifest.parquet")
    embeddings, source = None, "none asked for (group.embedding)"
    if params.embedding:
        embeddings, source = read_embeddings(BUILD / "features" / params.embedding, manifest)
    print(f"embeddings: {source}", file=sys.stderr)
    pictures = describe_pictures(
        manifest,
        np.load(BUILD / "fingerprints.npy", allow_pickle=False),
        np.load(BUILD / "thumbnails.npy", mmap_mode="r", allow_pickle=False),
        grey_reader(data, manifest["path"].to_numpy()),
        embeddings,
    )
    found = group_images(manifest, pictures, params)
    conflicts = settle(manifest, found.edges, pictures.grey, lambda path: load_rgb(data, path), CONFLICTS_PAGE)
    write_table(BUILD / "label_conflicts.csv", conflicts)
    if len(conflicts) and params.label_conflicts == "fail":
        first = conflicts.iloc[0]
        raise UserError(
            f"{len(conflicts)} images are copies of one another with different labels (the first: {first['path']}, "
            f"{first['reason']}): open {CONFLICTS_PAGE} and correct them in data/, or set "
            "group.label_conflicts: set_aside."
        )
    write_table(BUILD / "edges.parquet", found.edges)
    write_table(BUILD / "apart.parquet", found.apart)
    tied = tied_by_column(manifest, params.columns, params.blank_words)
    write_json(BUILD / "group.json", summary(found, conflicts, source, tied))
    write_table(BUILD / "groups.parquet", found.groups)
    sizes = found.groups["group"].value_counts()
    print(f"{len(manifest)} images in {len(sizes)} groups, the largest of {sizes.iloc[0]}")
    print("\n".join(sentence(one) for one in tied) or "no grouping column (group.columns) is in the data")
    print(", ".join(f"{n} {kind}" for kind, n in found.edges[found.edges["verified"]]["kind"].value_counts().items()))


def summary(found: Grouped, conflicts: pd.DataFrame, embeddings: str, tied: list[Tied]) -> dict[str, Any]:
    """What build/group.json says: pairs looked at by step, edges by kind, where embeddings came from, columns."""
    verified = found.edges[found.edges["verified"]]
    return {
        "images": len(found.groups),
        "groups": int(found.groups["group"].nunique()),
        "edges": {str(k): int(n) for k, n in verified["kind"].value_counts().items()},
        "looked_at": found.looked_at,
        "embeddings": embeddings,
        "label_conflicts": len(conflicts),
        "columns": [asdict(one) for one in tied],
    }


if __name__ == "__main__":
    run(main)
