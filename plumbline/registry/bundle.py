"""The folder of one model version: an MLflow ONNX model, and under `plumbline/` everything else, with checksums.

Layout (a version's artifact folder in the registry)::

    MLmodel, model.onnx, ...            what `mlflow.onnx` and `mlflow.pyfunc` load; no pickle anywhere
    plumbline/serving.json              classes, image size, preprocessing, threshold, temperature, weights' origin
    plumbline/keras.json, model.weights.h5          the Keras model as config and weights; a compressed one has none
    plumbline/provenance.json           Git commit, dvc.lock and data version, weights digest
    plumbline/decision.json, leaderboard_row.json, comparison.json, model.json, backbones.json
    plumbline/splits.parquet, predictions.parquet   memberships of its data version, and its scores
    plumbline/reference/                what drift is judged against. Images that the model did not train on:
                                        images.parquet, embeddings.npy, groups.npy (the group of each, as numbers),
                                        thumbnails.parquet; these and others that it did train on: pool.parquet and
                                        pool_small.npy (small greys), and as drift's own eyes see them (eyes.json,
                                        eyes.onnx) pool_seen.npy
    plumbline/manifest.json             size and SHA-256 of every file above, in `seal`
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plumbline.common.errors import UserError
from plumbline.common.files import file_digest, text_digest, write_text

HOME = "plumbline"
MANIFEST = f"{HOME}/manifest.json"
ONNX = "model.onnx"


def seal(folder: Path) -> str:
    """Write the manifest of every file in `folder`; return the manifest's own SHA-256, which covers all of them."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    text = json.dumps({"files": files}, indent=1) + "\n"
    write_text(folder / MANIFEST, text)
    return text_digest(text)


def verify(folder: Path, digest: str) -> None:
    """Check `folder` against its manifest and the manifest against `digest`.

    Raises UserError naming the first file that is missing or altered. Files that the manifest does not list are
    ignored: MLflow writes its own `registered_model_meta` beside a model that it downloads.
    """
    manifest = folder / MANIFEST
    text = manifest.read_text(encoding="utf-8") if manifest.is_file() else ""
    if text_digest(text) != digest:
        raise UserError(f"{manifest} is missing or was altered: this version cannot be trusted; roll back to another.")
    for name, expected in json.loads(text)["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != expected["bytes"] or file_digest(path) != expected["sha256"]:
            raise UserError(f"{path} is missing or was altered since it was registered: roll back to another version.")


def preprocessing(image_size: int, fit: str, resize: str) -> dict[str, Any]:
    """Return what serving.json says of the way from a picture to the ONNX file's input; `resize` names our function."""
    return {
        "image_size": image_size,
        "colour": "RGB",
        "range": [0, 255],
        "dtype": "float32",
        "resize": resize,
        "fit": fit,
        "scaling": "inside the network",
    }


def read_json(folder: Path, name: str) -> Any:
    """Return `plumbline/<name>` of a version's folder as plain data."""
    return json.loads((folder / HOME / name).read_text(encoding="utf-8"))
