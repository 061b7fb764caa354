"""Copies of one picture with different labels: at least one label is wrong, and only a person can say which."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plumbline.common.parallel import in_order
from plumbline.common.progress import progress
from plumbline.imaging.hashing import stored_thumbnail
from plumbline.imaging.pictures import BOX_COUNT
from plumbline.leakage.alignment import (
    NOTHING,
    Affine,
    Grey,
    Local,
    Overlap,
    align_whole,
    compare_colours,
    compare_overlap,
    local_features,
    locate_local,
    mirrored,
    on_thumbnails,
    shrink,
    thumbnail,
    turned,
)
from plumbline.leakage.copies import CERTAIN, SAME_COLOURS, one_thread_each

if TYPE_CHECKING:
    import pandas as pd

# Every part of the overlap must be alike, the overlap must be most of either picture, and the colours must agree. The
# next shot of a fixed camera fails the first (someone moved; planted sequences reach 0.68, plain copies 0.85), two
# crops of one photograph around two workers fail the second, the same helmet in red and in blue the third. A copy with
# a caption fails too: it is grouped, but not called a conflict.
MIN_WORST = 0.75
MIN_COMMON = 0.6
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
    manifest: pd.DataFrame, edges: pd.DataFrame, picture: Callable[[int], NDArray[np.uint8]]
) -> list[tuple[str, str]]:
    """Return the pairs that show the same shot under different labels.

    Of whole photographs only those of the same pixels: a copy that was cropped has lost some of the boxes, and with
    them perhaps a class, and neither is wrong.

    Args:
        manifest: path, label.
        edges: path_a, path_b, kind, verified.
        picture: returns the pixels of a row of the manifest, RGB or grey; colours of grey ones are not compared.
    """
    row = {path: i for i, path in enumerate(manifest["path"])}
    label = manifest["label"].to_numpy()
    kinds = CERTAIN if BOX_COUNT in manifest else LIKENESS
    asked = [
        (row[edge.path_a], row[edge.path_b], edge.kind in CERTAIN)
        for edge in edges[edges["verified"] & edges["kind"].isin(kinds)].itertuples()
        if label[row[edge.path_a]] != label[row[edge.path_b]]
    ]

    def conflicts(pair: tuple[int, int, bool]) -> bool:
        a, b, certain = pair
        return certain or same_shot(picture(a), picture(b))

    with one_thread_each():
        verdicts = progress(in_order(conflicts, asked), "compare copies' labels", total=len(asked), unit="pair")
        found = [pair for pair, verdict in zip(asked, verdicts, strict=True) if verdict]
    path = manifest["path"].tolist()
    return [(str(path[a]), str(path[b])) for a, b, _ in found]


def same_shot(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    """Whether two pictures (RGB or grey) are the same shot as a whole, not the same scene at another moment or in
    another colour."""
    a, b = shrink(a), shrink(b)
    first, second = _with_thumbnail(a), _with_thumbnail(b)
    seen = local_features(first[0]), local_features(second[0])
    tries = [
        _by_local_features(*seen, flip=False),
        _by_local_features(mirrored(seen[0]), seen[1], flip=True),
        _as_a_whole(first[0], second[0], flip=False),
        _as_a_whole(first[0], second[0], flip=True),
    ]
    overlap, affine, flip = max(tries, key=lambda one: (_is_whole(one[0]), one[0].score))
    if affine is None or not _is_whole(overlap):
        return False
    return compare_colours(turned(first[1]) if flip else first[1], second[1], affine).different <= SAME_COLOURS


def _is_whole(overlap: Overlap) -> bool:
    return overlap.worst >= MIN_WORST and overlap.common >= MIN_COMMON


def _with_thumbnail(picture: NDArray[np.uint8]) -> tuple[Grey, Grey]:
    """The grey picture and its thumbnail, which has colours where the picture has."""
    if picture.ndim == 2:
        return picture, thumbnail(picture)
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    return grey, stored_thumbnail(Image.fromarray(picture), grey)


def _by_local_features(a: Local, b: Local, flip: bool) -> tuple[Overlap, Affine | None, bool]:
    """The overlap found by local features, the map between the thumbnails, and whether `a` was mirrored."""
    _, affine = locate_local(a, b)
    if affine is None:
        return NOTHING, None, flip
    return compare_overlap(a.grey, b.grey, affine), on_thumbnails(affine, a.grey, b.grey), flip


def _as_a_whole(a: Grey, b: Grey, flip: bool) -> tuple[Overlap, Affine | None, bool]:
    """The same, found by laying one whole picture over the other."""
    small = thumbnail(a)
    return (*align_whole(np.ascontiguousarray(small[:, ::-1]) if flip else small, thumbnail(b)), flip)
