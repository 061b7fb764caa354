"""The real photographs of benchmarks/drift.py, as they are and as another camera might have taken them.

Embeddings (MobileNetV2, average-pooled, through ONNX Runtime as drift's eyes are), descriptors and small pictures of
every picture in every condition, computed once and kept in a cache folder: thousands of windows are then cheap.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from plumbline.common.progress import progress
from plumbline.imaging.decode import Pixels, decode, decode_resized
from plumbline.imaging.describe import describe, describe_camera
from plumbline.imaging.hashing import phash
from plumbline.imaging.small import small_grey
from plumbline.models.export import OnnxModel, export_onnx, stacked, with_embedding

SIZE = 224
TINY = 64  # for a champion that is trained from scratch
QUALITY = 92  # JPEG quality of what is disturbed and saved again
WEIGHTS = "mobilenet_v2_1.0_224_notop.weights.h5"


def darkened(rgb: Pixels) -> Pixels:
    """Gamma 2."""
    return np.asarray(np.rint(255 * (rgb / 255.0) ** 2), np.uint8)


def blurred(rgb: Pixels) -> Pixels:
    """Gaussian, sigma 2 pixels."""
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), 2), np.uint8)


def cast(rgb: Pixels) -> Pixels:
    """Warm light: red up by 15 percent, blue down by 25."""
    return np.asarray(np.clip(rgb * np.array([1.15, 1.0, 0.75]), 0, 255), np.uint8)


def zoomed(rgb: Pixels) -> Pixels:
    """The middle 1 / 1.3 of each side, brought back to the whole size."""
    height, width = rgb.shape[:2]
    tall, wide = round(height / 1.3), round(width / 1.3)
    top, left = (height - tall) // 2, (width - wide) // 2
    part = np.ascontiguousarray(rgb[top : top + tall, left : left + wide])
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def dirty(rgb: Pixels) -> Pixels:
    """A dark soft blob on the lens, always at the same place, a fifth of the picture wide."""
    height, width = rgb.shape[:2]
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    blob = np.exp(-((((x - 0.68) ** 2 + (y - 0.30) ** 2) / (2 * 0.10**2)) ** 2))
    return np.asarray(rgb * (1 - 0.85 * blob[:, :, None]), np.uint8)


def mirrored(rgb: Pixels) -> Pixels:
    """Left and right swapped."""
    return np.ascontiguousarray(rgb[:, ::-1])


Change = tuple[Callable[[Pixels], Pixels] | None, int]
# What is done to the pixels, and the JPEG quality they are saved with again. `as they are` keeps the file.
CONDITIONS: dict[str, Change] = {
    "as they are": (None, 0),
    "darkened (gamma 2)": (darkened, QUALITY),
    "blurred (sigma 2)": (blurred, QUALITY),
    "JPEG quality 10": (lambda rgb: rgb, 10),
    "colour cast": (cast, QUALITY),
    "30 percent zoom": (zoomed, QUALITY),
    "mirrored": (mirrored, QUALITY),
    "lens dirt": (dirty, QUALITY),
    "saved again (quality 92)": (lambda rgb: rgb, QUALITY),
}


@dataclass(frozen=True)
class Pool:
    """Every picture: `table` (path, label, photo, repost_group, origin: helmet, same_camera or new_gate), and by
    condition its descriptors (rows as in `table`), embeddings (N, 1280), small greys (N, 18, 24) and `tiny` RGB
    pictures (N, TINY, TINY, 3)."""

    table: pd.DataFrame
    descriptors: dict[str, pd.DataFrame]
    embeddings: dict[str, NDArray[np.float32]]
    small: dict[str, NDArray[np.uint8]]
    tiny: dict[str, NDArray[np.uint8]]


def changed(data: bytes, change: Change) -> bytes:
    """Return a file's bytes as `change` leaves them."""
    alter, quality = change
    if alter is None:
        return data
    out = io.BytesIO()
    Image.fromarray(alter(decode(data))).save(out, "JPEG", quality=quality)
    return out.getvalue()


