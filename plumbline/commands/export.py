"""`plumbline export CANDIDATE`: a trained candidate as SavedModel or TFLite, checked against it on real pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import replacing, replacing_folder, write_json
from plumbline.common.params import load_section
from plumbline.common.records import read_record, read_table
from plumbline.imaging.settings import DataParams
from plumbline.models.compression import calibration_paths
from plumbline.models.exports import (
    FORMATS,
    TOLERANCES,
    Agreement,
    ExportError,
    Format,
    ask_saved_model,
    ask_tflite,
    checked,
    write_saved_model,
    write_tflite,
)
from plumbline.models.records import ModelRecord

if TYPE_CHECKING:
    import keras
    import pandas as pd

CHECKED = 64
"""Pictures of validation, at most, that an export is asked about."""
CALIBRATED = 64
DESCRIPTION = "plumbline.json"


def main() -> None:
    """Read the arguments and export."""
    parser = argparse.ArgumentParser(prog="plumbline export", description="Write a candidate in another format.")
    parser.add_argument("folder", type=Path, help="a candidate's folder, such as build/candidates/compact_cnn")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--to", type=Path, default=artefacts.EXPORTS.path, help="where it is written")
    given = parser.parse_args()
    path, agreement = export(given.folder, given.format, given.to)
    print(
        f"{path}: differs from {given.folder.name} by at most {agreement.most:.2g} in a probability "
        f"({agreement.mean:.2g} in the mean) on {agreement.pictures} pictures"
    )


@dataclass(frozen=True)
class Subject:
    """What is exported: a name, its record, the network with its embedding, its pictures, and who reads them."""

    name: str
    record: ModelRecord
    model: keras.Model
    table: pd.DataFrame
    read: Callable[[list[str]], NDArray[np.uint8]]

    def description(self, kind: Format, agreement: Agreement) -> dict[str, Any]:
        """Return what stands beside an export: how pictures are made ready for it, and how well it was checked."""
        return {
            "candidate": self.name,
            "format": kind,
            "classes": list(self.record.classes),
            "several_labels": self.record.several_labels,
            "input": {"name": "pixels", "colour": "RGB", "range": [0, 255], "side": self.record.image_size},
            "fit": self.record.fit,
            "temperature": None,  # probabilities are the network's own: no calibration is applied
            "agreement": asdict(agreement),
            "tolerance": asdict(TOLERANCES[kind]),
        }


def subject_in(folder: Path) -> Subject:
    """Return what a candidate's folder holds; UserError where it is none, or a compressed one, which is ONNX alone."""
    from plumbline.imaging.reading import iter_rgb
    from plumbline.models.assemble import load_candidate
    from plumbline.models.export import with_embedding

    name = folder.resolve().name
    record = read_record(folder / artefacts.MODEL, ModelRecord, f"train@{name}")
    if record.compressed:
        raise UserError(
            f"{folder} holds a compressed candidate, which is ONNX alone: export {record.compressed.of}, in int8 with "
            "--format tflite-int8."
        )
    data = load_section("data", DataParams)

    def read(paths: list[str]) -> NDArray[np.uint8]:
        return np.stack(list(iter_rgb(data, paths, (record.image_size, record.image_size), fit=record.fit)))

    backbone = record.backbone if not record.members else record.members[0].backbone
    network = load_candidate(folder, artefacts.FEATURES / backbone)
    table = read_table(folder / artefacts.PREDICTIONS, stage=record.made_by)
    return Subject(name, record, with_embedding(network), table, read)


def export(folder: Path, kind: Format, to: Path) -> tuple[Path, Agreement]:
    """Write candidate `folder` in a format below `to`; return where, and how well it agrees.

    Raises UserError naming the candidate where it can't be written so, or disagrees: nothing is left then.
    """
    subject = subject_in(folder)
    shown = sorted(subject.table["path"][subject.table["split"] == "validation"])
    if not shown:
        raise UserError(f"{folder} has no validation picture to check an export with: add pictures, and train again.")
    pictures = subject.read(shown[:: -(-len(shown) // CHECKED)])
    try:
        if kind == "saved-model":
            return _saved_model(subject, pictures, to)
        return _tflite(subject, pictures, to, kind)
    except ExportError as error:
        raise UserError(f"{folder} can't be exported as {kind}: {error}; take another format or candidate.") from None


def _saved_model(subject: Subject, pictures: NDArray[np.uint8], to: Path) -> tuple[Path, Agreement]:
    """The next version of TensorFlow Serving's MODEL/VERSION/."""
    home = to / subject.name
    taken = [int(one.name) for one in home.glob("*") if one.name.isdecimal()] if home.is_dir() else []
    path = home / str(max(taken, default=0) + 1)
    with replacing_folder(path) as folder:
        write_saved_model(subject.model, folder)
        agreement = checked(subject.model, lambda asked: ask_saved_model(folder, asked), pictures, "saved-model")
        extra = folder / "assets.extra"  # the place that TensorFlow Serving leaves to others
        extra.mkdir()
        write_json(extra / DESCRIPTION, subject.description("saved-model", agreement))
    return path, agreement


def _tflite(subject: Subject, pictures: NDArray[np.uint8], to: Path, kind: Format) -> tuple[Path, Agreement]:
    """A file, and its description beside it."""
    calibration: list[NDArray[np.uint8]] = []
    if kind == "tflite-int8":
        calibration = list(subject.read(calibration_paths(subject.table, CALIBRATED, subject.record.seed)))
    path = to / f"{subject.name}{'_int8' if calibration else ''}.tflite"
    with replacing(path) as file:
        write_tflite(subject.model, file, calibration)
        agreement = checked(subject.model, lambda asked: ask_tflite(file, asked), pictures, kind)
    write_json(path.with_suffix(".json"), subject.description(kind, agreement))
    return path, agreement


if __name__ == "__main__":
    run(main)
