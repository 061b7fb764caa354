"""A smaller copy of a trained candidate: one file for ONNX Runtime, made in every way there is, the best of them kept.

The whole graph, from pixels to the answer, is compressed, the frozen backbone too, and every figure comes from the very
file that would be served. Which way is best is not known beforehand (one scale for each channel can save a network or
lose one, and so can the way that ranges are found), so each is made and asked about the validation pictures.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.common import cluster
from plumbline.common.closure import code_digest
from plumbline.common.errors import UserError
from plumbline.imaging.decode import Fit
from plumbline.models.assemble import whole_of
from plumbline.models.candidates import Candidate
from plumbline.models.compressed import AT_ONCE, FEWEST, Compressed, Pruning
from plumbline.models.export import FIT, OnnxModel, check_export, export_onnx, with_embedding
from plumbline.models.features import open_features
from plumbline.models.fitting import Targets, make_deterministic, predictions_of, targets_of
from plumbline.models.latency import speeds
from plumbline.models.pruning import prune_in_steps
from plumbline.models.quantisation import RECIPES, Recipe, halve, prepare, quantise
from plumbline.models.records import CompressedRecord, Cost, ModelRecord, Tried
from plumbline.models.training import TrainingSet
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.task import Task

if TYPE_CHECKING:
    import keras

Pictures = Callable[[list[str]], Iterable[NDArray[np.uint8]]]
"""Manifest paths to pictures (S, S, 3) of the size and fit that the network takes, in order."""
TOLERANCE = 1e-4
"""Largest difference of a probability between the network of Keras and its float32 file."""
CHECKED = 8
BATCH = 16
HALF = "weights kept as float16"
AS_IT_IS = "float32"


@dataclass(frozen=True)
class Source:
    """What is compressed: the network from pixels to its output, how pictures reach it, and who reads them.

    `unpruned` is the network before pruning, where there was any: the original that a file is compared with.
    """

    network: keras.Model
    fit: Fit
    pictures: Pictures
    unpruned: keras.Model | None = None


@dataclass(frozen=True)
class Made:
    """The file that was kept, which way made it, and what it took; the original in float32, before any pruning."""

    file: Path
    original: Path
    recipe: str
    tried: tuple[Tried, ...]
    calibration_pictures: int
    seconds: float

    @property
    def file_share(self) -> float:
        """The file's bytes by those of the float32 file."""
        return self.file.stat().st_size / self.original.stat().st_size


def compress(
    name: str,
    entry: Compressed,
    source: Source,
    table: pd.DataFrame,
    scratch: Path,
    seed: int,
    only: str | None = None,
) -> Made:
    """Make every file that `entry` asks for in folder `scratch`, and choose by the validation pictures.

    Args:
        name: of the compressed candidate, for messages.
        entry: its settings.
        source: the candidate's network.
        table: path, label, split, group of every picture.
        scratch: an empty folder.
        seed: draws the calibration pictures.
        only: makes the one recipe of this name, and asks nothing.

    The best is the most accurate on validation, of equals the one with the least log loss. `seconds` count the export
    and the way that was kept. Raises UserError naming the candidate where no file can be made, or too few training
    groups are there to calibrate with.
    """
    began = time.perf_counter()
    float32 = scratch / "float32.onnx"
    whole = with_embedding(source.network)
    export_onnx(whole, float32, source.fit)
    checked = list(table["path"][table["split"] == "train"].sort_values()[:CHECKED])
    check_export(whole, float32, np.stack(list(source.pictures(checked))), TOLERANCE)
    maker = _maker(name, entry, source, table, scratch, seed, fewest=1 if only else FEWEST)
    exported = time.perf_counter() - began
    original = float32
    if source.unpruned is not None and not only:
        original = scratch / "original.onnx"
        export_onnx(with_embedding(source.unpruned), original, source.fit)
    tried, files, seconds = [], {}, {}
    for recipe in [only] if only else maker.recipes:
        began = time.perf_counter()
        file = scratch / f"{recipe}.onnx"
        try:
            maker.make(float32, file, recipe)
            _describe(file, source.fit)
            seconds[recipe] = time.perf_counter() - began
            tried.append(Tried(recipe=recipe) if only else _judged(recipe, file, source, table))
            files[recipe] = file
        except UserError as error:
            tried.append(Tried(recipe=recipe, failed=str(error)))
    if not files:
        raise UserError(
            f"params.yaml: compressed.{name}: {entry.of} can't be made {entry.how}: {tried[0].failed}: take the entry "
            "out, or name another candidate."
        )
    best = min((one for one in tried if one.recipe in files), key=lambda one: (-(one.accuracy or 0), one.log_loss or 0))
    took = exported + seconds[best.recipe]
    return Made(files[best.recipe], original, best.recipe, tuple(tried), maker.pictures, took)


