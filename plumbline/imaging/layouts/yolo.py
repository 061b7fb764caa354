"""YOLO Darknet: a .txt of boxes beside each picture, and a file that names the classes. Each box is a picture."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import yaml
from PIL import Image

from plumbline.common.errors import UserError
from plumbline.imaging.decode import DecodeError, decoder_warning
from plumbline.imaging.files import read_bytes, read_lines, read_picture, read_text, top_folder, walk
from plumbline.imaging.labels import SEVERAL, shown
from plumbline.imaging.layouts.published import photograph
from plumbline.imaging.pictures import UNREAD, Found, Picture, Refused, is_picture_name
from plumbline.imaging.settings import DataParams, Keypoints

Box = tuple[float, float, float, float]

ROUNDING = 0.01  # share of the picture by which a coordinate may lie outside: rounding by whoever wrote it
MOST_CLASSES = 100_000
LONGEST_YAML = 1_000_000  # letters of a data.yaml
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?nan|[+-]?inf", re.I | re.A)
_BOX_SUFFIXES = (".txt", ".TXT", ".Txt")


def list_pictures(params: DataParams) -> Found:
    """List every box with its class. A picture without boxes, or without a .txt, is background and gets no row."""
    found = Found()
    found.files = set(files := walk(params, found.refused))
    boxes = {_stem(path): path for path in files if PurePosixPath(path).suffix.lower() == ".txt"}
    named = [path for path in files if PurePosixPath(path).name == params.yolo.names]
    names = {str(PurePosixPath(path).parent): read_names(params, path) for path in named}
    for path in named:
        _refuse_another_order(params, path, names[str(PurePosixPath(path).parent)], found.files)
    pictures = [path for path in files if is_picture_name(path)]
    in_folders = any("/" in path for path in pictures)
    for path in pictures:
        own = boxes.get(_stem(path))
        if own is None:
            continue
        columns = {"photo": photograph(path)}
        if in_folders:
            columns["subset"] = top_folder(path)
        _list_boxes(found, params, path, own, _names_for(path, names, params), columns)
    with_picture = {_stem(path) for path in pictures}
    unread = {_stem(path): path for path in files if PurePosixPath(path).suffix.lower() in UNREAD}
    for stem, path in boxes.items():
        if stem not in with_picture and looks_like_boxes(params, path):
            why = "holds boxes, but there is no picture beside it"
            if stem in unread:
                why = f"holds boxes of {PurePosixPath(unread[stem]).name}, which is not read: convert it to JPEG or PNG"
            found.refused.append(Refused(path, why, "box"))
    if pictures and not found.rows and not found.refused:
        raise UserError(
            f"{params.root}/ has {params.yolo.names} and {len(pictures)} pictures, but not one box: put each picture's "
            ".txt beside it, or set data.layout."
        )
    return found


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _list_boxes(
    found: Found, params: DataParams, picture: str, boxes: str, names: Sequence[str], columns: Mapping[str, str]
) -> None:
    try:
        lines = read_lines(params, boxes)
    except DecodeError as error:
        found.refused.append(Refused(boxes, error.reason, "box"))
        return
    seen: set[tuple[int, Box]] = set()
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        path = f"{picture}#{number}"
        try:
            box = parse_box(line, params.yolo.keypoints)
            if box[0] >= len(names):
                raise DecodeError(f"its class {box[0]} is beyond the {len(names)} of {params.yolo.names}")
        except DecodeError as error:
            where = f"line {number + 1} of {PurePosixPath(boxes).name}: "
            found.refused.append(Refused(path, where + error.reason, "box"))
            continue
        if box in seen:
            continue
        seen.add(box)
        name = names[box[0]]
        found.rows.append({"path": path, "label": params.yolo.classes.get(name, name), **columns})


def parse_box(line: str, keypoints: Keypoints | None = None) -> tuple[int, Box]:
    """Return class number and (centre x, centre y, width, height) in shares of the picture, from a line of a .txt.

    A polygon (class, then three or more pairs x y) becomes the box around it. With `keypoints` (data.yolo.keypoints)
    there are no polygons: behind a box stand that many keypoints, of two or three values each, which are passed over.
    What lies outside the picture by a rounding error is clipped.
    """
    parts = line.split()
    pose = keypoints is not None and len(parts) == 5 + keypoints[0] * keypoints[1]
    polygon = keypoints is None and len(parts) >= 7 and len(parts) % 2 == 1
    if len(parts) != 5 and not pose and not polygon:
        raise DecodeError(f"has {len(parts)} values, not `class x y width height`{_likely(line, keypoints)}")
    if not all(_NUMBER.fullmatch(part) for part in parts):
        raise DecodeError(f"is not five numbers: {line.strip()[:60]!r}")
    if not float(parts[0]).is_integer() or float(parts[0]) > MOST_CLASSES:
        raise DecodeError(f"begins with {parts[0][:20]}, which is no class's number: `class x y width height`")
    number, values = int(float(parts[0])), [float(part) for part in (parts[1:5] if pose else parts[1:])]
    if polygon and _may_have_keypoints(values):
        raise DecodeError(
            f"has {len(parts)} values, a polygon or a box with keypoints: remove it, or set data.yolo.keypoints: "
            f"[{(len(parts) - 5) // 3}, 3] if it is the latter"
        )
    # A NaN fails every comparison.
    if number < 0 or not all(-ROUNDING <= value <= 1 + ROUNDING for value in values):
        raise DecodeError(f"has a box outside the picture: {line.strip()[:60]!r}")
    values = [min(max(value, 0.0), 1.0) for value in values]
    x, y, width, height = _around(values) if polygon else values
    if not (width > 0 and height > 0):
        raise DecodeError(f"has a box outside the picture: {line.strip()[:60]!r}")
    return number, (x, y, width, height)


def _likely(line: str, keypoints: Keypoints | None) -> str:
    """What a line with a wrong number of values may be, in brackets."""
    count = len(line.split())
    if len(re.split(r"[,;\s]+", line.strip())) == 5:
        return " (part them by spaces)"
    if count == 6:
        return " (remove the sixth: a confidence makes it a prediction, a tracking number tells nothing of it)"
    if keypoints is not None:
        return f", nor those and {keypoints[0]} keypoints of {keypoints[1]} values (data.yolo.keypoints)"
    points, rest = divmod(count - 5, 3)
    return f" (with {points} keypoints? set data.yolo.keypoints: [{points}, 3])" if points > 0 and not rest else ""


def _may_have_keypoints(values: Sequence[float]) -> bool:
    """Whether these could be a box inside the picture, and keypoints x, y, visibility: 0, 1 or 2."""
    x, y, width, height = values[:4]
    inside = all(
        size > 0 and centre - size / 2 >= -ROUNDING and centre + size / 2 <= 1 + ROUNDING
        for centre, size in ((x, width), (y, height))
    )
    return inside and len(values) % 3 == 1 and all(seen in (0, 1, 2) for seen in values[6::3])


def _around(points: Sequence[float]) -> Box:
    """The box (centre x, centre y, width, height) around the points x1 y1 x2 y2 ..."""
    across, down = points[0::2], points[1::2]
    left, right, top, bottom = min(across), max(across), min(down), max(down)
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def box_pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) in pixels of a picture of `size` = (width, height), clipped to it."""
    x, y, width, height = box
    left, right = round((x - width / 2) * size[0]), round((x + width / 2) * size[0])
    top, bottom = round((y - height / 2) * size[1]), round((y + height / 2) * size[1])
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
    if left >= right or top >= bottom:
        raise DecodeError(f"its box is less than a pixel of this {size[0]} x {size[1]} picture")
    return left, top, right, bottom


