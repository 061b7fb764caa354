"""A registered classifier of crops as the second stage of a detector: it judges each head that the detector finds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.files import file_digest, text_digest
from plumbline.common.served import CHAMPION
from plumbline.evidence.calibration import scale
from plumbline.evidence.systems import ClassifierFound, SystemsParams, heads_of, judged_heads
from plumbline.imaging.decode import Pixels, resize
from plumbline.models.detecting import SIDES
from plumbline.models.export import OnnxModel
from plumbline.registry import bundle
from plumbline.registry import versions as registry
from plumbline.registry.glance import glance
from plumbline.tasks.known import task_of
from plumbline.tasks.scores import Floats

BATCH = 32
SERVING = f"{bundle.HOME}/serving.json"


def find_classifier(params: SystemsParams) -> ClassifierFound:
    """Say which classifier is there now, without opening it: what stage `classifier` writes, and DVC compares."""
    wanted = params.classifier
    if wanted is None:
        return ClassifierFound(wanted=None)
    if wanted != CHAMPION:
        file = Path(wanted) / bundle.ONNX
        if not file.is_file() or not (Path(wanted) / SERVING).is_file():
            why = f"{wanted} (systems.classifier) is no version's folder: it lacks {bundle.ONNX} or {SERVING}"
            return ClassifierFound(wanted=wanted, why_not=why)
        return ClassifierFound(wanted=wanted, digest=_digest(Path(wanted)))
    uri = registry.registry_uri()
    missing = ClassifierFound(
        wanted=wanted,
        model=params.model,
        why_not=f"the registry {registry.shown_uri(uri)} has no champion of model '{params.model}': promote a "
        "classifier of crops (`make run` at the top), or set systems.classifier to null",
    )
    if not registry.exists(uri):
        return missing
    try:
        found = glance(uri, params.model, CHAMPION)
    except UserError as error:
        return missing.model_copy(update={"why_not": str(error).rstrip(".")})
    if found is None:
        return missing
    return ClassifierFound(wanted=wanted, model=params.model, version=found.version, digest=found.digest)


def folder_of(found: ClassifierFound) -> Path:
    """Return the folder of the classifier found, its files checked; UserError where they were altered since."""
    if found.version is None:
        folder = Path(found.wanted or "")
        if _digest(folder) != found.digest:
            raise UserError(f"{folder} has changed since stage classifier looked: run `dvc repro`.")
        return folder
    return registry.load_version(found.version, found.model or registry.MODEL).folder


def _digest(folder: Path) -> str:
    return text_digest(file_digest(folder / bundle.ONNX) + file_digest(folder / SERVING))


class SecondStage:
    """A classifier's version, ready to judge heads."""

    def __init__(self, folder: Path, params: SystemsParams, classes: Sequence[str]) -> None:
        """Open the version in `folder`; `classes` are the detector's.

        Raises UserError where it does not tell exactly these apart, by the names that systems.classes gives them.
        """
        serving = bundle.read_json(folder, "serving.json")
        theirs = list(serving["classes"])
        meant = [params.classes.get(name, name) for name in theirs]
        task = task_of(serving)
        if not task.exclusive or sorted(meant) != sorted(classes):
            several = "" if task.exclusive else ", several at a time"
            raise UserError(
                f"the classifier in {folder} tells {', '.join(theirs)} apart{several}, the detector "
                f"{', '.join(classes)}: name the detector's for each of its own under systems.classes in params.yaml"
            )
        self._order = [meant.index(name) for name in classes]
        self._temperature = float(serving["temperature"])
        self._onnx = OnnxModel(folder / bundle.ONNX)
        self.classes, self.params, self.folder = list(classes), params, folder
        self.seconds, self.photographs = 0.0, 0  # spent on judging so many

    @property
    def milliseconds(self) -> float:
        """What it took for a photograph, on average."""
        return 1000 * self.seconds / max(1, self.photographs)

    @property
    def parameters(self) -> int:
        """How many parameters the classifier has."""
        return int(bundle.read_json(self.folder, artefacts.MODEL.name)["parameters"])

    def probabilities(self, photograph: Pixels, boxes: Floats, margin: float) -> Floats:
        """Return what it says (N, C) of boxes (N, 4), in shares of the photograph (H, W, 3); as it is served."""
        size = self._onnx.image_size
        crops = [resize(crop_of(photograph, box, margin), (size, size), self._onnx.fit) for box in boxes]
        given = [self._onnx(np.stack(crops[start : start + BATCH]))[0] for start in range(0, len(crops), BATCH)]
        plain = np.concatenate([np.zeros((0, len(self.classes)), np.float32), *given]).astype(np.float64)
        return scale(plain, self._temperature)[:, self._order]

    def judge(self, detections: pd.DataFrame, photograph: Pixels, margin: float) -> pd.DataFrame:
        """Return the detections of one photograph as the classifier has them, (path, label, score, sides)."""
        begun = time.perf_counter()
        heads = heads_of(detections, self.params)
        found = judged_heads(
            heads, self.probabilities(photograph, heads[SIDES].to_numpy(np.float64), margin), self.classes
        )
        self.seconds, self.photographs = self.seconds + time.perf_counter() - begun, self.photographs + 1
        return found

    def copy_to(self, folder: Path) -> None:
        """Copy what judging needs into `folder`."""
        for name in (bundle.ONNX, SERVING):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name, folder / name)


def crop_of(photograph: Pixels, box: Floats, margin: float) -> NDArray[np.uint8]:
    """Return the pixels in a box (4,), wider by `margin` of its sides on each, of a photograph (H, W, 3)."""
    height, width = photograph.shape[:2]
    left, top, right, bottom = box
    wide, high = margin * (right - left), margin * (bottom - top)
    x = np.clip([round((left - wide) * width), round((right + wide) * width)], 0, width)
    y = np.clip([round((top - high) * height), round((bottom + high) * height)], 0, height)
    x[0], y[0] = min(x[0], width - 1), min(y[0], height - 1)
    return photograph[y[0] : max(y[1], y[0] + 1), x[0] : max(x[1], x[0] + 1)]


def judged_photographs(
    second: SecondStage, detections: Mapping[str, pd.DataFrame], paths: Sequence[str], photographs: Iterable[Pixels]
) -> dict[str, dict[float, pd.DataFrame]]:
    """Return the detections of each detector on `paths`, as the classifier has them, by the margin of its crops.

    Photographs come in the order of `paths`. Tables are (path, split, label, score, left, top, right, bottom), of more
    photographs than these, perhaps.
    """
    of = {name: dict(list(table.groupby("path"))) for name, table in detections.items()}
    margins = second.params.margins
    found = {name: {margin: [table.iloc[:0]] for margin in margins} for name, table in detections.items()}
    for path, photograph in zip(paths, photographs, strict=True):
        for name, tables in of.items():
            if path in tables:
                for margin in margins:
                    found[name][margin].append(second.judge(tables[path], photograph, margin))
    return {
        name: {margin: pd.concat(parts, ignore_index=True) for margin, parts in by_margin.items()}
        for name, by_margin in found.items()
    }
