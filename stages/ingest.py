"""Stage `ingest`: every picture decoded once, named by its bytes, hashed and measured; what can't be read set aside.

Nothing is fatal one by one: an unreadable file goes to build/quarantine.csv with its reason, and `validate` judges
whether that is too much. Same data, same bytes of every output.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.errors import UserError, run
from common.files import replacing, write_table
from common.params import Section, load_section
from common.progress import progress
from imaging.collection import (
    COMPUTED,
    DataParams,
    Picture,
    Refused,
    cores,
    in_order,
    in_order_by_processes,
    list_images,
    read_source,
    source_of,
)
from imaging.decode import DecodeError, shrink_grey
from imaging.describe import MEASURES, describe
from imaging.hashing import THUMBNAIL, WINDOWS, fingerprint, phash, thumbnail

if TYPE_CHECKING:
    import pandas as pd

BUILD = Path("build")
PACK = 16  # pictures in one task
WORTH_PROCESSES = 64  # tasks; starting processes costs a second
QUARANTINE = ("path", "reason", "kind", "label")


class IngestParams(Section):
    """params.yaml, section `ingest`."""

    min_side: int = Field(8, ge=1)


@dataclass(frozen=True)
class Ingested:
    """What ingest makes of a folder; row i of each array is row i of the manifest.

    manifest: COMPUTED columns, then the metadata columns (text, None where blank).
    quarantine: path, reason, kind (see imaging.collection.Refused), label.
    fingerprints: (N, 2, 37) uint64, see imaging.hashing.fingerprint.
    thumbnails: (N, 72, 96) uint8, grey.
    """

    manifest: pd.DataFrame
    quarantine: pd.DataFrame
    fingerprints: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]


@dataclass(frozen=True)
class _Measured:
    row: dict[str, Any]
    fingerprint: NDArray[np.uint64]
    thumbnail: NDArray[np.uint8]


def ingest(data: DataParams, params: IngestParams) -> Ingested:
    """Decode and measure every picture under `data.root` once, over all cores."""
    import pandas as pd

    collection = list_images(data)
    images, refused = collection.images, list(collection.refused)
    fingerprints = np.empty((len(images), 2, len(WINDOWS)), np.uint64)
    thumbnails = np.empty((len(images), *THUMBNAIL), np.uint8)
    rows: list[dict[str, Any]] = []
    results = _spread(partial(_measure_all, data, params), list(_tasks(list(images["path"]))))
    # Results come in the order of `images`, so those that are no pictures only leave the end of the arrays unused.
    for one in progress((one for batch in results for one in batch), "ingest", total=len(images)):
        if isinstance(one, Refused):
            refused.append(one)
        else:
            fingerprints[len(rows)], thumbnails[len(rows)] = one.fingerprint, one.thumbnail
            rows.append(one.row)
    computed = pd.DataFrame(rows, columns=[name for name in COMPUTED if name != "label"])
    kept = images[images["path"].isin(computed["path"])].reset_index(drop=True)
    computed.insert(COMPUTED.index("label"), "label", kept["label"])
    manifest = pd.concat([_typed(computed), kept.drop(columns=["path", "label"])], axis=1)
    labels = dict(zip(images["path"], images["label"], strict=True))
    quarantine = pd.DataFrame(
        sorted((one.path, one.reason, one.kind, one.label or labels.get(one.path, "")) for one in refused),
        columns=list(QUARANTINE),
        dtype=object,
    )
    return Ingested(manifest, quarantine, fingerprints[: len(rows)], thumbnails[: len(rows)])


def measure(picture: Picture, min_side: int) -> _Measured:
    """Hash and describe one decoded picture; DecodeError where it is smaller than `min_side` pixels."""
    image = picture.image
    if min(image.size) < min_side:
        raise DecodeError(f"has only {image.width} x {image.height} pixels, fewer than ingest.min_side {min_side}")
    rgb, grey = np.asarray(image), image.convert("L")
    small = np.asarray(shrink_grey(grey))
    row = {
        "path": picture.path,
        "id": picture.id,
        "pixels_sha256": pixels_sha256(rgb),
        "width": image.width,
        "height": image.height,
        "bytes": picture.bytes,
        "format": picture.format,
        "phash": phash(grey),
        **describe(rgb, np.asarray(grey)),
    }
    return _Measured(row, fingerprint(small), thumbnail(small))


def pixels_sha256(rgb: NDArray[np.uint8]) -> str:
    """Return the sha256 of the shape, as text "HxWx3", followed by the pixels row by row."""
    digest = hashlib.sha256("x".join(map(str, rgb.shape)).encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


Source = tuple[str, list[str]]
Task = list[Source]


def _tasks(paths: list[str]) -> Iterator[Task]:
    """Yield lists of (file, its pictures): about PACK pictures each, all boxes of a photograph together."""
    pack: Task = []
    held = 0
    for source, group in groupby(paths, key=source_of):
        pictures = list(group)
        size = PACK if source.endswith(".npy") else len(pictures)
        for start in range(0, len(pictures), size):
            pack.append((source, pictures[start : start + size]))
            held += len(pack[-1][1])
            if held >= PACK:
                yield pack
                pack, held = [], 0
    if pack:
        yield pack


def _spread(function: Callable[[Task], list[_Measured | Refused]], tasks: list[Task]) -> Iterator[Any]:
    """Run tasks over all cores; by processes (twice as fast on small pictures) where starting them is worth it."""
    if len(tasks) >= WORTH_PROCESSES and cores() > 1:
        yield from in_order_by_processes(function, tasks)
        return
    from threadpoolctl import threadpool_limits

    # Each task has a thread of its own; matrix products that fan out again would only get in their way.
    with threadpool_limits(1):
        yield from in_order(function, tasks)


def _measure_all(data: DataParams, params: IngestParams, task: Task) -> list[_Measured | Refused]:
    results: list[_Measured | Refused] = []
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


def main() -> None:
    """Read data/, write build/manifest.parquet, quarantine.csv, fingerprints.npy and thumbnails.npy."""
    data = load_section("data", DataParams)
    found = ingest(data, load_section("ingest", IngestParams))
    if not len(found.manifest):
        first = found.quarantine.iloc[0]
        write_table(BUILD / "quarantine.csv", found.quarantine)
        raise UserError(
            f"none of the {len(found.quarantine)} files in {data.root}/ can be used (the first: {first['path']} "
            f"{first['reason']}): see {BUILD}/quarantine.csv."
        )
    write_array(BUILD / "fingerprints.npy", found.fingerprints)
    write_array(BUILD / "thumbnails.npy", found.thumbnails)
    write_table(BUILD / "quarantine.csv", found.quarantine)
    write_table(BUILD / "manifest.parquet", found.manifest)
    classes = ", ".join(f"{count} {label}" for label, count in sorted(Counter(found.manifest["label"]).items()))
    print(f"{len(found.manifest)} pictures ({classes}), {len(found.quarantine)} quarantined", file=sys.stderr)


if __name__ == "__main__":
    run(main)
