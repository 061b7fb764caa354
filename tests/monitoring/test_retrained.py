"""Before and after a retraining, on a site's pictures that the new champion did not train on."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import CLASSES, PARAMS, Site, promote, write_version
from test_judge import reference

from monitoring import drift
from monitoring.retrained import Judged, before_and_after, sign_test
from plumbline.common.files import write_table
from plumbline.registry import bundle
from plumbline.tasks.known import SEVERAL_LABELS


def known(images=20):
    """A reference of which the first three are wrong, with ids 0, 1, ..."""
    made = reference(images)
    return replace(made, ids=tuple(map(str, range(images))), champion={"version": 3})


def said_of(numbers, wrong, version=1):
    labels = np.array(CLASSES)[known().labels]
    said = [CLASSES[1 - CLASSES.index(labels[n])] if n in wrong else labels[n] for n in numbers]
    return Judged(version, pd.Series(said, index=[str(n) for n in numbers], dtype=object))


def test_both_are_counted_on_the_same_pictures_and_nothing_else_counts():
    found = before_and_after([said_of(range(2, 12), {4, 5, 6, 7})], known())
    assert (found["images"], found["before"], found["after"]) == (10, 6, 9)
    assert found["p"] == pytest.approx(sign_test_by_hand(4, 1))
    assert (
        "labelled by now and that version 3 did not train on, version 1 had been right on 6, version 3" in found["said"]
    )


def sign_test_by_hand(better, worse):
    from math import comb

    n = better + worse
    return min(1.0, 2 * sum(comb(n, k) for k in range(max(better, worse), n + 1)) / 2**n)


def test_of_a_picture_that_two_champions_judged_the_later_word_counts():
    found = before_and_after([said_of([5, 6], {5, 6}), said_of([6, 7], set(), version=2)], known())
    assert (found["versions"], found["images"], found["before"]) == ([1, 2], 3, 2)
    assert "versions 1 and 2 had been" in found["said"]


def test_what_nobody_labelled_or_the_champion_trained_on_is_left_out():
    assert before_and_after([], known()) is None
    stranger = Judged(1, pd.Series([CLASSES[0]], index=["trained on"], dtype=object))
    assert before_and_after([stranger], known()) is None
    assert before_and_after([said_of([5], set())], replace(known(), task=SEVERAL_LABELS)) is None


def test_frames_of_one_photograph_are_one_sign():
    before, after = np.zeros(6, bool), np.array([1, 1, 1, 1, 1, 0], bool)
    assert sign_test(before, after, np.array([0, 0, 0, 0, 0, 1])) == 1.0, "one group got better, one stayed"
    assert sign_test(before, after, np.arange(6)) == pytest.approx(2 / 2**5)
    assert sign_test(before, before, np.arange(6)) == 1.0


@pytest.mark.slow
def test_once_labels_came_back_and_a_new_champion_stands_the_page_says_before_and_after(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    Path("params.yaml").write_text(PARAMS)
    write_version(tmp_path / "first")
    promote(tmp_path / "first")
    site = Site(tmp_path)
    site.send_many("GATE", 10_000, 60)
    monkeypatch.setattr(sys, "argv", ["drift", "GATE"])
    assert drift.main() == 0
    assert "Before and after" not in capsys.readouterr().out
    seen = pd.read_parquet("drift/GATE/windows/0001/images.parquet")
    # The next version's reference holds twelve of them, of which the first champion is told to have missed five.
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    for path in (tmp_path / "second").glob("*.json"):
        path.unlink()  # what sealed the first
    images = tmp_path / "second" / bundle.HOME / "reference" / "images.parquet"
    table = pd.read_parquet(images)
    best = table[[f"p_{name}" for name in CLASSES]].to_numpy().argmax(axis=1)
    table["label"] = np.array(CLASSES)[best]
    agree, differ = np.flatnonzero(best[:60] == 0)[:7], np.flatnonzero(best[:60] == 1)[:5]
    ours = seen[seen["predicted"] == CLASSES[0]]["id"].to_numpy()
    table.loc[[*agree, *differ], "id"] = ours[:12]
    write_table(images, table)
    promote(tmp_path / "second")
    assert drift.main() in (0, 3)
    said = "version 2 did not train on, version 1 had been right on 7, version 2 is right on 12"
    assert said in capsys.readouterr().out
    assert said in Path("reports/drift/index.html").read_text()