@dataclass(frozen=True)
class _Maker:
    """The names of the ways to make a file, and the function that goes one of them."""

    recipes: list[str]
    make: Callable[[Path, Path, str], None]
    pictures: int = 0


def _maker(
    name: str, entry: Compressed, source: Source, table: pd.DataFrame, scratch: Path, seed: int, fewest: int
) -> _Maker:
    if entry.how == "float16":
        return _Maker([HALF], lambda file, to, _: halve(file, to))
    if entry.how == "float32":
        return _Maker([AS_IT_IS], _copied)
    paths = calibration_paths(table, entry.calibration, seed)
    if len(paths) < fewest:
        raise UserError(
            f"params.yaml: compressed.{name} can't be calibrated: one picture from each training group makes "
            f"{len(paths)}, and {fewest} are needed to show the ranges of its activations: add pictures, or take the "
            "entry out."
        )
    by_name: dict[str, Recipe] = {str(recipe): recipe for recipe in RECIPES}
    ready = scratch / "ready.onnx"

    def make(file: Path, to: Path, recipe: str) -> None:
        if not ready.is_file():
            prepare(file, ready)
        way = by_name[recipe]
        quantise(ready, to, source.pictures(paths), way, scratch / f"{way.ranges}.json")

    return _Maker(list(by_name), make, len(paths))


def _copied(file: Path, to: Path, _: str) -> None:
    shutil.copyfile(file, to)


