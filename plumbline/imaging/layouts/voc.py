"""Whole photographs whose boxes lie in Pascal VOC XML: a file a photograph, beside it or under Annotations/.

The XML is parsed by defusedxml: document types and entities, with which a file can fill memory or read others, are
refused. VOC counts pixels from 1, so a box covers xmin - 1 to xmax; a set in which a box begins at 0 counts from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from plumbline.imaging.decode import DecodeError
from plumbline.imaging.files import read_bytes
from plumbline.imaging.labels import shown
from plumbline.imaging.layouts.annotations import Annotations, Pictures, class_name
from plumbline.imaging.layouts.foreign import ending_in, head_of
from plumbline.imaging.pictures import Marked, is_picture_name
from plumbline.imaging.settings import DataParams

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_EDGES = ("xmin", "ymin", "xmax", "ymax")


def has_voc(params: DataParams, files: Sequence[str]) -> bool:
    """Return whether there is an XML file as Pascal VOC has them."""
    heads = (head_of(params, path) for path in ending_in(files, ".xml", depth=6))
    return any("<annotation" in text and "<annotations" not in text for text in heads)


def read_voc(params: DataParams, files: Sequence[str]) -> Annotations:
    """Return the boxes of every photograph that has an XML file; one without has none."""
    found = Annotations()
    pictures = [path for path in files if is_picture_name(path)]
    found.boxes = {picture: [] for picture in pictures}
    index = Pictures(pictures)
    by_stem: dict[str, list[str]] = {}
    for picture in pictures:
        by_stem.setdefault(PurePosixPath(picture).stem, []).append(picture)
    used: dict[str, str] = {}
    for file in files:
        if not file.lower().endswith(".xml"):
            continue
        try:
            root = _parsed(params, file)
        except DecodeError as error:
            unread = _of(file, None, by_stem, index)
            if unread:
                used[unread] = file
                found.refuse_photograph(unread, f"has boxes that can't be read: {file} {error.reason}")
            else:
                found.refuse_file(file, error.reason)
            continue
        if root.tag != "annotation":
            continue
        called = root.findtext("filename")
        own = _of(file, called, by_stem, index)
        if own is None:
            found.refuse_file(file, f"holds boxes of {shown(called)}, and there is no such picture")
        elif own in used:
            found.refuse_photograph(own, f"has two files of boxes, {used[own]} and {file}: remove one")
        else:
            used[own] = file
            _read_objects(found, params, own, file, root)
    if not any(min(box.left, box.top) <= 0 for some in found.boxes.values() for box in some):
        for picture, some in found.boxes.items():
            found.boxes[picture] = [replace(box, left=box.left - 1, top=box.top - 1) for box in some]
    return found


def _parsed(params: DataParams, file: str) -> Element:
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root: Element = fromstring(read_bytes(params, file), forbid_dtd=True)
    except ParseError as error:
        raise DecodeError(f"is no XML ({error}): export it again") from None
    except (DefusedXmlException, ValueError, LookupError) as error:
        why = "declares a document type or an entity" if isinstance(error, DefusedXmlException) else str(error)
        raise DecodeError(f"{why}: an annotation needs none, remove it") from None
    return root


def _of(file: str, called: str | None, by_stem: dict[str, list[str]], index: Pictures) -> str | None:
    """The photograph of an XML file: of the same name beside it or in a sister folder, else by its <filename>."""
    path = PurePosixPath(file)
    there = by_stem.get(path.stem, [])
    near = [one for one in there if PurePosixPath(one).parent == path.parent] or [
        one for one in there if PurePosixPath(one).parent.parent == path.parent.parent
    ]
    if len(near or there) == 1:
        return (near or there)[0]
    return index.find(called.strip(), path.parts[:-1]) if called and called.strip() else None


def _read_objects(found: Annotations, params: DataParams, picture: str, file: str, root: Element) -> None:
    size = (_whole(root.findtext("size/width")), _whole(root.findtext("size/height")))
    for number, one in enumerate(root.findall("object")):
        where = f"object {number + 1} of {PurePosixPath(file).name}"
        name = (one.findtext("name") or "").strip()
        if not name:
            found.refuse_box(picture, number, f"{where}: has no name")
            continue
        label = class_name(params, name, file)
        found.classes.add(label)
        try:
            edges = [float(one.findtext(f"bndbox/{edge}") or "") for edge in _EDGES]
        except ValueError:
            found.refuse_box(picture, number, f"{where}: has no bndbox of four numbers", label)
            continue
        left, top, right, bottom = edges
        found.boxes[picture].append(Marked(picture, number, label, left, top, right, bottom, size))


def _whole(text: str | None) -> int:
    try:
        return max(int(float(text or "0")), 0)
    except (ValueError, OverflowError):
        return 0
