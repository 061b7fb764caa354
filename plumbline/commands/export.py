"""`plumbline export [VERSION or FOLDER]`: the champion, another version or a candidate as SavedModel or TFLite, checked
against it on real pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import UserError, first_line, run
from plumbline.common.files import file_digest, replacing, replacing_folder, write_json
from plumbline.common.params import load_section
from plumbline.common.records import read_record, read_table
from plumbline.common.served import CHALLENGER, CHAMPION
from plumbline.imaging.settings import DataParams
from plumbline.models.assemble import load_candidate
from plumbline.models.compressed import FEWEST
from plumbline.models.compression import calibration_paths
from plumbline.models.export import INPUT, PROBABILITIES, OnnxModel, with_embedding
from plumbline.models.exports import (
    FORMATS,
    TOLERANCES,
    Agreement,
    Ask,
    ExportError,
    Format,
    checked,
    open_saved_model,
    open_tflite,
    write_saved_model,
    write_tflite,
)
from plumbline.models.networks import load_stored
from plumbline.models.records import ModelRecord
from plumbline.registry import bundle
from plumbline.registry.promotion import PromoteParams
from plumbline.registry.versions import PREVIOUS, load_version
from plumbline.tasks.known import task_of

if TYPE_CHECKING:
    import keras
    import pandas as pd

CHECKED = 64
"""Pictures of validation, at most, that an export is asked about."""
CALIBRATED = 64
"""Training pictures, at most, that the ranges of int8 are found with."""
DESCRIPTION = "plumbline.json"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
HOLDS: dict[Format, str] = {
    "saved-model": "float32 pixels (N, S, S, 3) in, float32 probabilities (N, C), embedding (N, D) out, by signature",
    "tflite": "float32 pixels (1, S, S, 3) in, float32 probabilities (1, C) and embedding (1, D) out",
    "tflite-int8": "float32 pixels (1, S, S, 3) in, float32 probabilities (1, C) and embedding (1, D) out; int8 within",
}


def main() -> None:
    """Read the arguments, export, and say where it is and how well it agrees."""
    parser = argparse.ArgumentParser(prog="plumbline export", description="Write a model in another format.")
    parser.add_argument("what", nargs="?", default=CHAMPION, help="a version's number, or a candidate's folder")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--to", type=Path, default=artefacts.EXPORTS.path, help="the folder that it is written into")
    given = parser.parse_args()
    subject = subject_of(given.what)
    path, agreement = export(subject, given.format, given.to)
    print(f"{path}: {subject.title} as {given.format}; {agreement}")


@dataclass(frozen=True)
class Subject:
    """What is exported.

    `title` is what it is called in a sentence, `name` and `version` in a path (a candidate has no version); `served` is
    said of it beside an export; `network` loads it; `source` opens what an export is compared with; `table` (path,
    label, split, group) lists its pictures, and `read` gives those of some paths, (N, S, S, 3).
    """

    title: str
    name: str
    version: int | None
    record: ModelRecord
    served: dict[str, Any]
    network: Callable[[], keras.Model]
    source: Callable[[keras.Model], Ask]
    table: pd.DataFrame
    read: Callable[[list[str]], NDArray[np.uint8]]


def subject_of(what: str) -> Subject:
    """Return what `what` names: a version of the registry by number or alias, or else a candidate's folder.

    Raises UserError where there is none, or it is ONNX alone: a compressed model, or a detector of whole photographs.
    """
    data = load_section("data", DataParams)
    if data.task == "detect":
        raise UserError(
            "params.yaml says `data.task: detect`: detectors are ONNX alone; `plumbline export` is for crops, in their "
            "project's folder."
        )
    return _version(what, data) if what.isdecimal() or what in ALIASES else _candidate(Path(what), data)


def _version(which: str, data: DataParams) -> Subject:
    version = load_version(which, load_section("promote", PromoteParams).model)
    home = version.folder / bundle.HOME
    title = f"version {version.version} of {version.model}"
    record = read_record(home / artefacts.MODEL, ModelRecord)
    _refuse_compressed(title, record)

    def network() -> keras.Model:
        import keras

        model = keras.models.model_from_json((home / "keras.json").read_text(encoding="utf-8"))
        load_stored(model, home / "model.weights.h5")
        return model

    def source(_: keras.Model) -> Ask:
        served = OnnxModel(version.onnx)  # the very file that is served, not the network that it was made of
        return lambda pictures: served(pictures)[0]

    now = _reader(data, record)

    def read(paths: list[str]) -> NDArray[np.uint8]:
        try:
            return now(paths)
        except UserError as error:
            raise UserError(
                f"{title} can't be checked on its own pictures ({first_line(error)}); those of an older version come "
                "back with `git checkout` of its commit (`plumbline history`) and `dvc checkout`."
            ) from None

    table = read_table(home / artefacts.PREDICTIONS)
    served = {"model": version.model, "version": version.version, **version.read("serving.json")}
    return Subject(title, version.model, version.version, record, served, network, source, table, read)


def _candidate(folder: Path, data: DataParams) -> Subject:
    if not (folder / artefacts.MODEL).is_file():
        raise UserError(
            f"{folder} is no candidate's folder (it holds no {artefacts.MODEL}): give one such as "
            f"{artefacts.CANDIDATES / 'NAME'}, or a version's number (`plumbline history`), or nothing: the champion."
        )
    name = folder.resolve().name
    record = read_record(folder / artefacts.MODEL, ModelRecord)
    _refuse_compressed(str(folder), record)
    if record.status != "trained":
        raise UserError(f"{folder} can't be exported: {record.trouble[0]}")

    def source(whole: keras.Model) -> Ask:
        return lambda pictures: np.asarray(whole(pictures.astype(np.float32), training=False)[PROBABILITIES])

    served = {
        "candidate": name,
        "classes": list(record.classes),
        "temperature": None,
        "input": INPUT,
        "preprocessing": bundle.preprocessing(record.image_size, record.fit, "plumbline.imaging.reading.iter_rgb"),
        **task_of(record).record,
    }
    backbone = record.members[0].backbone if record.members else record.backbone
    table = read_table(folder / artefacts.PREDICTIONS, stage=record.made_by)
    return Subject(
        title=str(folder),
        name=name,
        version=None,
        record=record,
        served=served,
        network=lambda: load_candidate(folder, artefacts.FEATURES / backbone),
        source=source,
        table=table,
        read=_reader(data, record),
    )


def _refuse_compressed(title: str, record: ModelRecord) -> None:
    if record.compressed:
        raise UserError(
            f"{title} is a compressed model, which is ONNX alone: export what it was made of, "
            f"{artefacts.CANDIDATES / record.compressed.of}; for int8 with --format tflite-int8."
        )


def _reader(data: DataParams, record: ModelRecord) -> Callable[[list[str]], NDArray[np.uint8]]:
    from plumbline.imaging.reading import iter_rgb

    side = record.image_size
    return lambda paths: np.stack(list(iter_rgb(data, paths, (side, side), fit=record.fit)))


def export(subject: Subject, kind: Format, to: Path) -> tuple[Path, Agreement]:
    """Write a model in a format below `to`; return where, and how well it agrees with its source.

    Raises UserError naming it where it can't be written so, where it disagrees (nothing is left then), or where there
    is an export already: none is ever replaced.
    """
    path = _place(subject, kind, to)
    shown = sorted(subject.table["path"][subject.table["split"] == "validation"])
    if not shown:
        raise UserError(f"{subject.title} has no validation picture to check an export with: `dvc repro` from `split`.")
    calibration = _calibration(subject) if kind == "tflite-int8" else []
    spread = np.linspace(0, len(shown) - 1, min(CHECKED, len(shown))).round().astype(int)
    pictures = subject.read([shown[place] for place in spread])
    ready = list(subject.read(calibration)) if calibration else []
    whole = with_embedding(subject.network())
    source, task = subject.source(whole), task_of(subject.record)
    try:
        if kind == "saved-model":
            with replacing_folder(path) as folder:
                write_saved_model(whole, folder)
                agreement = checked(source, open_saved_model(folder), pictures, task, kind)
                extra = folder / "assets.extra"  # the place that TensorFlow Serving leaves to others
                extra.mkdir()
                write_json(extra / DESCRIPTION, _described(subject, kind, agreement, calibration))
        else:
            # A kill between the two leaves a description without a file, which the next run replaces.
            with replacing(path) as file:
                write_tflite(whole, file, ready)
                agreement = checked(source, open_tflite(file), pictures, task, kind)
                described = _described(subject, kind, agreement, calibration)
                write_json(path.with_suffix(".json"), described | {"sha256": file_digest(file)})
    except ExportError as error:
        raise UserError(
            f"{subject.title} can't be exported as {kind}: {error}; nothing was written: take another format or model."
        ) from None
    return path, agreement


def _place(subject: Subject, kind: Format, to: Path) -> Path:
    """Where an export goes: NAME/N/ as TensorFlow Serving watches it, N being the version or, for a candidate, the next
    number; NAME_N.tflite, NAME.tflite.
    """
    if kind == "saved-model":
        home = to / subject.name
        taken = [int(one.name) for one in home.glob("*") if one.name.isdecimal()]
        path = home / str(subject.version or max(taken, default=0) + 1)
    else:
        stem = subject.name if subject.version is None else f"{subject.name}_{subject.version}"
        path = to / f"{stem}{'_int8' if kind == 'tflite-int8' else ''}.tflite"
    if path.exists():
        raise UserError(f"{path} exists already and is left as it is: remove it, or name another folder with --to.")
    return path


def _calibration(subject: Subject) -> list[str]:
    """The training pictures that int8 is calibrated with; UserError where there are too few."""
    paths = calibration_paths(subject.table, CALIBRATED, subject.record.seed)
    if len(paths) < FEWEST:
        raise UserError(
            f"{subject.title} can't be calibrated: one picture from each training group makes {len(paths)}, and "
            f"{FEWEST} are needed to show the ranges of its activations: add pictures and train again, or take "
            "--format tflite."
        )
    return paths


def _described(subject: Subject, kind: Format, agreement: Agreement, calibration: list[str]) -> dict[str, Any]:
    """What stands beside an export: how pictures are made ready for it, what it gives, and how well it was checked."""
    return {
        "format": kind,
        "holds": HOLDS[kind],
        **subject.served,
        "agreement": asdict(agreement),
        "tolerance": asdict(TOLERANCES[kind]),
        "calibration_pictures": len(calibration),
    }


if __name__ == "__main__":
    run(main)
