"""Does a hybrid gain from all of its networks, in the dark for example? Every subset is tried.

For every subset of a hybrid backbone's networks a head like the hybrid's is trained on that part of the cached
features, and scored on the test pictures as they are, darkened, partly covered and rotated. Several seeds show
how much is chance.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common import artefacts
from plumbline.common.params import Section
from plumbline.common.progress import progress
from plumbline.evidence.records import SubsetAccuracy
from plumbline.models.candidates import Candidate
from plumbline.models.features import Features
from plumbline.models.fitting import fit, make_deterministic
from plumbline.models.networks import build_collected
from plumbline.models.pooling import features_of, join
from plumbline.models.preprocessing import prepared
from plumbline.models.trainable import build_trainable
from plumbline.models.training import TrainingSet

Picture = NDArray[np.uint8]


class Ablation(Section):
    """One entry of `ablations`, under the candidate's name: its `backbone`, and how strong the disturbances are.

    `dark` multiplies the pixels, `occluded` is the covered block's share of each side, `rotated` is in degrees.
    """

    backbone: str
    seeds: Annotated[int, Field(ge=1, le=20)] = 3
    dark: Annotated[float, Field(gt=0, lt=1)] = 0.3
    occluded: Annotated[float, Field(gt=0, lt=1)] = 0.35
    rotated: Annotated[float, Field(gt=0, le=180)] = 20.0


def disturb(picture: Picture, image_id: str, condition: str, params: Ablation) -> Picture:
    """The picture (S, S, 3) darkened, with a grey block at a random place, rotated either way, or unchanged."""
    import cv2

    random = np.random.default_rng(int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big"))
    size = picture.shape[0]
    if condition == "dark":
        return (picture * params.dark).astype(np.uint8)
    if condition == "occluded":
        side = round(size * params.occluded)
        row, column = random.integers(0, size - side + 1, size=2)
        covered = picture.copy()
        covered[row : row + side, column : column + side] = 127
        return covered
    if condition == "rotated":
        angle = params.rotated * (1 if random.random() < 0.5 else -1)
        turn = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, 1.0)
        return np.asarray(cv2.warpAffine(picture, turn, (size, size), borderMode=cv2.BORDER_REPLICATE), dtype=np.uint8)
    return picture


CONDITIONS = ("clean", "dark", "occluded", "rotated")


def subsets(networks: list[str]) -> list[tuple[str, ...]]:
    """Every non-empty subset: each alone, each pair, and so on."""
    return [chosen for count in range(1, len(networks) + 1) for chosen in itertools.combinations(networks, count)]


def build_extractor(features: Features) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The hybrid's networks from pixels (N, S, S, 3) to features (N, D) as stored, in float32."""
    import keras

    backbone = features.backbone
    names, size = [part.network for part in backbone.parts], backbone.image_size
    networks = build_collected(names, backbone.network_size, str(features.folder / artefacts.BACKBONE_WEIGHTS))
    pixels = keras.Input((size, size, 3))
    seen = prepared(pixels, backbone.preprocess)
    maps = [features_of(seen, name, [network], backbone) for name, network in zip(names, networks, strict=True)]
    model = keras.Model(pixels, join(maps))
    return lambda batch: np.asarray(model.predict_on_batch(batch))


def disturbed_features(
    test: pd.DataFrame,
    pictures: Callable[[list[str], int], Iterable[Picture]],
    extract: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    size: int,
    params: Ablation,
    batch: int = 32,
) -> dict[str, NDArray[np.float32]]:
    """Features (N, D) of the test pictures (path, id) under each condition but the clean one, which is cached."""
    result: dict[str, list[NDArray[np.float32]]] = {condition: [] for condition in CONDITIONS[1:]}
    starts = range(0, len(test), batch)
    for start in progress(starts, "disturbed test pictures", total=len(starts), unit="batch"):
        rows = test.iloc[start : start + batch]
        images = list(pictures(list(rows["path"]), size))
        for condition, kept in result.items():
            changed = [disturb(i, name, condition, params) for i, name in zip(images, rows["id"], strict=True)]
            kept.append(extract(np.stack(changed).astype(np.float32)))
    return {condition: np.concatenate(kept) for condition, kept in result.items()}


def ablate(
    candidate: Candidate,
    splits: pd.DataFrame,
    features: Features,
    disturbed: dict[str, NDArray[np.float32]],
    params: Ablation,
    first_seed: int,
) -> list[SubsetAccuracy]:
    """Train every subset with every seed; one row per subset: networks, parameters and accuracies by condition."""
    data = TrainingSet.of(splits, features)
    task, test = data.targets.task, data.inside("test")
    networks = [part.network for part in features.backbone.parts]
    conditions: dict[str, NDArray[Any]] = {"clean": features.values[data.rows[test], 0], **disturbed}
    table = []
    for chosen in subsets(networks):
        part = candidate.model_copy(update={"networks": chosen})
        by_seed: dict[str, list[float]] = {condition: [] for condition in CONDITIONS}
        parameters = 0
        for seed in range(first_seed, first_seed + params.seeds):
            make_deterministic(seed)
            network = build_trainable(part, features.backbone, None, len(data.targets.classes), task)
            fit(network, part, data.plain_lesson(part, seed), f"{'+'.join(chosen)} seed {seed}")
            for condition, values in conditions.items():
                p = task.probabilities(network.predict_on_batch(np.asarray(values, np.float32)))
                right = (task.predicted(p) == data.targets.truth[test]).all(axis=1)
                by_seed[condition].append(float(right.mean()))
            frozen = sum(part.parameters for part in features.backbone.parts if part.network in chosen)
            parameters = frozen + network.count_params()
        table.append(SubsetAccuracy(networks=tuple(chosen), parameters=parameters, accuracy=by_seed))
    return table


def verdict(table: list[SubsetAccuracy], test_images: int) -> list[str]:
    """One sentence per condition: are all networks together better than the best one alone?

    A difference counts beyond twice the standard error of two independent accuracies. That is conservative, because
    both are measured on the same pictures.
    """
    alone = [row for row in table if len(row.networks) == 1]
    together = max(table, key=lambda row: len(row.networks))
    sentences = []
    for condition in CONDITIONS:
        best = max(alone, key=lambda row: float(np.mean(row.accuracy[condition])))
        one, all_ = (float(np.mean(row.accuracy[condition])) for row in (best, together))
        noise = 2 * math.sqrt((one * (1 - one) + all_ * (1 - all_)) / test_images)
        how = "better than" if all_ - one > noise else "worse than" if one - all_ > noise else "not told apart from"
        sentences.append(
            f"{condition}: all together ({all_:.3f}) is {how} {best.networks[0]} alone ({one:.3f}); "
            f"chance explains differences up to {noise:.3f}"
        )
    return sentences
