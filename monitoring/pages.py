"""reports/drift/index.html: every site with its verdict, its trends, and its images furthest from the reference.

Of more than INLINE sites the index is a table of verdicts, and each site has a page of its own, SITE/index.html, that
is drawn when the site was judged: a run that judges one site draws one, however many there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from monitoring.acceptance import Statement
from monitoring.accuracy import checked_later
from monitoring.collect import FetchError, Source
from monitoring.labelled import labelled_site, labels_by_id
from monitoring.result import Furthest, LabelledSite, Result
from monitoring.settings import INDEX, wrong_name
from monitoring.site_state import NEW, SiteState
from monitoring.words import in_units
from plumbline.common import artefacts
from plumbline.common.files import write_text
from plumbline.imaging.decode import DecodeError, decode
from plumbline.pages import leaderboard
from plumbline.pages.charts import Line, line_chart
from plumbline.pages.leaderboard import THUMBNAIL
from plumbline.pages.template import data_uri, jpeg_uri, render_page

if TYPE_CHECKING:
    import pandas as pd

HERE = Path(__file__).parent
BADGES = {"OK": "promote", "WATCH": "hold", "DRIFT": "reject", "NOT ENOUGH IMAGES": "few"}
TREND = 60  # windows in the charts
LISTED = 12  # windows in the table
INLINE = 12  # sites whose whole findings fit on the index
NAMED = 3  # sites that the headline names


@dataclass(frozen=True)
class Chart:
    """A trend over a site's windows: title, drawing, caption."""

    title: str
    svg: Markup
    words: str


@dataclass(frozen=True)
class Panel:
    """What the page shows of one site: its last window, what has waited since, earlier windows, charts.

    labelled: what labels of pictures drawn at random say by now; accepted: by window what was said of those that are
    accepted.
    """

    site: str
    now: Result
    waiting: Result | None
    last: Result | None
    rows: list[Result]
    older: int
    checked: dict[str, float] | None
    labelled: LabelledSite | None
    charts: list[Chart]
    furthest: list[Furthest]
    quarantined: list[dict[Hashable, str]]
    quarantine_count: int
    accepted: dict[str, Statement]


@dataclass(frozen=True)
class Row:
    """A site in the index of many: its newest result, the address of its page."""

    site: str
    now: Result
    page: str


def write_index(
    reports: Path,
    state: Path,
    sites: list[str],
    note: str = "",
    manifest: Path = artefacts.MANIFEST.path,
    judged: list[str] | None = None,
) -> None:
    """Write the index page from the state on disk; `note` says why there is nothing to show.

    `manifest` is the present labelled data, against which earlier estimates are checked. Where sites have pages of
    their own, those of `judged` (None: of all) and those that are not there are written.
    """
    found = known_sites(state)
    known = [*sites, *sorted(found - set(sites))]
    shown = [name for name in known if name in found]
    never, labels = [name for name in sites if name not in found], labels_by_id(manifest)
    if len(shown) <= INLINE:
        panels = [panel(SiteState(state, name), labels, reports / name, f"{name}/") for name in shown]
        write_text(reports / INDEX, render_index(panels, never, note))
        return
    for name in shown:
        page = reports / name / INDEX
        if judged is None or name in judged or not page.is_file():
            write_text(page, render_site(panel(SiteState(state, name), labels, page.parent, "")))
    rows = [Row(name, newest_result(SiteState(state, name)), quote(f"{name}/{INDEX}")) for name in shown]
    write_text(reports / INDEX, render_overview(rows, never, note))


def known_sites(state: Path) -> set[str]:
    """Return the sites that have a window, or images that wait for one."""
    found = {path.parent.name for name in ("windows", "waiting.json") for path in state.glob(f"*/{name}")}
    return {name for name in found if not wrong_name(name)}


def newest_result(state: SiteState) -> Result:
    """The result of a site's last window; of what waits for one where there is none yet."""
    names = state.windows()
    return now_of(state.result(names[-1]) if names else None, state.waiting())


def now_of(last: Result | None, waiting: Result | None) -> Result:
    """What counts of a site now: its last window, or what waits for the first."""
    found = last or waiting
    assert found is not None, "a site is shown where it has a window or waits for one"
    return found


