"""Windows in the order of their numbers, old ones condensed with no count lost, one run at a time, sites' names."""

from __future__ import annotations

import hashlib
import multiprocessing
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from made_up import PARAMS

from monitoring import drift
from monitoring.settings import DriftParams, checked_site, site_names
from monitoring.site_state import LASTING, SiteState, in_number_order, unseen
from plumbline.common.errors import UserError
from plumbline.common.locks import held

CHAMPION = "c0ffee"


def images(window: int, count: int = 3) -> pd.DataFrame:
    names = [f"{window}-{k}.jpg" for k in range(count)]
    return pd.DataFrame(
        {
            "path": names,
            "listed": range(count),
            "stamp": "2026",
            "id": [f"id of {name}" for name in names],
            "pixels_sha256": [f"pixels of {name}" for name in names],
            "phash": pd.Series(range(count), dtype="uint64"),
            "key": [f"key of {name}" for name in names],
            "status": "new",
            "predicted": "with_helmet",
            "confidence": 0.9,
        }
    )


def result(window: int) -> dict:
    shown = {"path": f"{window}-0.jpg", "picture": "data:long", "nearest_picture": "ff"}
    return {"window": f"{window:04d}", "verdict": "OK", "champion": {"digest": CHAMPION}, "furthest": [shown]}


def state_with(root: Path, windows: list[int]) -> SiteState:
    state = SiteState(root, "GATE")
    for window in windows:
        state.close_window(f"{window:04d}", images(window), result(window))
    return state


def test_windows_come_in_the_order_of_their_numbers(tmp_path):
    state = state_with(tmp_path, [1, 9999, 10000])
    assert state.windows() == ["0001", "9999", "10000"]
    assert state.next_window() == "10001"
    state.close_window(state.next_window(), images(10001), result(10001))
    assert state.windows()[-2:] == ["10000", "10001"]
    assert list(state.images("10000")["path"]) == [f"10000-{k}.jpg" for k in range(3)]
    assert list(state.seen(CHAMPION)["path"])[-3:] == [f"10001-{k}.jpg" for k in range(3)]
    assert set(state.seen("another champion")["path"]) == {f"{w}-{k}.jpg" for w in (1, 9999, 10000) for k in range(3)}


def test_no_window_is_written_over_another(tmp_path):
    state = state_with(tmp_path, [1])
    (tmp_path / "GATE" / "windows" / "0002").mkdir()  # somebody's, or half restored from a backup
    (tmp_path / "GATE" / "windows" / "0002 (copy)").mkdir()
    assert state.next_window() == "0003"
    with pytest.raises(UserError, match=r"0001 is there already"):
        state.close_window("0001", images(1), result(1))


def test_names_that_are_numbers_are_ordered_as_numbers():
    assert in_number_order(["10", "9", "0011", "x", "²", "1 (copy)", ""]) == ["9", "10", "0011"]


def test_what_waits_is_never_written_over(tmp_path):
    """The number after the highest, not after the count: 9999 chunks or a gap among them."""
    state = SiteState(tmp_path, "GATE")
    for name in ("0001", "9999", "10000"):
        path = tmp_path / "GATE" / "pending" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    from numpy import zeros

    from monitoring.site_state import ARRAYS, MeasuredImages

    state.add_pending(MeasuredImages(images(1), {name: zeros((3, 2)) for name in ARRAYS}))
    assert (tmp_path / "GATE" / "pending" / "10001.parquet").is_file()
    assert (tmp_path / "GATE" / "pending" / "10000.parquet").read_text() == "10000"


def test_old_windows_keep_their_counts_and_hashes(tmp_path):
    state = state_with(tmp_path, list(range(1, 8)))
    before, bytes_of_first = state.seen(CHAMPION), (tmp_path / "GATE/windows/0001/images.parquet").read_bytes()
    assert state.retire(None) == []
    assert state.retire(3) == ["0001", "0002", "0003", "0004"]
    assert state.retire(3) == []
    assert state.windows() == [f"{k:04d}" for k in range(1, 8)], "every window is still one"
    assert state.whole_windows() == ["0005", "0006", "0007"]
    assert state.next_window() == "0008"
    after = state.seen(CHAMPION)
    assert sorted(after["id"]) == sorted(before["id"])
    assert unseen([], after) == []
    kept = state.result("0001")
    assert (kept["verdict"], kept["furthest"][0]["picture"], kept["retired"]["images"]) == ("OK", None, 3)
    assert kept["retired"]["images.parquet"] == {
        "sha256": hashlib.sha256(bytes_of_first).hexdigest(),
        "bytes": len(bytes_of_first),
    }
    counted = pd.read_parquet(tmp_path / "GATE/counted/0001.parquet")
    assert list(counted.columns) == [*LASTING, "window"]
    with pytest.raises(UserError, match=r"0001/images\.parquet is missing"):
        state.images("0001")


