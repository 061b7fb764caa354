"""Section `compressed` of params.yaml: smaller copies of candidates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from plumbline.common.params import Section

How = Literal["int8", "float16"]
AT_ONCE = 8
"""Calibration pictures whose activations are held at one time."""
FEWEST = 16
"""Calibration pictures, at least: fewer show no range."""


class Compressed(Section):
    """One entry of `compressed`: a smaller copy of a candidate, judged, promoted and served like any other.

    `of` names an entry of `candidates`, `backbone` the one it stands on, `how` what is done: `int8` (weights and
    activations, calibrated on one picture from each of `calibration` training groups), or `float16` (weights alone:
    half the bytes at the same speed).
    """

    of: str
    backbone: str
    how: How = "int8"
    calibration: Annotated[int, Field(ge=FEWEST, le=512, multiple_of=AT_ONCE)] = 64
