"""Copies of one picture that carry different labels: at least one label is wrong, and only a person can say which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.files import write_text
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
Picture = Callable[[str], NDArray[np.uint8]]
SHOWN = 200  # pairs on the page; label_conflicts.csv names all
LIKENESS = (*CERTAIN, "near", "mirrored", "cropped", "embedding")


def settle(
    manifest: pd.DataFrame, edges: pd.DataFrame, grey: Callable[[int], Grey], picture: Picture, page: Path
) -> pd.DataFrame:
    """Return path, label, reason of every image that is a copy of one with another label, and write the page on them.

    Args:
        manifest: path, label.
        edges: path_a, path_b, kind, verified.
        grey: a row of the manifest to its picture in grey.
        picture: a path to its pixels (H, W, 3), for the page.
        page: where to write the pairs side by side.
    """
    import pandas as pd

    pairs = conflicting_pairs(manifest, edges, grey)
    reasons: dict[str, str] = {}
    label = dict(zip(manifest["path"], manifest["label"], strict=True))
    for a, b in pairs:
        reasons.setdefault(a, f"labelled {label[a]}, its copy {b} {label[b]}")
        reasons.setdefault(b, f"labelled {label[b]}, its copy {a} {label[a]}")
    write_text(page, render(pairs, label, picture))
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


def render(pairs: list[tuple[str, str]], label: dict[str, str], picture: Picture) -> str:
    """Return the page: each pair side by side, with what each is labelled."""
    from plumbline.pages.certificate import data_uri, render_page

    def shown(path: str) -> dict[str, Any]:
        return {"path": path, "label": label[path], "image": data_uri(picture(path))}

    return render_page(
        "label_conflicts.html.j2", total=len(pairs), pairs=[(shown(a), shown(b)) for a, b in pairs[:SHOWN]]
    )
