"""A detector as ONNX: pixels of a canvas to boxes and scores, the decoding inside, the suppression outside.

Which overlapping box goes is decided in NumPy: so it stays a setting that can be changed without another file, and ONNX
has no Soft-NMS. `python -m benchmarks.detection` measures its share of the time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.imaging.decode import Pixels
from plumbline.models.detecting import BOXES, SCORES, Found, detections_table, reported
from plumbline.models.detector import DetectorRecord, Suppression
from plumbline.models.export import INPUT, export_onnx
from plumbline.models.scene_views import laid, letterbox

if TYPE_CHECKING:
    import keras

CLASSES, SUPPRESSION = "classes", "suppression"


def export_detector(model: keras.Model, record: DetectorRecord, path: Path) -> None:
    """Write `model` (detecting.from_pixels) to `path`, with its classes and how overlapping boxes are suppressed."""
    import onnx

    export_onnx(model, path, "letterbox")
    exported = onnx.load(str(path))
    kept = {entry.key: entry.value for entry in exported.metadata_props}
    suppression = Suppression.model_validate(record.settings["suppression"])
    said = {CLASSES: json.dumps(record.classes), SUPPRESSION: suppression.model_dump_json()}
    onnx.helper.set_model_props(exported, {**kept, **said})
    onnx.save(exported, str(path))


def check_detector(model: keras.Model, path: Path, canvases: NDArray[Any], tolerance: float) -> float:
    """Return the largest difference between Keras and the file at `path` on canvases (N, S, S, 3), before suppression.

    Of scores, and of boxes in shares of the canvas. Raises UserError if it exceeds `tolerance`, or if what is reported
    afterwards is not the same box for box; a box that one of them only just reports need not be the other's.
    """
    exported = OnnxDetector(path)
    boxes, scores = exported(canvases)
    answers = model.predict_on_batch(canvases.astype(np.float32))
    expected = np.asarray(answers[BOXES]), np.asarray(answers[SCORES])
    difference = float(max(np.abs(boxes - expected[0]).max(), np.abs(scores - expected[1]).max()))
    if not difference <= tolerance:
        raise UserError(
            f"{path} differs from the Keras model by {difference:.2g} in a box or score, more than the "
            f"{tolerance:.2g} of promote.onnx_tolerance: it is not the detector that was evaluated."
        )
    for number in range(len(canvases)):
        one = reported(boxes[number], scores[number], exported.suppression)
        other = reported(expected[0][number], expected[1][number], exported.suppression)
        least = exported.suppression.least_score + 2 * tolerance
        if not (_all_in(one, other, tolerance, least) and _all_in(other, one, tolerance, least)):
            raise UserError(
                f"{path} reports other boxes than the Keras model on picture {number + 1} of those compared: "
                "it is not the detector that was evaluated."
            )
    return difference


def _all_in(some: Found, others: Found, tolerance: float, least: float) -> bool:
    """Whether each box of `some` that scores `least` or more is among `others`, of the same class and score."""
    sure = np.flatnonzero(some.scores >= least)
    alike = (
        (some.classes[sure, None] == others.classes[None])
        & (np.abs(some.scores[sure, None] - others.scores[None]) <= tolerance)
        & (np.abs(some.boxes[sure, None] - others.boxes[None]).max(axis=-1) <= tolerance)
    )
    return bool(alike.any(axis=1).all())


class OnnxDetector:
    """An exported detector, ready to find boxes with ONNX Runtime on the processor."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        """Open `path`; `threads` 0 lets ONNX Runtime choose. Raises UserError if the file is no such detector."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            said = self._session.get_modelmeta().custom_metadata_map
            self.classes: list[str] = list(json.loads(said[CLASSES]))
            self.suppression = Suppression.model_validate_json(said[SUPPRESSION])
        except Exception as error:
            raise UserError(f"{path} is no exported detector ({str(error).splitlines()[0]}).") from None
        self.image_size: int = self._session.get_inputs()[0].shape[1]

    def __call__(self, canvases: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return boxes (N, P, 4) in shares of the canvas and scores (N, P, C) of canvases (N, S, S, 3) in [0, 255]."""
        boxes, scores = self._session.run([BOXES, SCORES], {INPUT: np.ascontiguousarray(canvases, dtype=np.float32)})
        return boxes, scores

    def detect(self, paths: Sequence[str], photographs: Sequence[Pixels]) -> pd.DataFrame:
        """Return (path, label, score, left, top, right, bottom) of photographs (H, W, 3), in shares of each."""
        found, affines = [], []
        for photograph in photographs:
            place = letterbox(photograph.shape[1], photograph.shape[0], self.image_size)
            boxes, scores = self(laid(photograph, place, self.image_size)[None])
            found.append(reported(boxes[0], scores[0], self.suppression))
            affines.append(place.affine(self.image_size))
        return detections_table(paths, found, np.array(affines).reshape(-1, 4), self.classes)
