"""Serve the reports as pages, with an index of what there is: python -m flows.pages PORT (`plumbline flows serve`).

The index is made when it is asked for, from what each page says of itself: its verdict, its headline, its date.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from html.parser import HTMLParser
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.pages.template import render_page

HERE = Path(__file__).parent
INDEX = "index.html"
HEAD = 262_144  # bytes of a page that are looked at: its pictures and tables come after what is looked for
FIRST = (
    artefacts.LEADERBOARD_PAGE.path,
    artefacts.CERTIFICATE_PAGE.path,
    artefacts.VALIDATION_PAGES / INDEX,
    artefacts.CONFLICTS_PAGE.path,
    artefacts.DRIFT_PAGES / INDEX,
)
NAMES = {
    artefacts.LEADERBOARD_PAGE.path: "Leaderboard",
    artefacts.CERTIFICATE_PAGE.path: "Leakage certificate",
    artefacts.VALIDATION_PAGES / INDEX: "Validation of the data",
    artefacts.CONFLICTS_PAGE.path: "Label conflicts",
    artefacts.DRIFT_PAGES / INDEX: "Drift",
    artefacts.AUDIT_PAGE.path: "Audit",
}
FOLDERS = {artefacts.CARDS.path: "Card of", artefacts.ABLATION_PAGES.path: "Ablation of"}


@dataclass(frozen=True)
class Report:
    """A line of the index: `verdicts` are (words, class of the badge)."""

    name: str
    address: str
    verdicts: list[tuple[str, str]]
    headline: str
    made: datetime


@dataclass
class _Seen:
    verdicts: list[tuple[str, str]] = field(default_factory=list)
    headline: str = ""


class _Head(HTMLParser):
    """Reads the badges in a page's stamp, and its headline, up to the end of the headline."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = _Seen()
        self.within: str | None = None  # stamp, badge or h1
        self.kind, self.words = "", ""
        self.done = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        classes = (dict(attrs).get("class") or "").split()
        if self.done:
            return
        if tag == "p" and "stamp" in classes:
            self.within = "stamp"
        elif self.within == "stamp" and "badge" in classes:
            self.within, self.words = "badge", ""
            self.kind = " ".join(one.removeprefix("badge-") for one in classes if one != "badge")
        elif tag == "h1":
            self.within, self.words = "h1", ""

    def handle_endtag(self, tag: str) -> None:
        if self.within == "badge" and tag == "span":
            self.seen.verdicts.append((self.words.strip(), self.kind))
            self.within = "stamp"
        elif self.within == "stamp" and tag == "p":
            self.within = None
        elif self.within == "h1" and tag == "h1":
            self.seen.headline = " ".join(self.words.split())
            self.within, self.done = None, True

    def handle_data(self, data: str) -> None:
        if self.within in ("badge", "h1"):
            self.words += data


def read_head(html: str) -> tuple[list[tuple[str, str]], str]:
    """Return the verdicts of a page, as (words, class of the badge), and its headline; empty where it has none."""
    reader = _Head()
    reader.feed(html)
    return reader.seen.verdicts, reader.seen.headline


def find_reports(folder: Path) -> list[Report]:
    """Return the reports in `folder`: its pages, and of each folder in it the index, or else every page.

    Those that a run always leaves come first, in the order in which one reads them; then others by name.
    """
    inner = [path for path in sorted(folder.glob("*")) if path.is_dir()]
    pages = [path for path in sorted(folder.glob("*.html")) if path.name != INDEX]
    for one in inner:
        pages += [one / INDEX] if (one / INDEX).is_file() else sorted(one.glob("*.html"))
    known = [folder / path.relative_to(artefacts.REPORTS) for path in FIRST]
    pages.sort(key=lambda path: known.index(path) if path in known else len(known))
    found = []
    for path in pages:
        with suppress(FileNotFoundError):  # DVC takes a page away before its stage runs again
            found.append(_report(path, folder))
    return found


def _report(path: Path, folder: Path) -> Report:
    inside = path.relative_to(folder)
    with path.open("rb") as page:
        verdicts, headline = read_head(page.read(HEAD).decode("utf-8", "replace"))
    here = artefacts.REPORTS / inside
    name = NAMES.get(here) or f"{FOLDERS.get(here.parent, '')} {path.stem}".strip()
    made = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    return Report(name, quote(inside.as_posix()), verdicts, headline, made)


def render_reports(reports: Sequence[Report]) -> str:
    """Return the index as HTML that loads nothing else."""
    return render_page("pages.html.j2", "certificate.css", folder=HERE, title="Reports", reports=reports, entries=[])


def render_folder(title: str, entries: Sequence[tuple[str, str]]) -> str:
    """Return the page of a folder without an index of its own; `entries` are (name, address)."""
    return render_page("pages.html.j2", "certificate.css", folder=HERE, title=title, reports=[], entries=entries)


class Handler(SimpleHTTPRequestHandler):
    """Files as they are; the index of reports at the top, and a plain list for other folders without an index."""

    def list_directory(self, path: str | os.PathLike[str]) -> io.BytesIO | None:
        """Answer with the page of a folder; called for folders without index.html."""
        folder, top = Path(path), Path(self.directory)
        try:
            if folder.resolve() == top.resolve():
                return self._page(render_reports(find_reports(folder)))
            inside = sorted(folder.iterdir(), key=lambda one: (one.is_file(), one.name))
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND, "This folder can't be read")
            return None
        entries = [(one.name + "/" * one.is_dir(), quote(one.name) + "/" * one.is_dir()) for one in inside]
        return self._page(render_folder(folder.relative_to(top).as_posix(), entries))

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Answer for the top even before there is a folder of reports, and for the icon that browsers ask for."""
        if self.path == "/favicon.ico":
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()
            return None
        if self.path.split("?", 1)[0] in ("/", f"/{INDEX}") and not Path(self.directory).is_dir():
            return self._page(render_reports([]))
        return super().send_head()

    def _page(self, html: str) -> io.BytesIO:
        content = html.encode("utf-8")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        return io.BytesIO(content)


def open_server(host: str, port: int, folder: Path) -> ThreadingHTTPServer:
    """Return a server of `folder` that listens but does not answer yet; UserError where it can't listen."""
    try:
        return ThreadingHTTPServer((host, port), partial(Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise UserError(f"Reports can't be served at {host}:{port} ({error}): choose another port.") from None


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="python -m flows.pages", description="The reports as pages.")
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1)")
    given = parser.parse_args()
    with open_server(given.host, given.port, artefacts.REPORTS.absolute()) as server:
        server.serve_forever()


if __name__ == "__main__":
    run(main)
