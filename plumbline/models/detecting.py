"""From a detector's answers to the boxes it reports, photograph by photograph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from plumbline.imaging.decode import Pixels
from plumbline.models.detector import Design, Suppression
from plumbline.models.scene_maps import Parts
from plumbline.models.scene_views import laid, letterbox, to_photograph
from plumbline.tasks.boxes import nms_per_class, soft_nms_per_class
from plumbline.tasks.scores import Floats, Ints

if TYPE_CHECKING:
    import keras
    import pandas as pd

Condition = TypeVar("Condition", bound=str)
BOXES, SCORES = "boxes", "scores"
SIDES = ["left", "top", "right", "bottom"]
MOST_COMPARED = 1000
"""Boxes of a photograph, at most, that are compared with each other: the ones with the highest scores."""


@dataclass(frozen=True)
class Found:
    """What is reported of one canvas: boxes (D, 4) in shares of it, class numbers and scores (D,), the surest first."""

    boxes: Floats
    classes: Ints
    scores: Floats


def reported(boxes: Floats, scores: Floats, suppression: Suppression) -> Found:
    """Return what is reported of boxes (P, 4) with scores (P, C): per class, one box around each object."""
    place, kind = np.nonzero(scores >= suppression.least_score)
    value: Floats = scores[place, kind].astype(np.float64)
    best = np.argsort(-value, kind="stable")[:MOST_COMPARED]
    place, kind, value = place[best], kind[best], value[best]
    candidates = boxes[place].astype(np.float64)
    if suppression.kind == "soft":
        value = soft_nms_per_class(candidates, value, kind, suppression.sigma)
        order = np.argsort(-value, kind="stable")
        kept: Ints = order[value[order] >= suppression.least_score][: suppression.most]
    else:
        kept = nms_per_class(candidates, value, kind, suppression.overlap, suppression.most)
    return Found(candidates[kept], kind[kept], value[kept])


def from_maps(network: keras.Model, design: Design) -> keras.Model:
    """A model from one view's maps (N, G, G, C) to {boxes: (N, P, 4), scores: (N, P, classes)}, on the canvas."""
    import keras

    boxes, scores = design.decoded(network.outputs[0])
    return keras.Model(network.inputs[0], {BOXES: boxes, SCORES: scores})


def from_pixels(parts: Parts, network: keras.Model, design: Design, image_size: int) -> keras.Model:
    """The same from canvases (N, S, S, 3) of pixels in [0, 255]: what serves."""
    import keras

    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    maps = pixels if parts.lower is None else parts.lower(pixels)
    boxes, scores = design.decoded(network(maps, training=False))
    return keras.Model(pixels, {BOXES: boxes, SCORES: scores})


def detections_table(
    paths: Sequence[str], found: Iterable[Found], affines: Floats, classes: Sequence[str]
) -> pd.DataFrame:
    """Return (path, label, score, left, top, right, bottom) of all photographs, boxes in shares of the photograph.

    `affines` (N, 4) say where each photograph lay on its canvas (see scene_views). Boxes in the grey are left out.
    """
    import pandas as pd

    paths_of: list[str] = []
    boxes: list[Floats] = [np.zeros((0, 4))]
    kinds: list[Ints] = [np.zeros(0, dtype=np.int64)]
    scores: list[Floats] = [np.zeros(0)]
    for path, one, affine in zip(paths, found, affines, strict=True):
        own = to_photograph(one.boxes, affine)
        inside = (own[:, 2] > own[:, 0]) & (own[:, 3] > own[:, 1])
        paths_of += [path] * int(inside.sum())
        boxes.append(own[inside])
        kinds.append(one.classes[inside])
        scores.append(one.scores[inside])
    table = pd.DataFrame(np.concatenate(boxes), columns=SIDES)
    table.insert(0, "path", pd.Series(paths_of, dtype=object))
    table.insert(1, "label", np.array(classes, dtype=object)[np.concatenate(kinds)])
    table.insert(2, "score", np.concatenate(scores))
    return table


def detect_photographs(
    whole: keras.Model,
    photographs: Iterable[tuple[str, Mapping[Condition, Pixels]]],
    conditions: Sequence[Condition],
    suppression: Suppression,
    classes: Sequence[str],
) -> dict[Condition, pd.DataFrame]:
    """Return detections_table of photographs under each condition; `whole` is as from_pixels makes it.

    `photographs` are each a path and its pixels (H, W, 3) by condition, which need not be of one size.
    """
    size = whole.inputs[0].shape[1]
    paths: list[str] = []
    affines = []
    found: dict[Condition, list[Found]] = {condition: [] for condition in conditions}
    for path, versions in photographs:
        first = versions[conditions[0]]
        place = letterbox(first.shape[1], first.shape[0], size)
        paths.append(path)
        affines.append(place.affine(size))
        canvases = np.stack([laid(versions[condition], place, size) for condition in conditions])
        answers = whole.predict_on_batch(canvases.astype(np.float32))
        for condition, boxes, scores in zip(
            conditions, np.asarray(answers[BOXES]), np.asarray(answers[SCORES]), strict=True
        ):
            found[condition].append(reported(boxes, scores, suppression))
    where = np.array(affines).reshape(-1, 4)
    return {condition: detections_table(paths, found[condition], where, classes) for condition in conditions}
