"""Maps of whole photographs: the first part of a network runs once per view, for every detector to share.

Section `maps` of detection/params.yaml. What is kept is the output of the layer `kept`: everything behind it can be
trained. In networks of inverted residuals the narrow end of a block (MobileNetV2's `block_5_add`) is a sixth as large
as the maps inside it. Maps are independent of the splits, and a row depends on the photograph's bytes and the entry
alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common import artefacts
from plumbline.common.closure import code_digest
from plumbline.common.errors import UserError
from plumbline.common.files import write_table
from plumbline.common.params import Section
from plumbline.common.records import Record, read_array, read_record, read_table, write_record
from plumbline.imaging.decode import Pixels
from plumbline.models.backbones import Backbone, record_entry
from plumbline.models.feature_maps import feature_maps
from plumbline.models.features import release
from plumbline.models.networks import build_backbone, find_network, scale_pixels, without_pointwise_strides
from plumbline.models.records import WeightsRecord
from plumbline.models.scene_views import Jitter, views_of
from plumbline.models.weights import PIXELS, Weights
from plumbline.tasks.scores import Floats

if TYPE_CHECKING:
    import keras
    import pandas as pd

VIEWS_AT_ONCE = 8


class SceneMaps(Section):
    """One entry of `maps`: the first layers of a network of section `backbones`, at an input size of their own.

    `kept` names the layer whose output is kept (none for `pixels`: the canvases themselves are); `strides` are those of
    the maps that detectors build on. `views` drawn views (see scene_views.Jitter) are kept beside the letterbox.
    """

    backbone: str
    image_size: Annotated[int, Field(ge=64, le=1024, multiple_of=4)] = 416
    kept: str | None = None
    strides: tuple[Annotated[int, Field(ge=4, le=32)], ...] = (8, 16, 32)
    views: Annotated[int, Field(ge=0, le=64)] = 8
    jitter: Jitter = Jitter()


class MapsRecord(Record):
    """maps.json: how maps were made, all that a row depends on besides the photograph, and their shape."""

    name: str
    network: str
    kept: str | None
    strides: tuple[int, ...]
    image_size: int
    views: int
    jitter: Jitter
    weights: WeightsRecord
    seed: int
    code: str
    shape: tuple[int, ...] = ()

    @property
    def reads_pixels(self) -> bool:
        return self.network == PIXELS


def describe_maps(name: str, entry: SceneMaps, backbone: Backbone, weights: list[Weights]) -> MapsRecord:
    """Return how the maps of an entry are made; UserError where it and its backbone don't fit together."""
    networks = backbone.networks_of(entry.backbone)
    if len(networks) != 1:
        raise UserError(f"params.yaml: maps.{name}.backbone: {entry.backbone} is of several networks, maps are of one.")
    if (networks == [PIXELS]) != (entry.kept is None):
        raise UserError(
            f"params.yaml: maps.{name}.kept names the layer of {networks[0]} whose output is kept; pixels have none."
        )
    return MapsRecord(
        name=name,
        network=networks[0],
        kept=entry.kept,
        strides=entry.strides,
        image_size=entry.image_size,
        views=entry.views,
        jitter=entry.jitter,
        weights=record_entry(entry.backbone, backbone, weights),
        seed=backbone.seed,
        code=code_digest(__name__),
    )


@dataclass(frozen=True)
class Parts:
    """A network cut where its maps are kept: `lower` from pixels (N, S, S, 3) in [0, 255], `upper` to maps by stride.

    `whole` holds the weights of both. Pixels have no network: all three are None.
    """

    whole: keras.Model | None
    lower: keras.Model | None
    upper: keras.Model | None


def cut_at(record: MapsRecord, weights: Path | None) -> Parts:
    """Build the network of `record` with the weights in file `weights` (None: random), cut at the layer kept.

    Raises UserError where no layer has that name, or where what follows depends on an earlier layer as well.
    """
    import keras

    if record.reads_pixels:
        return Parts(None, None, None)
    scaling = find_network(record.network).scaling
    whole = build_backbone(record.network, record.image_size, None if weights is None else str(weights), record.seed)
    try:
        tensor = whole.get_layer(record.kept).output
    except ValueError:
        raise UserError(
            f"params.yaml: maps.{record.name}.kept: {record.network} has no layer '{record.kept}'."
        ) from None
    pixels = keras.Input((record.image_size, record.image_size, 3), name="pixels")
    first = keras.Model(whole.input, tensor, name=f"lower_{record.network}")
    lower = keras.Model(pixels, first(scale_pixels(pixels, scaling), training=False))
    try:
        maps = feature_maps(whole, record.network, record.strides)
        upper = keras.Model(tensor, [maps[stride] for stride in sorted(maps)], name=f"upper_{record.network}")
    except ValueError:
        raise UserError(
            f"params.yaml: maps.{record.name}.kept: the maps of {record.network} at strides {record.strides} also "
            f"depend on layers before '{record.kept}': name an earlier one, where a block ends."
        ) from None
    return Parts(whole, lower, without_pointwise_strides(upper))


