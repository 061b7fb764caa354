"""Features: a frozen backbone runs once per picture and view, for every candidate to share.

Features are independent of the splits, and a row depends on the picture's bytes and the backbone's settings alone:
rows of the last run are taken over, so a new picture costs one picture.
"""

from __future__ import annotations

import functools
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from plumbline.common import artefacts, cluster
from plumbline.common.closure import code_digest
from plumbline.common.errors import UserError
from plumbline.common.files import replacing_folder, write_table
from plumbline.common.parallel import read_ahead
from plumbline.common.params import Section
from plumbline.common.progress import progress
from plumbline.common.records import write_record
from plumbline.common.store import Arrays
from plumbline.imaging.decode import Fit
from plumbline.models.augment import Augmentation, augmented_view
from plumbline.models.backbones import Backbone, record_entry
from plumbline.models.features import Features, open_features, release
from plumbline.models.networks import build_backbone, collect, cut, find_network, freeze_by_size, load_stored
from plumbline.models.pooling import features_of, join
from plumbline.models.precision import choose_precision, precision, processor_flags
from plumbline.models.preprocessing import Preprocess, prepared
from plumbline.models.records import BackboneRecord, Freeze, Part, Recipe
from plumbline.models.weights import PIXELS, Weights

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from plumbline.imaging.settings import DataParams

BATCHES_A_PARTITION = 4
ROWS_HELD = 64
PACKAGES = ("keras", "numpy", "opencv-python-headless", "pillow", "tensorflow", "tensorflow-cpu")
_ONE_AT_A_TIME = threading.Lock()
Pictures = Callable[[list[str], list[str], int], Iterable[NDArray[np.uint8]]]
Extract = Callable[[NDArray[np.uint8]], NDArray[Any]]


