"""A folder for each class: the topmost folder of a picture is its label."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from plumbline.imaging.decode import DecodeError, decoder_warning
from plumbline.imaging.files import read_bytes, read_picture, shown_path, top_folder, walk
from plumbline.imaging.layouts.foreign import refuse_foreign
from plumbline.imaging.layouts.published import settle_split
from plumbline.imaging.litter import is_litter
from plumbline.imaging.pictures import UNREAD, Found, Picture, Refused, is_picture_name
from plumbline.imaging.settings import DataParams


def list_pictures(params: DataParams) -> Found:
    """List every picture below the root; UserError where the folders are a split or another tool's export."""
    found = Found()
    found.files = set(files := walk(params, found.refused))
    if params.layout == "auto":
        refuse_foreign(params, files)
    for path in files:
        label = path.split("/", 1)[0] if "/" in path else ""
        suffix = PurePosixPath(path).suffix
        if is_picture_name(path):
            found.rows.append({"path": path, "label": label})
        elif label or suffix.lower() in UNREAD:
            reason = (
                f"is not named as a picture ({suffix or 'no suffix'}): JPEG, PNG, BMP or WebP is read, convert or "
                "remove it"
            )
            found.refused.append(Refused(path, reason, "unreadable", shown_path(label)))
    settle_split(found, params)
    named = {top_folder(row["path"]) for row in found.rows}
    named |= {name for one in found.refused for name in (one.label, one.path, top_folder(one.path))}
    for entry in sorted(os.scandir(params.root), key=lambda entry: entry.name):
        if entry.is_dir() and not is_litter(entry.name) and shown_path(entry.name) not in named:
            found.refused.append(Refused(entry.name + "/", "holds no pictures", "empty", entry.name))
    return found


def read(params: DataParams, source: str, paths: Sequence[str]) -> Iterator[Picture | Refused]:
    """Decode a file; it is the only picture of `paths`."""
    found = read_picture(params, source)
    if isinstance(found, Refused):
        yield found
        return
    data, image = found
    digest, warning = hashlib.sha256(data).hexdigest(), decoder_warning(data)
    for path in paths:
        yield Picture(path, image, digest, len(data), image.info["format"], warning)


def states(params: DataParams, source: str, paths: Sequence[str]) -> list[str]:
    """Return the file's sha256, or why it can't be read."""
    try:
        return [hashlib.sha256(read_bytes(params, source)).hexdigest() for _ in paths]
    except DecodeError as error:
        return [error.reason]
