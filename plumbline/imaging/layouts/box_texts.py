"""Whole photographs whose boxes lie in a .txt each: YOLO Darknet's beside the picture, Ultralytics' under labels/.

The classes are named by obj.names, _darknet.labels, classes.txt or a data.yaml; where two that hold for the same boxes
disagree, nobody can tell what a box is, and the set is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from plumbline.common.errors import UserError
from plumbline.imaging.decode import DecodeError
from plumbline.imaging.files import read_lines
from plumbline.imaging.labels import shown
from plumbline.imaging.layouts.annotations import Annotations, Pictures, class_name, parents
from plumbline.imaging.layouts.foreign import twin_of
from plumbline.imaging.layouts.published import Side, side_of
from plumbline.imaging.layouts.yolo import check_keypoints, described, looks_like_boxes, parse_box, read_names
from plumbline.imaging.pictures import UNREAD, Marked, is_picture_name
from plumbline.imaging.settings import DataParams

_NAMES = ("obj.names", "_darknet.labels", "classes.txt")
_SETTINGS = ("names", "nc", "train", "val", "test", "path", "kpt_shape")
_SIDE_KEYS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class _ClassList:
    """A file that names classes: {number: name}."""

    file: str
    names: dict[int, str]


def read_box_texts(params: DataParams, files: Sequence[str]) -> Annotations:
    """Return the boxes of every photograph that has a .txt; UserError where no file, or two, say what the classes are.

    A photograph without a .txt, or with an empty one, is in `boxes` without any.
    """
    found = Annotations()
    descriptions = _descriptions(params, files)
    lists = _class_lists(params, files, descriptions)
    found.classes = {
        class_name(params, name, one.file) for some in lists.values() for one in some for name in one.names.values()
    }
    pictures = [path for path in files if is_picture_name(path)]
    known = {one.file for some in lists.values() for one in some}
    lines_of = _lists_of_pictures(params, files, descriptions)
    texts = [path for path in files if path.lower().endswith(".txt") and path not in known and path not in lines_of]
    beside = {_stem(path): path for path in texts}
    apart = {twin_of(path): path for path in texts if "labels" in (part.lower() for part in PurePosixPath(path).parts)}
    used: set[str] = set()
    for picture in pictures:
        own = sorted({text for text in (beside.get(_stem(picture)), apart.get(twin_of(picture))) if text})
        used.update(own)
        if len(own) > 1:
            found.refuse_photograph(picture, f"has two files of boxes, {own[0]} and {own[1]}: remove one")
        elif own:
            _read_boxes(found, params, picture, own[0], lists)
        else:
            found.boxes[picture] = []
    _refuse_orphans(found, params, files, [text for text in texts if text not in used])
    found.sides = _sides(params, pictures, descriptions, lines_of)
    return found


def has_box_texts(params: DataParams, files: Sequence[str]) -> bool:
    """Return whether a folder is of this kind: it names classes, or has a .txt of boxes for a picture."""
    if _descriptions(params, files) or any(_is_list(params, path) for path in files):
        return True
    pictures = {key for path in files if is_picture_name(path) for key in (_stem(path), twin_of(path))}
    texts = (path for path in files if path.lower().endswith(".txt"))
    return any({_stem(path), twin_of(path)} & pictures and looks_like_boxes(params, path) for path in texts)


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


# -------------------------------------------------------------------------------------------------------- classes


def _is_list(params: DataParams, path: str) -> bool:
    name = PurePosixPath(path).name
    return name == params.yolo.names or name.lower() in _NAMES or name.lower().endswith(".names")


def _descriptions(params: DataParams, files: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The YAML files that describe a set for Ultralytics: what each says."""
    yamls = (path for path in files if path.lower().endswith((".yaml", ".yml")) and path.count("/") < 3)
    said = {path: described(params, path) for path in yamls}
    return {
        path: one
        for path, one in said.items()
        if isinstance(one.get("names"), (list, dict)) and len([key for key in _SETTINGS if key in one]) > 1
    }


