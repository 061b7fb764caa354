"""Folds of the training pictures: what a candidate says of them when it is trained without them.

A candidate trained on all training pictures says nothing of what it is worth on these. So it is trained again without
one fold of them (whole groups, stratified by label), stopped by the same validation pictures, and asked about that
fold. Test pictures take no part. An answer is kept under a digest of all that it depends on, and found again.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plumbline.common import cluster
from plumbline.common.closure import code_digest
from plumbline.common.errors import UserError, first_line, no_room
from plumbline.common.files import replacing
from plumbline.common.store import Arrays, DamagedError, Store
from plumbline.imaging.labels import classes_of
from plumbline.models.candidates import Candidate
from plumbline.models.features import Features
from plumbline.models.hints import Teacher, teacher_maps
from plumbline.models.training import train
from plumbline.tasks.labels import truth_table

if TYPE_CHECKING:
    import keras
    import pandas as pd

PACKAGES = ("keras", "numpy", "tensorflow", "tensorflow-cpu")
NO_FOLD = -1


def folds_of(splits: pd.DataFrame, folds: int, seed: int) -> NDArray[np.intp]:
    """Return the fold (N,) of each training picture of `splits` (path, id, label, group, split), NO_FOLD of the others.

    Every class keeps a group to be learnt from: where one has too few groups for so many folds there are fewer, and
    where it has not even two, none.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    part = np.full(len(splits), NO_FOLD, dtype=np.intp)
    rows = np.flatnonzero((splits["split"] == "train").to_numpy())
    table = splits.iloc[rows]
    if not len(table):
        return part
    truth = truth_table(table["label"], sorted(classes_of(table["label"])))
    groups = [table["group"][has].nunique() for has in truth.T]
    count = min(folds, *groups, int(table["label"].value_counts().max()))
    if count < 2:
        return part
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of several labels, a rare combination is missing in some folds
        for number, (_, held) in enumerate(splitter.split(table, table["label"], table["group"])):
            part[rows[held]] = number
    return part


def count_folds(part: NDArray[np.intp]) -> int:
    """Return how many folds `folds_of` made."""
    return int(part.max(initial=NO_FOLD)) + 1


Taught = tuple[Candidate, Features]
"""Another candidate and the features of its backbone."""


def key_of(candidate: Candidate, features: Features) -> tuple[Any, ...]:
    """Return what a training depends on besides the pictures, the seed and the code that all trainings share."""
    architecture = code_digest(f"plumbline.models.architectures.{candidate.architecture}")
    return architecture, candidate.model_dump(mode="json"), features.backbone.content()


class NotMadeAgainError(UserError):
    """A copy of what was trained without a fold can't be made, so this candidate has no answer about the fold."""


class After(Protocol):
    """What is done to a network once it is trained, before it is asked."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What the answers depend on besides the training."""

    def answers(self, network: keras.Model, table: pd.DataFrame) -> pd.DataFrame:
        """Return the test pictures of `table` (path, id, label, group, split), with p_CLASS by class."""