def box_file(params: DataParams, picture: str) -> str:
    """The path of the .txt beside a picture, in whatever case its suffix is."""
    tried = [f"{_stem(picture)}{suffix}" for suffix in _BOX_SUFFIXES]
    return next((path for path in tried if (params.root / path).is_file()), tried[0])


def read_names(params: DataParams, path: str) -> list[str]:
    """Return the classes of an obj.names, one of each line; UserError where a line is none."""
    try:
        names = [line.strip() for line in read_lines(params, path)]
    except DecodeError as error:
        raise UserError(f"{params.root / path} {error.reason}: it has to name a class on each line.") from None
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        raise UserError(f"{params.root / path} has no class, or an empty line: it has to name a class on each line.")
    odd = next((name for place, name in enumerate(names) if name.startswith("#") or name in names[:place]), None)
    if odd is not None:
        raise UserError(
            f"{params.root / path} has the line {shown(repr(odd))}, a comment or a class that is there twice, and each "
            "line is a class of its own: remove the comment, or rename one and join both with data.yolo.classes."
        )
    joined = [name for name in names if SEVERAL in name and name not in params.yolo.classes]
    if joined:
        raise UserError(
            f"{params.root / path} has a class {joined[0]!r} with a `{SEVERAL}`, which parts several labels: rename "
            "it, or give it another name under data.yolo.classes."
        )
    return names


