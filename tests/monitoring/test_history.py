"""Evidently's report and workspace say what we say, once a window; the index page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import sys
from itertools import pairwise

import pytest
from made_up import CLASSES, picture

from monitoring import drift, pages
from monitoring.history import share_of
from monitoring.pages import render_index


@pytest.fixture(scope="module")
def judged(registered, tmp_path_factory):
    """A project in which one site is as ever, in two windows, and one has drifted."""
    root = tmp_path_factory.mktemp("judged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registered}/registry/mlflow.db")
        from made_up import PARAMS, Site

        (root / "params.yaml").write_text(PARAMS)
        site = Site(root)
        site.send_many("GATE", 10_000, 60)
        site.send_many("YARD", 20_000, 60, dark=0.4)
        site.send("YARD", "a_name_that_is_far_too_long_to_fit_into_a_narrow_column/torn.jpg", picture(1, 0)[:200])
        patch.setattr(sys, "argv", ["drift", "--every-site", "--record", "build/drift.json"])
        assert drift.main() == 0
        site.send_many("GATE", 30_000, 60)
        assert drift.main() == 0
    return root


@pytest.mark.slow
def test_evidently_draws_each_window_once_and_carries_our_verdict(judged, registered, monkeypatch):
    from evidently.ui.workspace import Workspace

    monkeypatch.chdir(judged)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registered}/registry/mlflow.db")
    page = judged / "reports/drift/YARD/0001.html"
    assert "DRIFT: " in page.read_text()
    workspace = Workspace("drift/evidently")
    projects = {project.name: project for project in workspace.list_projects()}
    assert sorted(projects) == ["GATE", "YARD"]
    assert [len(workspace.list_runs(projects[name].id)) for name in ("GATE", "YARD")] == [2, 1]
    run = workspace.get_run(projects["YARD"].id, workspace.list_runs(projects["YARD"].id)[0])
    assert (run.tags, run.name) == (["DRIFT"], "YARD 0001")
    tests = [test for widget in run.tests_widgets for test in widget.params.get("tests", [])]
    assert [test["state"] for test in tests if "darker" in test["description"]] == ["fail"]
    # What a killed run did not draw is drawn by the next, over what it may have begun; what is there is left alone.
    before = (judged / "reports/drift/GATE/0001.html").stat().st_mtime_ns
    page.unlink()
    monkeypatch.setattr(sys, "argv", ["drift", "YARD"])
    assert drift.main() == 2
    assert page.is_file()
    assert len(workspace.list_runs(projects["YARD"].id)) == 1
    assert (judged / "reports/drift/GATE/0001.html").stat().st_mtime_ns == before


@pytest.fixture
def opened(chromium, judged):
    """A function that opens the index page at some width, light or dark."""
    contexts = []

    def open_page(width: int = 1280, scheme: str = "light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto((judged / "reports/drift/index.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.browser
@pytest.mark.slow
def test_the_page_says_the_verdict_first_and_asks_for_nothing(opened):
    page = opened()
    assert page.locator("h1").inner_text() == "YARD looks different"
    assert page.locator("header .badge").first.inner_text() == "DRIFT"
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    assert page.complaints == []
    assert page.locator(".pairs img").count() == 32
    assert all(page.locator(".pairs img").evaluate_all("all => all.map(i => i.naturalWidth > 0 && !!i.alt)"))
    assert page.locator("svg[role=img]").count() == 3, "trends of the site with two windows"


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 375, 768, 1600])
def test_the_page_fits_and_reads_in_light_and_dark(opened, width):
    for scheme in ("light", "dark"):
        page = opened(width, scheme)
        page.locator("details").evaluate_all("all => all.forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "no sideways scrolling"
        colours = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        assert contrast(*colours) >= 7


@pytest.fixture
def many(judged, registered, tmp_path, monkeypatch):
    """A project with one site more than fits on the index, as `plumbline drift GATE` leaves it, and that command."""
    from made_up import PARAMS

    root = shutil.copytree(judged, tmp_path / "many")
    twins = [f"GATE_{number:02d}" for number in range(pages.INLINE - 1)]
    for name in twins:
        shutil.copytree(root / "drift/GATE", root / "drift" / name)
    (root / "params.yaml").write_text(PARAMS.replace("sites: {", "sites: {NEVER: {timezone: UTC}, "))
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registered}/registry/mlflow.db")
    monkeypatch.setattr(sys, "argv", ["drift", "GATE"])
    assert drift.main() == 2, "nothing new"
    return root / "reports/drift"


@pytest.mark.slow
def test_of_many_sites_the_index_is_a_table_and_only_judged_sites_are_drawn(many):
    index = (many / "index.html").read_text()
    linked = re.findall(r'<a href="([A-Z_0-9]+/index.html)">', index)
    assert len(linked) == pages.INLINE + 1
    assert linked[0] == "YARD/index.html", "worst first"
    assert all((many / one).is_file() for one in linked)
    assert "data:image" not in index
    assert "No image was looked at yet: NEVER" in index
    for name in ("YARD", "GATE"):
        (many / name / "index.html").write_text("as it was")
    drift.main()
    assert (many / "YARD/index.html").read_text() == "as it was"
    assert "Furthest from what is known" in (many / "GATE/index.html").read_text()
    (many / "YARD/index.html").unlink()
    drift.main()
    assert (many / "YARD/index.html").is_file(), "what is missing is drawn"


@pytest.mark.browser
@pytest.mark.slow
def test_from_the_table_a_person_gets_to_a_site_and_to_its_windows_and_back(chromium, many):
    page = chromium.new_page()
    page.goto((many / "index.html").as_uri())
    assert page.locator("h1").inner_text() == "YARD looks different"
    for width in (320, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "no sideways scrolling"
    page.get_by_role("link", name="GATE", exact=True).click()
    assert page.locator("h1").inner_text() == "No site looks different"
    page.locator("details").evaluate_all("all => all.forEach(d => d.open = true)")
    assert page.locator("section.site").count() == 1
    window = page.get_by_role("link", name="0002").get_attribute("href")
    assert (many / "GATE" / window).is_file()
    page.get_by_role("link", name="every site").click()
    assert page.locator("h1").inner_text() == "YARD looks different"
    page.close()


@pytest.mark.parametrize(
    ("keep", "most", "sites", "kept"),
    [(60, 1000, 1, 60), (60, 1000, 16, 60), (60, 1000, 20, 50), (60, 1000, 5000, 1), (60, None, 5000, 60),
     (None, 1000, 20, 50), (None, None, 20, None), (0, 1000, 20, 0)],
)  # fmt: skip
def test_of_many_sites_each_keeps_its_share_and_the_newest_at_least(keep, most, sites, kept):
    assert share_of(keep, most, sites) == kept


def test_a_headline_counts_sites_where_it_would_name_too_many():
    def drifted(*names):
        return [pages.Row(name, {"verdict": "DRIFT"}, "") for name in names]

    assert pages.headline(drifted("A", "B", "C"), "") == "A and B and C look different"
    assert pages.headline(drifted("A", "B", "C", "D"), "") == "4 sites look different"


def contrast(ink: str, paper: str) -> float:
    """WCAG 2 contrast ratio of two `rgb(...)` colours."""

    def luminance(colour: str) -> float:
        parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.browser
@pytest.mark.slow
def test_links_lead_somewhere_and_the_keyboard_reaches_them(opened, judged):
    page = opened()
    page.locator("details").evaluate_all("all => all.forEach(d => d.open = true)")
    links = page.locator("a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    for link in links:
        if link.startswith("#"):
            assert page.locator(f"[id='{link[1:]}']").count() == 1, link
        else:
            assert (judged / "reports/drift" / link).is_file(), link
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_names_are_escaped_and_nothing_judged_says_so():
    page = render_index([], ["<b>x</b>"], "Not judged: <none>")
    assert "&lt;b&gt;x" in page
    assert "Not judged: &lt;none&gt;" in page
    assert json.dumps(CLASSES) not in page


@pytest.mark.slow
def test_the_verdict_is_out_before_evidently_and_a_full_disk_there_is_said(judged, registered, monkeypatch, capsys):
    """Evidently's page has 4 MB: on a disk that takes 2 everything that anybody waits for is written all the same."""
    import resource

    from made_up import Site

    monkeypatch.chdir(judged)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registered}/registry/mlflow.db")
    Site(judged).send_many("GATE", 40_000, 60)
    index, page = judged / "reports/drift/index.html", judged / "reports/drift/GATE/0003.html"
    (judged / "build/drift.json").unlink()
    index.unlink()
    monkeypatch.setattr(sys, "argv", ["drift", "--every-site", "--record", "build/drift.json"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        with pytest.raises(SystemExit) as ended:
            drift.command()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ended.value.code == 3
    assert "error: reports/drift/GATE/0003.html can't be written (File too large)" in capsys.readouterr().err
    assert not page.exists()
    recorded = json.loads((judged / "build/drift.json").read_text())
    assert recorded["sites"]["GATE"]["window"] == "0003"
    assert "Window 0003" in index.read_text()
    assert drift.main() == 0
    assert page.is_file(), "the next run draws it"
    assert "GATE/0003.html" in index.read_text()


@pytest.mark.slow
def test_pages_and_snapshots_are_kept_by_parameter_and_a_damaged_project_is_made_anew(judged, registered, monkeypatch):
    from made_up import PARAMS

    from monitoring.history import snapshot_of
    from monitoring.site_state import SiteState

    monkeypatch.chdir(judged)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registered}/registry/mlflow.db")
    workspace, pages = judged / "drift/evidently", judged / "reports/drift/GATE"
    (pages / "notes.html").write_text("somebody's")
    snapshots = {name: snapshot_of(workspace, "GATE", name) for name in ("0001", "0002", "0003")}
    assert all(path.is_file() for path in snapshots.values())
    (snapshots["0001"].parents[1] / "metadata.json").write_text('{"id": "')
    (pages / "0003.html").unlink()
    kept = PARAMS.replace("drift: {", "drift: {keep_pages: 1, keep_snapshots: 2, ")
    (judged / "params.yaml").write_text(kept)
    monkeypatch.setattr(sys, "argv", ["drift", "GATE"])
    assert drift.main() == 2
    assert sorted(path.name for path in pages.iterdir()) == ["0003.html", "notes.html"]
    assert [name for name, path in snapshots.items() if path.is_file()] == ["0002", "0003"]
    assert SiteState(judged / "drift", "GATE").windows() == ["0001", "0002", "0003"], "what was judged stays"
    from evidently.ui.workspace import Workspace

    opened = Workspace("drift/evidently")
    assert sorted(project.name for project in opened.list_projects()) == ["GATE", "YARD"]
    before = (pages / "0003.html").stat().st_mtime_ns
    assert drift.main() == 2
    assert (pages / "0003.html").stat().st_mtime_ns == before, "what went is not drawn again"
