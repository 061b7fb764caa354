"""Features of test pictures with framing, background or head taken away.

Whole groups of test pictures are drawn up to `probe.pictures` and shown zoomed, before another background, with the
head covered; the backbone runs once for all of its candidates. Stage `disturb` writes the features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.params import Section
from plumbline.common.progress import progress
from plumbline.evidence.intervals import group_codes, some_groups
from plumbline.evidence.probes import BLURRED, COVERED, ELSEWHERE, REFRAMED, SWAPPED, zoom_name
from plumbline.models.extraction import stored_extractor
from plumbline.models.features import Features

BOX = ("left", "top", "right", "bottom")
GREY = 127
SOFT = 0.03
"""Standard deviation of the edge between two pictures, as a share of the side: a hard edge would be visible itself."""
BLUR = 0.08
FRAMED_HEAD, FRAMED_TOP = 0.4, 0.15
"""Where the condition `same framing` puts every head: its longer side and its top, as shares of the picture."""
BATCH = 32

Share = Annotated[float, Field(ge=0, le=1)]
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Pictures = Callable[[list[str], int], Iterable[Pixels]]


class ProbeParams(Section):
    """params.yaml `probe`. `head` is left, top, right, bottom as shares of the picture; `head_columns` names the four
    metadata columns that hold it picture by picture."""

    pictures: int = Field(default=60, ge=10)
    attention_pictures: int = Field(default=24, ge=4)
    zooms: tuple[Annotated[float, Field(gt=0.2, lt=5)], ...] = (0.7, 1.3)
    head: tuple[Share, Share, Share, Share] = (0.2, 0.0, 0.8, 0.6)
    head_columns: tuple[str, str, str, str] | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _a_box(self) -> ProbeParams:
        if not (self.head[0] < self.head[2] and self.head[1] < self.head[3]):
            raise ValueError("'head' is left, top, right, bottom: left < right and top < bottom")
        return self


def drawn_rows(splits: pd.DataFrame, params: ProbeParams) -> pd.DataFrame:
    """Return test pictures (path, id, label, group) of whole groups, up to `params.pictures`, sorted by path."""
    test = splits[splits["split"] == "test"].sort_values("path", ignore_index=True)
    if test.empty:
        raise UserError(f"{artefacts.SPLITS} has no test picture: run `dvc repro split`.")
    kept = some_groups(group_codes(test["group"]), params.pictures, params.seed)
    return test.loc[kept, ["path", "id", "label", "group"]].reset_index(drop=True)


def head_boxes(rows: pd.DataFrame, manifest: pd.DataFrame, params: ProbeParams) -> Floats:
    """Return each picture's head (N, 4): left, top, right, bottom as shares; `params.head` where none is given."""
    boxes = np.tile(np.asarray(params.head, dtype=np.float64), (len(rows), 1))
    if params.head_columns is None:
        return boxes
    absent = [name for name in params.head_columns if name not in manifest]
    if absent:
        raise UserError(
            f"params.yaml: probe.head_columns names {', '.join(absent)}, which metadata.csv does not have: "
            "name its columns of the head's left, top, right and bottom as shares, or null."
        )
    columns = manifest.set_index("path").loc[rows["path"], list(params.head_columns)]
    given = columns.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    filled = (columns.notna() & (columns.astype(str) != "")).to_numpy(bool)
    no_number = filled.any(axis=1) & ~np.isfinite(given).all(axis=1)
    if no_number.any():
        shown = ", ".join(columns[no_number].iloc[0].astype(str))
        raise UserError(
            f"metadata.csv: the head of {rows['path'].to_numpy()[no_number][0]} ({', '.join(params.head_columns)}) is "
            f"{shown}: write four numbers, with a decimal point, or leave all four empty for probe.head."
        )
    sound = filled.any(axis=1)
    held = given[sound]
    wrong = (held < 0).any(axis=1) | (held > 1).any(axis=1) | (held[:, 0] >= held[:, 2]) | (held[:, 1] >= held[:, 3])
    if wrong.any():
        path = rows["path"].to_numpy()[sound][wrong][0]
        raise UserError(
            f"metadata.csv: the head of {path} ({', '.join(params.head_columns)}) is no box in shares of the picture: "
            "left < right and top < bottom, all between 0 and 1."
        )
    boxes[sound] = held
    return boxes


