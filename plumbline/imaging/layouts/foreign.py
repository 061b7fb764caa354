"""Recognise exports of other tools by their files, and refuse them by name instead of misreading them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from shlex import quote

from plumbline.common.errors import UserError
from plumbline.imaging.decode import DecodeError
from plumbline.imaging.files import read_bytes
from plumbline.imaging.pictures import is_picture_name
from plumbline.imaging.settings import DataParams

_HEAD = 65_536  # bytes of a file that are looked at, at its beginning and at its end
_MOST = 30  # files of a kind that are looked at
_IMAGES = {"images", "image", "imgs", "img", "jpegimages", "leftimg8bit", "photos", "rgb", "inputs"}
_MASKS = {
    *("mask", "masks", "segmentation", "segmentations", "segmentationclass", "segmentationobject", "seg", "trimaps"),
    *("gtfine", "gtcoarse", "gt", "groundtruth", "ground_truth", "labels", "label", "annotations", "annotation"),
}
# Words in a file that only one tool writes.
_WORDS = {
    "an export of VGG Image Annotator": ('"shape_attributes"', "region_shape_attributes"),
    "a Supervisely set": ('"classTitle"',),
    "a SuperAnnotate export": ('"probability"', '"className"'),
    "a Labelbox export": ('"data_row"', '"Labeled Data"'),
    "a V7 Darwin export": ("darwin", '"slots"'),
    "a Datumaro set": ('"dm_format_version"', '"media_type"'),
    "a SageMaker Ground Truth manifest": ('"source-ref"',),
}
_EITHER = {"an export of VGG Image Annotator", "a Labelbox export", "a Datumaro set"}
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
            crops = " as crops (whole photographs are: detection/)" if recognise in _READ_WHOLE else ""
            raise UserError(f"{params.root}/ is {what}, which is not read yet{crops}: {way}.")


def head_of(params: DataParams, path: str) -> str:
    """Return what tells whose file it is: its beginning and its end, in UTF-8 or with the mark of UTF-16."""
    try:
        content = read_bytes(params, path)
    except DecodeError:
        return ""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content[: 2 * _HEAD].decode("utf-16", "replace")
    seen = content if len(content) <= 2 * _HEAD else content[:_HEAD] + b"\n" + content[-_HEAD:]
    return seen.decode("utf-8-sig", "replace")


def ending_in(files: Sequence[str], *suffixes: str, depth: int = 4) -> list[str]:
    """Return the first files with one of these endings, those nearest to the top first."""
    found = [path for path in files if path.lower().endswith(suffixes) and path.count("/") < depth]
    return sorted(found, key=lambda path: (path.count("/"), path))[:_MOST]


def _darknet_of_roboflow(params: DataParams, files: Sequence[str]) -> str | None:
    names = ending_in(files, "_darknet.labels")
    if not names:
        return None
    name = PurePosixPath(names[0]).name
    return f"a Roboflow export for YOLO Darknet ({names[0]})|set data.layout: yolo and data.yolo.names: {name}"


def _ultralytics(params: DataParams, files: Sequence[str]) -> str | None:
    for path in ending_in(files, ".yaml", ".yml", depth=3):
        text = head_of(params, path)
        keys = set(re.findall(r"""(?:^|[{,])\s*["']?(names|nc|train|val|path)["']?\s*:""", text, re.M))
        if keys & {"names", "nc"} and keys & {"train", "val", "path", "nc"}:
            maker = "a Roboflow export for YOLO" if "roboflow" in text.lower() else "an Ultralytics YOLO set"
            return f"{maker} ({path})"
    boxes = {twin_of(path) for path in files if path.lower().endswith(".txt") and "labels" in _folders(path)}
    if boxes and any(twin_of(path) in boxes for path in files if is_picture_name(path) and _folders(path) & _IMAGES):
        is_studio = "classes.txt" in files or "notes.json" in files
        return (
            "a YOLO export of Label Studio (images/, labels/, classes.txt)"
            if is_studio
            else ("an Ultralytics YOLO set (images/ and labels/)")
        )
    return None


def _folders(path: str) -> set[str]:
    return {part.lower() for part in PurePosixPath(path).parts[:-1]}


def twin_of(path: str) -> str:
    """Return a name that a picture under images/ shares with its boxes under labels/."""
    parts = [
        ("*" if part.lower() in {"labels", *_IMAGES} else part) for part in PurePosixPath(path).with_suffix("").parts
    ]
    return "/".join(parts)


def _coco(params: DataParams, files: Sequence[str]) -> str | None:
    for path in ending_in(files, ".json"):
        text = head_of(params, path)
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
    for path in ending_in(files, ".xml", depth=6):
        text = head_of(params, path)
        if "<annotations" in text:
            return f"a CVAT export ({path})"
        if ("<annotation" in text and "<object" in text) or ("<annotation" in text and "<filename" in text):
            return f"a Pascal VOC set ({path})"
    return None


def _by_its_words(params: DataParams, files: Sequence[str]) -> str | None:
    """Annotation tools whose files hold words of their own; boxes in a table."""
    for path in ending_in(files, ".json", ".jsonl", ".ndjson", ".manifest", ".csv"):
        text = head_of(params, path)
        for what, words in _WORDS.items():
            if (any if what in _EITHER else all)(word in text for word in words):
                return f"{what} ({path})"
        header = text.partition("\n")[0].casefold()
        if path.lower().endswith(".csv") and all(name in header for name in ("xmin", "ymin", "xmax", "ymax")):
            return f"a set of boxes in a table ({path})"
    return None


def _masks(params: DataParams, files: Sequence[str]) -> str | None:
    """A segmentation set: pictures in one folder, masks of the same names in another."""
    pictures = [PurePosixPath(path) for path in files if is_picture_name(path) and "/" in path]
    stems: dict[str, set[str]] = {}
    for path in pictures:
        stems.setdefault(path.parts[0], set()).add(re.sub(r"_(leftImg8bit|gtFine.*|mask|seg|L)$", "", path.stem))
    seen = [name for name in stems if name.lower() in _IMAGES]
    masks = [name for name in stems if name.lower() in _MASKS]
    if len(stems) == 2 and len(seen) == len(masks) == 1 and stems[seen[0]] & stems[masks[0]]:
        return (
            f"a set of pictures and their masks ({seen[0]}/ and {masks[0]}/)|put the pictures into a folder per class"
        )
    return None


def _boxes_without_names(params: DataParams, files: Sequence[str]) -> str | None:
    """YOLO Darknet's boxes beside the pictures, and no obj.names that says what the classes are."""
    there = set(files)
    beside = (str(PurePosixPath(path).with_suffix(".txt")) for path in files if is_picture_name(path))
    for path in [path for path in beside if path in there][:_MOST]:
        first = head_of(params, path).lstrip().partition("\n")[0].split()
        if (len(first) == 5 or len(first) > 6) and all(re.fullmatch(r"\d+(\.\d*)?(e-?\d+)?", word) for word in first):
            known = [one for one in files if re.fullmatch(r"(.*/)?(classes\.txt|[^/]+\.names)", one, re.I)]
            name = PurePosixPath(known[0]).name if known else "obj.names"
            way = (
                f"set data.layout: yolo and data.yolo.names: {name}"
                if known
                else f"put {name} beside them, a class on each line, and set data.layout: yolo"
            )
            return f"a YOLO Darknet set without obj.names ({path})|{way}"
    return None


def _other_roboflow(params: DataParams, files: Sequence[str]) -> str | None:
    for ending, what in {
        "_classes.csv": "a Roboflow export of several labels a picture",
        "_annotations.csv": "a Roboflow export of boxes as CSV",
        "_annotations.txt": "a Roboflow export of boxes as text",
        "_label_map.pbtxt": "a Roboflow export as TFRecord",
    }.items():
        if names := ending_in(files, ending):
            way = "|name it metadata.csv, with the columns path and label" if ending == "_classes.csv" else ""
            return f"{what} ({names[0]}){way}"
    return None


def _label_studio(params: DataParams, files: Sequence[str]) -> str | None:
    for path in ending_in(files, ".json"):
        head = head_of(params, path).lstrip()
        if not head.startswith("[") and not ('"annotations"' in head and '"data"' in head):
            continue  # not worth parsing: a COCO file may have hundreds of megabytes
        try:
            tasks = json.loads(read_bytes(params, path))
        except (DecodeError, ValueError, RecursionError):
            continue
        first = tasks[0] if isinstance(tasks, list) and tasks else None
        if _is_task(first):
            way = f"take it in with `plumbline intake {quote(str(params.root / path))}`"
            return f"an export of Label Studio ({path})|{way}"
        if _is_task(tasks):
            return f"a task of Label Studio ({path})|export all of them as one JSON, for `plumbline intake`"
    for path in ending_in(files, ".csv", ".tsv", ".jsonl"):
        header = head_of(params, path).partition("\n")[0]
        if {"annotator", "annotation_id"} <= set(re.split(r"[,\t\r\"]+", header)):
            return f"an export of Label Studio as a table ({path})|export it as JSON, for `plumbline intake`"
    return None


def _is_task(found: object) -> bool:
    if not isinstance(found, dict):
        return False
    keys = set(found)
    return {"annotations", "data"} <= keys or "annotator" in keys or {"annotation_id", "lead_time"} <= keys


def _packed(params: DataParams, files: Sequence[str]) -> str | None:
    """Archives and other containers, where the folder has no picture files."""
    if any(is_picture_name(path) for path in files):
        return None
    kinds = {
        "a set in archives|unpack them": (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar"),
        "a set in Parquet or Arrow (Hugging Face)": (".parquet", ".arrow"),
        "a set in TFRecord": (".tfrecord", ".tfrecords", ".record"),
        "a set in LMDB": ("data.mdb",),
        "a set in MNIST's IDX files": ("-ubyte", "-ubyte.gz", ".idx3-ubyte"),
        "a set in MATLAB or HDF5 files": (".mat", ".h5", ".hdf5"),
        "a set of pickles, which are never opened": (".pkl", ".pickle", "data_batch_1", "test_batch"),
        "a set of NumPy archives|save its pictures as images.npy with labels.csv": (".npz",),
        "a set of NumPy arrays by other names|call them images.npy and labels.csv, or set data.arrays": (".npy",),
    }
    if shards := [path for path in files if re.search(r"tfrecord.*-\d+-of-\d+$", path)]:
        return f"a set in TFRecord ({shards[0]})"
    for what, suffixes in kinds.items():
        if names := ending_in(files, *suffixes):
            name, _, way = what.partition("|")
            return f"{name} ({names[0]})" + (f"|{way}" if way else "")
    return None


_READ_WHOLE = (_ultralytics, _coco, _voc)  # by plumbline.imaging.layouts.photographs
_RECOGNISERS: tuple[Recogniser, ...] = (
    *(_darknet_of_roboflow, _ultralytics, _label_studio, _coco, _voc, _other_roboflow, _by_its_words, _masks),
    *(_boxes_without_names, _packed),
)
