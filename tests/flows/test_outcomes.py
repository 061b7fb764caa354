"""What a failed stage said decides whether it is tried again."""

import pytest

from flows.outcomes import Passing, StageFailed, failure, percent

DVC_END = ["ERROR: failed to reproduce 'train@x': failed to run: python -m stages.train x, exited with 1"]


@pytest.mark.parametrize(
    ("lines", "kind", "sentence"),
    [
        (["error: data/a.jpg is empty: remove it.", *DVC_END], StageFailed, "x: data/a.jpg is empty: remove it."),
        (
            ["Traceback (most recent call last):", "requests.exceptions.ConnectionError: no", *DVC_END],
            Passing,
            "x: requests.exceptions.ConnectionError: no",
        ),
        (["ValueError: shapes differ", *DVC_END], StageFailed, "x: ValueError: shapes differ"),
        (
            ["ERROR: failed to push data to the cloud - 3 files failed to upload"],
            Passing,
            "x: failed to push data to the cloud - 3 files failed to upload",
        ),
        (["mlflow: sqlite3.OperationalError: database is locked", *DVC_END], Passing, None),
        (["ERROR: failed to reproduce 'x': 'build' is busy, it is being blocked by:"], Passing, None),
        (
            ["ERROR: failed to reproduce 'x': failed to run: python -m stages.train x, exited with -9"],
            Passing,
            None,
        ),
        (
            ["ERROR: failed to reproduce 'x': [Errno 2] No such file or directory: 'build/features/y'"],
            StageFailed,
            "x: [Errno 2] No such file or directory: 'build/features/y'",
        ),
        ([], StageFailed, "x: ended with exit code 1; its log has no error line"),
    ],
)
def test_why_a_stage_failed(lines, kind, sentence):
    found = failure("x", 1, lines)
    assert type(found) is kind
    if sentence:
        assert str(found) == sentence


@pytest.mark.parametrize(
    ("line", "figure"),
    [
        ("features:  45%|####      | 45/100 [00:10<00:12, 4.5image/s]", 45),
        ("100%|##########| 3/3", 100),
        ("  0%|          | 0/3", 0),
        ("accuracy rose by 45% in all", None),
        ("epoch 3", None),
    ],
)
def test_a_bar_says_how_far(line, figure):
    assert percent(line) == figure
