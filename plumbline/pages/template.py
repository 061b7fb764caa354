"""What every page is made with: one Jinja environment, one stylesheet, pictures as data addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import jinja2

HERE = Path(__file__).parent
STYLE = "leaderboard.css"
THUMBNAIL = 160  # pixels


def render_page(
    template: str,
    *styles: str,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    folder: Path = HERE,
    **values: Any,
) -> str:
    """Return `template` filled with `values`, as one HTML file that loads nothing else; values are escaped.

    `css` holds the shared stylesheet followed by the files in `styles`. Templates and styles are looked for in
    `folder`, then in this one.
    """
    from markupsafe import Markup

    environment = _environment(folder).overlay()
    environment.filters = {**environment.filters, **(filters or {})}
    css = "".join(read_asset(name, folder) for name in (STYLE, *styles))
    return environment.get_template(template).render(css=Markup(css), **values)


@cache
def _environment(folder: Path) -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def read_asset(name: str, folder: Path = HERE) -> str:
    """Return the text of a stylesheet or script that lies in `folder`, or here."""
    path = folder / name
    return (path if path.is_file() else HERE / name).read_text(encoding="utf-8")


def data_uri(rgb: NDArray[np.uint8], side: int = THUMBNAIL) -> str:
    """Return a picture (H, W, 3), its longer side brought to `side` pixels, as a JPEG in a `data:` address."""
    from PIL import Image, ImageOps

    image = ImageOps.contain(Image.fromarray(rgb), (side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return jpeg_uri(buffer.getvalue())


def jpeg_uri(jpeg: bytes) -> str:
    """Return the bytes of a JPEG file as a `data:` address."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
