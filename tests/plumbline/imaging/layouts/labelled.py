"""Sets of whole photographs for tests: files by name, a picture where the text is None or a size."""

from PIL import Image

from plumbline.imaging.collection import list_images
from plumbline.imaging.settings import DataParams

SIZE = (40, 30)
BOX = "0 0.5 0.5 0.2 0.2\n"


def lay(root, files, **settings):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None or isinstance(content, tuple):
            Image.new("RGB", content or SIZE, (120, 90, 60)).save(path)
        else:
            path.write_text(content)
    return DataParams.model_validate({"root": root, "task": "detect", **settings})


def listed(params):
    """(path, label) of every photograph; what was refused, by path; the boxes."""
    found = list_images(params)
    rows = dict(zip(found.images["path"], found.images["label"], strict=True))
    return rows, {one.path: one.reason for one in found.refused}, found.boxes


def edges(box):
    return tuple(round(edge, 6) for edge in (box.left, box.top, box.right, box.bottom))
