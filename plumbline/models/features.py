"""The features folder of a backbone: what `featurize` writes and every candidate reads.

`features.npy` holds (N, 1 + views, ...) values, row i belonging to row i of `index.parquet` (path, id); view 0 is the
picture itself, views 1.. its augmented versions. `backbone.json` says how they were made, `backbone.weights.h5` holds
the weights that made them.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.records import read_record
from plumbline.models.records import BackboneRecord

if TYPE_CHECKING:
    import pandas as pd

ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class Features:
    """Features of N pictures. `values` (N, 1 + views, ...) is memory-mapped from `folder`."""

    values: NDArray[Any]
    index: pd.DataFrame
    backbone: BackboneRecord
    folder: Path

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one view's features."""
        return self.values.shape[2:]

    @property
    def views(self) -> int:
        """Number of augmented views beside the picture itself."""
        return int(self.values.shape[1] - 1)

    def rows_of(self, paths: list[str]) -> NDArray[np.intp]:
        """Row numbers of `paths`; UserError names a path that has no features."""
        import pandas as pd

        rows = pd.Index(self.index["path"]).get_indexer(pd.Index(paths))
        if (rows < 0).any():
            missing = paths[int(np.argmax(rows < 0))]
            raise UserError(f"{missing} has no features of {self.backbone.backbone}: run `dvc repro`.")
        return np.asarray(rows)


def release(values: NDArray[Any]) -> None:
    """Release the pages of a mapped array from this process; they stay in the system's cache, and no data is lost.

    Without it a process that goes through mapped features ends up holding all of them.
    """
    mapping = getattr(values, "_mmap", None)
    if mapping is not None and hasattr(mapping, "madvise"):
        mapping.madvise(mmap.MADV_DONTNEED)


def read_rows(values: NDArray[Any], rows: NDArray[np.intp], views: NDArray[np.intp]) -> NDArray[np.float32]:
    """Read view `views[i]` of picture `rows[i]` for every i, (len(rows), ...), from a mapped array (N, 1 + V, ...).

    A few at a time, because around each picture that is read Linux maps up to 2 MB of the file that it has cached.
    """
    read = np.empty((len(rows), *values.shape[2:]), dtype=np.float32)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        few = slice(first, first + ROWS_AT_ONCE)
        read[few] = values[rows[few], views[few]]
        release(values)
    return read


def open_features(folder: Path) -> Features:
    """Open a features folder; UserError where it is missing or not whole."""
    import pandas as pd

    try:
        values = np.load(folder / artefacts.VALUES, mmap_mode="r", allow_pickle=False)
        index = pd.read_parquet(folder / artefacts.INDEX)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no whole set of features ({error}): run `dvc repro`.") from None
    backbone = read_record(folder / artefacts.BACKBONE, BackboneRecord, f"featurize@{folder.name}")
    if len(values) != len(index):
        raise UserError(f"{folder}: {len(values)} rows of features for {len(index)} pictures: run `dvc repro`.")
    return Features(values, index, backbone, folder)
