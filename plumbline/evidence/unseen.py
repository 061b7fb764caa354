"""What candidates say of pictures that they never saw: those of validation, and of folds of the training pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pandas as pd

from plumbline.evidence.calibration import fit_temperature
from plumbline.evidence.candidates import Predictions, TrainedCandidate, sample_of
from plumbline.evidence.intervals import draw_groups
from plumbline.evidence.race import Answers
from plumbline.models.combination import Kind
from plumbline.models.ensembles import Member, combined_unseen
from plumbline.models.folds import NotMadeAgainError

Ask = Callable[[str, int], pd.DataFrame]
"""What a candidate says of a fold (by name and number), trained without it: the fold's rows with p_CLASS columns."""


@dataclass
class Unseen:
    """Tables of unseen pictures by candidate and number of folds; an ensemble's are combined from its members'."""

    candidates: dict[str, TrainedCandidate]
    ask: Ask
    resamples: int
    seed: int
    _tables: dict[tuple[str, int], pd.DataFrame] = field(default_factory=dict)
    _temperatures: dict[str, float] = field(default_factory=dict)

    def table(self, name: str, folds: int) -> pd.DataFrame:
        """Return what candidate `name` says of validation and the first `folds` folds, sorted by path."""
        if (name, folds) not in self._tables:
            self._tables[name, folds] = self._made(name, folds).sort_values("path", ignore_index=True)
        return self._tables[name, folds]

    def _made(self, name: str, folds: int) -> pd.DataFrame:
        candidate = self.candidates[name]
        if folds == 0:
            return candidate.table[candidate.table["split"] == "validation"]
        members = [member.name for member in candidate.model.members]
        if not members:
            columns = [f"p_{label}" for label in candidate.classes]
            asked = self.ask(name, folds - 1)
            # A class that only test pictures have: a model that never saw it gives it no chance.
            asked = asked.assign(**{column: 0.0 for column in columns if column not in asked})
            before = self.table(name, folds - 1)
            return pd.concat([before, asked[before.columns]], ignore_index=True)
        tables = [Member(one, self.candidates[one].model, self.table(one, folds)) for one in members]
        return combined_unseen(tables, cast(Kind, candidate.model.architecture))

    def sample(self, name: str, folds: int) -> Predictions:
        """Return the same as arrays."""
        candidate = self.candidates[name]
        return sample_of(self.table(name, folds), candidate.classes, task=candidate.task)

    def answers(self, names: list[str], folds: int) -> Answers:
        """Return which pictures each of `names` got right, and its Brier scores at validation's temperature.

        Who could not be asked about a fold has no row: `failed` says why. Where nobody could there is no picture.
        """
        samples: dict[str, Predictions] = {}
        failed: dict[str, str] = {}
        for name in names:
            try:
                samples[name] = self.sample(name, folds)
            except NotMadeAgainError as error:
                failed[name] = str(error)
        if not samples:
            return Answers(np.empty((0, 0), bool), np.empty((0, 0)), np.empty(0, np.intp), np.empty((0, 0)), failed)
        first = next(iter(samples.values()))
        return Answers(
            right=np.stack([sample.right for sample in samples.values()]),
            brier=np.stack([sample.scaled(self._temperature(name)).brier for name, sample in samples.items()]),
            codes=first.codes,
            times=draw_groups(first.groups, self.resamples, self.seed),
            failed=failed,
        )

    def _temperature(self, name: str) -> float:
        if name not in self._temperatures:
            self._temperatures[name] = fit_temperature(*self.candidates[name].sample("validation").decisions)
        return self._temperatures[name]
