"""One version, open and warm: prepared pictures in, answers out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.common.served import NEIGHBOUR
from plumbline.evidence.calibration import scale
from plumbline.imaging.decode import Pixels, decode_resized
from plumbline.models.export import OnnxModel
from plumbline.registry import bundle
from plumbline.tasks.known import task_of
from plumbline.tasks.task import Task
from serving.settings import Unsure
from serving.shelf import EMBEDDINGS, LIMITS, SERVING, check, unit

WARM = 3  # runs of each size before the first request


@dataclass(frozen=True)
class Scored:
    """What the network says of one picture: probabilities (C,) as it gives them, embedding (D,)."""

    probabilities: NDArray[np.float32]
    embedding: NDArray[np.float32]


@dataclass(frozen=True)
class Served:
    """A version that answers."""

    version: int
    digest: str
    candidate: str
    classes: tuple[str, ...]
    task: Task
    temperature: float
    threshold: float | None
    violation: str | None
    image_size: int
    onnx: OnnxModel
    known: NDArray[np.float32]
    distance_limit: float | None

    def prepare(self, content: bytes, max_pixels: int) -> Pixels:
        """Return a file's picture as the network takes it, (S, S, 3) uint8, by the code that training reads with.

        Raises DecodeError where the bytes are no picture.
        """
        return decode_resized(content, (self.image_size, self.image_size), max_pixels, self.onnx.fit)

    def score(self, pixels: NDArray[Any]) -> list[Scored]:
        """Score pictures (N, S, S, 3)."""
        probabilities, embeddings = self.onnx(pixels)
        return [Scored(*pair) for pair in zip(probabilities, embeddings, strict=True)]

    def calibrated(self, probabilities: NDArray[Any]) -> NDArray[np.float64]:
        """Return the network's probabilities (N, C) with the version's temperature applied."""
        plain = probabilities.astype(np.float64)
        decisions = self.task.decisions(np.zeros(plain.shape, bool), plain)[1]
        scaled = self.task.from_decisions(scale(decisions, self.temperature), len(self.classes))
        return np.asarray(scaled, np.float64)

    def distance(self, embedding: NDArray[Any]) -> float:
        """Return the cosine distance of an embedding (D,) to the third nearest reference picture's."""
        apart = np.sort(1 - self.known @ unit(embedding[None])[0])
        return float(apart[min(NEIGHBOUR, len(apart)) - 1])

    def answer(self, scored: Scored, unsure: Unsure) -> dict[str, Any]:
        """Return what a client is told of one picture."""
        given = self.calibrated(scored.probabilities[None])
        probabilities, predicted = given[0], self.task.predicted(given)[0]
        sure = np.where(predicted, probabilities, 1 - probabilities)
        confidence = float(probabilities.max() if self.task.exclusive else sure.min())
        labels = [name for name, yes in zip(self.classes, predicted, strict=True) if yes]
        distance = self.distance(scored.embedding)
        because = self._doubts(confidence, distance, unsure)
        return {
            "label": labels[0] if self.task.exclusive else None,
            "labels": labels,
            "confidence": confidence,
            "probabilities": dict(zip(self.classes, probabilities.tolist(), strict=True)),
            "softmax": dict(zip(self.classes, scored.probabilities.astype(float).tolist(), strict=True)),
            "violation_class": self.violation,
            "threshold": self.threshold,
            "alarm": self._alarm(probabilities),
            "unsure": bool(because),
            "because": because,
            "distance": distance,
            "distance_limit": self.distance_limit,
        }

    def _alarm(self, probabilities: NDArray[np.float64]) -> bool | None:
        if self.violation is None or self.threshold is None:
            return None
        return bool(probabilities[self.classes.index(self.violation)] >= self.threshold)

    def _doubts(self, confidence: float, distance: float, unsure: Unsure) -> list[str]:
        doubts = []
        if confidence < unsure.confidence:
            doubts.append(f"its confidence is {confidence:.2f}, below {unsure.confidence:.2f}")
        if self.distance_limit is not None and distance > self.distance_limit:
            doubts.append(f"the picture is unlike those it was checked on ({distance:.3g} > {self.distance_limit:.3g})")
        return doubts

    def description(self) -> dict[str, Any]:
        """Return what a client may know of the version."""
        return {
            "version": self.version,
            "candidate": self.candidate,
            "classes": list(self.classes),
            "several_labels": not self.task.exclusive,
            "violation_class": self.violation,
            "threshold": self.threshold,
            "temperature": self.temperature,
            "image_size": self.image_size,
            "distance_limit": self.distance_limit,
        }


def open_version(folder: Path, version: int, digest: str, threads: int, batch: int, unsure: Unsure) -> Served:
    """Check, open and warm a version; UserError names what is wrong with its files."""
    check(folder, digest)
    try:
        serving = json.loads((folder / SERVING).read_text(encoding="utf-8"))
        limits = json.loads((folder / LIMITS).read_text(encoding="utf-8"))["quantiles"]
        known = unit(np.load(folder / EMBEDDINGS, allow_pickle=False))
        onnx = OnnxModel(folder / bundle.ONNX, threads)
        served = Served(
            version=version,
            digest=digest,
            candidate=str(serving["candidate"]),
            classes=tuple(serving["classes"]),
            task=task_of(serving),
            temperature=float(serving["temperature"] or 1.0),
            threshold=serving["threshold"],
            violation=serving["violation_class"],
            image_size=onnx.image_size,
            onnx=onnx,
            known=known,
            distance_limit=limits[round(unsure.known_share * (len(limits) - 1))] if limits else None,
        )
        _warm(served, batch)
    except UserError:
        raise
    except Exception as error:  # JSON, NumPy and ONNX Runtime each raise their own on damaged files
        raise UserError(f"{folder} can't be served ({type(error).__name__}): roll back to another version.") from error
    return served


def _warm(served: Served, batch: int) -> None:
    side = served.image_size
    for count in (1, batch):
        for _ in range(WARM):
            served.score(np.full((count, side, side, 3), 127, np.uint8))
