"""Copies of one picture that carry different labels: at least one label is wrong, and only a person can say which."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from plumbline.leakage.alignment import (
    Grey,
    Overlap,
    align_local,
    align_thumbnails,
    local_features,
    mirrored,
    thumbnail,
)

if TYPE_CHECKING:
    import pandas as pd

# Every part of the overlap must be alike, and the overlap most of either picture. The next shot of a fixed camera fails
# the first (someone moved; planted sequences reach 0.68, plain copies 0.85), two crops of one photograph around two
# workers the second. A copy with a caption over it fails too: it is grouped, but not called a conflict.
MIN_WORST = 0.75
MIN_COMMON = 0.6
CERTAIN = ("same bytes", "same pixels")
LIKENESS = (*CERTAIN, "near", "mirrored", "cropped", "embedding")


def conflict_table(pairs: list[tuple[str, str]], label: dict[str, str]) -> pd.DataFrame:
    """Return path, label, reason of every image in `pairs` of copies with different labels, sorted by path."""
    import pandas as pd

    reasons: dict[str, str] = {}
    for a, b in pairs:
        reasons.setdefault(a, f"labelled {label[a]}, its copy {b} {label[b]}")
        reasons.setdefault(b, f"labelled {label[b]}, its copy {a} {label[a]}")
    rows = [{"path": path, "label": label[path], "reason": reason} for path, reason in sorted(reasons.items())]
    return pd.DataFrame(rows, columns=["path", "label", "reason"], dtype=object)


def conflicting_pairs(
    manifest: pd.DataFrame, edges: pd.DataFrame, grey: Callable[[int], Grey]
) -> list[tuple[str, str]]:
    """Return the pairs that show the same shot under different labels."""
    row = {path: i for i, path in enumerate(manifest["path"])}
    label = manifest["label"].to_numpy()
    found = []
    for edge in edges[edges["verified"] & edges["kind"].isin(LIKENESS)].itertuples():
        a, b = row[edge.path_a], row[edge.path_b]
        if label[a] != label[b] and (edge.kind in CERTAIN or same_shot(grey(a), grey(b))):
            found.append((str(edge.path_a), str(edge.path_b)))
    return found


def same_shot(a: Grey, b: Grey) -> bool:
    """Whether two pictures show one shot as a whole, not merely the same scene at another moment."""
    best = overlay(a, b)
    return best.worst >= MIN_WORST and best.common >= MIN_COMMON


def overlay(a: Grey, b: Grey) -> Overlap:
    """Return the best overlap of two pictures, either way round, by local features or, without any, as a whole."""
    first, second = local_features(a), local_features(b)
    small_a, small_b = thumbnail(a), thumbnail(b)
    tries = [
        align_local(first, second)[1],
        align_local(mirrored(first), second)[1],
        align_thumbnails(small_a, small_b)[1],
        align_thumbnails(np.ascontiguousarray(small_a[:, ::-1]), small_b)[1],
    ]
    return max(tries, key=lambda o: (o.worst >= MIN_WORST and o.common >= MIN_COMMON, o.score))
