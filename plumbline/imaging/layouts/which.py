"""Which layout a folder has, by the files at its root."""

from __future__ import annotations

import os
from pathlib import Path

from plumbline.common.errors import UserError
from plumbline.imaging.labels import shown
from plumbline.imaging.litter import is_litter
from plumbline.imaging.pictures import is_picture_name
from plumbline.imaging.settings import DataParams


def find_layout(params: DataParams) -> str:
    """Return `params.layout`, or what the files at the root say it is: arrays, yolo, else folders.

    Whole photographs (`task: detect`) are `yolo`, whichever tool drew their boxes: `layouts.photographs` tells these
    apart.
    """
    if params.task == "detect":
        return "yolo"
    if params.layout != "auto":
        return params.layout
    if not params.root.is_dir():
        return "folders"
    inside = [Path(entry) for entry in os.scandir(params.root) if entry.is_dir() and not is_litter(entry.name)]
    if (params.root / params.arrays.images).is_file():
        for folder in inside:
            if any(is_picture_name(entry.name) for entry in os.scandir(folder)):
                raise UserError(
                    f"{params.root}/ holds {params.arrays.images} and pictures in {shown(folder.name)}/ as well, and "
                    "one of them would be left out: set data.layout to arrays or folders, or move one elsewhere."
                )
        return "arrays"
    is_yolo = any((folder / params.yolo.names).is_file() for folder in (params.root, *inside))
    return "yolo" if is_yolo else "folders"
