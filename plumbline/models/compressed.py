"""Section `compressed` of params.yaml: smaller copies of candidates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from plumbline.common.params import Section

By = Literal["norm", "taylor"]
How = Literal["int8", "float16", "float32"]
AT_ONCE = 8
"""Calibration pictures whose activations are held at one time."""
FEWEST = 16
"""Calibration pictures, at least: fewer show no range."""


class Pruning(Section):
    """What share of the filters is kept, in how many steps, and how a network is trained on behind each.

    `by` says whose go: those of least L1 `norm`, or those that matter least to the training pictures' loss (`taylor`).
    """

    # Left out of what is written where it is the default: records and keys of before it existed stay what they are.
    by: Annotated[By, Field(exclude_if=lambda by: by == "norm")] = "norm"
    keep: Annotated[float, Field(gt=0, lt=1)]
    steps: Annotated[int, Field(ge=1, le=10)] = 2
    epochs: Annotated[int, Field(ge=1)] = 10
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4


class Compressed(Section):
    """One entry of `compressed`: a smaller copy of a candidate, judged, promoted and served like any other.

    `of` names an entry of `candidates`, `backbone` the one it stands on, `how` what is done: `int8` (weights and
    activations, calibrated on one picture from each of `calibration` training groups), `float16` (weights alone: half
    the bytes at the same speed), or `float32` (nothing). With `pruning` filters are taken out before that.
    """

    of: str
    backbone: str
    how: How = "int8"
    pruning: Pruning | None = None
    calibration: Annotated[int, Field(ge=FEWEST, le=512, multiple_of=AT_ONCE)] = 64

    @model_validator(mode="after")
    def _does_something(self) -> Compressed:
        if self.how == "float32" and self.pruning is None:
            raise ValueError("how: float32 leaves a candidate as it is: give 'pruning', or another 'how'")
        return self
