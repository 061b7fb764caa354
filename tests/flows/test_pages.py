"""The page that lists the reports: each with its verdict and date, in a browser and by keyboard; text stays text."""

from __future__ import annotations

import os
import threading
from datetime import datetime

import httpx
import pytest

from flows.pages import find_reports, open_server, read_head
from plumbline.common.errors import UserError
from plumbline.pages.template import render_page

HELD = (
    '<!doctype html><html lang="en"><head><title>t</title><style>h1 { color: red; } .badge > b {}</style></head><body>'
    '<header><p class="stamp"><span class="badge hold">HOLD</span> <span class="badge reject">BY FORCE</span></p>'
    "<h1>small &lt;b&gt; waits\nfor more</h1></header><main><span class='badge pass'>passed</span><h1>x</h1></main>"
)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def reports(tmp_path):
    """A folder of reports, the leaderboard made at a known time."""
    folder = tmp_path / "reports"
    write(folder / "audit.html", HELD)
    write(folder / "leaderboard.html", HELD)
    write(folder / "validation" / "index.html", "<h1>Data validation</h1>")
    write(folder / "validation" / "offline.html", "")
    write(folder / "candidates" / "a&b <i>.html", "<h1>a&amp;b</h1>")
    write(folder / "drift" / "index.html", "no headline")
    write(folder / "drift" / "GATE" / "0001.html", "")
    os.utime(folder / "leaderboard.html", (1_700_000_000, 1_700_000_000))
    return folder


@pytest.fixture
def served(reports):
    with open_server("127.0.0.1", 0, reports) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_a_page_says_of_itself_is_read_from_its_head():
    assert read_head(HELD) == ([("HOLD", "hold"), ("BY FORCE", "reject")], "small <b> waits for more")
    validation = '<p class="stamp"><span class="badge badge-fail">stops here</span></p><h1>Data validation</h1>'
    assert read_head(validation) == ([("stops here", "fail")], "Data validation")
    assert read_head("<p>torn <span") == ([], "")


def test_a_page_of_ours_says_its_verdict_where_the_index_looks_for_it():
    page = render_page("label_conflicts.html.j2", "certificate.css", total=2, pairs=[])
    verdicts, headline = read_head(page)
    assert verdicts == [("2 to settle", "pass")]
    assert headline == "No picture has a copy under another label"


def test_reports_are_listed_in_the_order_in_which_one_reads_them(reports):
    found = find_reports(reports)
    assert [one.name for one in found] == ["Leaderboard", "Validation of the data", "Drift", "Audit", "Card of a&b <i>"]
    assert found[0].made == datetime.fromtimestamp(1_700_000_000).astimezone()
    assert found[0].verdicts[0] == ("HOLD", "hold")
    assert found[-1].address == "candidates/a%26b%20%3Ci%3E.html"


@pytest.mark.slow
def test_the_index_and_a_folder_are_pages_and_what_is_data_is_text(served):
    page = httpx.get(served)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "small &lt;b&gt; waits for more" in page.text
    assert "Card of a&amp;b &lt;i&gt;" in page.text
    assert "Directory listing" not in page.text
    assert httpx.get(f"{served}/leaderboard.html").text == HELD
    folder = httpx.get(f"{served}/candidates/")
    assert '<a href="a%26b%20%3Ci%3E.html">a&amp;b &lt;i&gt;.html</a>' in folder.text
    assert httpx.get(f"{served}/candidates/a%26b%20%3Ci%3E.html").status_code == 200
    assert httpx.head(served).headers["content-length"] == str(len(page.content))
    assert httpx.get(f"{served}/../params.yaml").status_code == 404
    assert httpx.get(f"{served}/favicon.ico").status_code == 204, "asked for by browsers, whatever a page says"


def test_before_the_first_run_the_index_says_what_makes_reports(tmp_path):
    with open_server("127.0.0.1", 0, tmp_path / "reports") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = httpx.get(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
    assert page.status_code == 200
    assert "No report yet" in page.text


def test_a_port_that_is_taken_is_a_sentence(served, tmp_path):
    with pytest.raises(UserError, match=r"can't be served at 127\.0\.0\.1:\d+ .*choose another port"):
        open_server("127.0.0.1", int(served.rpartition(":")[2]), tmp_path)


@pytest.mark.browser
@pytest.mark.parametrize("look", [{"width": 1280, "height": 900}, {"width": 360, "height": 740}], ids=["desk", "phone"])
def test_in_a_browser(chromium, served, look):
    from axe_playwright_python.sync_playwright import Axe

    context = chromium.new_context(viewport=look)
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: errors.append(line.text))
    page.goto(served)
    assert [url for url in asked if not url.startswith((f"{served}/", "data:"))] == []
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/#list")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Leaderboard"
    if folder := os.environ.get("PLUMBLINE_SCREENS"):
        page.screenshot(path=f"{folder}/reports-{look['width']}.png", full_page=True)
    page.keyboard.press("Enter")
    page.wait_for_url("**/leaderboard.html")
    assert errors == []
    context.close()
