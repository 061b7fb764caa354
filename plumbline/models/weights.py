"""Where a backbone's weights come from: a local directory, Keras' cache, a download, a file, or random numbers.

TensorFlow is imported only for a download, because the `weights` stage runs on every `dvc repro`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from plumbline.common.errors import UserError
from plumbline.common.files import file_digest
from plumbline.models.networks import NETWORKS, Network, find_network
from plumbline.models.records import NetworkWeights, WeightsRecord

PIXELS = "pixels"
Origin = Literal["imagenet", "file", "random", "none"]


@dataclass(frozen=True)
class Weights:
    """The weights a backbone resolved to. `path` is where the file lies on this machine, None for random ones."""

    backbone: str
    requested: str
    origin: Origin
    file: str | None
    sha256: str | None
    path: Path | None

    def record(self) -> WeightsRecord:
        """Return what DVC compares: everything but where the file lies."""
        return WeightsRecord(
            backbone=self.backbone, requested=self.requested, origin=self.origin, file=self.file, sha256=self.sha256
        )


def weights_directory() -> Path | None:
    """The directory of local weight files, from the environment variable PLUMBLINE_WEIGHTS."""
    value = os.environ.get("PLUMBLINE_WEIGHTS")
    if not value:
        return None
    directory = Path(value)
    if not directory.is_dir():
        raise UserError(f"PLUMBLINE_WEIGHTS names {directory}, which is not a directory: correct or unset it.")
    return directory


def keras_cache() -> Path:
    """Keras' own folder of downloaded weights (KERAS_HOME, else ~/.keras)."""
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"


def resolve_weights(backbone: str, network: str, requested: str) -> Weights:
    """Resolve `requested` (auto, imagenet, random, or a file's path) to the weights this run uses.

    Raises UserError where `imagenet` or a named file is not available.
    """
    if network == PIXELS:
        return Weights(backbone, requested, "none", None, None, None)
    known = find_network(network)
    if requested == "random":
        return Weights(backbone, requested, "random", None, None, None)
    if requested not in ("auto", "imagenet"):
        path = Path(requested)
        if not path.is_file():
            raise UserError(
                f"params.yaml: backbones.{backbone}.weights names {path}, which is not a file: "
                "correct it, or use auto, imagenet or random."
            )
        return _from_file(backbone, requested, "file", path)
    found = _local_file(known) or _download(known)
    if found:
        return _from_file(backbone, requested, "imagenet", found)
    if requested == "imagenet":
        cache = f", or {known.keras_file} into {keras_cache()}" if known.keras_file else ""
        raise UserError(
            f"backbones.{backbone}: no ImageNet weights for {known.application}: put {known.local_file} into the "
            f"directory PLUMBLINE_WEIGHTS names{cache}, or set weights: auto."
        )
    return Weights(backbone, requested, "random", None, None, None)


def describe_origin(records: Sequence[WeightsRecord | NetworkWeights]) -> str:
    """The origin of weights in words: `imagenet`, or for networks that differ `random (a, b), imagenet (c)`."""
    by_origin: dict[str, list[str]] = {}
    for record in records:
        name = record.network if isinstance(record, NetworkWeights) else record.backbone
        by_origin.setdefault(record.origin, []).append(name)
    if len(by_origin) == 1:
        return next(iter(by_origin))
    # Random first, because rules and readers look at the beginning.
    order = sorted(by_origin, key=lambda origin: (origin != "random", origin))
    return ", ".join(f"{origin} ({', '.join(by_origin[origin])})" for origin in order)


def join_records(backbone: str, requested: str, weights: list[Weights], networks: list[str]) -> WeightsRecord:
    """The record of a backbone of one network, or of several with one record each under `networks`."""
    if len(weights) == 1:
        return weights[0].record()
    records = tuple(
        NetworkWeights(network=network, **one.record().content())
        for network, one in zip(networks, weights, strict=True)
    )
    shown = json.dumps([record.content() for record in records], sort_keys=True)
    digest = hashlib.sha256(shown.encode()).hexdigest()
    files = [one.file for one in weights if one.file]
    return WeightsRecord(
        backbone=backbone,
        requested=requested,
        origin=describe_origin(records),
        file=", ".join(files) or None,
        sha256=digest if files else None,
        networks=records,
    )


def _from_file(backbone: str, requested: str, origin: Origin, path: Path) -> Weights:
    return Weights(backbone, requested, origin, path.name, file_digest(path), path)


def _local_file(network: Network) -> Path | None:
    directory = weights_directory()
    names = [name for name in (network.local_file, network.keras_file) if name]
    places = [directory / name for name in names] if directory else []
    if network.keras_file:
        places.append(keras_cache() / network.keras_file)
    return next((place for place in places if place.is_file()), None)


def _download(network: Network) -> Path | None:
    """Download the published weights into Keras' cache; None where there are none or they can't be reached."""
    if not network.url or os.environ.get("PLUMBLINE_OFFLINE") == "1" or not _reachable():
        return None
    import keras

    try:
        return Path(keras.utils.get_file(network.keras_file, network.url, cache_subdir="models", file_hash=network.md5))
    except Exception as error:  # get_file raises plain Exception when the download fails
        raise UserError(
            f"{network.url} could not be fetched ({error}): try again, put the file into {keras_cache()} by hand, "
            "or set PLUMBLINE_OFFLINE=1 to do without."
        ) from None


@functools.cache
def _reachable() -> bool:
    """Ask once per process, with a short timeout: without a network every `dvc repro` would wait for each backbone."""
    request = urllib.request.Request(next(one.url for one in NETWORKS.values() if one.url), method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=3):
            return True
    except (urllib.error.URLError, OSError):
        return False
