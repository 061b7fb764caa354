"""Trend and change point over windows: held to their level, found where they are, told as WATCH, or as too early."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import Site, picture
from scipy.stats import spearmanr

from monitoring import accept, drift
from monitoring.pages import changed
from monitoring.settings import DriftParams
from monitoring.site_state import SiteState
from monitoring.trend import FIGURES, MOST, Point, orders_tested, over_time, points_of, windows_needed
from monitoring.words import in_units

LEVEL = 0.0025
NAMES = ("brightness", "contrast", "sharpness", "warmth")


def series(seed: int, windows: int = 24, figures: int = 4) -> np.ndarray:
    """Medians without change, (windows, figures); figures depend on each other, as descriptors do."""
    random = np.random.default_rng(seed)
    return 0.4 + 0.02 * (random.normal(size=(windows, figures)) + random.normal(size=(windows, 1)))


def points(values: np.ndarray) -> list[Point]:
    dates = [f"2026-{9 + day // 28:02d}-{1 + day % 28:02d}" for day in range(len(values))]
    return [
        Point(f"{number + 1:04d}", dates[number], dict(zip(NAMES, row, strict=False)))
        for number, row in enumerate(values)
    ]


def smallest(values: np.ndarray, permutations: int, seed: int) -> float:
    tested = orders_tested(values, permutations, seed)
    return float(min(tested.trend.min(), tested.change.min()))


# ----------------------------------------------------------------------------------------------------------- level


def test_without_change_the_level_holds():
    """Of 300 sites at 0.1: at most 0.1 and what chance adds (0.1 + 3 x 0.017); not so few that it says nothing."""
    found = [smallest(series(seed, windows=12), 99, seed) <= 0.1 for seed in range(300)]
    assert 0.02 <= np.mean(found) <= 0.152


def test_a_site_that_is_looked_at_with_each_window_is_told_of_nothing_in_most_horizons():
    """At alpha 0.2 and a horizon of 10 looks at windows 11 to 20 of 60 sites: at most 0.2 of them, and chance."""
    told = 0
    for seed in range(60):
        values = series(seed, windows=20)
        told += any(smallest(values[:count], 199, count) <= 0.2 / 10 for count in range(11, 21))
    assert told <= 60 * (0.2 + 3 * 0.052)


def test_windows_of_very_different_spread_keep_the_level():
    random = np.random.default_rng(0)
    found = [smallest(random.standard_t(2, size=(14, 3)), 99, seed) <= 0.1 for seed in range(200)]
    assert np.mean(found) <= 0.1 + 3 * 0.021


# ----------------------------------------------------------------------------------------------------------- power


@pytest.mark.parametrize("start", [8, 12, 18])
def test_a_step_is_found_at_its_window_with_its_date(start):
    values = series(start)
    values[start:, 2] += 0.3
    found = over_time(points(values), LEVEL, 1999)
    one = next(figure for figure in found["figures"] if figure["name"] == "sharpness")
    assert (one["shown"], one["window"], one["change_p"] <= LEVEL) == ("change", f"{start + 1:04d}", True)
    assert one["since"] == points(values)[start].date
    assert one["after"] - one["before"] == pytest.approx(0.3, abs=0.04)
    (said,) = found["found"]
    assert said.startswith(
        f"since {one['since']} (window {start + 1:04d}) this site looks different: sharpness 0 before"
    )
    assert "contrast" not in said
    assert found["note"] == ""


def test_of_a_step_in_many_draws_the_window_is_right_or_beside_it():
    places = []
    for seed in range(40):
        values = series(seed)
        values[15:, 0] += 0.1
        places.append(int(orders_tested(values, 1, 0).start[0]))
    assert np.mean(np.array(places) == 15) >= 0.7
    assert np.mean(np.abs(np.array(places) - 15) <= 1) >= 0.9


def test_a_slope_is_a_trend_and_says_which_way():
    values = series(3)
    values[:, 0] -= np.linspace(0, 0.15, len(values))
    found = over_time(points(values), LEVEL, 1999)
    one = found["figures"][0]
    assert (one["name"], one["shown"], one["trend_p"] <= LEVEL) == ("brightness", "trend", True)
    assert one["rho"] < -0.7
    (said,) = found["found"]
    assert said.startswith("trend over 24 windows: brightness falls from ")
    assert int(said.split(" from ")[1].split()[0]) > int(said.split(" to ")[1].split()[0])


def test_a_step_and_a_trend_of_many_figures_are_two_sentences():
    values = np.concatenate([series(5), series(6)], axis=1)[:, :4]
    values[14:, :2] += 0.2
    values[:, 3] += np.linspace(0, 0.3, len(values))
    found = over_time(points(values), LEVEL, 1999)["found"]
    assert [said.split()[0] for said in found] == ["since", "trend"]
    assert found[0].endswith("; and contrast")


def test_an_odd_window_is_no_change():
    values = series(7)
    values[-1] += 1.0
    assert over_time(points(values), LEVEL, 1999)["found"] == []


# ------------------------------------------------------------------------------------------------------- arithmetic


def test_the_correlation_is_scipy_s_and_the_change_is_the_largest_of_all_places():
    values = series(1, windows=9, figures=2)
    tested = orders_tested(values, 1)
    assert tested.rho == pytest.approx([spearmanr(np.arange(9), values[:, k]).statistic for k in range(2)])
    for figure in range(2):
        one = values[:, figure]
        z = {t: abs(one[:t].mean() - one[t:].mean()) * np.sqrt(t * (9 - t) / 9) for t in range(2, 8)}
        assert max(z, key=z.get) == tested.start[figure]


def test_p_values_are_those_of_every_order():
    values = series(2, windows=6, figures=1)
    values[3:] += 0.05
    every = np.array(list(itertools.permutations(values[:, 0])))
    rho = [abs(spearmanr(np.arange(6), one).statistic) for one in every]
    exact = np.mean(np.array(rho) >= abs(spearmanr(np.arange(6), values[:, 0]).statistic) - 1e-9)
    tested = orders_tested(values, 20_000)
    assert tested.trend[0] == pytest.approx(min(1.0, 2 * exact), abs=0.02)

    def change(one):
        return max(abs(one[:t].mean() - one[t:].mean()) * np.sqrt(t * (6 - t)) for t in range(2, 5))

    exact = np.mean([change(one) >= change(values[:, 0]) - 1e-9 for one in every])
    assert tested.change[0] == pytest.approx(min(1.0, 2 * exact), abs=0.02)


def test_fewer_windows_than_can_reach_the_level_are_told():
    assert windows_needed(LEVEL) == (8, 13)
    few = over_time(points(series(0, windows=3)), LEVEL, 999)
    assert few["figures"] == []
    assert few["note"] == ("Over time: 3 windows so far; a trend can be seen from 8 on, a change point from 13 on.")
    steep = series(0, windows=8)
    steep[:, 0] += np.arange(8)
    some = over_time(points(steep), LEVEL, 9_999)
    assert some["note"] == "A change point can be seen from 13 windows on, there are 8."
    assert some["found"][0].startswith("trend over 8 windows: brightness rises")
    assert over_time([], LEVEL, 999)["note"].startswith("Over time: 0 windows so far")
    flat = over_time(points(np.ones((9, 4))), LEVEL, 999)
    assert flat["note"] == "Nothing can be said over windows: no figure varies that all 9 have."


# ---------------------------------------------------------------------------------------------------------- windows


def result(window: int, verdict: str = "OK", digest: str = "a", **other: object) -> dict:
    figures = {"brightness": 0.4 + window / 100, "confidence": 0.9, "far from the reference": 0.1}
    tests = [{"name": name, "window": {"median": value}} for name, value in figures.items()]
    tests.append({"name": "embeddings (MMD)", "window": {}})
    return {
        "window": f"{window:04d}",
        "verdict": verdict,
        "champion": {"digest": digest},
        "captured": None,
        "judged_at": "2026-10-12T08:00:00+00:00",
        "tests": tests,
        **other,
    }


def test_a_point_has_the_day_of_its_first_picture_and_the_medians():
    taken = ["2026-09-01T05:00:00+00:00", "2026-09-02T05:00:00+00:00"]
    first, second = points_of([result(1, captured=taken), result(2)], {})
    assert (first.date, second.date) == ("2026-09-01", "2026-10-12")
    assert set(first.figures) == {"brightness", "confidence", "far from the reference"}
    assert set(first.figures) < set(FIGURES)


def test_a_window_that_the_next_champion_judged_again_counts_once_and_its_scores_are_not_mixed():
    found = points_of([result(1), result(2), result(3, digest="b"), result(4, digest="b")], {})
    assert [one.window for one in found] == ["0001", "0003", "0004"]
    assert set(found[0].figures) == {"brightness"}


def test_the_series_begins_with_the_newest_window_that_was_strange_and_accepted():
    results = [result(number, "WATCH" if number in (2, 4) else "OK") for number in range(1, 8)]
    assert len(points_of(results, {})) == 7
    assert [one.window for one in points_of(results, {"0002", "0004", "0006"})] == ["0004", "0005", "0006", "0007"]
    assert len(points_of([result(number) for number in range(100)], {})) == MOST


def test_what_is_found_is_watch_and_leaves_a_drift_what_it_is(tmp_path):
    state, values = SiteState(tmp_path, "GATE"), series(4, windows=16)[:, 0]
    values[8:] += 0.2
    images = pd.DataFrame({"key": ["k"]})
    for number in range(15):
        one = result(number + 1, level=LEVEL)
        one["tests"] = [{"name": "brightness", "window": {"median": float(values[number])}}]
        state.close_window(f"{number + 1:04d}", images, one)
    for verdict, wanted in (("OK", "WATCH"), ("WATCH", "WATCH"), ("DRIFT", "DRIFT")):
        newest = result(16, verdict, level=LEVEL, reasons=["why"])
        newest["tests"] = [{"name": "brightness", "window": {"median": float(values[15])}}]
        drift.watch_over_time(state, newest, DriftParams(permutations=1999))
        assert newest["verdict"] == wanted
        (said,) = newest["over_time"]["found"]
        assert said.startswith("since 2026-10-12 (window 0009) this site looks different: brightness 1")
        assert newest["reasons"] == ([said] if verdict == "OK" else ["why", said])
    results = [state.result(name) for name in state.windows()] + [newest]
    (chart,) = changed([float(one["window"]) for one in results], results)
    assert (chart.title, chart.words) == (
        "What changed: brightness",
        "each window's median; it changed with window 0009",
    )
    assert changed([1.0], results[:1]) == []


def test_figures_are_shown_as_people_read_them():
    assert in_units("brightness", 0.5, 0.25) == ("brightness", "128", "64")
    assert in_units("far from the reference", 0.1234) == ("distance to the nearest known pictures", "0.123")
    assert all(in_units(name, 1.0) for name in FIGURES)


@pytest.mark.slow
def test_a_camera_that_darkens_slowly_is_told_on_the_page_and_in_the_result(site: Site, monkeypatch):
    """Eight windows, each a little darker than the one before it."""
    monkeypatch.setattr(drift, "keep_history", lambda *_: [])
    params = site.root / "params.yaml"
    params.write_text(params.read_text().replace("permutations: 999", "permutations: 1999, minimum_images: 30"))
    for window in range(8):
        for number in range(40):
            seed = 10_000 + 100 * window + number
            site.send("GATE", f"{window}/{number}.jpg", picture(seed, number % 2, dark=1.0 - 0.04 * window))
        drift.main(["GATE"])
        page = Path("reports/drift/index.html").read_text()
        if window < 7:
            so_far = "1 window" if window == 0 else f"{window + 1} windows"
            assert f"Over time: {so_far} so far; a trend can be seen from 8 on" in page
    state = SiteState(Path("drift"), "GATE")
    over = [state.result(name)["over_time"] for name in state.windows()]
    assert over[-1]["windows"] == [f"000{number}" for number in range(1, 9)]
    assert {"brightness", "contrast", "far from the reference"} <= {one["name"] for one in over[-1]["figures"]}
    assert [said for said in over[-1]["found"] if said.startswith("trend over 8 windows")]
    assert set(over[-1]["found"]) <= set(state.result("0008")["reasons"])
    for words in ("Trend and change point", "A change point can be seen from", "What changed: ", "it has a trend"):
        assert words in page
    recorded = drift.record_of([state.result("0008")])["sites"]["GATE"]
    assert recorded["over_time"] == over[-1]["found"]


@pytest.mark.slow
def test_a_window_of_before_is_shown_and_counts(site: Site, monkeypatch):
    """A result.json without trend or accepted windows, as older versions wrote it."""
    monkeypatch.setattr(drift, "keep_history", lambda *_: [])
    site.send_many("GATE", 10_000, 60)
    drift.main(["GATE"])
    path = Path("drift/GATE/windows/0001/result.json")
    old = json.loads(path.read_text())
    del old["over_time"], old["accepted"]
    path.write_text(json.dumps(old))
    drift.main(["GATE", "--pages", "only"])
    index = Path("reports/drift/index.html")
    assert "Window 0001 was judged before trends were looked at" in index.read_text()
    accept.main(["GATE", "0001"])
    assert "reference 0 images were of accepted windows" in index.read_text()
    site.send_many("GATE", 20_000, 60)
    drift.main(["GATE"])
    assert SiteState(Path("drift"), "GATE").result("0002")["over_time"]["windows"] == ["0001", "0002"]