@dataclass(frozen=True)
class Row:
    """One photograph's maps (1 + views, G, G, C), and where each view lies (1 + views, 4)."""

    maps: NDArray[Any]
    affines: Floats


def compute_maps(photographs: Iterable[Pixels], ids: Iterable[str], record: MapsRecord, parts: Parts) -> Iterator[Row]:
    """Yield the maps of each photograph (H, W, 3), in order; float16, or uint8 for pixels."""
    for photograph, picture_id in zip(photographs, ids, strict=True):
        canvases, affines = views_of(photograph, picture_id, record.image_size, record.views, record.jitter)
        yield Row(canvases if parts.lower is None else _through(parts.lower, canvases), affines)


def _through(lower: keras.Model, canvases: NDArray[np.uint8]) -> NDArray[np.float16]:
    """A batch always has VIEWS_AT_ONCE pictures, so that TensorFlow traces one size only."""
    made = []
    for start in range(0, len(canvases), VIEWS_AT_ONCE):
        few = canvases[start : start + VIEWS_AT_ONCE].astype(np.float32)
        filled = np.concatenate([few, np.zeros((VIEWS_AT_ONCE - len(few), *few.shape[1:]), np.float32)])
        made.append(lower.predict_on_batch(filled)[: len(few)])
    values = np.concatenate(made).astype(np.float16)
    if not np.isfinite(values).all():
        raise UserError("maps reach more than float16 holds: choose another layer under maps.X.kept in params.yaml.")
    return values


@dataclass(frozen=True)
class StoredMaps:
    """A folder of maps: values (N, 1 + views, ...), mapped, where each view lies (N, 1 + views, 4), and paths (N,)."""

    values: NDArray[Any]
    affines: Floats
    index: pd.DataFrame
    record: MapsRecord
    folder: Path

    def rows_of(self, paths: list[str]) -> NDArray[np.intp]:
        """Row numbers of `paths`; UserError names a photograph that has no maps."""
        import pandas as pd

        rows = pd.Index(self.index["path"]).get_indexer(pd.Index(paths))
        if (rows < 0).any():
            missing = paths[int(np.argmax(rows < 0))]
            raise UserError(f"{missing} has no maps in {self.folder}: run `dvc repro`.")
        return np.asarray(rows)


def write_maps(folder: Path, manifest: pd.DataFrame, rows: Iterator[Row], record: MapsRecord, parts: Parts) -> None:
    """Write the rows of every photograph of `manifest` (path, id) into `folder`, with the weights that made them."""
    values: NDArray[Any] | None = None
    affines = []
    for number, row in enumerate(rows):
        if values is None:
            shape = (len(manifest), *row.maps.shape)
            file = folder / artefacts.VALUES
            values = np.lib.format.open_memmap(file, mode="w+", dtype=row.maps.dtype, shape=shape)
        values[number] = row.maps
        affines.append(row.affines)
        release(values)
    if values is None or len(affines) != len(manifest):
        raise UserError(f"{artefacts.MANIFEST} lists no photograph: run `dvc repro validate` to see why.")
    values.flush()  # type: ignore[attr-defined]
    np.save(folder / artefacts.AFFINES, np.stack(affines))
    write_table(folder / artefacts.INDEX, manifest[["path", "id"]])
    if parts.whole is not None:
        parts.whole.save_weights(folder / artefacts.BACKBONE_WEIGHTS)
    write_record(folder / artefacts.MAPS_RECORD, record.model_copy(update={"shape": values.shape[2:]}))


def open_maps(folder: Path) -> StoredMaps:
    """Open a folder of maps; UserError where it is missing or not whole."""
    stage = f"maps@{folder.name}"
    values = read_array(folder / artefacts.VALUES, mapped=True, stage=stage)
    affines = read_array(folder / artefacts.AFFINES, stage=stage)
    index = read_table(folder / artefacts.INDEX, stage=stage)
    if not len(values) == len(affines) == len(index):
        raise UserError(f"{folder}: {len(values)} rows of maps for {len(index)} photographs: run `dvc repro`.")
    return StoredMaps(values, affines, index, read_record(folder / artefacts.MAPS_RECORD, MapsRecord, stage), folder)