@pytest.mark.parametrize("step", ["write_json", "unlink"])
def test_a_run_killed_while_it_condenses_counts_nothing_twice(tmp_path, monkeypatch, step):
    state = state_with(tmp_path, [1, 2, 3])
    before = sorted(state.seen(CHAMPION)["id"])

    def die(*_args, **_how):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "unlink":
            patch.setattr(Path, "unlink", die)
        else:
            patch.setattr("monitoring.site_state.write_json", die)
        with pytest.raises(KeyboardInterrupt):
            state.retire(1)
    assert sorted(state.seen(CHAMPION)["id"]) == before
    assert state.retire(1) == ["0001", "0002"]
    assert sorted(state.seen(CHAMPION)["id"]) == before
    assert pd.read_parquet(tmp_path / "GATE/counted/0001.parquet")["id"].is_unique


def test_a_counted_file_stays_small_and_the_next_begins(tmp_path, monkeypatch):
    monkeypatch.setattr("monitoring.site_state.COUNTED_ROWS", 6)
    state = state_with(tmp_path, [9998, 9999, 10000, 10001, 10002])
    state.retire(1)
    names = sorted(path.name for path in (tmp_path / "GATE/counted").iterdir())
    assert names == ["10000.parquet", "9998.parquet"]
    assert len(state.seen(CHAMPION)) == 15


def test_a_window_closed_while_others_are_announced_is_announced_later(tmp_path):
    state = state_with(tmp_path, [9999])
    names = state.unannounced()
    state.close_window("10000", images(10000), result(10000))
    state.announced(names)
    assert state.unannounced() == ["10000"]


# ---------------------------------------------------------------------------------------------------------- locks


def _hold(lock: str, holding, release) -> None:
    with held(Path(lock), 0, "x"):
        holding.set()
        release.wait(60)


@pytest.fixture
def taken(tmp_path):
    """A site that another process holds; an event that makes it let go."""
    context = multiprocessing.get_context("spawn")
    holding, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path / "GATE" / ".lock"), holding, release))
    other.start()
    assert holding.wait(60)
    yield release
    release.set()
    other.join(60)


@pytest.mark.slow
def test_a_site_that_is_being_judged_is_waited_for_and_that_is_said(tmp_path, taken, capsys):
    late = pytest.raises(UserError, match=r"GATE is being judged by another run, which has held .*/\.lock for 0 s")
    with late, SiteState(tmp_path, "GATE").locked(0.2):
        pass
    assert "waiting for it, 0.2 seconds at most" in capsys.readouterr().err
    from threading import Timer

    Timer(0.5, taken.set).start()
    with SiteState(tmp_path, "GATE").locked(60):
        assert taken.is_set(), "went on once the other had let go"
    with SiteState(tmp_path, "GATE").locked(0):
        pass


# ---------------------------------------------------------------------------------------------------------- names

LEADING_OUT = ["", " ", ".", "..", "../..", "/etc", "a/b", "a\\b", "..\\..", "GATE/", " GATE", "G\nATE", "a::b", ".git"]
TAKEN = ["{{ x }}", "evidently", "Evidently", "index.html", "x" * 101]


@pytest.mark.slow
@pytest.mark.parametrize("name", LEADING_OUT + TAKEN)
def test_a_name_that_is_no_folders_name_is_refused_everywhere(project, monkeypatch, capsys, name):
    before = sorted(path for path in project.root.rglob("*"))
    outside = sorted(project.root.parent.iterdir())
    monkeypatch.setattr(sys, "argv", ["drift", name])
    with pytest.raises(SystemExit) as ended:
        drift.command()
    told = capsys.readouterr().err
    assert ended.value.code == 3
    assert "can't be a site's name" in told
    assert len(told.splitlines()) == 1
    for way_in in (lambda: SiteState(Path("drift"), name), lambda: DriftParams().source_of(name)):
        with pytest.raises(UserError, match="can't be a site's name"):
            way_in()
    with pytest.raises(ValueError, match="can't be a site's name"):
        DriftParams(sources={name: "s3://bucket"})
    sections = yaml.safe_load(PARAMS) | {"sites": {name: {"timezone": "UTC"}}}
    Path("params.yaml").write_text(yaml.safe_dump(sections))
    with pytest.raises(UserError, match=r"^params\.yaml, sites: .* can't be a site's name"):
        site_names()
    Path("params.yaml").write_text(PARAMS)
    assert sorted(path for path in project.root.rglob("*")) == before
    assert sorted(project.root.parent.iterdir()) == outside


@pytest.mark.parametrize("name", ["NO", "007", "Hall #3", "North: gate", "Tor Süd", "a.b", "门", "x[1]", "100%", "a?b"])
def test_a_plain_name_of_any_script_is_a_sites_name(name):
    assert checked_site(name) == name
    assert DriftParams().source_of(name) == f"incoming/{name}"


@pytest.mark.parametrize("sites", ["{NO: {timezone: UTC}}", "{007: {timezone: UTC}}", "{2026-01-01: {timezone: UTC}}"])
def test_a_name_that_yaml_takes_for_something_else_is_said(tmp_path, sites):
    (tmp_path / "params.yaml").write_text(f"sites: {sites}\n")
    with pytest.raises(UserError, match="write the name in quotes"):
        site_names(tmp_path / "params.yaml")


def test_two_names_for_one_folder_are_refused(tmp_path):
    (tmp_path / "params.yaml").write_text("sites: {Gate: {timezone: UTC}, GATE: {timezone: UTC}}\n")
    with pytest.raises(UserError, match="Gate and GATE differ only in case"):
        site_names(tmp_path / "params.yaml")
