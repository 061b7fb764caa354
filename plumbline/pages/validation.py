"""Make Great Expectations' Data Docs open without a network, behind an index of our own.

Its pages load styles, scripts, fonts and a logo from eight content networks, and its index is an empty table without
them. The pages stay; a small stylesheet and a small script beside them replace what they loaded.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plumbline.pages.template import HERE, render_page

# Scripts, styles and pictures from other hosts, scripts that depend on them, and the newsletter.
_FOREIGN = re.compile(
    r"<script[^>]*>.*?</script>|<link\b[^>]*>|<img\b[^>]*src=\"https?:[^>]*>|<footer>.*?</footer>"
    r"|@media \(prefers-color-scheme: dark\) \{.*?\n\}(?=\s*</style>)",
    re.DOTALL,
)


def write_docs(docs: Path, summary: Mapping[str, Any]) -> None:
    """Turn Great Expectations' pages in folder `docs` into pages that open offline; write index.html from `summary`."""
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
    text = render_page("validation.html.j2", **summary, pages=pages)
    (docs / "index.html").write_text(text, encoding="utf-8")


def _localised(page: str, up: str) -> str:
    page = _FOREIGN.sub("", page)
    head = f'<link rel="stylesheet" href="{up}offline.css"></head>'
    page = page.replace("</head>", head, 1)
    return page.replace("</body>", f'<script src="{up}offline.js"></script></body>', 1)