def partners(rows: pd.DataFrame, seed: int) -> NDArray[np.intp]:
    """Return for each picture (N,) the row of a picture of another group and label, whose background it gets.

    Another label, so that a model that reads the background changes its answer and one that reads the head does not.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    labels, groups = rows["label"].to_numpy(), rows["group"].to_numpy()
    found = np.empty(len(rows), dtype=np.intp)
    for place, row in enumerate(order):
        others = np.roll(order, -place - 1)
        fits = others[(labels[others] != labels[row]) & (groups[others] != groups[row])]
        if len(fits) == 0:
            raise UserError(
                f"{artefacts.SPLITS}: of the test pictures drawn for stage disturb none has another label and another "
                f"group than {rows['path'].iat[row]}, whose background could take its place: raise probe.pictures in "
                "params.yaml, or add pictures of another label from elsewhere, until test holds some."
            )
        found[row] = fits[0]
    return found


def conditions(params: ProbeParams) -> list[str]:
    """Return the names of what is done to the pictures, in the order of features.npy."""
    zooms = [zoom_name(factor) for factor in params.zooms]
    return [*zooms, *([REFRAMED] if params.head_columns else []), BLURRED, SWAPPED, COVERED, ELSEWHERE]


def disturb(picture: Pixels, other: Pixels, box: Floats, condition: str) -> Pixels:
    """Return `picture` (S, S, 3) under one of `conditions`; `other` lends its background, `box` (4,) is the head."""
    import cv2

    size = picture.shape[0]
    if condition.startswith("zoom "):
        return _moved(picture, float(condition.removeprefix("zoom ")), (0.5, 0.5), (0.5, 0.5))
    if condition == REFRAMED:
        factor = FRAMED_HEAD / max(box[2] - box[0], box[3] - box[1])
        return _moved(picture, factor, ((box[0] + box[2]) / 2, box[1]), (0.5, FRAMED_TOP))
    if condition == BLURRED:
        return _blend(picture, cv2.GaussianBlur(picture, (0, 0), BLUR * size), box)
    if condition == SWAPPED:
        return _blend(picture, other, box)
    grey = np.full_like(picture, GREY)
    return _blend(grey, picture, box if condition == COVERED else elsewhere(box))


def elsewhere(box: Floats) -> Floats:
    """Return a box (4,) of the same size in the corner where it overlaps `box` least."""
    width, height = box[2] - box[0], box[3] - box[1]
    corners = [
        np.array([left, top, left + width, top + height]) for top in (1 - height, 0.0) for left in (0.0, 1 - width)
    ]

    def shared(corner: Floats) -> float:
        sides = np.minimum(corner[2:], box[2:]) - np.maximum(corner[:2], box[:2])
        return float(np.prod(np.maximum(sides, 0)))

    return min(corners, key=shared)


def soft_mask(box: Floats, size: int) -> NDArray[np.float32]:
    """Return (S, S, 1): 1 inside the box, 0 outside, with a soft edge."""
    import cv2

    mask = np.zeros((size, size), dtype=np.float32)
    left, top, right, bottom = (round(float(value) * size) for value in box)
    mask[top : max(bottom, top + 1), left : max(right, left + 1)] = 1
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), SOFT * size), dtype=np.float32)[:, :, None]


def _blend(inside: Any, outside: Any, box: Floats) -> Pixels:
    mask = soft_mask(box, inside.shape[0])
    return np.asarray(np.rint(mask * inside + (1 - mask) * outside), dtype=np.uint8)


def _moved(picture: Pixels, factor: float, place: tuple[float, float], to: tuple[float, float]) -> Pixels:
    """Enlarge by `factor` and shift so that `place` (in shares) moves to `to`; edges are mirrored outwards."""
    import cv2

    size = picture.shape[0]
    shift = [(goal - factor * at) * size for at, goal in zip(place, to, strict=True)]
    matrix = np.array([[factor, 0, shift[0]], [0, factor, shift[1]]])
    moved = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, dtype=np.uint8)


def extract_with(features: Features) -> Callable[[Pixels], NDArray[Any]]:
    """Return the function from pictures (N, S, S, 3) to features as `features` stores them, in the same precision."""
    return stored_extractor(features.backbone, features.folder / artefacts.BACKBONE_WEIGHTS).extract


def disturbed_features(
    rows: pd.DataFrame,
    boxes: Floats,
    pictures: Pictures,
    extract: Callable[[Pixels], NDArray[Any]],
    size: int,
    params: ProbeParams,
) -> NDArray[Any]:
    """Return features (N, conditions, ...) of the pictures of `rows` (path, label, group) under every condition."""
    images = np.stack(list(pictures(list(rows["path"]), size)))
    lender = partners(rows, params.seed)
    found = []
    for condition in progress(conditions(params), "disturbed test pictures"):
        shown = [disturb(image, images[lender[place]], boxes[place], condition) for place, image in enumerate(images)]
        parts = [extract(np.stack(shown[start : start + BATCH])) for start in range(0, len(shown), BATCH)]
        found.append(np.concatenate(parts))
    return np.stack(found, axis=1)