def render_index(panels: list[Panel], never: list[str], note: str) -> str:
    """Return the page of a few sites as HTML that loads nothing else."""
    return _render("index.html.j2", panels=panels, never=never, note=note, **summed_up(panels, note))


def render_overview(rows: list[Row], never: list[str], note: str) -> str:
    """Return the table of many sites, the worst first, as HTML that loads nothing else."""
    ordered = sorted(rows, key=lambda row: (-_gravity(row.now["verdict"]), row.site))
    counts = Counter(row.now["verdict"] for row in rows)
    return _render("overview.html.j2", rows=ordered, counts=counts, never=never, note=note, **summed_up(rows, note))


def render_site(panel: Panel) -> str:
    """Return the page of one site among many."""
    return _render("site.html.j2", panel=panel, **summed_up([panel], ""))


def _render(template: str, **values: Any) -> str:
    filters: dict[str, Callable[..., Any]] = {
        "percent": leaderboard.percent,
        "number": leaderboard.number,
        "chance": leaderboard.chance,
        "badge": BADGES.get,
    }
    return render_page(template, "index.css", folder=HERE, filters=filters, **values)


def summed_up(sites: Sequence[Panel | Row], note: str) -> dict[str, str | None]:
    """Return the worst verdict of all, None without any, and the headline."""
    worst = max((one.now["verdict"] for one in sites), key=_gravity, default=None)
    return {"worst": worst, "headline": headline(sites, note)}


def headline(sites: Sequence[Panel | Row], note: str) -> str:
    """Return the overall state as one short sentence."""
    if note or not sites:
        return "Nothing was judged yet"
    drifted = [one.site for one in sites if one.now["verdict"] == "DRIFT"]
    watched = [one.site for one in sites if one.now["verdict"] == "WATCH"]
    if drifted:
        return f"{_named(drifted)} {'looks' if len(drifted) == 1 else 'look'} different"
    if watched:
        return f"{_named(watched)} {'wants' if len(watched) == 1 else 'want'} a look"
    if all(one.now["verdict"] == "NOT ENOUGH IMAGES" for one in sites):
        return "Too few new images to judge"
    return "No site looks different"


def _named(sites: list[str]) -> str:
    return " and ".join(sites) if len(sites) <= NAMED else f"{len(sites)} sites"


def _gravity(verdict: str) -> int:
    return ["NOT ENOUGH IMAGES", "OK", "WATCH", "DRIFT"].index(verdict)


def panel(state: SiteState, labels: pd.Series[str] | None, pages: Path, above: str) -> Panel:
    """Return what the page shows of one site.

    `labels` are those of the labelled data by image id, `pages` the folder of its windows' pages, which the page
    reaches by the address `above`.
    """
    names = state.windows()
    results = [state.result(name) for name in names[-TREND:]]
    waiting = state.waiting()
    last = results[-1] if results else None
    rows = [with_page(result, pages, above) for result in reversed(results[-LISTED:])]
    now = now_of(last, waiting)
    return Panel(
        site=state.site,
        now=now,
        waiting=waiting,
        last=last,
        rows=rows,
        older=len(names) - len(rows),
        checked=labelled_since(state, state.whole_windows(), labels),
        labelled=labelled_site(state, now["champion"].get("digest"), labels),
        charts=charts(results) if len(results) > 1 else [],
        furthest=[_with_pictures(one) for one in (last.get("furthest", []) if last else [])],
        quarantined=state.quarantine()[["path", "reason"]].head(20).to_dict("records"),
        quarantine_count=len(state.quarantine()),
        accepted=state.accepted(),
    )


def with_page(result: Result, pages: Path, above: str) -> Result:
    """Return a window's result with the address of its page, None where the page is gone."""
    name = f"{result['window']}.html"
    return {**result, "page": quote(f"{above}{name}") if (pages / name).is_file() else None}


