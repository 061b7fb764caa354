"""Whole photographs whose boxes lie in COCO JSON: `images`, `categories` and `annotations`, in one file or several.

Only photographs that a file lists are annotated: one with no annotation is background, one that no file lists is
refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from plumbline.common.errors import UserError
from plumbline.imaging.decode import DecodeError
from plumbline.imaging.files import read_bytes, shown_path
from plumbline.imaging.labels import shown
from plumbline.imaging.layouts.annotations import Annotations, Pictures, class_name
from plumbline.imaging.layouts.foreign import ending_in, head_of
from plumbline.imaging.layouts.published import Side, side_of
from plumbline.imaging.pictures import Marked, is_picture_name
from plumbline.imaging.settings import DataParams

_KEYS = ('"images"', '"annotations"', '"categories"')
_WORDS = re.compile(r"(instances|annotations?|coco|labels?|person|keypoints|result)", re.I)
Numbers = tuple[float, float, float, float]


def coco_files(params: DataParams, files: Sequence[str]) -> list[str]:
    """Return the JSON files that hold boxes in COCO's form."""
    found = []
    for path in ending_in(files, ".json"):
        text = head_of(params, path)
        if text.lstrip().startswith("{") and sum(key in text for key in _KEYS) >= 2:
            found.append(path)
    return found


def read_coco(params: DataParams, files: Sequence[str]) -> Annotations:
    """Return the boxes of every photograph that a COCO file lists; UserError where a file is broken, or two clash."""
    found = Annotations()
    pictures = [path for path in files if is_picture_name(path)]
    index = Pictures(pictures)
    listed: dict[str, str] = {}
    for file in coco_files(params, files):
        content = _content(params, file)
        categories = _categories(params, file, content["categories"])
        found.classes |= set(categories.values())
        by_id = _read_images(found, params, file, content["images"], index, listed)
        for number, annotation in enumerate(content["annotations"]):
            _read_annotation(found, file, number, annotation, by_id, categories)
    names = ", ".join(coco_files(params, files))
    for picture in pictures:
        if picture not in listed:
            reason = f"is not listed under `images` of {names}, so whether it has boxes is not known: add or remove it"
            found.refuse_photograph(picture, reason)
    return found


def _content(params: DataParams, file: str) -> dict[str, list[Any]]:
    path = params.root / file
    try:
        content = json.loads(read_bytes(params, file))
    except DecodeError as error:
        raise UserError(f"{path} {error.reason}: bring it whole.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}): export it again.") from None
    for key in ("images", "annotations", "categories"):
        part = content.get(key) if isinstance(content, dict) else None
        if not isinstance(part, list) or not all(isinstance(one, dict) for one in part):
            raise UserError(f"{path} has no list of objects under `{key}`, as COCO JSON has: export it again.")
    return dict(content)


def _categories(params: DataParams, file: str, categories: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for one in categories:
        number, name = one.get("id"), one.get("name")
        if not isinstance(number, int) or not isinstance(name, str) or not name.strip():
            raise UserError(f"{params.root / file} has a category without `id` or `name`: {shown(one)}. Correct it.")
        called = class_name(params, name.strip(), file)
        if names.setdefault(number, called) != called:
            raise UserError(
                f"{params.root / file} calls category {number} both {shown(names[number])!r} and {shown(called)!r}, so "
                "a box could be of either: correct `categories`."
            )
    return names


def _read_images(
    found: Annotations,
    params: DataParams,
    file: str,
    images: Sequence[Mapping[str, Any]],
    index: Pictures,
    listed: dict[str, str],
) -> dict[Any, tuple[str, tuple[int, int]]]:
    """Return by image id the photograph, "" where it is not there, and the (width, height) that the file gives it."""
    by_id: dict[Any, tuple[str, tuple[int, int]]] = {}
    side = _side_of_file(file)
    beside = [part for part in re.split(r"[/_.]", file) if part]
    for one in images:
        name, number = one.get("file_name"), one.get("id")
        if not isinstance(name, str) or not isinstance(number, (int, str)) or number in by_id:
            raise UserError(f"{params.root / file} has an image without `file_name`, or an `id` twice: {shown(one)}.")
        picture = index.find(name, beside) or ""
        by_id[number] = (picture, (_pixels(one.get("width")), _pixels(one.get("height"))))
        if not picture:
            found.refuse_file(shown_path(name), f"is listed in {file}, and there is no such picture, or more than one")
            continue
        if picture in listed:
            where = "twice" if listed[picture] == file else f"in {listed[picture]} as well"
            raise UserError(f"{params.root / file} lists {shown(picture)} {where}: keep one file for a photograph.")
        listed[picture] = file
        found.boxes[picture] = []
        if side is not None:
            found.sides[picture] = side
    return by_id


def _side_of_file(file: str) -> Side | None:
    """The side that a file's name says: instances_train2017.json."""
    return side_of(_WORDS.sub("", PurePosixPath(file).stem))


def _pixels(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e6 else 0


def _read_annotation(
    found: Annotations,
    file: str,
    number: int,
    annotation: Mapping[str, Any],
    by_id: Mapping[Any, tuple[str, tuple[int, int]]],
    categories: Mapping[int, str],
) -> None:
    where = f"annotation {number + 1} of {PurePosixPath(file).name}"
    image = annotation.get("image_id")
    if not isinstance(image, (int, str)) or image not in by_id:
        found.refuse_file(f"{file}#{number}", f"{where} is of image {shown(image)}, which the file does not list")
        return
    picture, size = by_id[image]
    if not picture:
        return  # said of the picture already
    label = categories.get(annotation["category_id"]) if isinstance(annotation.get("category_id"), int) else None
    if label is None:
        reason = f"{where}: its category {shown(annotation.get('category_id'))} is none of the file's"
        found.refuse_box(picture, number, reason)
        return
    edges = _edges(annotation)
    if edges is None:
        found.refuse_box(picture, number, f"{where}: has no `bbox` of four numbers and no polygon", label)
    elif annotation.get("iscrowd") in (1, True):
        found.refuse_box(picture, number, f"{where}: is a crowd (iscrowd), no single object", label)
    else:
        found.boxes[picture].append(Marked(picture, number, label, *edges, size))


def _edges(annotation: Mapping[str, Any]) -> Numbers | None:
    """Left, top, right, bottom in pixels: of `bbox`, x y width height, else around the polygons."""
    box: Any = annotation.get("bbox")
    if _numbers(box) and len(box) == 4:
        x, y, width, height = map(float, box)
        return x, y, x + width, y + height
    polygons = annotation.get("segmentation")
    if not isinstance(polygons, list) or not polygons or not all(_numbers(one) and len(one) >= 6 for one in polygons):
        return None
    across = [float(value) for one in polygons for value in one[0::2]]
    down = [float(value) for one in polygons for value in one[1::2]]
    return min(across), min(down), max(across), max(down)


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
    )
