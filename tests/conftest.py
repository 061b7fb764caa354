"""What tests of several rooms share."""

import os
import shutil
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NO_BROWSER = (
    "no browser was found: install Debian's chromium (apt-get install chromium), or name one in CHROMIUM, or run "
    "`playwright install chromium`"
)
# Files that take minutes, the longest first.
LONGEST = (
    "test_pipeline.py",
    "test_train.py",
    "test_served.py",
    "test_deployed.py",
    "test_promote_faults.py",
    "test_promote_kinds.py",
)


def find_browser() -> str | None:
    """$CHROMIUM, then the browsers by name on PATH, then playwright's own; None where there is none."""
    named = os.environ.get("CHROMIUM")
    if named:
        return named if Path(named).is_file() else shutil.which(named)
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        own = engine.chromium.executable_path
    return own if Path(own).is_file() else None


@pytest.fixture(scope="module")
def chromium():
    """A Chromium browser, through playwright."""
    from playwright.sync_api import sync_playwright

    path = find_browser()
    if path is None:
        pytest.skip(NO_BROWSER)
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def pytest_terminal_summary(terminalreporter):
    """One line that says which tests found no browser."""
    without = [report.nodeid for report in terminalreporter.getreports("skipped") if NO_BROWSER in str(report.longrepr)]
    if without:
        terminalreporter.write_line(f"{len(without)} browser tests did not run ({without[0]} and so on): {NO_BROWSER}.")


def pytest_collection_modifyitems(items):
    """The longest files first, then those with slow tests: begun last, one would leave the other processor idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def place(item):
        name = item.path.name
        return (LONGEST.index(name) if name in LONGEST else len(LONGEST), item.path not in slow)

    items.sort(key=place)
