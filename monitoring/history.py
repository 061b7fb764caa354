"""Evidently: a report for each window, and a workspace in which `evidently ui` shows sites and their trends.

    evidently ui --workspace drift/evidently

The verdict exists already, and the report shows it: each column's drift score is our corrected p-value (an Evidently
statistical test named `plumbline`), and the first test of a report is our verdict with its reasons. A window with a
page is not drawn again; a page that a killed run did not write is drawn by the next run.
"""

from __future__ import annotations

import json
import sys
import uuid
import warnings
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from monitoring.reference import Reference, load_reference, measures_of
from monitoring.result import Result
from monitoring.settings import WORKSPACE, DriftParams
from monitoring.site_state import NEW, SiteState
from plumbline.common.errors import UserError, WriteError, first_line, no_room, writing
from plumbline.common.files import write_text
from plumbline.common.locks import held
from plumbline.registry import versions as registry

if TYPE_CHECKING:
    import pandas as pd

METHOD = "plumbline"
VERDICT = "verdict (0 OK, 1 WATCH, 2 DRIFT)"
SMALLEST = "smallest corrected p"
ACCURACY = "expected accuracy"
RANKS = {"OK": 0, "WATCH": 1, "DRIFT": 2}
HOME = uuid.UUID("5d0f7c1e-6a43-4f5e-9d5c-0b1f0c9a7e11")  # ids of projects and runs are derived from it

_adjusted: ContextVar[dict[str, float]] = ContextVar("adjusted")


def keep_history(state: SiteState, reports: Path, model: str, params: DriftParams, sites: int = 1) -> list[str]:
    """Draw the newest windows where they are not drawn yet, remove the old ones; return the names of those drawn.

    `params.keep_pages` windows keep their page, `params.keep_snapshots` their place in Evidently's workspace, but no
    more than this one's share where all `sites` together may keep `most_pages` and `most_snapshots`. A window that
    can't be drawn is named and stops nothing; a full disk is a WriteError, and the next run draws again.
    """
    workspace = params.state / WORKSPACE
    windows = state.whole_windows()
    pages = newest(windows, share_of(params.keep_pages, params.most_pages, sites))
    snapshots = newest(windows, share_of(params.keep_snapshots, params.most_snapshots, sites))
    drawn = []
    with held(params.state / ".evidently.lock", params.lock_timeout, "Evidently's pages are being drawn"):
        for window in windows:
            page = page_of(reports, state.site, window)
            there = snapshot_of(workspace, state.site, window).is_file()
            if not (window in pages and not page.is_file()) and not (window in snapshots and not there):
                continue
            result = state.result(window)
            try:
                reference = load_reference(registry.load_version(int(result["champion"]["version"]), model))
                if reference.champion["digest"] != result["champion"]["digest"]:
                    raise UserError("the registry holds another model under its number now.")
                draw(state, window, result, reference, workspace, page)
            except WriteError:
                raise
            except UserError as error:
                print(f"  {state.site} {window} has no page by Evidently: {error}")
            except Exception as error:  # a failure of the library must not touch the verdict
                if no_room(error):
                    raise
                why = f"{type(error).__name__}: {first_line(error)}"
                print(f"  {state.site} {window} could not be drawn by Evidently ({why})", file=sys.stderr)
            else:
                drawn.append(window)
        old = state.windows()
        for window in (name for name in old if name not in pages):
            page_of(reports, state.site, window).unlink(missing_ok=True)
        for window in (name for name in old if name not in snapshots):
            snapshot_of(workspace, state.site, window).unlink(missing_ok=True)
    return drawn


