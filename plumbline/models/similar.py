"""Which known pictures are most like a new one, and can likeness tell whether two show the same scene?

Both look at vectors that a run has left already: the features of a frozen backbone, or a triplet candidate's embedding
of them. Likeness is the cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.records import read_record
from plumbline.models.assemble import load_trained
from plumbline.models.candidates import TRIPLET
from plumbline.models.features import Features, open_features
from plumbline.models.records import ModelRecord
from plumbline.models.triplets import embedder
from plumbline.models.weights import PIXELS

if TYPE_CHECKING:
    import keras
    import pandas as pd

ROWS_AT_ONCE = 64
Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Space:
    """Where pictures are compared: unit `vectors` (N, D) of the pictures `paths`, and what makes a new picture's."""

    paths: list[str]
    vectors: Vectors
    features: Features
    embedding: keras.Model | None

    def of_features(self, values: NDArray[Any]) -> Vectors:
        """Unit vectors (n, D) of one view's features (n, ...)."""
        return unit_vectors(values, self.embedding)


def unit_vectors(values: NDArray[Any], embedding: keras.Model | None) -> Vectors:
    """Features (N, ...) as unit vectors (N, D): maps averaged, through `embedding` where there is one."""
    found = []
    for start in range(0, len(values), ROWS_AT_ONCE):
        some = np.asarray(values[start : start + ROWS_AT_ONCE], np.float32)
        if embedding is not None:
            some = np.asarray(embedding(some, training=False))
        elif some.ndim == 4:
            some = some.mean(axis=(1, 2))
        found.append(some.reshape(len(some), -1).astype(np.float64))
    vectors = np.concatenate(found)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def open_space(name: str) -> Space:
    """Open the vectors of `name`: a trained candidate of architecture triplet, or a backbone; UserError otherwise."""
    folder = artefacts.CANDIDATES / name
    embedding, backbone = None, name
    if (folder / artefacts.MODEL).is_file():
        model = read_record(folder / artefacts.MODEL, ModelRecord)
        backbone = model.backbone
        if model.architecture == TRIPLET:
            embedding = embedder(load_trained(folder, artefacts.FEATURES / backbone))
    features = open_features(artefacts.FEATURES / backbone)
    if features.backbone.network == PIXELS:
        raise UserError(
            f"{name} reads the pictures themselves, whose likeness is not that of what they show: "
            "name a backbone with a network, or a candidate of architecture triplet."
        )
    vectors = unit_vectors(features.values[:, 0], embedding)
    return Space(list(features.index["path"]), vectors, features, embedding)


def most_similar(space: Space, vector: Vectors, count: int, without: str | None = None) -> list[tuple[str, float]]:
    """The `count` pictures nearest to `vector` (D,), nearest first, each with its cosine; ties by path."""
    cosines = space.vectors @ vector
    order = sorted(range(len(cosines)), key=lambda row: (-cosines[row], space.paths[row]))
    return [(space.paths[row], float(cosines[row])) for row in order if space.paths[row] != without][:count]


@dataclass(frozen=True)
class Verification:
    """Are two pictures of one group? `area` under the ROC, and the threshold where both errors are equally frequent."""

    same: int
    different: int
    area: float
    threshold: float
    error: float
    curve: pd.DataFrame


def verify(vectors: Vectors, groups: NDArray[Any]) -> Verification:
    """Judge every pair of pictures (N, D) by its cosine: groups (N,) say which are of one photograph or person.

    `curve` has threshold, false_positive_rate and true_positive_rate. UserError where all pairs are of one kind.
    """
    import pandas as pd
    from sklearn.metrics import roc_auc_score, roc_curve

    left, right = np.triu_indices(len(vectors), 1)
    cosines = np.einsum("nd,nd->n", vectors[left], vectors[right])
    same = np.asarray(groups)[left] == np.asarray(groups)[right]
    if same.all() or not same.any():
        kind = "the same group" if len(same) and same.all() else "different groups"
        raise UserError(f"all pairs of these {len(vectors)} pictures are of {kind}: there is nothing to tell apart.")
    false, true, thresholds = roc_curve(same, cosines)
    equal = int(np.argmin(np.abs(false - (1 - true))))
    curve = pd.DataFrame({"threshold": thresholds, "false_positive_rate": false, "true_positive_rate": true})
    error = float((false[equal] + 1 - true[equal]) / 2)
    area = float(roc_auc_score(same, cosines))
    return Verification(int(same.sum()), int((~same).sum()), area, float(thresholds[equal]), error, curve)


def picture_features(image: Path, features: Features, max_pixels: int) -> NDArray[Any]:
    """One view's features (1, ...) of a picture file, made as those of the backbone's pictures were."""
    from plumbline.imaging.decode import DecodeError, decode_resized
    from plumbline.models.extraction import stored_extractor

    backbone = features.backbone
    try:
        pixels = decode_resized(image.read_bytes(), (backbone.image_size,) * 2, max_pixels, backbone.fit)
    except (OSError, DecodeError) as error:
        raise UserError(f"{image} can't be read as a picture ({_why(error)}): name a JPEG, PNG, BMP or WebP.") from None
    return stored_extractor(backbone, features.folder / artefacts.BACKBONE_WEIGHTS).extract(pixels[None])


def _why(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
