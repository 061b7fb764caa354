"""Drift's own eyes: a frozen pretrained network that travels in the version, whoever is champion.

A champion learnt to tell its classes, and may not see what else changed; a network trained on millions of varied
pictures does. `reference/eyes.json` says which it is and where its weights come from. `reference/eyes.onnx` is left out
where the champion's own embedding is the same, and where no pretrained weights were at hand: an untrained network sees
little that the plain descriptors don't.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from plumbline.common.params import Section
from plumbline.common.records import Record, read_record, write_record
from plumbline.models.export import Embedder, OnnxModel, export_embedding
from plumbline.models.networks import build_backbone, find_network, scale_pixels
from plumbline.models.weights import resolve_weights

OWN = "champion"
SIZE = 224
ALIKE = 1e-3  # largest difference of any feature, in units of their spread, that conversion explains
ONNX, RECORD = "eyes.onnx", "eyes.json"
Through = Literal["its own network", "the champion's, which is the same network", "the champion's"]


class LooksWith(Section):
    """What promotion reads of the section `drift`: the network that drift's eyes are, or `champion`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    embedding: str = "mobilenet_v2"


class EyesRecord(Record):
    """eyes.json: the network asked for, where its weights come from (imagenet, random), and what embeds in its place.

    `file` and `sha256` are of the weights. `through` says whose embeddings are compared.
    """

    network: str
    origin: str
    file: str | None = None
    sha256: str | None = None
    image_size: int | None = None
    through: Through


def make_eyes(home: Path, network: str, champion: OnnxModel, sample: NDArray[np.uint8] | None) -> EyesRecord:
    """Write eyes.json into `home`, and eyes.onnx where the champion does not see the same; return the record.

    Args:
        sample: (n, SIZE, SIZE, 3) RGB pictures, by which is seen whether the champion's embedding is the same; None
            where it takes pictures of another size.

    Raises UserError where no network is called so.
    """
    record = EyesRecord(network=network, origin="its own", through="the champion's")
    if network != OWN:
        find_network(network)
        weights = resolve_weights(network, network, "auto")
        if weights.path is None:
            record = record.model_copy(update={"origin": weights.origin})
        else:
            export_eyes(network, weights.path, home / ONNX)
            same = sample is not None and alike(Embedder(home / ONNX)(sample), champion(sample)[1])
            if same:
                (home / ONNX).unlink()
            record = EyesRecord(
                network=network,
                origin=weights.origin,
                file=weights.file,
                sha256=weights.sha256,
                image_size=SIZE,
                through="the champion's, which is the same network" if same else "its own network",
            )
    write_record(home / RECORD, record)
    return record


def export_eyes(network: str, weights: Path, path: Path) -> None:
    """Write a frozen network as ONNX: RGB pixels (N, SIZE, SIZE, 3) in [0, 255] to averaged feature maps (N, D)."""
    import keras

    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    seen = build_backbone(network, SIZE, str(weights))(scale_pixels(pixels, find_network(network).scaling))
    export_embedding(keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(seen)), path)


def alike(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> bool:
    """Whether two arrays of embeddings (n, D) are the same but for what conversion costs."""
    return ours.shape == theirs.shape and bool(np.abs(ours - theirs).max() <= ALIKE * max(float(ours.std()), 1e-12))


def read_eyes(home: Path) -> EyesRecord | None:
    """Return the record in a version's `reference` folder, None in versions older than it."""
    return read_record(home / RECORD, EyesRecord) if (home / RECORD).is_file() else None


def open_eyes(home: Path) -> Embedder | None:
    """Return the network that a version brings, None where it brings none."""
    return Embedder(home / ONNX) if (home / ONNX).is_file() else None