def share_of(keep: int | None, most: int | None, sites: int) -> int | None:
    """How many one of `sites` sites may keep, None for all: `keep`, or its share of `most`, if that is less."""
    if most is None:
        return keep
    share = max(1, most // max(1, sites))
    return share if keep is None else min(keep, share)


def newest(windows: list[str], most: int | None) -> set[str]:
    """The last `most` windows, all where None."""
    return set(windows if most is None else windows[len(windows) - min(most, len(windows)) :])


def page_of(reports: Path, site: str, window: str) -> Path:
    """The path of a window's page by Evidently."""
    return reports / site / f"{window}.html"


def snapshot_of(workspace: Path, site: str, window: str) -> Path:
    """The path of a window in Evidently's local workspace."""
    project = uuid.uuid5(HOME, site)
    return workspace / str(project) / "snapshots" / f"{uuid.uuid5(project, window)}.json"


def draw(state: SiteState, window: str, result: Result, reference: Reference, workspace: Path, page: Path) -> None:
    """Add a window to the workspace, under an id that a second try uses again, and write its page."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.legacy.utils import NumpyEncoder
    from evidently.metrics import MaxValue, ValueDrift
    from evidently.tests.numerical_tests import LessThanMetricTest

    _register()
    images = state.images(window)
    images = images[images["status"] == NEW]
    ours, theirs = columns_of(images, reference)
    adjusted = {test["name"]: float(test["adjusted"]) for test in result["tests"]}
    compared = sorted((name for name in theirs if name in adjusted), key=lambda name: adjusted[name])
    smallest, accuracy = min(adjusted.values(), default=1.0), (result["accuracy"] or {"value": 0.0})["value"]
    figures = {VERDICT: float(RANKS[result["verdict"]]), SMALLEST: smallest, ACCURACY: float(accuracy)}
    usual = {VERDICT: 0.0, SMALLEST: 1.0, ACCURACY: float(reference.right.mean())}
    # The short form `lt` drops the alias (0.7.23).
    said = f"{result['verdict']}: {'; '.join(result['reasons'])} (rests on {result['basis']})"
    metrics = [ValueDrift(column=name, method=METHOD, threshold=result["level"], tests=[]) for name in compared]
    metrics += [
        MaxValue(column=name, tests=[LessThanMetricTest(threshold=2, alias=said)] if name == VERDICT else [])
        for name in figures
    ]
    definition = DataDefinition(numerical_columns=[*compared, *figures])
    token = _adjusted.set(adjusted)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about future versions of pandas, NumPy and plotly
            done = Report(metrics, include_tests=True).run(
                Dataset.from_pandas(theirs[compared].assign(**figures), definition),
                Dataset.from_pandas(ours[compared].assign(**usual), definition),
                timestamp=datetime.fromisoformat(result["judged_at"]),
                metadata={"site": state.site, "window": window, "champion": str(result["champion"]["version"])},
                tags=[result["verdict"]],
                name=f"{state.site} {window}",
            )
            with writing(workspace):
                make_project(workspace, state.site)
            # As Evidently writes it, but atomically: a partial file would keep its workspace from opening.
            content = json.dumps(done.to_snapshot_model().dict(), cls=NumpyEncoder)
            write_text(snapshot_of(workspace, state.site, window), content)
            write_text(page, done.get_html_str(as_iframe=False))
    finally:
        _adjusted.reset(token)


def columns_of(images: pd.DataFrame, reference: Reference) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return descriptors and scores of reference and window, under the names of the tests."""
    known = reference.observations
    ours, theirs = known.measures.copy(), measures_of(images)
    ours["confidence"], theirs["confidence"] = known.probabilities.max(axis=1), images["confidence"].to_numpy()
    for place, name in enumerate(reference.classes):
        ours[f"score of {name}"] = known.probabilities[:, place]
        theirs[f"score of {name}"] = images[f"p_{name}"].to_numpy()
    shared = [name for name in theirs if name in ours]
    return ours[shared], theirs[shared]


def make_project(workspace: Path, site: str) -> None:
    """Create the site's project in the workspace where it is missing, or a killed run left only part of it."""
    project = uuid.uuid5(HOME, site)
    files = [workspace / str(project) / name for name in ("metadata.json", "dashboard.json")]
    if all(_is_whole(path) for path in files):
        return
    from evidently.sdk.models import PanelMetric, ProjectModel
    from evidently.sdk.panels import line_plot_panel
    from evidently.ui.workspace import Workspace

    for path in workspace.glob("*/**/*.json"):  # with any partial file Evidently opens nothing
        if not _is_whole(path):
            print(f"  {path} is damaged and removed: it is drawn again", file=sys.stderr)
            path.unlink()
    made = Workspace(str(workspace)).add_project(
        ProjectModel(id=project, name=site, description="Plumbline drift monitoring")
    )
    files[1].unlink(missing_ok=True)
    for title in (VERDICT, SMALLEST, ACCURACY):
        metric = PanelMetric(metric="MaxValue", legend=title, metric_labels={"column": title})
        made.dashboard.add_panel(line_plot_panel(title, [metric]))


def _is_whole(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return False


@cache
def _register() -> None:
    """Register our test with Evidently under its name."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    test = StatTest(METHOD, "p of permuted groups, corrected", [ColumnType.Numerical], 0.0025)
    register_stattest(test, lambda reference, current, kind, level: _looked_up(str(current.name), level))


def _looked_up(column: str, level: float) -> tuple[float, bool]:
    p = _adjusted.get()[column]
    return p, p <= level
