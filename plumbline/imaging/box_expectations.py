"""What the boxes of whole photographs must be, or should be: Great Expectations on one row per box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from plumbline.common.overlap import Floats, iou
from plumbline.common.params import Section
from plumbline.imaging.boxes import EDGES
from plumbline.imaging.expectations import Expectation

if TYPE_CHECKING:
    import pandas as pd


class BoxBounds(Section):
    """params.yaml, `validate.boxes`: outside these bounds a box is a warning.

    min_side: pixels of the shorter side. max_area: share of the photograph. aspect: width / height in pixels.
    max_count: boxes of one photograph. max_border: share of all boxes that touch an edge of the photograph.
    max_overlap: intersection over union with another box of the same photograph.
    """

    min_side: float = Field(default=4, gt=0)
    max_area: float = Field(default=0.7, gt=0, le=1)
    aspect: tuple[float, float] = (0.2, 5.0)
    max_count: int = Field(default=100, ge=1)
    max_border: float = Field(default=0.3, ge=0, le=1)
    max_overlap: float = Field(default=0.9, gt=0, le=1)


def describe_boxes(boxes: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the boxes with what is expected of them: one row per box, in order.

    Adds `box` (what it is called: path, number in the photograph, class), `side` (pixels of the shorter side), `area`
    (share of the photograph), `aspect` (width / height in pixels), `at_border` (1 where it comes within a pixel of an
    edge) and `overlap` (the largest IoU with another box of its photograph).
    """
    sizes = manifest.set_index("path")[["width", "height"]].astype(float).loc[boxes["path"]]
    edges = boxes[list(EDGES)].to_numpy(float)
    width, height = sizes["width"].to_numpy(), sizes["height"].to_numpy()
    wide, high = (edges[:, 2] - edges[:, 0]) * width, (edges[:, 3] - edges[:, 1]) * height
    gaps = np.stack([edges[:, 0] * width, edges[:, 1] * height, (1 - edges[:, 2]) * width, (1 - edges[:, 3]) * height])
    number = boxes.groupby("path").cumcount() + 1
    called = [
        f"{path}, box {n} ({label})" for path, n, label in zip(boxes["path"], number, boxes["label"], strict=True)
    ]
    return boxes.assign(
        box=called,
        side=np.minimum(wide, high),
        area=wide * high / (width * height),
        aspect=wide / np.maximum(high, 1e-300),
        at_border=(gaps.min(axis=0, initial=np.inf) < 1).astype(np.int64),
        overlap=_largest_overlaps(boxes, edges),
    )


def _largest_overlaps(boxes: pd.DataFrame, edges: Floats) -> Floats:
    largest = np.zeros(len(boxes))
    for rows in boxes.groupby("path", sort=False).indices.values():
        if len(rows) > 1:
            pairs = iou(edges[rows], edges[rows])
            np.fill_diagonal(pairs, 0)
            largest[rows] = pairs.max(axis=1)
    return largest


def box_expectations(classes: Sequence[str], bounds: BoxBounds) -> list[Expectation]:
    """What every box must be (critical) or should be (warning); `classes`: those of validate.classes, none for any."""
    expected = [
        Expectation(
            "expect_column_values_to_be_between",
            {"column": edge, "min_value": 0, "max_value": 1},
            notes=f"The {edge} edge of a box lies on its photograph",
        )
        for edge in EDGES
    ]
    for low, high in (("left", "right"), ("top", "bottom")):
        expected.append(
            Expectation(
                "expect_column_pair_values_a_to_be_greater_than_b",
                {"column_A": high, "column_B": low},
                notes=f"A box's {high} edge lies beyond its {low} edge",
            )
        )
    if classes:
        expected.append(
            Expectation(
                "expect_column_values_to_be_in_set",
                {"column": "label", "value_set": list(classes)},
                notes="A box's class is one of validate.classes",
            )
        )
    between = "expect_column_values_to_be_between"
    return [
        *expected,
        Expectation(
            between,
            {"column": "side", "min_value": bounds.min_side},
            "warning",
            f"A box's shorter side has {bounds.min_side:g} pixels or more (validate.boxes.min_side)",
        ),
        Expectation(
            between,
            {"column": "area", "max_value": bounds.max_area},
            "warning",
            f"A box covers {bounds.max_area:.0%} of its photograph at most (validate.boxes.max_area)",
        ),
        Expectation(
            between,
            {"column": "aspect", "min_value": bounds.aspect[0], "max_value": bounds.aspect[1]},
            "warning",
            f"A box is {bounds.aspect[0]:g} to {bounds.aspect[1]:g} times as wide as high (validate.boxes.aspect)",
        ),
        Expectation(
            between,
            {"column": "overlap", "max_value": bounds.max_overlap},
            "warning",
            f"No other box covers the same place (IoU {bounds.max_overlap:g} at most, validate.boxes.max_overlap)",
        ),
        Expectation(
            "expect_column_mean_to_be_between",
            {"column": "at_border", "max_value": bounds.max_border},
            "warning",
            f"{bounds.max_border:.0%} of the boxes at most touch their photograph's edge (validate.boxes.max_border)",
        ),
    ]


def count_expectation(bounds: BoxBounds, column: str) -> Expectation:
    """How many boxes a photograph should have at most: on the manifest, which names the photograph."""
    limits = {"column": column, "max_value": bounds.max_count}
    note = f"A photograph has {bounds.max_count} boxes at most (validate.boxes.max_count)"
    return Expectation("expect_column_values_to_be_between", limits, "warning", note)
