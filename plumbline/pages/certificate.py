"""Pages of one file each: pictures and styles inside, nothing fetched, light and dark."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

THUMBNAIL = 160  # pixels
HERE = Path(__file__).parent
SHARED_STYLE = HERE.parent / "page" / "leaderboard.css"


def render_page(template: str, **values: Any) -> str:
    """Render a template of this folder; values are escaped."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = SHARED_STYLE.read_text(encoding="utf-8") + (HERE / "certificate.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(css=Markup(css), **values)


def data_uri(rgb: NDArray[np.uint8]) -> str:
    """Return a picture, shrunk to a thumbnail, as a data: address, so that the page is one file."""
    from PIL import Image

    image = Image.fromarray(rgb)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