class SplitShare(Section):
    """The part of section `split` that gives the share of training pictures."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    fractions: dict[str, float] = Field(default={"train": 0.7})


def describe_backbone(
    name: str, entry: Backbone, weights: list[Weights], training_images: int = 0, channels: str | None = None
) -> Recipe:
    """Return how this backbone's features are made: everything that a row depends on besides the picture.

    `training_images` decides where `freeze: auto` cuts; `channels` as in `featurize`.
    """
    networks = entry.networks_of(name)
    pixels = networks == [PIXELS]
    freeze: Freeze = freeze_by_size(training_images) if entry.freeze == "auto" else entry.freeze
    record = record_entry(name, entry, weights)
    # Views of random features take time and teach nothing.
    views = 0 if record.worthless else entry.views
    augmentation = Augmentation(**entry.augmentation.model_dump()) if views else None  # with its defaults
    return Recipe(
        backbone=name,
        network="+".join(networks),
        image_size=entry.image_size,
        pooling=entry.pooling,
        freeze=freeze,
        views=views,
        **({"views_left_out": entry.views} if views < entry.views else {}),
        augmentation=augmentation,
        precision="uint8" if pixels or freeze == "all" else _precision_of(networks, entry),
        weights=record,
        seed=entry.seed if any(one.origin == "random" for one in weights) else None,
        code=code_digest(__name__),
        channels=channels,
        scales=entry.scales,
        preprocess=entry.preprocess if entry.preprocess != Preprocess() else None,
    )


def _precision_of(networks: list[str], entry: Backbone) -> dict[str, str] | str:
    chosen: dict[str, str] = {
        n: choose_precision(entry.precision, find_network(n), processor_flags()) for n in networks
    }
    return chosen if len(chosen) > 1 else next(iter(chosen.values()))


@dataclass(frozen=True)
class Extractor:
    """`extract` maps pictures (N, S, S, 3) uint8 to features as stored; `networks` holds the weights to keep.

    `parts` says which network's features lie where: network, shape, start and stop in the flattened features, and the
    number of frozen parameters that made them.
    """

    extract: Extract
    networks: keras.Model | None
    parts: tuple[Part, ...]


def build_extractor(backbone: Recipe, weights_files: list[Path | None], settled: bool = True) -> Extractor:
    """Build what `describe_backbone` describes, from RGB pixels (N, S, S, 3) in [0, 255].

    `settled` as in `build_backbone`.
    """
    import keras
    import tensorflow as tf

    names = backbone.network_names
    if names == [PIXELS]:
        return Extractor(_prepare_pixels(backbone), None, ())
    tf.config.experimental.enable_op_determinism()
    keras.utils.clear_session()  # layers are numbered per process, and the weights file contains the numbers
    size = backbone.image_size
    pixels = keras.Input((size, size, 3), dtype="float32", name="pixels")
    seen = prepared(pixels, backbone.preprocess)
    networks, maps, parts, start = [], [], [], 0
    for name, file in zip(names, weights_files, strict=True):
        policy = backbone.precision if isinstance(backbone.precision, str) else backbone.precision[name]
        with precision("float32" if policy == "uint8" else policy):
            place = str(file) if file else None
            network = build_backbone(name, backbone.network_size, place, backbone.seed or 0, settled)
        networks.append(network)
        lower, upper = cut(network, backbone.freeze)
        if lower is None:
            parts.append(Part(network=name, shape=(size, size, 3), start=0, stop=size * size * 3, parameters=0))
            continue
        # Behind a cut nothing is pooled yet: that is for what is trained.
        x = features_of(seen, name, [lower], backbone if upper is None else backbone.unpooled())
        shape = tuple(x.shape[1:])
        stop = start + int(np.prod(shape))
        parts.append(Part(network=name, shape=shape, start=start, stop=stop, parameters=lower.count_params()))
        maps.append(x)
        start = stop
    if not maps:
        return Extractor(_prepare_pixels(backbone), collect(networks), tuple(parts))
    model = keras.Model(pixels, join(maps))
    # Traced once for all sizes of batch, here: from several threads at a time Keras' own would be traced in each.
    signature = tf.TensorSpec((None, size, size, 3), tf.float32)
    compute = tf.function(lambda batch: model(batch, training=False)).get_concrete_function(signature)
    return Extractor(
        lambda batch: to_half(np.asarray(compute(tf.constant(batch, tf.float32)), dtype=np.float32)),
        collect(networks),
        tuple(parts),
    )


def _prepare_pixels(backbone: Recipe) -> Extract:
    """What pictures (N, S, S, 3) uint8 are stored as where no network stands before the features."""
    import keras

    if backbone.preprocess is None:
        return lambda batch: batch
    pixels = keras.Input((backbone.image_size, backbone.image_size, 3), dtype="float32")
    model = keras.Model(pixels, prepared(pixels, backbone.preprocess, rounded=True))
    return lambda batch: np.asarray(model.predict_on_batch(batch.astype(np.float32))).astype(np.uint8)


def compute_rows(
    images: Iterable[NDArray[np.uint8]],
    ids: Iterable[str],
    extract: Extract,
    views: int,
    augmentation: Augmentation,
    batch_size: int,
) -> Iterator[NDArray[Any]]:
    """Yield each picture's (S, S, 3) features (1 + views, ...), in order, about `batch_size` views at a time."""
    pictures = max(1, batch_size // (1 + views))
    stacks = _stacks(images, ids, views, augmentation, pictures)
    # Only reading has a thread of its own: called from another thread than the one that traced it, a network has hung.
    for stack in read_ahead(stacks):
        values = extract(stack)
        yield from values.reshape(-1, 1 + views, *values.shape[1:])


def _stacks(
    images: Iterable[NDArray[np.uint8]], ids: Iterable[str], views: int, augmentation: Augmentation, pictures: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield `pictures` pictures at a time with their views, (pictures * (1 + views), S, S, 3)."""
    pairs = iter(zip(images, ids, strict=True))
    while batch := list(islice(pairs, pictures)):
        yield np.stack(
            [
                view
                for image, image_id in batch
                for view in (image, *(augmented_view(image, image_id, v + 1, augmentation) for v in range(views)))
            ]
        )


@dataclass(frozen=True)
class Partition:
    """Pictures of the manifest that `cluster.spread` hands out together."""

    paths: list[str]
    ids: list[str]


@dataclass(frozen=True)
class Extraction:
    """`compute_rows` as cluster.Work: {"rows": (N, 1 + views, ...)} of a Partition.

    `backbone` is its JSON; `weights` the file that the stage wrote. `images` reads the data as the worker sees it, and
    refuses pictures that aren't those of the manifest.
    """

    kind: ClassVar[str] = "features"
    alone: ClassVar[bool] = True  # its threads would build the network twice and then share the processors anyway
    loaded: ClassVar[str] = code_digest(__name__)

    code: str
    images: Pictures
    backbone: str
    weights: cluster.SharedFile
    batch_size: int

    def key(self, task: Partition) -> str:
        """Everything that a row depends on, and the other pictures it is computed with."""
        packages = cluster.versions(*PACKAGES)
        return cluster.digest(self.backbone, self.weights.sha256, self.batch_size, task.ids, self.code, packages)

    def compute(self, task: Partition) -> Arrays:
        """Compute the rows on this machine."""
        with _ONE_AT_A_TIME:
            recipe = Recipe.model_validate_json(self.backbone)
            extractor = _extractor_of(self.backbone, self.weights)
            augmentation = recipe.augmentation or Augmentation()
            pictures = self.images(task.paths, task.ids, recipe.image_size)
            rows = compute_rows(pictures, task.ids, extractor.extract, recipe.views, augmentation, self.batch_size)
            return {"rows": np.stack(list(rows))}


@functools.lru_cache(maxsize=1)
def _extractor_of(backbone: str, weights: cluster.SharedFile) -> Extractor:
    with weights.at_hand("the weights") as file:
        return stored_extractor(Recipe.model_validate_json(backbone), file)


def stored_extractor(backbone: Recipe, weights: Path) -> Extractor:
    """Build the extractor that `featurize` used, with the weights that it stored (backbone.weights.h5).

    Random weights are read as well: drawn anew they would differ where threads share the generator.
    """
    extractor = build_extractor(backbone, [None] * len(backbone.network_names), settled=False)
    if extractor.networks is not None:
        load_stored(extractor.networks, weights)
    return extractor


def partitions(missing: pd.DataFrame, views: int, batch_size: int) -> Iterator[Partition]:
    """Cut (path, id) into partitions of whole local batches: a picture is computed with the same others as here."""
    size = max(1, batch_size // (1 + views)) * BATCHES_A_PARTITION
    for start in range(0, len(missing), size):
        part = missing.iloc[start : start + size]
        yield Partition(list(part["path"]), list(part["id"]))


def spread_rows(
    images: Pictures, missing: pd.DataFrame, backbone: Recipe, weights: Path, batch_size: int
) -> Iterator[NDArray[Any]]:
    """Yield rows as `compute_rows` does, by way of the Dask workers and the store that the environment names."""
    shared = cluster.share(weights, "weights")
    work = Extraction(Extraction.loaded, images, json.dumps(backbone.content()), shared, batch_size)
    for arrays in cluster.spread(work, partitions(missing, backbone.views, batch_size), map):
        yield from arrays["rows"]


def read_pictures(
    data: DataParams, paths: list[str], ids: list[str], size: int, fit: Fit = "stretch"
) -> Iterable[NDArray[np.uint8]]:
    """The pictures of the data set at `paths`, (size, size, 3) each, in order; UserError where one has another id."""
    from plumbline.imaging.reading import iter_rgb

    return iter_rgb(data, paths, (size, size), ids, fit)


def to_half(values: NDArray[np.floating[Any]]) -> NDArray[np.float16]:
    """Round features to float16 for storage; UserError for values above 65504, which would become infinite."""
    half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise UserError(
            f"features reach {np.abs(values).max():.3g}, more than float16 holds: choose other weights or "
            "pooling: average for this backbone in params.yaml."
        )
    return half


def reusable(previous: Features | None, backbone: Recipe) -> dict[str, int]:
    """Rows of the last run that are valid for `backbone`, by picture id."""
    if previous is None or previous.backbone.recipe() != backbone:
        return {}
    return {image_id: row for row, image_id in enumerate(previous.index["id"])}


def write_features(
    folder: Path, manifest: pd.DataFrame, previous: Features | None, rows: Iterator[NDArray[Any]], known: dict[str, int]
) -> tuple[int, ...]:
    """Write features.npy and index.parquet into `folder`, `rows` for the ids not `known`; returns one view's shape."""
    values: NDArray[Any] | None = None
    done: dict[str, int] = {}
    for number, image_id in enumerate(manifest["id"]):
        if image_id in done and values is not None:
            row = values[done[image_id]]
        else:
            row = previous.values[known[image_id]] if previous is not None and image_id in known else next(rows)
        if values is None:
            values = np.lib.format.open_memmap(
                folder / artefacts.VALUES, mode="w+", dtype=row.dtype, shape=(len(manifest), *row.shape)
            )
        values[number] = row
        done[image_id] = number
        if number % ROWS_HELD == ROWS_HELD - 1:
            release(values)
            if previous is not None:
                release(previous.values)
    next(rows, None)  # so that progress bar and summary end by themselves
    if values is None:
        raise UserError(f"{artefacts.MANIFEST} lists no picture: run `dvc repro validate` to see why.")
    values.flush()  # type: ignore[attr-defined]
    write_table(folder / artefacts.INDEX, manifest[["path", "id"]])
    return values.shape[2:]


def featurize(
    manifest: pd.DataFrame,
    images: Pictures,
    name: str,
    entry: Backbone,
    weights: list[Weights],
    out: Path,
    training_images: int = 0,
    channels: str | None = None,
) -> BackboneRecord:
    """Compute a backbone's features of every picture of `manifest` (path, id) into folder `out`; returns backbone.json.

    `images(paths, ids, size)` yields the pictures (size, size, 3), uint8, in order. Where the environment names a Dask
    scheduler or a store (see common.cluster), the work is done in partitions. `channels` is the order that arrays of
    pictures are read in (data.arrays.channels), which the ids do not show.
    """
    recipe = describe_backbone(name, entry, weights, training_images, channels)
    previous = last_features(out)
    known = reusable(previous, recipe)
    missing = manifest[~manifest["id"].isin(list(known))].drop_duplicates("id")
    print(announcement(recipe, len(missing), len(manifest) - len(missing)), file=sys.stderr)
    extractor = build_extractor(recipe, [one.path for one in weights])
    with replacing_folder(out) as folder:
        if extractor.networks is not None:
            extractor.networks.save_weights(folder / artefacts.BACKBONE_WEIGHTS)
        if cluster.is_wanted() and extractor.networks is not None and len(missing):
            rows = spread_rows(images, missing, recipe, folder / artefacts.BACKBONE_WEIGHTS, entry.batch_size)
        else:
            pictures = images(list(missing["path"]), list(missing["id"]), entry.image_size)
            made = extractor.extract
            rows = compute_rows(pictures, missing["id"], made, recipe.views, entry.augmentation, entry.batch_size)
        rows = progress(rows, f"featurize {name}", total=len(missing))
        shape = write_features(folder, manifest, previous, rows, known)
        frozen = sum(part.parameters for part in extractor.parts)
        backbone = BackboneRecord.of(recipe, shape, extractor.parts, frozen)
        write_record(folder / artefacts.BACKBONE, backbone)
    return backbone


def announcement(recipe: Recipe, missing: int, known: int) -> str:
    """One line before the work: how much there is, and whether it is worth it."""
    said = f"{recipe.backbone}: {missing} pictures to compute, {known} known"
    if recipe.weights.worthless:
        said += "; NO PRETRAINED WEIGHTS: its features are worth nothing but to compare with"
        if recipe.views_left_out:
            said += f", so its {recipe.views_left_out} augmented views are left out"
    return said


def last_features(folder: Path) -> Features | None:
    """The features of the last run, None where there are none or they can't be read; then all are computed again."""
    if not (folder / artefacts.BACKBONE).is_file():
        return None
    try:
        return open_features(folder)
    except UserError as error:
        print(f"computed anew, for {error}", file=sys.stderr)
        return None
