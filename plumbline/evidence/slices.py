"""Slices: parts of the data on which a model may be worse than on the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MOST_VALUES = 12
"""A column with more distinct values than this is an id, or a number that is cut into thirds."""
MEASURED = {
    "size": "photograph size",
    "brightness": "light",
    "sharpness": "sharpness",
}
NOT_SLICED = frozenset(
    {"path", "id", "pixels_sha256", "label", "width", "height", "bytes", "format", "phash", "brightness", "contrast"}
    | {"sharpness", "colourfulness", "group", "split", "captured_at", "size", "decoder_warning"}
)
THIRDS = ("low", "middle", "high")


@dataclass(frozen=True)
class Slicing:
    """`column` cuts the pictures into named values (N,); an empty name belongs to no slice."""

    column: str
    values: NDArray[np.object_]


def slicings(manifest: pd.DataFrame) -> tuple[list[Slicing], list[str]]:
    """Return the ways to slice the pictures of `manifest` (N rows), and a sentence for each column passed over.

    Photograph size, light and sharpness are cut into thirds of the whole set; every other metadata column is sliced by
    its values, or in thirds where it holds many numbers.
    """
    measured = manifest.assign(size=manifest["width"].astype(np.int64) * manifest["height"].astype(np.int64))
    found, skipped = [], []
    for column, name in MEASURED.items():
        values = thirds(measured[column].astype(np.float64))
        if values is None:
            skipped.append(f"{name}: alike in all pictures")
        else:
            found.append(Slicing(name, values))
    for column in manifest.columns:
        if column in NOT_SLICED:
            continue
        slicing = slice_column(str(column), manifest[column])
        if isinstance(slicing, str):
            skipped.append(slicing)
        else:
            found.append(slicing)
    return found, skipped


def slice_column(name: str, column: pd.Series) -> Slicing | str:
    """Return how a metadata column slices the pictures, or the sentence that says why it doesn't."""
    text = column.astype("string").fillna("").str.strip()
    distinct = sorted(set(text) - {""})
    if len(distinct) < 2:
        return f"{name}: alike in all pictures"
    if len(distinct) <= MOST_VALUES:
        return Slicing(name, text.to_numpy(dtype=object))
    numbers = pd.to_numeric(text.where(text != ""), errors="coerce")
    looks_like_id = numbers.notna().sum() < (text != "").sum() or bool((numbers.dropna() % 1 == 0).all())
    if looks_like_id and len(distinct) > len(text) / 10:
        return f"{name}: {len(distinct)} different values, too many to be slices"
    values = thirds(numbers) if numbers.notna().sum() == (text != "").sum() else None
    if values is None:
        return f"{name}: {len(distinct)} different values, too many to be slices"
    return Slicing(name, values)


def thirds(numbers: pd.Series) -> NDArray[np.object_] | None:
    """Return low, middle or high (N,), cut at the thirds; None where the numbers don't spread enough to be cut."""
    known = numbers.dropna()
    if known.empty:
        return None
    lower, upper = known.quantile([1 / 3, 2 / 3])
    if not known.min() < lower < upper < known.max():
        return None
    values = np.where(numbers <= lower, THIRDS[0], np.where(numbers <= upper, THIRDS[1], THIRDS[2])).astype(object)
    values[numbers.isna().to_numpy()] = ""
    return np.asarray(values, dtype=object)