def export_network(weights: Path, target: Path, head: tuple[NDArray[np.floating], float] | None = None) -> None:
    """Write MobileNetV2 with a head (kernel (1280,) and bias; zeros where None) as ONNX, as a version holds it."""
    import keras

    pixels = keras.Input((SIZE, SIZE, 3))
    backbone = keras.applications.MobileNetV2(input_shape=(SIZE, SIZE, 3), weights=None, include_top=False)
    backbone.load_weights(weights)
    layers = [keras.Input((1280,)), keras.layers.Dense(1, activation="sigmoid", kernel_initializer="zeros")]
    top = keras.Sequential(layers, name="head")
    if head is not None:
        top.set_weights([np.reshape(head[0], (1280, 1)), np.array([head[1]])])
    seen = keras.layers.GlobalAveragePooling2D()(backbone(keras.layers.Rescaling(1 / 127.5, -1)(pixels)))
    export_onnx(with_embedding(keras.Model(pixels, top(seen))), target)


def measured(data: bytes) -> dict[str, float]:
    """Return what monitoring measures of a file, by the names it uses."""
    rgb = decode(data)
    image = Image.fromarray(rgb)
    return {
        "width": image.width,
        "height": image.height,
        "bytes": len(data),
        "phash": int(phash(image)),
        **describe(rgb),
        **describe_camera(rgb),
    }


def read_table(data: Path) -> pd.DataFrame:
    """Return path, label, photo, repost_group and origin of every picture of helmet/ and sites/."""
    helmet = pd.read_csv(data / "helmet" / "metadata.csv").assign(origin="helmet")
    sites = pd.read_csv(data / "sites" / "truth.csv")
    sites["origin"] = sites["path"].str.split("/").str[0]
    helmet["path"], sites["path"] = "helmet/" + helmet["path"], "sites/" + sites["path"]
    return pd.concat([helmet, sites], ignore_index=True)


def load_pool(
    data: Path, weights: Path, cache: Path, tiny: bool, conditions: Collection[str] = tuple(CONDITIONS)
) -> Pool:
    """Return the pool in `conditions`, computing what the cache lacks, `tiny` pictures only where they are wanted."""
    table = read_table(data)
    cache.mkdir(parents=True, exist_ok=True)
    onnx = cache / "backbone.onnx"
    if not onnx.is_file():
        export_network(weights / WEIGHTS, onnx)
    pool = Pool(table, {}, {}, {}, {})
    for number, (name, change) in enumerate(CONDITIONS.items()):
        if name not in conditions:
            continue
        places = {kind: cache / f"{number}.{kind}.npy" for kind in ("seen", "small", "tiny")[: 3 if tiny else 2]}
        figures = cache / f"{number}.parquet"
        if not all(place.is_file() for place in (figures, *places.values())):
            files = [changed((data / path).read_bytes(), change) for path in progress(table["path"], name)]
            pd.DataFrame([measured(file) for file in files]).to_parquet(figures)
            np.save(places["small"], np.stack([small_of(file) for file in files]))
            if tiny:
                np.save(places["tiny"], np.stack([decode_resized(file, (TINY, TINY)) for file in files]))
            if not places["seen"].is_file():
                model = OnnxModel(onnx, threads=1)
                pictures: Iterator[Pixels] = (decode_resized(file, (SIZE, SIZE)) for file in files)
                np.save(places["seen"], np.concatenate([model(batch)[1] for batch in stacked(pictures, 32)]))
        pool.descriptors[name] = pd.read_parquet(figures)
        pool.embeddings[name], pool.small[name] = np.load(places["seen"]), np.load(places["small"])
        if tiny:
            pool.tiny[name] = np.load(places["tiny"])
    return pool


def small_of(data: bytes) -> NDArray[np.uint8]:
    """Return a file's picture as monitoring keeps it, (18, 24)."""
    return small_grey(Image.fromarray(decode(data)).convert("L"))
