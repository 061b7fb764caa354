"""What tests of several rooms share."""

import os
import re
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NO_BROWSER = (
    "no browser was found: install Debian's chromium (apt-get install chromium), or name one in CHROMIUM, or run "
    "`playwright install chromium`"
)
FAST_LAYER = "not slow and not browser"  # what `make test-fast` gives -m
# A test that takes longer belongs to the slow ones: the fast layer is for every few minutes of work.
FAST_SECONDS = 1.5
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


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """A function of a name and of `make`: the folder that `make(folder)` filled, once for all processes of a run."""
    own = tmp_path_factory.getbasetemp()
    base = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "once"
    base.mkdir(exist_ok=True)

    def once(name, make):
        folder, whole = base / name, base / f"{name}.whole"
        with FileLock(base / f"{name}.lock"):
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return once


def pytest_terminal_summary(terminalreporter):
    """A line that says which tests found no browser, and after the fast layer one that says which were not fast."""
    without = [report.nodeid for report in terminalreporter.getreports("skipped") if NO_BROWSER in str(report.longrepr)]
    if without:
        terminalreporter.write_line(f"{len(without)} browser tests did not run ({without[0]} and so on): {NO_BROWSER}.")
    if terminalreporter.config.option.markexpr == FAST_LAYER:
        reports = [one for some in terminalreporter.stats.values() for one in some]
        if told := not_fast([one for one in reports if isinstance(one, pytest.TestReport)]):
            terminalreporter.write_line(told)


def not_fast(reports):
    """Return a line that names the tests that took over FAST_SECONDS, fixtures included, though not marked slow."""
    seconds = {}
    for report in reports:
        if not {"slow", "browser"} & set(report.keywords):
            seconds[report.nodeid] = seconds.get(report.nodeid, 0) + report.duration
    slow = sorted(((taken, name) for name, taken in seconds.items() if taken > FAST_SECONDS), reverse=True)
    if not slow:
        return None
    listed = ", ".join(f"{name} ({taken:.1f} s)" for taken, name in slow)
    return f"{len(slow)} tests took over {FAST_SECONDS} s and are not marked slow: {listed}"


def pytest_ignore_collect(collection_path, config):
    """Whether a file is left alone: in the fast layer one whose tests are all slow, whose imports take seconds."""
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if is_test and config.option.markexpr == FAST_LAYER and all_slow(collection_path) else None


def all_slow(path):
    """Whether a file's `pytestmark` begins with the slow mark."""
    return re.search(r"^pytestmark = \[?\s*pytest\.mark\.slow\b", path.read_text(), re.MULTILINE) is not None


def pytest_collection_modifyitems(items):
    """The longest files first, then those with slow tests: begun last, one would leave the other processor idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def place(item):
        name = item.path.name
        return (LONGEST.index(name) if name in LONGEST else len(LONGEST), item.path not in slow)

    items.sort(key=place)
