"""Recognise exports of other tools by their files, and refuse them by name instead of misreading them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from plumbline.common.errors import UserError
from plumbline.imaging.decode import DecodeError
from plumbline.imaging.files import read_bytes
from plumbline.imaging.pictures import is_picture_name
from plumbline.imaging.settings import DataParams

_HEAD = 65_536  # bytes of a file that are looked at
_MOST = 30  # files of a kind that are looked at
Recogniser = Callable[[DataParams, Sequence[str]], str | None]


def refuse_foreign(params: DataParams, files: Sequence[str]) -> None:
    """Raise a UserError that names the export, where the folder is one that can't be read."""
    for recognise in _RECOGNISERS:
        if found := recognise(params, files):
            what, _, own_way = found.partition("|")
            way = own_way or (
                "export it as a folder per class, or (boxes) as YOLO Darknet with obj.names, and bring that; set "
                "data.layout to read the folder as it lies"
            )
            raise UserError(f"{params.root}/ is {what}, which is not read yet: {way}.")


def _head(params: DataParams, path: str) -> str:
    try:
        return read_bytes(params, path)[:_HEAD].decode("utf-8", "replace")
    except DecodeError:
        return ""


def _ends(files: Sequence[str], *suffixes: str, depth: int = 4) -> list[str]:
    """The first files with one of these endings, those nearest to the top first."""
    found = [path for path in files if path.lower().endswith(suffixes) and path.count("/") < depth]
    return sorted(found, key=lambda path: (path.count("/"), path))[:_MOST]


def _darknet_of_roboflow(params: DataParams, files: Sequence[str]) -> str | None:
    names = _ends(files, "_darknet.labels")
    if not names:
        return None
    name = PurePosixPath(names[0]).name
    return f"a Roboflow export for YOLO Darknet ({names[0]})|set data.layout: yolo and data.yolo.names: {name}"


def _ultralytics(params: DataParams, files: Sequence[str]) -> str | None:
    for path in _ends(files, ".yaml", ".yml", depth=3):
        text = _head(params, path)
        if re.search(r"^\s*(names|nc)\s*:", text, re.M) and re.search(r"^\s*(train|val|path|nc)\s*:", text, re.M):
            maker = "a Roboflow export for YOLO" if "roboflow" in text.lower() else "an Ultralytics YOLO set"
            return f"{maker} ({path})"
    boxes = {_twin(path) for path in files if path.lower().endswith(".txt") and "labels" in _folders(path)}
    if boxes and any(_twin(path) in boxes for path in files if is_picture_name(path) and "images" in _folders(path)):
        is_studio = "classes.txt" in files or "notes.json" in files
        return (
            "a YOLO export of Label Studio (images/, labels/, classes.txt)"
            if is_studio
            else ("an Ultralytics YOLO set (images/ and labels/)")
        )
    return None


def _folders(path: str) -> set[str]:
    return {part.lower() for part in PurePosixPath(path).parts[:-1]}


def _twin(path: str) -> str:
    """A name that a picture under images/ shares with its boxes under labels/."""
    parts = [
        ("*" if part.lower() in ("images", "labels") else part) for part in PurePosixPath(path).with_suffix("").parts
    ]
    return "/".join(parts)


def _coco(params: DataParams, files: Sequence[str]) -> str | None:
    for path in _ends(files, ".json"):
        text = _head(params, path)
        if "createml" in path.lower() or re.search(r'"annotations"\s*:\s*\[\s*{\s*"(label|coordinates)"', text):
            return f"a CreateML export ({path})"
        if "_via_" in text:
            return f"an export of VGG Image Annotator ({path})"
        if '"imagePath"' in text and '"shapes"' in text:
            return f"a LabelMe set ({path})"
        keys = [key for key in ('"images"', '"annotations"', '"categories"') if key in text]
        if len(keys) >= 2 or ('"images"' in text and re.search(r'"(file_name|coco_url)"', text)):
            maker = (
                "a Roboflow export in COCO JSON"
                if "roboflow" in text.lower() or "_annotations.coco" in path
                else ("a COCO JSON set")
            )
            return f"{maker} ({path})"
    return None


def _voc(params: DataParams, files: Sequence[str]) -> str | None:
    for path in _ends(files, ".xml", depth=6):
        text = _head(params, path)
        if "<annotations" in text:
            return f"a CVAT export ({path})"
        if ("<annotation" in text and "<object" in text) or ("<annotation" in text and "<filename" in text):
            return f"a Pascal VOC set ({path})"
    return None


def _other_roboflow(params: DataParams, files: Sequence[str]) -> str | None:
    for ending, what in {
        "_classes.csv": "a Roboflow export of several labels a picture",
        "_annotations.csv": "a Roboflow export of boxes as CSV",
        "_annotations.txt": "a Roboflow export of boxes as text",
        "_label_map.pbtxt": "a Roboflow export as TFRecord",
    }.items():
        if names := _ends(files, ending):
            way = "|name it metadata.csv, with the columns path and label" if ending == "_classes.csv" else ""
            return f"{what} ({names[0]}){way}"
    return None


def _label_studio(params: DataParams, files: Sequence[str]) -> str | None:
    for path in _ends(files, ".json", depth=2):
        if not _head(params, path).lstrip("\ufeff \n\r\t").startswith("["):
            continue
        try:
            tasks = json.loads(read_bytes(params, path))
        except (DecodeError, ValueError, RecursionError):
            continue
        first = tasks[0] if tasks else None
        if isinstance(first, dict) and ("annotator" in first or {"annotations", "data"} <= set(first)):
            return f"an export of Label Studio ({path})|take it in with `plumbline intake {params.root / path}`"
    return None


def _packed(params: DataParams, files: Sequence[str]) -> str | None:
    """Archives and other containers, where the folder has no picture files."""
    if any(is_picture_name(path) for path in files):
        return None
    kinds = {
        "a set in archives|unpack them": (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar"),
        "a set in Parquet or Arrow (Hugging Face)": (".parquet", ".arrow"),
        "a set in TFRecord": (".tfrecord", ".tfrecords", ".record"),
        "a set in MNIST's IDX files": ("-ubyte", "-ubyte.gz", ".idx3-ubyte"),
        "a set in MATLAB or HDF5 files": (".mat", ".h5", ".hdf5"),
        "a set of pickles, which are never opened": (".pkl", ".pickle", "data_batch_1", "test_batch"),
        "a set of NumPy archives|save its pictures as images.npy with labels.csv": (".npz",),
    }
    for what, suffixes in kinds.items():
        if names := _ends(files, *suffixes):
            name, _, way = what.partition("|")
            return f"{name} ({names[0]})" + (f"|{way}" if way else "")
    return None


_RECOGNISERS: tuple[Recogniser, ...] = (
    *(_darknet_of_roboflow, _ultralytics, _label_studio, _coco, _voc, _other_roboflow, _packed),
)
