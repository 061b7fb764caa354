"""What Prefect's pages are given to show."""

import subprocess
import sys
from pathlib import Path

import pytest
from recorded import certificate_json

from flows import keeper, report
from plumbline.evidence.records import Decision, LeaderboardRow
from plumbline.leakage.records import Certificate

CERTIFICATE = certificate_json(
    set_aside=[{"path": "a.jpg", "reason": "labelled twice"}],
    price_sentence="A random split would have claimed 0.9; honest is 0.8.",
)


def test_the_certificate_in_words():
    assert report.certificate_text(Certificate(**CERTIFICATE)).splitlines() == [
        *("# No pair of copies on two sides", "", "| side | images | groups | share |", "| --- | --- | --- | --- |"),
        *("| train | 8 | 6 | 80% |", "| test | 2 | 1 | 20% |", "", "- Set aside, on no side: 1 images"),
        *("- Embedding neighbours: looked up", "- A random split would have claimed 0.9; honest is 0.8."),
    ]


def test_the_leaderboard_in_rows():
    accuracy = {split: {"accuracy": 0.95} for split in ("train", "validation", "test")}
    between = {split: {"accuracy": [0.9, 1.0]} for split in accuracy}
    row = {"candidate": "x", "parameters": 12345, "weights": "imagenet", "metrics": accuracy, "intervals": between}
    row["trainable_parameters"] = 5
    better = {**row, "candidate": "z", "metrics": {split: {"accuracy": 0.96} for split in accuracy}}
    worse = {**row, "candidate": "w", "metrics": {split: {"accuracy": 0.94} for split in accuracy}}
    tied = {**better, "candidate": "a"}
    chosen, *others, failed = report.leaderboard_table(
        [LeaderboardRow(**one) for one in (worse, better, tied, row)], "x", ["y"]
    )
    assert [other["candidate"] for other in others] == ["a", "z", "w"]
    assert list(chosen.values()) == ["x (chosen)", *["95.0% (90.0% to 100.0%)"] * 3, "12,345", "imagenet"]
    assert list(failed.values()) == ["y (failed)", *["–"] * 5]


def test_figures_of_a_decision():
    rules = [
        {"name": name, "value": value, "bound": bound, "passed": passed, "reason": "so\nit is"}
        for name, value, bound, passed in (
            ("one", None, 100.0, True),
            ("two", 0.23361, 0.85, False),
            ("3", 5, 50000, True),
        )
    ]
    text = report.decision_text(Decision(verdict="HOLD", candidate="x", reason="Why.", rules=rules))
    assert text.splitlines()[6:] == [
        "| one | – | 100 | passed |",
        "| two | 0.234 | 0.85 | **failed** |",
        "| 3 | 5 | 50,000 | passed |",
        *("", "**Failed**", "", "- two: so it is"),
        *("", "**Passed**", "", "- one: so it is", "- 3: so it is"),
    ]


def test_a_decision_that_was_overruled_says_so():
    decision = Decision(verdict="HOLD", candidate="x", reason="Why.", rules=[])
    assert "**Promoted by force: two\u00a0words**".replace("\u00a0", " ") in report.decision_text(
        decision, "Promoted by force: two\nwords"
    )


def test_a_page_that_nobody_serves_is_no_link(tmp_path, monkeypatch):
    page = tmp_path / "reports" / "drift" / "index.html"
    monkeypatch.delenv("PLUMBLINE_REPORTS_URL", raising=False)
    assert report.link("drift", page, tmp_path) == f"drift: `{page}`"
    monkeypatch.setenv("PLUMBLINE_REPORTS_URL", "http://127.0.0.1:4201/")
    assert report.link("drift", page, tmp_path) == "[drift](http://127.0.0.1:4201/drift/index.html)"


@pytest.mark.slow
def test_a_run_started_by_hand_beats_often_enough_for_the_keeper():
    """Prefect's own 180 s would have a healthy run declared dead after 90 s."""
    ask = (
        "import flows.training; from prefect.settings import get_current_settings as s; "
        "print(s().flows.heartbeat_frequency)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", ask], cwd=root, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 3 <= keeper.SILENCE.total_seconds()
