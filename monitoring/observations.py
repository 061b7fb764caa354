"""What the tests compare: images described, embedded and scored, and which of them belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Observations:
    """N images.

    measures: (N, M) descriptors, a column each; probabilities: (N, C) of the champion, as calibrated; embeddings:
    (N, D); groups: (N,) numbers, equal for images that are not independent (one photograph, video, near-duplicates).
    """

    measures: pd.DataFrame
    probabilities: Floats
    embeddings: Floats
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def group_count(self) -> int:
        """How many independent photographs or videos there are."""
        return len(np.unique(self.groups))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) the most probable class of each image."""
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)

    def take(self, rows: NDArray[np.intp]) -> Observations:
        """Return the images `rows`, in that order (a row may come twice)."""
        return Observations(
            self.measures.iloc[rows].reset_index(drop=True),
            self.probabilities[rows],
            self.embeddings[rows],
            self.groups[rows],
        )