def _class_lists(
    params: DataParams, files: Sequence[str], descriptions: Mapping[str, dict[str, Any]]
) -> dict[str, list[_ClassList]]:
    """By folder, the files in it that name classes; UserError where two that hold for the same boxes disagree."""
    lists: dict[str, list[_ClassList]] = {}
    for path in files:
        if path in descriptions:
            names = _names_described(params, path, descriptions[path])
        elif _is_list(params, path):
            names = dict(enumerate(read_names(params, path)))
        else:
            continue
        lists.setdefault(str(PurePosixPath(path).parent), []).append(_ClassList(path, names))
    for some in lists.values():
        for one in some:
            for other in (other for folder in parents(one.file) for other in lists.get(folder, [])):
                _refuse_disagreement(params, one, other)
    return lists


def _names_described(params: DataParams, path: str, said: Mapping[str, Any]) -> dict[int, str]:
    check_keypoints(params, path, said.get("kpt_shape"))
    named = said["names"]
    pairs = list(named.items() if isinstance(named, dict) else enumerate(named))
    wrong = next((shown(number) for number, _ in pairs if not str(number).isdecimal()), None)
    if wrong is not None:
        raise UserError(f"{params.root / path} numbers a class {wrong!r}: under `names`, give each a whole number.")
    names = {int(number): str(name).strip() for number, name in pairs}
    count = str(said.get("nc", len(names)))
    if not count.isdecimal() or int(count) < len(names) or (isinstance(named, list) and int(count) != len(names)):
        raise UserError(f"{params.root / path} says nc: {shown(count)} and names {len(names)} classes: correct one.")
    repeated = next((name for name in names.values() if list(names.values()).count(name) > 1), None)
    if repeated is not None or not all(names.values()):
        what = f"the class {shown(repeated)!r} twice" if repeated else "a class without a name"
        raise UserError(f"{params.root / path} has {what}: name each class once.")
    return names


def _refuse_disagreement(params: DataParams, one: _ClassList, other: _ClassList) -> None:
    numbers = {name: number for number, name in other.names.items()}
    for number, name in one.names.items():
        if other.names.get(number, name) != name or numbers.get(name, number) != number:
            raise UserError(
                f"{params.root / one.file} and {params.root / other.file} disagree about class {number} "
                f"({shown(name)!r}), so a box could be of either: remove the file that the boxes were not drawn with."
            )


def _classes_for(params: DataParams, picture: str, text: str, lists: Mapping[str, Sequence[_ClassList]]) -> _ClassList:
    """The list in the nearest folder at or above the boxes, then the picture; else the only one there is."""
    for folder in (*parents(text), *parents(picture)):
        if folder in lists:
            return lists[folder][0]
    every = [one for some in lists.values() for one in some]
    if len({tuple(sorted(one.names.items())) for one in every}) == 1:
        return every[0]
    missing = "no file names the classes" if not every else f"no file above {text} names its classes"
    raise UserError(
        f"{params.root}/ has boxes, but {missing}: put {params.yolo.names} at the top, a class on each line, or a "
        "data.yaml with `names`."
    )


# ---------------------------------------------------------------------------------------------------------- boxes


def _read_boxes(
    found: Annotations, params: DataParams, picture: str, text: str, lists: Mapping[str, Sequence[_ClassList]]
) -> None:
    try:
        lines = read_lines(params, text)
    except DecodeError as error:
        found.refuse_photograph(picture, f"has boxes that can't be read: {text} {error.reason}")
        return
    found.boxes[picture] = []
    if not any(line.strip() for line in lines):
        return
    classes = _classes_for(params, picture, text, lists)
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            of, (x, y, width, height) = parse_box(line, params.yolo.keypoints)
            if of not in classes.names:
                raise DecodeError(f"its class {of} is none of the {len(classes.names)} of {classes.file}")
        except DecodeError as error:
            found.refuse_box(picture, number, f"line {number + 1} of {PurePosixPath(text).name}: {error.reason}")
            continue
        label = class_name(params, classes.names[of], classes.file)
        edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        found.boxes[picture].append(Marked(picture, number, label, *edges))


