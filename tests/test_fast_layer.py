"""The fast layer imports no file whose tests are all slow, and names at its end what was not fast."""

from pathlib import Path

import pytest

from tests.conftest import FAST_LAYER, all_slow, not_fast

TOP = Path(__file__).parents[1]


def test_the_fast_layer_is_what_make_runs():
    assert f'pytest -m "{FAST_LAYER}"' in (TOP / "Makefile").read_text()


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("pytestmark = pytest.mark.slow\n", True),
        ("import os\npytestmark = [\n    pytest.mark.slow,\n    pytest.mark.timeout(9),\n]\n", True),
        ("pytestmark = pytest.mark.slower\n", False),
        ("@pytest.mark.slow\ndef test_one(): ...\n", False),
    ],
)
def test_a_file_is_left_alone_only_where_all_of_it_is_slow(text, whole, tmp_path):
    (tmp_path / "test_it.py").write_text(text)
    assert all_slow(tmp_path / "test_it.py") == whole


def report(name, when, duration, *marks):
    keywords = dict.fromkeys((name, *marks), 1)
    return pytest.TestReport(name, ("f.py", 1, name), keywords, "passed", None, when, duration=duration)


def test_tests_and_their_fixtures_over_the_bound_are_named_the_longest_first():
    reports = [
        report("f.py::quick", "setup", 0.7),
        report("f.py::quick", "call", 0.7),
        report("f.py::by_fixture", "setup", 1.4),
        report("f.py::by_fixture", "call", 0.3),
        report("f.py::by_itself", "call", 3.0),
        report("f.py::known", "call", 9.0, "slow"),
        report("f.py::drawn", "call", 9.0, "browser"),
    ]
    line = "2 tests took over 1.5 s and are not marked slow: f.py::by_itself (3.0 s), f.py::by_fixture (1.7 s)"
    assert not_fast(reports) == line
    assert not_fast(reports[:2]) is None
