"""Decode every picture once, name it by its bytes, hash and measure it; quarantine what can't be read.

One bad file stops nothing: it goes to build/quarantine.csv with the reason, and `validate` decides whether there are
too many. The same data gives the same bytes of every output.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common import cluster
from plumbline.common.closure import code_digest
from plumbline.common.errors import UserError
from plumbline.common.files import replacing
from plumbline.common.parallel import cores, in_order, in_order_by_processes
from plumbline.common.params import Section
from plumbline.common.progress import progress
from plumbline.common.store import Arrays
from plumbline.imaging.boxes import BACKGROUND, Settled, box_table, label_of, settle_boxes
from plumbline.imaging.collection import list_images
from plumbline.imaging.decode import DecodeError, shrink_grey, stored_orientation
from plumbline.imaging.describe import MEASURES
from plumbline.imaging.files import read_bytes
from plumbline.imaging.hashing import STORED, WINDOWS, fingerprint, stored_thumbnail
from plumbline.imaging.measures import Row, measures_of
from plumbline.imaging.pictures import BOX_COUNT, COMPUTED, WARNING, Picture, Refused, source_of
from plumbline.imaging.reading import read_source, source_states
from plumbline.imaging.settings import DataParams

if TYPE_CHECKING:
    import pandas as pd

PACK = 16  # pictures in one task
WORTH_PROCESSES = 64 * PACK  # pictures; starting processes costs a second
PARTITION = 512  # pictures; a second or two of a core, and 4 MB
PACKAGES = ("imagehash", "numpy", "opencv-python-headless", "pillow", "scipy", "simplejpeg")
QUARANTINE = ("path", "reason", "kind", "label")


class IngestParams(Section):
    """params.yaml, section `ingest`."""

    min_side: int = Field(default=8, ge=1)


@dataclass(frozen=True)
class Ingested:
    """What ingest makes of a folder; row i of each array is row i of the manifest.

    manifest: COMPUTED columns, then the metadata columns (text, None where blank), then, where a file is damaged but
        can be shown, `decoder_warning`.
    quarantine: path, reason, kind (see plumbline.imaging.pictures.Refused), label.
    fingerprints: (N, 2, 37) uint64, see plumbline.imaging.hashing.fingerprint.
    thumbnails: (N, 81, 96) uint8, see plumbline.imaging.hashing.stored_thumbnail.
    boxes: of whole photographs (plumbline.imaging.boxes.COLUMNS), whose manifest has the column BOX_COUNT; else None.
    """

    manifest: pd.DataFrame
    quarantine: pd.DataFrame
    fingerprints: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    boxes: pd.DataFrame | None = None


@dataclass(frozen=True)
class _Measured:
    row: Row
    fingerprint: NDArray[np.uint64]
    thumbnail: NDArray[np.uint8]


def ingest(data: DataParams, params: IngestParams) -> Ingested:
    """Decode and measure every picture under `data.root` once, over all cores.

    Where the environment names a Dask scheduler or a store (see common.cluster), the work is done in partitions.
    """
    import pandas as pd

    collection = list_images(data)
    images, refused = collection.images, list(collection.refused)
    fingerprints = np.empty((len(images), 2, len(WINDOWS)), np.uint64)
    thumbnails = np.empty((len(images), *STORED), np.uint8)
    rows: list[Row] = []
    paths = list(images["path"])
    if cluster.is_wanted():
        results = _by_partition(data, params, paths)
    else:
        results = _spread(partial(_measure_all, data, params), _tasks(paths, PACK), len(paths))
    # Results come in the order of `images`; refused ones leave room at the end of the arrays, which is cut off.
    for one in progress((one for batch in results for one in batch), "ingest", total=len(images)):
        if isinstance(one, Refused):
            refused.append(one)
        else:
            fingerprints[len(rows)], thumbnails[len(rows)] = one.fingerprint, one.thumbnail
            rows.append(one.row)
    settled = Settled()
    if data.task == "detect":
        sizes = {str(row["path"]): (int(row["width"]), int(row["height"])) for row in rows}
        settled = settle_boxes(collection.boxes, sizes, partial(_as_stored, data))
        refused += settled.refused
        if settled.resized:
            print(
                f"{settled.resized} boxes were drawn on a larger or smaller copy of their photograph", file=sys.stderr
            )
    if settled.lost:
        used = [number for number, row in enumerate(rows) if row["path"] not in settled.lost]
        rows, fingerprints, thumbnails = [rows[i] for i in used], fingerprints[used], thumbnails[used]
    computed = pd.DataFrame(rows, columns=[name for name in COMPUTED if name != "label"])
    kept = images[images["path"].isin(computed["path"])].reset_index(drop=True)
    computed.insert(COMPUTED.index("label"), "label", kept["label"])
    manifest = pd.concat([_typed(computed), kept.drop(columns=["path", "label"])], axis=1)
    if any(row[WARNING] for row in rows):
        manifest[WARNING] = pd.Series([row[WARNING] or None for row in rows], dtype=object)
    labels = dict(zip(images["path"], images["label"], strict=True))
    quarantine = pd.DataFrame(
        sorted((one.path, one.reason, one.kind, one.label or labels.get(one.path, "")) for one in refused),
        columns=list(QUARANTINE),
        dtype=object,
    )
    boxes = None
    if data.task == "detect":
        boxes = box_table(settled.boxes)
        manifest = _with_boxes(manifest, boxes)
    return Ingested(manifest, quarantine, fingerprints[: len(rows)], thumbnails[: len(rows)], boxes)


def _with_boxes(manifest: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """The manifest of whole photographs: labelled by the boxes that are left, with their number."""
    labels = boxes.groupby("path")["label"].agg(label_of)
    counts = boxes["path"].value_counts()
    label = manifest["path"].map(labels).fillna(BACKGROUND)
    manifest = manifest.assign(label=label.astype(object))
    count = manifest["path"].map(counts).fillna(0).astype("int32")
    manifest.insert(len(COMPUTED), BOX_COUNT, count)
    return manifest


def _as_stored(data: DataParams, path: str) -> tuple[tuple[int, int], int]:
    return stored_orientation(read_bytes(data, path))


def measure(picture: Picture, min_side: int) -> _Measured:
    """Hash and describe one decoded picture; DecodeError where it is smaller than `min_side` pixels."""
    found = measures_of(picture.path, picture.id, picture.bytes, picture.format, picture.image, min_side)
    small = np.asarray(shrink_grey(found.grey))
    row = {**found.row, WARNING: picture.warning or ""}
    return _Measured(row, fingerprint(small), stored_thumbnail(picture.image, small))


Source = tuple[str, list[str]]
Task = list[Source]
Measurement = _Measured | Refused
Item = TypeVar("Item")
Result = TypeVar("Result")


def _tasks(paths: list[str], pictures: int) -> Iterator[Task]:
    """Yield lists of (file, its pictures), about `pictures` in each; all boxes of a photograph stay together."""
    pack: Task = []
    held = 0
    for source, group in groupby(paths, key=source_of):
        inside = list(group)
        size = pictures if source.endswith(".npy") else len(inside)
        for start in range(0, len(inside), size):
            pack.append((source, inside[start : start + size]))
            held += len(pack[-1][1])
            if held >= pictures:
                yield pack
                pack, held = [], 0
    if pack:
        yield pack


def _spread(function: Callable[[Item], Result], tasks: Iterable[Item], pictures: int) -> Iterator[Result]:
    """Run tasks on all cores; in processes where there are enough pictures: twice as fast for small ones."""
    if pictures >= WORTH_PROCESSES and cores() > 1:
        yield from in_order_by_processes(function, tasks)
        return
    from threadpoolctl import threadpool_limits

    # Each task has its own thread, so matrix products must not start more.
    with threadpool_limits(1):
        yield from in_order(function, tasks)


@dataclass(frozen=True)
class Partition:
    """A task, with the size in bytes of each file on the machine that listed them."""

    task: Task
    sizes: list[int]


@dataclass(frozen=True)
class Measuring:
    """`_measure_all` as cluster.Work, its results as `packed` arrays."""

    kind: ClassVar[str] = "ingest"
    alone: ClassVar[bool] = False
    loaded: ClassVar[str] = code_digest(__name__)

    code: str
    data: DataParams
    params: IngestParams

    def key(self, partition: Partition) -> str:
        """Everything that the rows depend on: names, bytes, settings, code and packages."""
        self._check_data(partition)
        states = [source_states(self.data, source, paths) for source, paths in partition.task]
        settings = [self.data.model_dump(mode="json", exclude={"root"}), self.params.model_dump(mode="json")]
        return cluster.digest(partition.task, states, settings, self.code, cluster.versions(*PACKAGES))

    def compute(self, partition: Partition) -> Arrays:
        """Measure the pictures on this machine."""
        self._check_data(partition)
        return packed(_measure_all(self.data, self.params, partition.task))

    def _check_data(self, partition: Partition) -> None:
        """Refuse to run where the worker's folder differs: it would quarantine good pictures or measure others."""
        for (source, _), size in zip(partition.task, partition.sizes, strict=True):
            if _size(self.data, source) != size:
                raise UserError(
                    f"{source} in {self.data.root.resolve()}/ on {socket.gethostname()} is not the file that this run "
                    "listed: start workers where they see the same data (on the same disk, or after `dvc pull`)."
                )