def labelled_since(state: SiteState, windows: list[str], labels: pd.Series[str] | None) -> dict[str, float] | None:
    """Return the champion's accuracy on images of `windows` that are labelled by now, None without any."""
    import pandas as pd

    if labels is None or not windows:
        return None
    parts = [state.images(name, ["id", "status", "predicted", "confidence"]) for name in windows[-TREND:]]
    images = pd.concat(parts)
    images = images[(images["status"] == NEW) & images["id"].isin(labels.index)]
    # Of an image that two champions judged the later judgement counts.
    images = images.drop_duplicates("id", keep="last")
    if images.empty:
        return None
    right = images["predicted"].to_numpy() == labels.loc[images["id"]].to_numpy()
    return checked_later(images["confidence"].to_numpy(np.float64), right)


def _with_pictures(one: Furthest) -> Furthest:
    stored = one["nearest_picture"]
    data = jpeg_uri(bytes.fromhex(stored)) if stored else None
    return {**one, "nearest_picture": data}


def charts(results: list[Result]) -> list[Chart]:
    """Return the charts of a site's trends over its windows."""
    numbers = [float(result["window"] or 0) for result in results]
    level = results[-1]["level"]
    smallest = [-np.log10(min((test["adjusted"] for test in result["tests"]), default=1.0)) for result in results]
    far = [float(result["far_share"] or 0.0) for result in results]
    drawn = [
        Chart(
            title="Evidence of drift",
            svg=line_chart(
                [
                    Line("evidence", numbers, smallest),
                    Line("level", [numbers[0], numbers[-1]], [-np.log10(level)] * 2, "faint"),
                ],
                "window",
                "−log10 of the smallest corrected p",
                f"Evidence of drift over {len(results)} windows, last {smallest[-1]:.1f}; "
                f"DRIFT from {-np.log10(level):.1f}",
            ),
            words="the dotted line is where DRIFT begins",
        ),
        Chart(
            title="Images far from the reference",
            svg=line_chart(
                [Line("far", numbers, far, "s2")],
                "window",
                "share further than 99% of it",
                f"Share of images far from the reference over {len(results)} windows, last {far[-1]:.2f}",
            ),
            words="1% where nothing has changed",
        ),
    ]
    drawn += changed(numbers, results)
    known = [
        (number, result["accuracy"]["value"])
        for number, result in zip(numbers, results, strict=True)
        if result["accuracy"]
    ]
    if len(known) > 1:
        drawn.append(
            Chart(
                title="Expected accuracy",
                svg=line_chart(
                    [Line("expected accuracy", [x for x, _ in known], [y for _, y in known], "s3")],
                    "window",
                    "expected accuracy",
                    f"Expected accuracy over {len(known)} windows, last {known[-1][1]:.2f}",
                    y_range=(0.0, 1.0),
                ),
                words="from confidence alone: a warning light, not a measurement",
            )
        )
    return drawn


def changed(numbers: list[float], results: list[Result]) -> list[Chart]:
    """Return a chart of the figure that changed most clearly over the windows, none where none did."""
    figures = results[-1]["over_time"]["figures"] if "over_time" in results[-1] else []
    shown = sorted((one for one in figures if one["shown"]), key=lambda one: min(one["trend_p"], one["change_p"]))
    if not shown:
        return []
    one, (unit,) = shown[0], in_units(shown[0]["name"])
    medians = [
        (number, test["window"]["median"])
        for number, result in zip(numbers, results, strict=True)
        for test in result["tests"]
        if test["name"] == one["name"] and test["window"]
    ]
    kind = f"changed with window {one['window']}" if one["shown"] == "change" else "has a trend"
    svg = line_chart(
        [Line(one["name"], [x for x, _ in medians], [y for _, y in medians], "s3")],
        "window",
        f"{one['name']}, median",
        f"Median {one['name']} over {len(medians)} windows, last {medians[-1][1]:.3g}: it {kind}",
    )
    return [Chart(title=f"What changed: {unit}", svg=svg, words=f"each window's median; it {kind}")]


def picture_of(source: Source, path: str, max_pixels: int) -> str | None:
    """Return a small picture of a site's image as a data address, None where it is gone."""
    try:
        return data_uri(decode(source.read(path), max_pixels), THUMBNAIL)
    except (FetchError, DecodeError):
        return None
