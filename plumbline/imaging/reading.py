"""Pictures of the manifest as pixels: decoded from a file, a row of an array or a box of a photograph."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np

from plumbline.common.errors import UserError
from plumbline.common.parallel import in_order
from plumbline.imaging.decode import DecodeError, Fit, Pixels, decode_resized, resize
from plumbline.imaging.files import LINKED_OUT, read_bytes
from plumbline.imaging.layouts import arrays, folders, yolo
from plumbline.imaging.layouts.interface import Layout
from plumbline.imaging.pictures import Picture, Refused, is_picture_name, source_of
from plumbline.imaging.settings import DataParams


def _layout_of(source: str, paths: Sequence[str]) -> Layout:
    """The layout that a file's pictures come from, by their paths (see plumbline.imaging.pictures)."""
    if not is_picture_name(source):
        return arrays
    return folders if list(paths) == [source] else yolo


def read_source(params: DataParams, source: str, paths: Sequence[str]) -> Iterator[Picture | Refused]:
    """Decode a file once and yield the pictures `paths` that lie in it; what can't be read comes as Refused."""
    yield from _layout_of(source, paths).read(params, source, paths)


def source_states(params: DataParams, source: str, paths: Sequence[str]) -> list[str]:
    """Return digests of everything that `read_source` would use for `paths`, or why it can't be read."""
    return _layout_of(source, paths).states(params, source, paths)


def load_rgb(params: DataParams, path: str) -> Pixels:
    """Return one picture of the manifest, (H, W, 3) uint8 RGB, upright; UserError naming it where it can't be read."""
    return _load(params, source_of(path), [(path, None)], None, "stretch")[0]


def iter_rgb(
    params: DataParams,
    paths: Iterable[str],
    size: tuple[int, int] | None = None,
    ids: Iterable[str] | None = None,
    fit: Fit = "stretch",
) -> Iterator[Pixels]:
    """Yield pictures of the manifest in order, (H, W, 3) uint8 RGB, upright, over all cores.

    Args:
        size: (height, width) to bring each to; None leaves them as they are.
        ids: the id that the manifest gives each; a picture with other bytes is refused.
        fit: stretch, or letterbox (see plumbline.imaging.decode.resize).

    Memory stays bounded: at most four files a core are decoded ahead. Neighbouring boxes of one photograph share its
    decoding. Raises UserError naming the first picture that can't be read.
    """
    pairs = zip(paths, ids, strict=True) if ids is not None else ((path, None) for path in paths)
    runs = ((source, list(group)) for source, group in groupby(pairs, key=lambda pair: source_of(pair[0])))
    # An array's rows all share a source; cut them into tasks.
    tasks = ((source, run[i : i + 64]) for source, run in runs for i in range(0, len(run), 64))
    for pictures in in_order(lambda task: _load(params, *task, size, fit), tasks):
        yield from pictures


def _load(
    params: DataParams, source: str, pairs: list[tuple[str, str | None]], size: tuple[int, int] | None, fit: Fit
) -> list[Pixels]:
    paths = [path for path, _ in pairs]
    if size is not None and paths == [source]:
        try:
            data = read_bytes(params, source)
            if pairs[0][1] not in (None, hashlib.sha256(data).hexdigest()):
                raise DecodeError("holds other bytes")
            return [decode_resized(data, size, params.max_pixels, fit)]
        except DecodeError as error:
            raise _changed(params, source, error.reason) from None
    pictures = []
    for one, (path, wanted) in zip(read_source(params, source, paths), pairs, strict=False):
        if isinstance(one, Refused):
            raise _changed(params, one.path, one.reason)
        if wanted not in (None, one.id):
            raise _changed(params, path, "holds other bytes")
        rgb = np.asarray(one.image)
        pictures.append(rgb if size is None else resize(rgb, size, fit))
    return pictures


def _changed(params: DataParams, path: str, reason: str) -> UserError:
    if reason == LINKED_OUT:  # `dvc checkout` can replace files by links too; to DVC they are the same data
        way_out = (
            "set data.follow_symlinks to true in params.yaml (DVC's cache.type symlink needs it), then `dvc repro`"
        )
        return UserError(f"{params.root / path} {reason}: {way_out}.")
    return UserError(f"{params.root / path} {reason}: it has changed since ingest, run `dvc repro`.")
