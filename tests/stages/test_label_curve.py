"""The label-efficiency curve on the leaderboard page: one line for candidates that differ in their labels alone."""

import json
import re

import pytest
from fabricated import write_project

from stages import evaluate, gate, leaderboard, race


def with_settings(root, name, **settings):
    file = root / "build" / "candidates" / name / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"settings": settings}))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, {"plain_10": 1.0, "started_10": 2.0, "plain": 3.0, "started": 3.2, "other": 3.0})
    return tmp_path


def page_of(root):
    evaluate.main()
    race.main()
    gate.main()
    leaderboard.main()
    return (root / "reports" / "leaderboard.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_line_for_each_way_of_training(project):
    for name, labels in (("plain_10", 0.1), ("plain", 1.0)):
        with_settings(project, name, epochs=3, start=None, labels=labels)
    for name, labels in (("started_10", 0.1), ("started", 1.0)):
        with_settings(project, name, epochs=3, start={"method": "simsiam"}, labels=labels)
    with_settings(project, "other", epochs=9, start=None, labels=1.0)
    page = page_of(project)
    section = page.split('<h2 id="labels">')[1].split("</section>")[0]
    assert section.count("<svg") == 1
    assert re.findall(r"<li class=\"s\d\">(\w+)</li>", section) == ["plain", "started"]
    figures = json.loads((project / "build/evaluation.json").read_text())["candidates"]
    for name in ("plain_10", "plain", "started_10", "started"):
        assert f"{figures[name]['splits']['test']['scores']['accuracy']['value']:.3f} (" in section
    assert "with 10%" in section
    assert "other" not in section


@pytest.mark.slow
def test_without_shares_there_is_no_such_section(project):
    assert 'id="labels"' not in page_of(project)
