"""The interface of a task: the only place where pictures of one label and of several are treated differently."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plumbline.tasks.records import Confusion
from plumbline.tasks.scores import Floats, Ints

if TYPE_CHECKING:
    import keras

Table = NDArray[np.bool_]
"""(N, C): which classes each of N pictures has, or is predicted to have."""


@dataclass(frozen=True)
class LabelSets:
    """Which set of classes each picture has: its number (N,), the classes of each set (S, C).

    `judged` numbers the classes whose ROC areas are averaged: one of them where the others follow from it.
    """

    numbers: Ints
    members: Table
    judged: list[int]

    @property
    def truth(self) -> Table:
        """Which classes each picture has (N, C)."""
        return np.asarray(self.members[self.numbers])


class Task(Protocol):
    """A task: from labels to targets, from a network's output to probabilities, predictions, scores and tables.

    `truth` (N, C) says which of C classes N pictures have, `probabilities` (N, C) how sure a model is of each. A new
    task is a module beside this one, and a line in `plumbline/tasks/known.py`.
    """

    @property
    def name(self) -> str:
        """What it is called in code and in messages."""

    @property
    def record(self) -> dict[str, Any]:
        """What model.json, evaluation.json and serving.json say of it."""

    @property
    def exclusive(self) -> bool:
        """Whether a picture has exactly one of the classes: then their probabilities add up to 1."""

    @property
    def counted(self) -> str:
        """What is counted where decisions are: `pictures`, or the `labels` of each."""

    @property
    def right_means(self) -> str:
        """What a page adds to "it was right on 93%", or nothing."""

    # --- training

    def fits(self, labels: Iterable[tuple[str, ...]]) -> bool:
        """Whether pictures with these classes fit this task."""

    def targets(self, truth: Table) -> NDArray[Any]:
        """What Keras learns from: (N,) or (N, C)."""

    def balanced_weights(self, truth: Table) -> Floats:
        """Class weights (C,) that make every class count the same; UserError for a task that has none."""

    def output_layer(self, classes: int, softmax: bool = False) -> keras.layers.Layer:
        """The last layer; with `softmax` two classes get a unit each.

        It computes in float32 whatever the rest does: in bfloat16 all probabilities above 0.998 are the same number.
        """

    def yes_or_no(self, units: int) -> bool:
        """Whether each of the last layer's `units` is a probability of its own (a sigmoid), not a share of all."""

    def loss(self, units: int) -> tuple[keras.losses.Loss, keras.metrics.Metric]:
        """The loss for a last layer of `units`, and the metric that is reported as `accuracy`."""

    def probabilities(self, output: Any) -> NDArray[np.float64]:
        """Probabilities of every class (N, C), float64, from a network's output (N, units)."""

    def log_loss(self, truth: Table, probabilities: Floats) -> float:
        """Mean negative logarithm of the probability of what is true."""

    # --- predictions

    def predicted(self, probabilities: Floats) -> Table:
        """The classes that a model predicts (N, C)."""

    def decisions(self, truth: Table, probabilities: Floats) -> tuple[Ints, Floats]:
        """The single decisions that calibration is about: their true option (M,) and probabilities (M, options)."""

    def from_decisions(self, probabilities: Floats, classes: int) -> Floats:
        """Probabilities (N, C) from those of the decisions (M, options): the reverse of `decisions`."""

    def sure_of_label(self, truth: Table, probabilities: Floats) -> Floats:
        """The probability (N,) of each picture's label, or of its least probable label."""

    def sure_of_mistake(self, truth: Table, probabilities: Floats) -> Floats:
        """The probability (N,) of a wrong prediction, 0 where it is right."""

    # --- evaluation

    def label_sets(self, truth: Table) -> LabelSets:
        """The sets of classes that pictures have."""

    def questions(self, truth: Table) -> list[tuple[Ints, list[int | None]]]:
        """What plain classifiers learn one by one: targets (N,), and for each target the class it stands for."""

    def usual(self, truth: Table) -> Floats:
        """The best constant prediction from these labels, as probabilities (C,)."""

    def scores(
        self, truth: Table, probabilities: Floats, weights: Floats, positive: int, bins: int
    ) -> dict[str, Floats]:
        """Every score under `weights` (R, N), each (R,); those by class end in its number: `recall:1`."""

    # --- ensembles

    def telling_units(self, output: Any) -> Any:
        """The units of an output (N, units) that hold all information: of two shares only the second."""

    def fit_stacking(self, seen: Floats, truth: Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Fit L2-regularised logistic regressions on M members' inputs (N, M, F): kernel (M * F, K) and bias (K,)."""

    # --- pages

    def confusions(self, truth: Table, predicted: Table, classes: list[str]) -> list[Confusion]:
        """Confusion matrices, one or more."""

    def shown_classes(self, classes: list[str], violation: str | None) -> list[str]:
        """The classes that get a curve of their own: one of them where the others follow from it."""