def _refuse_another_order(params: DataParams, path: str, names: list[str], files: Collection[str]) -> None:
    """UserError where a classes.txt or data.yaml beside obj.names numbers its classes otherwise: which is right?

    A data.yaml may lie in a folder above, too, and says whether the boxes have keypoints.
    """
    for beside, others in _other_lists(params, path, files):
        of = {name: number for number, name in enumerate(names)}
        if any(of.get(name, number) != number for number, name in others.items()):
            raise UserError(
                f"{params.root / path} and {params.root / beside} have the same classes in another order, so a box "
                "could be of either: remove the file that the boxes were not drawn with."
            )


def _other_lists(params: DataParams, path: str, files: Collection[str]) -> Iterator[tuple[str, dict[int, str]]]:
    """Yield the other files that name classes for those of `path`: {number: name}."""
    above = PurePosixPath(path).parents
    classes = str(above[0] / "classes.txt")
    if classes != path and classes in files:
        try:
            lines = [line.strip() for line in read_lines(params, classes) if line.strip()]
            yield classes, dict(enumerate(lines))
        except DecodeError:
            pass  # notes of another kind
    for one in sorted(files):
        if PurePosixPath(one).suffix.lower() in (".yaml", ".yml") and PurePosixPath(one).parent in above:
            found = described(params, one)
            check_keypoints(params, one, found.get("kpt_shape"))
            named = found.get("names")
            pairs = named.items() if isinstance(named, dict) else enumerate(named if isinstance(named, list) else [])
            yield one, {int(number): str(name).strip() for number, name in pairs if str(number).isdecimal()}


def described(params: DataParams, path: str) -> dict[str, Any]:
    """Return what a YAML file says, every value as text (a class may be called `no`); nothing where it is none."""
    try:
        text = read_text(params, path)
        found = yaml.load(text, yaml.BaseLoader) if len(text) <= LONGEST_YAML else None
    except (DecodeError, yaml.YAMLError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def check_keypoints(params: DataParams, path: str, said: Any) -> None:
    """UserError where data.yaml and params.yaml disagree about keypoints: then boxes would be read as polygons."""
    numbers = re.findall(r"\d+", str(said))
    if not numbers or numbers == [str(one) for one in params.yolo.keypoints or ()]:
        return
    shape = shown(", ".join(numbers))
    raise UserError(
        f"{params.root / path} says that keypoints stand behind each box (kpt_shape: [{shape}]): set "
        f"data.yolo.keypoints: [{shape}], and the boxes are read without them; or remove the file where that is not so."
    )


def _names_for(picture: str, names: Mapping[str, list[str]], params: DataParams) -> list[str]:
    """The class names of the nearest folder at or above the picture, else those of the only names file."""
    for folder in PurePosixPath(picture).parents:
        if str(folder) in names:
            return names[str(folder)]
    if len({tuple(one) for one in names.values()}) == 1:
        return next(iter(names.values()))
    raise UserError(
        f"{params.root}/ has no {params.yolo.names} for {picture}: put one at the top, a class on each line."
    )


def looks_like_boxes(params: DataParams, path: str) -> bool:
    """Return whether a text begins with the line of a box."""
    try:
        parse_box(next(iter(read_lines(params, path)), ""), params.yolo.keypoints)
    except DecodeError:
        return False
    return True


def read(params: DataParams, source: str, paths: Sequence[str]) -> Iterator[Picture | Refused]:
    """Decode a photograph once and yield the boxes `paths` of it."""
    found = read_picture(params, source)
    if isinstance(found, Refused):
        yield found
        return
    data, image = found
    boxes = box_file(params, source)
    try:
        lines = read_lines(params, boxes)
    except DecodeError as error:
        yield Refused(boxes, error.reason, "box")
        return
    digest, warning = hashlib.sha256(data).hexdigest(), decoder_warning(data)
    for path in paths:
        one = _crop(params, image, path, lines, digest, len(data))
        yield one if isinstance(one, Refused) else replace(one, warning=warning)


def states(params: DataParams, source: str, paths: Sequence[str]) -> list[str]:
    """Return the sha256 of the photograph and of its .txt, or why one can't be read."""
    try:
        files = (source, box_file(params, source))
        return [hashlib.sha256(read_bytes(params, file)).hexdigest() for file in files]
    except DecodeError as error:
        return [error.reason]


def _crop(
    params: DataParams, image: Image.Image, path: str, lines: Sequence[str], digest: str, size: int
) -> Picture | Refused:
    try:
        line = lines[int(path.rpartition("#")[2])].strip()
        crop = image.crop(box_pixels(parse_box(line, params.yolo.keypoints)[1], image.size))
    except IndexError:
        return Refused(path, "its line of the .txt is gone", "box")
    except DecodeError as error:
        return Refused(path, error.reason, "box")
    own = hashlib.sha256(f"{digest} {line}".encode()).hexdigest()
    return Picture(path, crop, own, size, image.info["format"])