@dataclass
class FoldAnswers:
    """Answers of candidates about folds of the training pictures: found in `folder` or `store`, else made and kept.

    `part` (N,) is each picture's fold in `splits`. `used` collects the names of what was asked, `trained` those of them
    that had to be trained for.
    """

    splits: pd.DataFrame
    part: NDArray[np.intp]
    seed: int
    folder: Path
    store: Store | None = None
    used: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)

    def of(
        self,
        name: str,
        candidate: Candidate,
        features: Features,
        number: int,
        after: After | None = None,
        teacher: Taught | None = None,
    ) -> pd.DataFrame:
        """Return what candidate `name` says of the pictures of fold `number`: their rows, and p_CLASS by class.

        `after` is what is done to a compressed candidate once its original is trained. A `teacher` is trained without
        the fold as well: it must not tell its student what it knows of these pictures.

        Raises NotMadeAgainError where `after` fails; nothing is kept then, and the next run tries again.
        """
        key = f"{name}-{number + 1}-{self._key(candidate, features, number, after, teacher)}.npz"
        self.used.append(key)
        held: pd.DataFrame = self.splits[self.part == number].reset_index(drop=True)
        arrays = self._found(key)
        if arrays is None or len(arrays["probabilities"]) != len(held):
            self.trained.append(key)
            arrays = self._asked(name, candidate, features, number, after, teacher)
            self._keep(key, arrays)
            if self.store is not None:
                self.store.write(f"folds/{key}", arrays)
        columns = [f"p_{label}" for label in arrays["classes"].tolist()]
        return held.assign(**{column: arrays["probabilities"][:, place] for place, column in enumerate(columns)})

    def _found(self, key: str) -> Arrays | None:
        """Return what is kept under `key`, here or in the store that machines share."""
        for store, file in ((Store(str(self.folder)), key), (self.store, f"folds/{key}")):
            if store is None:
                continue
            try:
                arrays = store.read(file)
            except DamagedError as error:
                print(f"{store.shown}/{file} is damaged ({error}): trained again", file=sys.stderr)
                continue
            if arrays is not None:
                if store is self.store:
                    self._keep(key, arrays)
                return arrays
        return None

    def _keep(self, key: str, arrays: Arrays) -> None:
        with replacing(self.folder / key) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)

    def _asked(
        self,
        name: str,
        candidate: Candidate,
        features: Features,
        number: int,
        after: After | None,
        teacher: Taught | None,
    ) -> Arrays:
        """Train without the fold, stopped by validation, and return what is said of the fold's pictures."""
        seen = self.splits["split"] != "test"
        roles = self.splits["split"].where(self.part != number, "test")
        table = self.splits.assign(split=roles)[seen.to_numpy()].reset_index(drop=True)
        shown = f"{name} without fold {number + 1} of {count_folds(self.part)}"
        # The race says a line for all of a round, which may be twenty trainings.
        said = maps = None
        if teacher is not None:
            taught = train(f"the teacher of {shown}", teacher[0], table, teacher[1], self.seed, told=False)
            said = taught.predictions
            if candidate.hints is not None:
                teaching = Teacher(teacher[0], taught.network, teacher[1])
                maps = teacher_maps(name, candidate, features, teaching, list(table["path"]))
        trained = train(shown, candidate, table, features, self.seed, told=False, said=said, maps=maps)
        if after is None:
            asked = trained.predictions[trained.predictions["split"] == "test"]
        else:
            asked = _answers_of_copy(after, trained.network, table, shown)
        columns = [str(column) for column in asked.columns if str(column).startswith("p_")]
        classes = [column.removeprefix("p_") for column in columns]
        probabilities = asked[columns].to_numpy(np.float64)
        if not np.isfinite(probabilities).all():
            print(f"{name}: answers to fold {number + 1} that are no numbers count as wrong", file=sys.stderr)
        return {"probabilities": np.nan_to_num(probabilities), "classes": np.asarray(classes, dtype=str)}

    def _key(
        self, candidate: Candidate, features: Features, number: int, after: After | None, teacher: Taught | None
    ) -> str:
        return cluster.digest(
            code_digest(__name__),
            *(after.key if after else ()),
            *(key_of(*teacher) if teacher else ()),
            *key_of(candidate, features),
            self._pictures,
            self.seed,
            number,
            cluster.versions(*PACKAGES),
        )[:32]

    @cached_property
    def _pictures(self) -> str:
        """A digest of the pictures, their labels, groups and roles; the test pictures are none of them."""
        seen = (self.splits["split"] != "test").to_numpy()
        columns = [
            self.splits[seen][column].astype(str).tolist() for column in ("path", "id", "label", "group", "split")
        ]
        return cluster.digest(columns, self.part[seen].tolist())


def _answers_of_copy(after: After, network: keras.Model, table: pd.DataFrame, shown: str) -> pd.DataFrame:
    """What the copy of `network` answers; what stands in the way of making one is that candidate's own trouble.

    A disk or a memory that is full is not: it would meet every candidate, so it stops the run.
    """
    try:
        return after.answers(network, table)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # pruning, export, ONNX and ONNX Runtime each raise their own
        if no_room(error):
            raise
        raise NotMadeAgainError(f"{shown}: its copy could not be made again ({first_line(error)})") from error