def calibration_paths(table: pd.DataFrame, most: int, seed: int) -> list[str]:
    """Return up to `most` training pictures of `table` (path, label, split, group), each of another group, in order.

    The classes take turns, so that each is there as long as it has groups. From AT_ONCE on a multiple of it, as
    calibration takes them.
    """
    train = table[table["split"] == "train"].sort_values("path")
    order = np.random.default_rng(seed).permutation(len(train))
    drawn = train.iloc[order].drop_duplicates("group")
    turn = drawn.groupby("label").cumcount()
    paths = list(drawn.assign(turn=turn).sort_values(["turn", "label"], kind="stable")["path"].head(most))
    return sorted(paths[: len(paths) // AT_ONCE * AT_ONCE or None])


def _judged(recipe: str, file: Path, source: Source, table: pd.DataFrame) -> Tried:
    """Ask a file about the validation pictures."""
    rows = (table["split"] == "validation").to_numpy()
    targets = targets_of(table["label"])
    probabilities = scored(file, source.pictures(list(table["path"][rows])), targets)
    truth = targets.truth[rows]
    right = (targets.task.predicted(probabilities) == truth).all(axis=1)
    return Tried(
        recipe=recipe,
        bytes=file.stat().st_size,
        accuracy=round(float(right.mean()), 6),
        log_loss=round(targets.task.log_loss(truth, probabilities), 6),
    )


def scored(file: Path, pictures: Iterable[NDArray[np.uint8]], targets: Targets) -> NDArray[np.float64]:
    """Return what the file at `file` says of `pictures` (S, S, 3): probabilities (N, C) of the classes of `targets`.

    Raises UserError where these are no numbers, as a network's whose activations left float16's range.
    """
    probabilities = OnnxModel(file, 1).score(pictures, BATCH)[0]
    if not np.isfinite(probabilities).all() or probabilities.shape[1] != len(targets.classes):
        raise UserError("its answers are no probabilities of the classes")
    return probabilities


def answers(file: Path, source: Source, table: pd.DataFrame, split: str | None = None) -> pd.DataFrame:
    """Return what the file says of the pictures of `table`, or of one split, as predictions.parquet holds it."""
    targets = targets_of(table["label"])
    asked = table if split is None else table[table["split"] == split]
    return predictions_of(asked, targets, scored(file, source.pictures(list(asked["path"])), targets))


def model_record(name: str, entry: Compressed, original: ModelRecord, made: Made, pruned: int = 0) -> ModelRecord:
    """Return model.json: the original's, with what was done to it; `pruned` parameters were taken out."""
    compressed = CompressedRecord(
        of=entry.of,
        how=entry.how,
        recipe=f"{_pruned(entry.pruning)}, {made.recipe}" if entry.pruning else made.recipe,
        kept=made.recipe,
        bytes=made.file.stat().st_size,
        original_bytes=made.original.stat().st_size,
        calibration_pictures=made.calibration_pictures,
        tried=made.tried,
    )
    return ModelRecord.model_validate(
        original.content()
        | {"candidate": name, "compressed": compressed.content(), "settings": entry.model_dump(mode="json")}
        | {key: getattr(original, key) - pruned for key in ("parameters", "trainable_parameters")}
    )


def _pruned(pruning: Pruning) -> str:
    by = ", by Taylor score" if pruning.by == "taylor" else ""
    return f"pruned to {pruning.keep:.0%} of its filters{by}"


def cost_record(made: Made, other_seconds: float, peak_megabytes: float) -> Cost:
    """Return cost.json: what making the file takes, with `other_seconds` of pruning and of scoring all pictures, and
    its speed beside its original's."""
    speed, original = speeds([made.file, made.original])
    return Cost(
        seconds=round(made.seconds + other_seconds, 2),
        peak_megabytes=round(peak_megabytes),
        latency_ms=speed.one_ms,
        speed=speed,
        original_speed=original,
    )


def _describe(file: Path, fit: Fit) -> None:
    """Write into the file how pictures are to be brought to its size, as `export_onnx` does."""
    import onnx

    model = onnx.load(str(file))
    onnx.helper.set_model_props(model, {FIT: fit})
    onnx.save(model, str(file))


@dataclass(frozen=True)
class Original:
    """What a compressed candidate is made of: settings, the folder of its backbone's features, who reads pictures, how
    many classes there are, and what is asked of each picture."""

    candidate: Candidate
    features: Path
    fit: Fit
    pictures: Pictures
    classes: int = 2
    task: Task = ONE_LABEL

    def source(
        self, trained: keras.Model, entry: Compressed, splits: pd.DataFrame, seed: int, name: str
    ) -> tuple[Source, int]:
        """Return what is compressed of the candidate that `trained` is the trained part of, and how many parameters
        pruning took out of it; it is trained on with the pictures of `splits` (path, label, group, split)."""
        candidate, whole, before = self.candidate, trained, trained.count_params()
        unpruned = None
        if entry.pruning is not None:
            data = TrainingSet.of(splits, open_features(self.features))
            make_deterministic(seed)
            trained, candidate = prune_in_steps(trained, candidate, entry.pruning, data, f"compressed.{name}")
            unpruned = whole_of(self.candidate, self.features, whole, self.classes, self.task)
        network = whole_of(candidate, self.features, trained, self.classes, self.task)
        return Source(network, self.fit, self.pictures, unpruned), before - trained.count_params()


@dataclass(frozen=True)
class AfterTraining:
    """A compressed candidate in the race: its original, trained without a fold, is compressed the way that was kept."""

    name: str
    entry: Compressed
    recipe: str
    original: Original
    seed: int

    @property
    def key(self) -> tuple[Any, ...]:
        """What the answers depend on besides the training."""
        packages = cluster.versions("onnxruntime", "tf2onnx")
        return code_digest(__name__), self.entry.model_dump(mode="json"), self.recipe, packages

    def answers(self, network: keras.Model, table: pd.DataFrame) -> pd.DataFrame:
        """Return what the file made of `network` says of the test pictures of `table`: its rows, and p_CLASS."""
        source, _ = self.original.source(network, self.entry, table, self.seed, self.name)
        with tempfile.TemporaryDirectory(prefix="plumbline-compress-") as scratch:
            made = compress(self.name, self.entry, source, table, Path(scratch), self.seed, self.recipe)
            return answers(made.file, source, table, "test")
