"""Build the folder of a new version: the layout is in `plumbline/registry/bundle.py`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.files import write_json, write_table
from plumbline.common.records import write_record
from plumbline.imaging.describe import CAMERA_MEASURES, describe_camera
from plumbline.imaging.small import small_grey
from plumbline.models.export import (
    EMBEDDING,
    INPUT,
    PROBABILITIES,
    OnnxModel,
    check_export,
    export_onnx,
    stacked,
    with_embedding,
)
from plumbline.registry import bundle
from plumbline.registry.chosen import Chosen, Pictures, fitted, with_pixels
from plumbline.registry.eyes import OWN, make_eyes, open_eyes
from plumbline.registry.eyes import SIZE as EYES_SIZE
from plumbline.registry.records import Provenance

if TYPE_CHECKING:
    import keras

DESCRIPTORS = ["width", "height", "bytes", "format", "brightness", "contrast", "sharpness", "colourfulness"]
CHECKED_PICTURES = 8
TRAIN = "train"
Embeds = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
THUMBNAIL = 96  # longer side, for the pages that show new images beside the nearest known ones


def build_folder(
    folder: Path,
    chosen: Chosen,
    model: keras.Model | Path,
    pictures: Pictures,
    origin: Provenance,
    onnx_tolerance: float,
    reference_images: int,
    batch_size: int,
    eyes: str = OWN,
) -> dict[str, float]:
    """Write a version into `folder`, all but comparison.json and the manifest; return the figures of the export check.

    `eyes` is the network that drift looks through, or `champion`. `model` is the candidate's network, which is
    exported, or the file of a compressed one, which is served as it is.
    `pictures(paths, size)` yields (size, size, 3) uint8 RGB in order, or pictures of their own size for None. Raises
    UserError if the ONNX file does not give what Keras gives.
    """
    home = folder / bundle.HOME
    home.mkdir(parents=True)
    size = chosen.model.image_size
    onnx_file = folder.with_suffix(".onnx")
    shown = fitted(pictures, chosen.model.fit)
    pool = sample_reference(chosen, reference_images)
    reference = pool[pool["split"] != TRAIN].reset_index(drop=True)
    figures: dict[str, float] = {}
    if isinstance(model, Path):
        shutil.copyfile(model, onnx_file)
    else:
        model.save_weights(home / "model.weights.h5")
        (home / "keras.json").write_text(model.to_json(), encoding="utf-8")
        exported = with_embedding(model)
        export_onnx(exported, onnx_file, chosen.model.fit)
        sample = np.stack(list(shown(list(reference["path"][:CHECKED_PICTURES]), size)))
        figures["onnx_difference"] = check_export(exported, onnx_file, sample, onnx_tolerance)
    save_mlflow_model(folder, onnx_file, size, {PROBABILITIES: (-1, len(chosen.classes)), EMBEDDING: (-1, -1)})
    served = OnnxModel(folder / bundle.ONNX)
    probabilities, embeddings = served.score(shown(list(reference["path"]), size), batch_size)
    for place, label in enumerate(chosen.classes):
        reference[f"p_{label}"] = probabilities[:, place]
    (home / "reference").mkdir()
    pool, thumbnails, small = seen_whole(pool, pictures)
    unseen = (pool["split"] != TRAIN).to_numpy()
    reference = reference.merge(pool[["path", *CAMERA_MEASURES]], on="path", validate="one_to_one")
    write_table(home / "reference" / "thumbnails.parquet", thumbnails[unseen].reset_index(drop=True))
    write_table(home / "reference" / "images.parquet", reference)
    np.save(home / "reference" / "embeddings.npy", embeddings, allow_pickle=False)
    groups = pd.factorize(reference["group"])[0].astype(np.int64)
    np.save(home / "reference" / "groups.npy", groups, allow_pickle=False)
    write_table(home / "reference" / "pool.parquet", pool)
    np.save(home / "reference" / "pool_small.npy", small, allow_pickle=False)
    look(home / "reference", eyes, served, pool, pictures, batch_size)
    write_table(home / "splits.parquet", with_pixels(chosen.splits, chosen.manifest))
    write_table(home / "predictions.parquet", chosen.predictions)
    write_json(home / "serving.json", serving(chosen))
    write_record(home / "decision.json", chosen.decision)
    write_record(home / "leaderboard_row.json", chosen.row)
    write_record(home / "model.json", chosen.model)
    write_json(home / "backbones.json", {name: one.content() for name, one in chosen.backbones.items()})
    write_record(home / "provenance.json", origin)
    return figures | {"score_difference": score_difference(chosen, reference[reference["split"] == "validation"])}


def serving(chosen: Chosen) -> dict[str, Any]:
    """Return what is needed to use the ONNX file as it was evaluated."""
    return {
        "candidate": chosen.name,
        "classes": chosen.classes,
        **chosen.served,
        "input": INPUT,
        "outputs": [PROBABILITIES, EMBEDDING],
        "preprocessing": bundle.preprocessing(
            chosen.model.image_size, chosen.model.fit, "plumbline.imaging.reading.iter_rgb"
        ),
        **chosen.task.record,
        "backbones": sorted(chosen.backbones),
        "weights": chosen.model.weights,
        "order": "probabilities, then temperature: p^(1/T) normalised over the classes, or with several labels over p "
        "and 1 - p of each, then threshold on violation_class",
    }


def sample_reference(chosen: Chosen, most: int) -> pd.DataFrame:
    """Return up to `most` images (path, id, label, group, split, descriptors): the same ones every time.

    Whole groups at random, those that the champion did not train on first until they are half: only they say what it
    makes of unseen pictures, while what pictures look like can be learnt from all.
    """
    images = chosen.splits[["path", "id", "label", "group", "split"]].sort_values("path", ignore_index=True)
    if not (images["split"] == "validation").any():
        raise UserError(f"{artefacts.SPLITS} has no validation image: run `dvc repro split`.")
    unseen = images[images["split"] != TRAIN]
    kept = _whole_groups(unseen, max(most // 2, most - int((images["split"] == TRAIN).sum())))
    kept = pd.concat([kept, _whole_groups(images[images["split"] == TRAIN], most - len(kept))]).sort_values("path")
    known = [column for column in DESCRIPTORS if column in chosen.manifest]
    return kept.merge(chosen.manifest[["path", *known]], on="path", how="left").reset_index(drop=True)


def _whole_groups(images: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return the images of groups drawn at random up to `most`, at least one group where there are any."""
    sizes = images["group"].value_counts(sort=False).sort_index()
    order = np.random.default_rng(0).permutation(len(sizes))
    fits = np.cumsum(sizes.to_numpy()[order]) <= most
    if len(fits):
        fits[0] = True
    return images[images["group"].isin(sizes.index[order[fits]])]