def _size(data: DataParams, source: str) -> int:
    try:
        return os.stat(data.root / source).st_size
    except OSError:
        return -1


def _partitions(data: DataParams, paths: list[str]) -> Iterator[Partition]:
    """Cut where the files' names say so, every PARTITION pictures on average: a new file moves no other cut."""
    pack: Task = []
    held = 0
    sources = [pair for task in _tasks(paths, PARTITION) for pair in task]
    for number, (source, inside) in enumerate(sources, 1):
        pack.append((source, inside))
        held += len(inside)
        drawn = int.from_bytes(hashlib.sha256(source.encode()).digest()[:8], "big") % PARTITION == 0
        if drawn or source.endswith(".npy") or held >= 4 * PARTITION or number == len(sources):
            yield Partition(pack, [_size(data, one) for one, _ in pack])
            pack, held = [], 0


def _by_partition(data: DataParams, params: IngestParams, paths: list[str]) -> Iterator[list[Measurement]]:
    work = Measuring(Measuring.loaded, data, params)
    for arrays in cluster.spread(work, _partitions(data, paths), partial(_spread, pictures=len(paths))):
        yield unpacked(arrays)


def packed(measured: list[Measurement]) -> Arrays:
    """Measurements as plain arrays: fingerprints, thumbnails, and rows and refusals as JSON text in uint8."""
    rows = [one for one in measured if not isinstance(one, Refused)]
    text = json.dumps(
        {
            "rows": [{**one.row, "phash": int(one.row["phash"])} for one in rows],
            "refused": [asdict(one) for one in measured if isinstance(one, Refused)],
        }
    )
    return {
        "fingerprints": np.array([one.fingerprint for one in rows], np.uint64).reshape(-1, 2, len(WINDOWS)),
        "thumbnails": np.array([one.thumbnail for one in rows], np.uint8).reshape(-1, *STORED),
        "text": np.frombuffer(text.encode(), np.uint8),
    }


def unpacked(arrays: Arrays) -> list[Measurement]:
    """The measurements and refusals that `packed` was given, refusals last."""
    text = json.loads(arrays["text"].tobytes())
    values = zip(text["rows"], arrays["fingerprints"], arrays["thumbnails"], strict=True)
    measured = [_Measured({**row, "phash": np.uint64(row["phash"])}, *pair) for row, *pair in values]
    return [*measured, *(Refused(**one) for one in text["refused"])]


def _measure_all(data: DataParams, params: IngestParams, task: Task) -> list[Measurement]:
    results: list[Measurement] = []
    for source, paths in task:
        for one in read_source(data, source, paths):
            try:
                results.append(one if isinstance(one, Refused) else measure(one, params.min_side))
            except DecodeError as error:
                results.append(Refused(one.path, error.reason, "unreadable"))
    return results


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    kinds = {"width": "int32", "height": "int32", "bytes": "int64", "phash": "uint64"}
    return table.astype({**kinds, **dict.fromkeys(MEASURES, "float64")})


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a .npy file atomically."""
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)
