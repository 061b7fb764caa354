"""Whole photographs with their boxes (`data.task: detect`), whichever tool drew these.

A photograph is a row whose label is the set of its boxes' classes, or `background`. Which tool it was is told from the
files, or by data.layout: `yolo` (Darknet, Ultralytics), `coco`, `voc`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

from plumbline.common.errors import UserError
from plumbline.imaging.boxes import label_of, no_box_left
from plumbline.imaging.files import walk
from plumbline.imaging.labels import shown
from plumbline.imaging.layouts.annotations import IMAGE_FOLDERS, Annotations, say
from plumbline.imaging.layouts.box_texts import has_box_texts, read_box_texts
from plumbline.imaging.layouts.coco import coco_files, read_coco
from plumbline.imaging.layouts.foreign import refuse_foreign
from plumbline.imaging.layouts.published import Side, side_of
from plumbline.imaging.layouts.voc import has_voc, read_voc
from plumbline.imaging.pictures import PUBLISHED, UNREAD, Found, Refused, is_picture_name
from plumbline.imaging.settings import DataParams

Reader = Callable[[DataParams, Sequence[str]], Annotations]
READERS: dict[str, Reader] = {"yolo": read_box_texts, "coco": read_coco, "voc": read_voc}
_CALLED = {"yolo": "boxes in .txt files", "coco": "boxes in COCO JSON", "voc": "boxes in Pascal VOC XML"}


def list_pictures(params: DataParams) -> Found:
    """List every photograph with its boxes; UserError where the folder holds no boxes, or those of two tools."""
    found = Found()
    found.files = set(files := walk(params, found.refused))
    pictures = [path for path in files if is_picture_name(path)]
    found.refused += [_unread(path) for path in files if PurePosixPath(path).suffix.lower() in UNREAD]
    if not pictures:
        return found
    said = READERS[_find_tool(params, files)](params, files)
    found.refused += said.refused
    for path in pictures:
        boxes = said.boxes.get(path, [])
        if path in said.spoilt:
            continue
        if not boxes and said.faults[path]:
            found.refused.append(no_box_left(path, said.faults[path]))
            continue
        found.rows.append({"path": path, "label": label_of(box.label for box in boxes)})
        found.boxes += boxes
    _refuse_no_box(params, found, pictures)
    _settle_split(params, found, {**_sides_of_folders(pictures), **said.sides})
    _say_what_is_missing(params, found, said)
    return found


def _unread(path: str) -> Refused:
    reason = f"is not named as a picture ({PurePosixPath(path).suffix}): JPEG, PNG, BMP or WebP is read, convert it"
    return Refused(path, reason, "unreadable")


def _find_tool(params: DataParams, files: Sequence[str]) -> str:
    if params.layout in READERS:
        return params.layout
    there = {
        "yolo": has_box_texts(params, files),
        "coco": bool(coco_files(params, files)),
        "voc": has_voc(params, files),
    }
    tools = [name for name, is_there in there.items() if is_there]
    if not tools:
        refuse_foreign(params, files)
        raise UserError(
            f"{params.root}/ holds pictures, but no boxes of them (a .txt beside each, a data.yaml with images/ and "
            "labels/, COCO JSON or Pascal VOC XML): add them, or set data.task: crops for a folder per class."
        )
    if len(tools) > 1:
        kinds = " and ".join(_CALLED[name] for name in tools)
        raise UserError(f"{params.root}/ holds {kinds}: set data.layout to {' or '.join(tools)}, or remove one.")
    return tools[0]


def _refuse_no_box(params: DataParams, found: Found, pictures: Sequence[str]) -> None:
    if not found.boxes and not found.refused:
        raise UserError(
            f"{params.root}/ has {len(pictures)} photographs, but not one box: bring the files of boxes along (a "
            "photograph without any is background, and there is nothing to find in a set of them)."
        )


def _sides_of_folders(pictures: Iterable[str]) -> dict[str, Side]:
    """The side that a folder's name says: images/train/, valid/images/; nothing where there are no two sides."""
    sides: dict[str, Side] = {}
    for path in pictures:
        named = (side_of(part) for part in PurePosixPath(path).parts[:-1] if part.casefold() not in IMAGE_FOLDERS)
        side = next((one for one in named if one not in (None, "none")), None)
        if side is not None:
            sides[path] = side
    return sides


def _settle_split(params: DataParams, found: Found, sides: dict[str, Side]) -> None:
    """Put who is train and test on the rows, as data.published_split allows; else UserError."""
    present = {sides[row["path"]] for row in found.rows if row["path"] in sides}
    if len(present) < 2 or params.published_split == "merge":
        return
    if params.published_split == "refuse":
        raise UserError(
            f"{params.root}/ is split already ({', '.join(sorted(present))}): set data.published_split to merge "
            "(`split` parts the photographs anew) or to keep (who is train and test stays so, and training "
            "photographs that leak into test are set aside)."
        )
    for row in found.rows:
        if row["path"] not in sides:
            raise UserError(
                f"{params.root / row['path']} is in no part of the published split ({', '.join(sorted(present))}): "
                "move it into one, or set data.published_split: merge."
            )
        row[PUBLISHED] = sides[row["path"]]


def _say_what_is_missing(params: DataParams, found: Found, said: Annotations) -> None:
    """Say which photographs are taken for background, and which classes have no box."""
    marked = {box.path for box in found.boxes}
    empty = [row["path"] for row in found.rows if row["path"] not in marked]
    lines = []
    if empty:
        many = f"{len(empty)} of {len(found.rows)} photographs have no box and are"
        lines.append(f"{many} background (the first: {shown(empty[0])}).")
    unused = sorted(said.classes - {box.label for box in found.boxes})
    if unused:
        names = ", ".join(map(shown, unused))
        lines.append(f"no box is of {names}, which the files in {params.root}/ name as a class.")
    say(lines)