def seen_whole(images: pd.DataFrame, pictures: Pictures) -> tuple[pd.DataFrame, pd.DataFrame, NDArray[np.uint8]]:
    """Return `images` with CAMERA_MEASURES of each picture in its own size, small JPEGs (path, jpeg), small greys."""
    measures, jpegs, greys = [], [], []
    for pixels in pictures(list(images["path"]), None):
        measures.append(describe_camera(pixels))
        jpegs.append(small_jpeg(pixels))
        greys.append(small_grey(Image.fromarray(pixels).convert("L")))
    table = pd.DataFrame(measures, index=images.index)
    return (
        pd.concat([images, table], axis=1),
        pd.DataFrame({"path": images["path"], "jpeg": jpegs}),
        np.stack(greys),
    )


def look(home: Path, eyes: str, champion: OnnxModel, pool: pd.DataFrame, pictures: Pictures, batch_size: int) -> None:
    """Write drift's eyes into `home`, and what they see of the `pool`, where they see anything.

    Raises UserError where no network is called `eyes`.
    """
    paths = list(pool["path"])
    fits = champion.image_size == EYES_SIZE and champion.fit == "stretch"
    sample = np.stack(list(pictures(paths[:CHECKED_PICTURES], EYES_SIZE))) if fits else None
    record = make_eyes(home, eyes, champion, sample)
    if record.through == "the champion's":
        return
    network: Embeds = open_eyes(home) or (lambda batch: champion(batch)[1])
    seen = [network(batch).astype(np.float16) for batch in stacked(pictures(paths, EYES_SIZE), batch_size)]
    np.save(home / "pool_seen.npy", np.concatenate(seen), allow_pickle=False)


def small_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return an RGB picture (H, W, 3) as a JPEG whose longer side is THUMBNAIL pixels."""
    import cv2

    factor = THUMBNAIL / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    small = cv2.resize(np.ascontiguousarray(pixels[:, :, ::-1]), size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())


def score_difference(chosen: Chosen, reference: pd.DataFrame) -> float:
    """Return the mean absolute difference between the evaluated scores and the ONNX file's on the same pictures.

    Training reads cached features (float16, on some processors computed in bfloat16); serving reads pixels.
    """
    columns = [f"p_{label}" for label in chosen.classes]
    evaluated = chosen.predictions.set_index("path").loc[reference["path"], columns].to_numpy(np.float64)
    return float(np.abs(evaluated - reference[columns].to_numpy(np.float64)).mean())


def save_mlflow_model(folder: Path, onnx_file: Path, size: int, outputs: Mapping[str, tuple[int, ...]]) -> None:
    """Move the ONNX file into `folder` as an MLflow model that `mlflow.onnx` and `mlflow.pyfunc` load; no pickle.

    It reads pixels (N, size, size, 3); `outputs` are the shapes of what it gives, by name, -1 for any number.
    """
    import mlflow.onnx
    import onnx
    import onnxruntime
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    single = np.dtype(np.float32)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(single, (-1, size, size, 3), INPUT)]),
        outputs=Schema([TensorSpec(single, shape, name) for name, shape in outputs.items()]),
    )
    scratch = folder.with_name(f"{folder.name}.mlflow")
    mlflow.onnx.save_model(
        onnx.load(str(onnx_file)),
        scratch,
        signature=signature,
        pip_requirements=[
            f"mlflow=={mlflow.__version__}",
            f"onnx=={onnx.__version__}",
            f"onnxruntime=={onnxruntime.__version__}",
            f"numpy=={np.__version__}",
        ],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    onnx_file.unlink()
    for path in scratch.iterdir():
        path.rename(folder / path.name)
    scratch.rmdir()