def _refuse_orphans(found: Annotations, params: DataParams, files: Sequence[str], texts: Iterable[str]) -> None:
    """Name every .txt of boxes that has no picture."""
    unread = {key: path for path in files if _is_unread(path) for key in (_stem(path), twin_of(path))}
    for text in texts:
        if looks_like_boxes(params, text):
            other = unread.get(_stem(text)) or unread.get(twin_of(text))
            why = "holds boxes, but there is no picture for it"
            if other:
                why = f"holds boxes of {PurePosixPath(other).name}, which is not read: convert it to JPEG or PNG"
            found.refuse_file(text, why)


def _is_unread(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in UNREAD


# ----------------------------------------------------------------------------------------------- a published split


def _lists_of_pictures(
    params: DataParams, files: Sequence[str], descriptions: Mapping[str, dict[str, Any]]
) -> dict[str, tuple[Side, list[str]]]:
    """The .txt files that data.yaml or obj.data names as lists of a side's photographs, each with its lines."""
    there = set(files)
    wanted = [(side, path, entry) for path, said in descriptions.items() for side, entry in _entries(said)]
    for path in files:
        if path.lower().endswith(".data"):
            wanted += [(side, path, entry) for side, entry in _entries(_darknet_settings(params, path))]
    lists: dict[str, tuple[Side, list[str]]] = {}
    for side, path, entry in wanted:
        file = next((one for one in _meant(path, "", entry) if one in there and one.lower().endswith(".txt")), None)
        if file is not None:
            try:
                lists[file] = (side, [line.strip() for line in read_lines(params, file) if line.strip()])
            except DecodeError as error:
                what = f"{params.root / file} {error.reason}"
                raise UserError(f"{what}: {path} says that it lists photographs.") from None
    return lists


def _darknet_settings(params: DataParams, path: str) -> dict[str, Any]:
    try:
        pairs = [line.split("=", 1) for line in read_lines(params, path) if "=" in line]
    except DecodeError:
        return {}
    return {key.strip(): value.strip() for key, value in pairs}


def _entries(said: Mapping[str, Any]) -> Iterator[tuple[Side, str]]:
    """What a description names for each side: (side, path)."""
    for key, value in said.items():
        side = side_of(_SIDE_KEYS[key]) if key in _SIDE_KEYS else None
        if side is not None:
            yield from ((side, str(entry)) for entry in (value if isinstance(value, list) else [value]) if entry)


def _meant(file: str, above: str, entry: str) -> Iterator[str]:
    """Paths below the root that an entry of a description may mean, the likeliest first; "" is the whole folder.

    Descriptions come from other disks: /home/me/set/images/train, or ../train/images for a folder beside them.
    """
    parts = [part for part in PurePosixPath(entry.replace("\\", "/")).parts if part not in ("..", ".", "/")]
    base = PurePosixPath(file).parent
    for start in range(len(parts)):
        inner = PurePosixPath(*parts[start:])
        for folder in (base / above.strip("/"), base, PurePosixPath()):
            yield str(folder / inner)


def _sides(
    params: DataParams,
    pictures: Sequence[str],
    descriptions: Mapping[str, dict[str, Any]],
    lists: Mapping[str, tuple[Side, list[str]]],
) -> dict[str, Side]:
    """Each photograph's side by data.yaml, or by lists that it or obj.data names; nothing where all are one part."""
    sides: dict[str, set[Side]] = {}
    for path, said in descriptions.items():
        for side, entry in _entries(said):
            meant = (_inside(pictures, one) for one in _meant(path, str(said.get("path", "")), entry))
            for picture in next((some for some in meant if some), []):
                sides.setdefault(picture, set()).add(side)
    index = Pictures(pictures)
    for side, lines in lists.values():
        for line in lines:
            if listed := index.find(line):
                sides.setdefault(listed, set()).add(side)
    if len({frozenset(some) for some in sides.values()}) < 2:
        return {}  # one part, or the same photographs named for every side
    both = next((picture for picture, some in sides.items() if len(some) > 1), None)
    if both is not None and params.published_split == "keep":
        raise UserError(
            f"{params.root / both} is in {' and in '.join(sorted(sides[both]))} of the published split: take it out of "
            "one of them, or set data.published_split: merge."
        )
    return {picture: min(some) for picture, some in sides.items()}


def _inside(pictures: Collection[str], folder: str) -> list[str]:
    return [path for path in pictures if path.startswith(f"{folder}/")]
