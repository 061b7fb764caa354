"""Edges from what the user knows: shared values of grouping columns, and shots of one camera taken close in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.imaging.metadata import BLANK_WORDS, grouping_values
from plumbline.leakage.copies import Edge

if TYPE_CHECKING:
    import pandas as pd

LATER_SHOTS = 64  # of a burst, each image is tied to this many later ones: the burst holds when some are set aside


@dataclass(frozen=True)
class Tied:
    """What a grouping column ties: images with a value, images with a word for "unknown", and the largest values."""

    column: str
    images: int
    blank_words: int
    values: int
    largest: list[tuple[str, int]]


def tied_by_column(
    manifest: pd.DataFrame, columns: Sequence[str], blank_words: Sequence[str] = BLANK_WORDS, most: int = 3
) -> list[Tied]:
    """Return what each existing grouping column ties, with its `most` largest values."""
    found = []
    for column in (c for c in columns if c in manifest):
        text = grouping_values(manifest, column, blank_words)
        given = manifest[column].fillna("").astype(str).str.strip() != ""
        counts = text[text != ""].value_counts()
        largest = sorted(counts.items(), key=lambda item: (-int(item[1]), str(item[0])))[:most]
        blank = int((given & (text == "")).sum())
        found.append(Tied(column, int(counts.sum()), blank, len(counts), [(str(v), int(n)) for v, n in largest]))
    return found


def sentence(tied: Tied) -> str:
    """Return it as one line."""
    words = f"{tied.column}: {tied.values} values on {tied.images} images"
    if tied.largest:
        words += ", the largest " + ", ".join(f"{value} ({images} images)" for value, images in tied.largest)
    if tied.blank_words:
        words += f"; {tied.blank_words} images have a word for no value, which ties nothing (group.blank_words)"
    return words


def column_edges(
    manifest: pd.DataFrame, columns: Sequence[str], blank_words: Sequence[str] = BLANK_WORDS
) -> list[Edge]:
    """Chain the images that share a value of a grouping column; blanks and absent columns tie nothing."""
    edges = []
    for column in (c for c in columns if c in manifest):
        text = grouping_values(manifest, column, blank_words)
        for value, rows in sorted(text.groupby(text).indices.items()):
            if value != "":
                edges += [Edge(int(a), int(b), column, 0.0, 1.0) for a, b in pairwise(rows)]
    return edges


def moment_edges(
    manifest: pd.DataFrame, camera_column: str, seconds: float, blank_words: Sequence[str] = BLANK_WORDS
) -> list[Edge]:
    """Tie images that one camera took within `seconds` of each other; `distance` is the seconds between them.

    Raises UserError where there is no column that names the camera, or a time can't be read.
    """
    if not seconds or "captured_at" not in manifest:
        return []
    if camera_column not in manifest:
        raise UserError(
            f"group.captured_within_seconds is {seconds:g} but the pictures have no column '{camera_column}': "
            "add it to metadata.csv, or name yours in group.camera_column of params.yaml."
        )
    times = _seconds(manifest)
    camera = grouping_values(manifest, camera_column, blank_words).to_numpy()
    rows = np.flatnonzero(~np.isnan(times) & (camera != ""))
    rows = rows[np.lexsort((rows, times[rows], camera[rows]))]
    return [
        Edge(min(a, b), max(a, b), "captured_at", gap, 1.0)
        for a, b, gap in _close(rows, times[rows], camera[rows], seconds)
    ]


def _seconds(manifest: pd.DataFrame) -> NDArray[np.float64]:
    """Seconds since 1970 of captured_at (ISO 8601), NaN where blank."""
    import pandas as pd

    given = manifest["captured_at"].fillna("").astype(str)
    times = pd.to_datetime(given.where(given != ""), errors="coerce", utc=True, format="ISO8601")
    wrong = ((given != "") & times.isna()).to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"{manifest['path'].iat[row]}: captured_at '{given.iat[row]}' is no date and time: write it as "
            "2026-05-01T13:45:10 in metadata.csv."
        )
    since = (times - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    return np.asarray(since.to_numpy(np.float64, na_value=np.nan), np.float64)


def _close(
    rows: NDArray[np.intp], times: NDArray[np.float64], camera: NDArray[np.object_], seconds: float
) -> Iterator[tuple[int, int, float]]:
    """Pairs of one camera's shots within `seconds`; rows are sorted by camera and time."""
    for later in range(1, LATER_SHOTS + 1):
        gap = times[later:] - times[:-later]
        close = np.flatnonzero((gap <= seconds) & (camera[later:] == camera[:-later]))
        if not len(close):
            return
        yield from ((int(rows[k]), int(rows[k + later]), float(gap[k])) for k in close)
