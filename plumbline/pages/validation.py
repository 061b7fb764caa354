"""Make Great Expectations' Data Docs open without a network, behind an index of our own.

Its pages load styles, scripts, fonts and a logo from eight content networks, and its index is an empty table without
them. The pages stay; a small stylesheet and a small script beside them replace what they loaded.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.imaging.boxes import EDGES
from plumbline.pages.template import HERE, data_uri, render_page

if TYPE_CHECKING:
    import pandas as pd

    from plumbline.imaging.validation import Validated

# Scripts, styles and pictures from other hosts, scripts that depend on them, and the newsletter.
_FOREIGN = re.compile(
    r"<script[^>]*>.*?</script>|<link\b[^>]*>|<img\b[^>]*src=\"https?:[^>]*>|<footer>.*?</footer>"
    r"|@media \(prefers-color-scheme: dark\) \{.*?\n\}(?=\s*</style>)",
    re.DOTALL,
)


SHOWN = 12  # photographs on the page
SIDE = 480  # pixels of the longer side
STYLES = 6


@dataclass(frozen=True)
class Drawn:
    """A box on a shown photograph: what it is called, the CSS class of its class, and its place in pixels there."""

    name: str
    style: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Photograph:
    """A photograph on the page, with its boxes; `noted` says that some expectation names it or a box of it."""

    path: str
    image: str
    width: int
    height: int
    boxes: tuple[Drawn, ...]
    noted: bool


def photographs(
    found: Validated, manifest: pd.DataFrame, boxes: pd.DataFrame, picture: Callable[[str], NDArray[np.uint8]]
) -> list[Photograph]:
    """Return up to SHOWN photographs with their boxes: half of them such as an expectation names, where there are some.

    The others lie evenly in the manifest. `picture` gives a path's pixels (H, W, 3), upright.
    """
    paths = manifest["path"].tolist()
    named = {name for one in found.outcomes if one.table in ("manifest", "boxes") for name in one.failing}
    noted = [path for path in paths if path in named or any(name.startswith(f"{path}, box ") for name in named)]
    chosen = noted[: SHOWN // 2]
    others = [path for path in paths if path not in chosen]
    step = max(1, len(others) // max(1, SHOWN - len(chosen)))
    chosen += others[::step][: SHOWN - len(chosen)]
    styles = {name: f"b{number % STYLES + 1}" for number, name in enumerate(sorted(set(boxes["label"])))}
    by_path = dict(list(boxes[boxes["path"].isin(chosen)].groupby("path")))
    return [_photograph(path, picture(path), by_path.get(path), styles, path in noted) for path in chosen]


def _photograph(
    path: str, rgb: NDArray[np.uint8], boxes: pd.DataFrame | None, styles: Mapping[str, str], noted: bool
) -> Photograph:
    scale = SIDE / max(rgb.shape[:2])
    width, height = round(rgb.shape[1] * scale), round(rgb.shape[0] * scale)
    drawn = []
    if boxes is not None:
        edges = boxes[list(EDGES)].to_numpy(float) * [width, height, width, height]
        for label, (left, top, right, bottom) in zip(boxes["label"], edges.round(1).tolist(), strict=True):
            drawn.append(Drawn(label, styles[label], left, top, round(right - left, 1), round(bottom - top, 1)))
    return Photograph(path, data_uri(rgb, SIDE), width, height, tuple(drawn), noted)


def write_docs(docs: Path, summary: Mapping[str, Any], drawn: Sequence[Photograph] = ()) -> None:
    """Turn Great Expectations' pages in folder `docs` into pages that open offline; write index.html from `summary`.

    `drawn`: photographs with their boxes, where the data has boxes.
    """
    shutil.rmtree(docs / "static", ignore_errors=True)
    for name in ("offline.css", "offline.js"):
        shutil.copyfile(HERE / name, docs / name)
    pages: dict[str, str] = {}
    for page in sorted(docs.rglob("*.html")):
        if page.parent == docs:
            continue
        up = "../" * (len(page.relative_to(docs).parts) - 1)
        page.write_text(_localised(page.read_text(encoding="utf-8"), up), encoding="utf-8")
        if page.relative_to(docs).parts[0] == "validations":
            pages[page.relative_to(docs).parts[1]] = page.relative_to(docs).as_posix()
    text = render_page("validation.html.j2", **summary, pages=pages, photographs=drawn)
    (docs / "index.html").write_text(text, encoding="utf-8")


def _localised(page: str, up: str) -> str:
    page = _FOREIGN.sub("", page)
    head = f'<link rel="stylesheet" href="{up}offline.css"></head>'
    page = page.replace("</head>", head, 1)
    return page.replace("</body>", f'<script src="{up}offline.js"></script></body>', 1)
