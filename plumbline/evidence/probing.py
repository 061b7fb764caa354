"""A candidate's answers on disturbed test pictures, and where its Grad-CAM lies.

Two tables, which stage `probe` writes and `evaluate` interprets. Answers: path, condition, p_CLASS. Attention: path,
mass (the share of Grad-CAM inside the head's box) and area (the box's share of the picture), without a row for a
network that has no feature maps.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.records import read_array, read_plain, read_record, read_table
from plumbline.evidence.disturbances import BOX, Pictures, ProbeParams, conditions, disturbed_features, soft_mask
from plumbline.models.anatomy import attention
from plumbline.models.assemble import load_candidate, load_trained
from plumbline.models.export import OnnxModel
from plumbline.models.features import Features
from plumbline.models.fitting import predict
from plumbline.models.records import ModelRecord
from plumbline.models.trainable import reads_pixels
from plumbline.tasks.known import task_of
from plumbline.tasks.task import Task

if TYPE_CHECKING:
    import keras


def answers(
    trained: keras.Model,
    values: NDArray[Any],
    index: pd.DataFrame,
    conditions: list[str],
    classes: list[str],
    task: Task,
) -> pd.DataFrame:
    """Return path, condition, p_CLASS of the features `values` (N, conditions, ...) of the pictures of `index`."""
    every = range(len(conditions))
    found = [predict(trained, values[:, place : place + 1], np.arange(len(index)), 64, task) for place in every]
    return _table_of(found, index, conditions, classes)


def _table_of(
    found: list[NDArray[np.float64]], index: pd.DataFrame, conditions: list[str], classes: list[str]
) -> pd.DataFrame:
    """Probabilities (N, C) by condition as one table."""
    tables = []
    for condition, p in zip(conditions, found, strict=True):
        columns = {f"p_{name}": p[:, k] for k, name in enumerate(classes)}
        tables.append(index[["path"]].assign(condition=condition, **columns))
    return pd.concat(tables, ignore_index=True)


def head_mass(heat: NDArray[np.float32], boxes: NDArray[np.float64]) -> pd.DataFrame:
    """Return for heat (N, h, w) and heads (N, 4) the heat's share inside (mass) and the head's of the picture (area).

    Pictures without heat, where nothing supports the answer, are left out: their mass is NaN.
    """
    import cv2

    size = 200
    masks = [soft_mask(box, size)[:, :, 0] for box in boxes]
    inside = np.stack([cv2.resize(m, heat.shape[:0:-1], interpolation=cv2.INTER_AREA) for m in masks])
    total = heat.sum(axis=(1, 2))
    mass = np.divide((heat * inside).sum(axis=(1, 2)), total, out=np.full(len(heat), np.nan), where=total > 0)
    return pd.DataFrame({"mass": mass, "area": [float(m.mean()) for m in masks]})


def heat_of(
    folder: Path,
    features: Features,
    trained: keras.Model,
    paths: list[str],
    predicted: NDArray[np.intp],
    pictures: Pictures,
) -> NDArray[np.float32] | None:
    """Return Grad-CAM (N, h, w) for the answers `predicted` (N,), None where the network has no feature maps.

    Where the stored features are a frozen network's last maps Grad-CAM uses them, and only the head has to run.
    """
    backbone = features.backbone
    frozen = backbone.freeze == "head" and len(backbone.parts) == 1
    if reads_pixels(backbone) or (frozen and len(features.shape) == 3):
        values = np.asarray(features.values[features.rows_of(paths), 0], dtype=np.float32)
        return attention(trained, values, predicted, inputs_are_maps=not reads_pixels(backbone))
    model = load_candidate(folder, features.folder)
    found = []
    for start in range(0, len(paths), 16):
        some = slice(start, start + 16)
        pixels = np.stack(list(pictures(paths[some], backbone.image_size))).astype(np.float32)
        heat = attention(model, pixels, predicted[some])
        if heat is None:
            return None
        found.append(heat)
    return np.concatenate(found)


def probe(
    folder: Path, features: Features, disturbed: Path, pictures: Pictures, params: ProbeParams
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return answers and attention (see above) of the candidate in `folder`, whose backbone made `disturbed`."""
    model = read_record(folder / artefacts.MODEL, ModelRecord)
    classes = list(model.classes)
    stage = f"disturb@{disturbed.name}"
    index = read_table(disturbed / artefacts.INDEX, stage=stage)
    values = read_array(disturbed / artefacts.VALUES, mapped=True, stage=stage)
    named = read_plain(disturbed / artefacts.CONDITIONS, list[str], stage)
    trained = load_trained(folder, features.folder)
    found = answers(trained, values, index, named, classes, task_of(model))
    looked = index.head(params.attention_pictures)
    predictions = read_table(folder / artefacts.PREDICTIONS, stage=f"train@{folder.name}").set_index("path")
    absent = looked.loc[~looked["path"].isin(predictions.index), "path"]
    if len(absent):
        raise UserError(f"{folder}/predictions.parquet has no {absent.iat[0]}: run `dvc repro`.")
    predicted = predictions.loc[looked["path"], [f"p_{name}" for name in classes]].to_numpy(np.float64).argmax(axis=1)
    heat = heat_of(folder, features, trained, list(looked["path"]), predicted, pictures)
    if heat is None:
        return found, no_attention()
    return found, looked[["path"]].join(head_mass(heat, looked[list(BOX)].to_numpy(np.float64)))


def probe_file(
    file: Path,
    model: ModelRecord,
    rows: pd.DataFrame,
    boxes: NDArray[np.float64],
    pictures: Pictures,
    params: ProbeParams,
) -> pd.DataFrame:
    """Return the answers (see above) of a compressed candidate's file to the pictures of `rows`, whose heads `boxes`
    (N, 4) are: the same pictures under the same conditions as its original was shown."""
    network = OnnxModel(file, 1)

    def say(shown: NDArray[np.uint8]) -> NDArray[np.float64]:
        return network(shown)[0].astype(np.float64)

    found = disturbed_features(rows, boxes, pictures, say, network.image_size, params)
    named = conditions(params)
    return _table_of([found[:, place] for place in range(len(named))], rows, named, list(model.classes))


def no_attention() -> pd.DataFrame:
    """Return the table of a model that Grad-CAM has nothing to show of: no row."""
    return pd.DataFrame({"path": pd.Series(dtype=object), "mass": [], "area": []})
