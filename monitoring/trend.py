"""Slow drift, and since when a site looks different: over its stored windows, beside the verdict on the newest.

Each window has a median for each figure: descriptors of its pictures, the champion's confidence, the distance to the
nearest known picture. Two tests look at all figures together over the windows, in their order:

- trend: Spearman's rank correlation of a figure with the windows' order (for slow change e.g. Yue, Pilon and Cavadias
  2002, "Power of the Mann-Kendall and Spearman's rho tests for detecting monotonic trends in hydrological series");
- change point: the largest difference of means before and after, in units of what chance makes of it at that place
  (Hawkins 1977, "Testing a sequence of observations for a shift in location"), by permutation (Antoch and Huskova 2001,
  "Permutation tests in change point analysis").

Level. Under the null hypothesis the windows might have come in any order. So the order is permuted, that of all figures
at once, and a p-value says how often the largest statistic of all figures is as large as this one (max-T, Westfall and
Young 1993). The two tests share the level (Bonferroni), which is that of a window's verdict, alpha / horizon: whatever
looks share, a site without change is told of one in at most alpha of horizons. What is found is WATCH, never DRIFT, so
that the verdict's false alarms stay what they are. Weather that lasts longer than a window is a change in this sense.

The series begins with the newest window that was not OK and that a person accepted: what it looks like is known.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monitoring.result import FigureOverTime, OverTime, Result
from monitoring.words import FAR_AWAY, SAID, in_units

if TYPE_CHECKING:
    from monitoring.observations import Floats

MOST = 60  # windows that are looked at
EDGE = 2  # windows that there must be on each side of a change point
BATCH = 1_000  # orders at a time
OF_CHAMPION = ("confidence", FAR_AWAY)  # figures that another champion would change
FIGURES = (*SAID, FAR_AWAY)
TESTS = 2  # share the level: trend and change point


@dataclass(frozen=True)
class Point:
    """A window: its name, the day of its first picture (or of its verdict), and the median of each figure."""

    window: str
    date: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Tested:
    """What the two tests found, by figure (F,): p-values corrected for figures and tests, and where the change is.

    rho: rank correlation with the order; start: the first window after the most likely change.
    """

    trend: Floats
    rho: Floats
    change: Floats
    start: NDArray[np.int64]


def points_of(results: Sequence[Result], accepted: Collection[str]) -> list[Point]:
    """Return the windows of a site, oldest first, from `results` in the same order.

    Of a window that the next champion judged again the later judgement counts. Figures that a champion makes are left
    out where the windows were judged by more than one.
    """
    kept = [
        one
        for one, later in zip(results, [*results[1:], None], strict=True)
        if one["tests"] and (later is None or later["champion"].get("digest") == one["champion"].get("digest"))
    ]
    known = [place for place, one in enumerate(kept) if one["window"] in accepted and one["verdict"] != "OK"]
    kept = kept[known[-1] if known else 0 :][-MOST:]
    several = len({one["champion"].get("digest") for one in kept}) > 1
    names = [name for name in FIGURES if not (several and name in OF_CHAMPION)]
    return [
        Point(
            str(one["window"]),
            (one["captured"] or [one["judged_at"]])[0][:10],
            {t["name"]: t["window"]["median"] for t in one["tests"] if t["name"] in names and t["window"]},
        )
        for one in kept
    ]


def over_time(points: Sequence[Point], level: float, permutations: int, seed: int = 0) -> OverTime:
    """Return what is found over the windows at `level`, and in `note` what can't be seen yet, empty otherwise."""
    shared = [name for name in FIGURES if points and all(name in one.figures for one in points)]
    values = np.array([[one.figures[name] for name in shared] for one in points]).reshape(len(points), len(shared))
    varied = np.ptp(values, axis=0) > 0 if len(points) else np.zeros(0, bool)
    names, values = [name for name, varies in zip(shared, varied, strict=True) if varies], values[:, varied]
    trend_from, change_from = windows_needed(level)
    found: OverTime = {
        "windows": [one.window for one in points],
        "level": level,
        "figures": [],
        "found": [],
        "note": note_on(len(points), trend_from, change_from),
    }
    if len(points) < min(trend_from, change_from):
        return found
    if not names:
        found["note"] = f"Nothing can be said over windows: no figure varies that all {len(points)} have."
        return found
    tested = orders_tested(values, permutations, seed)
    found["figures"] = [_figure(name, values[:, k], tested, k, points, level) for k, name in enumerate(names)]
    found["found"] = in_words(found["figures"], len(points))
    return found


def windows_needed(level: float) -> tuple[int, int]:
    """Return from how many windows on a trend, and a change point, can reach `level`: fewer have too few orders.

    Ranks of any figure can be in perfect order, up or down; a perfect step only a figure that has one.
    """
    trend = next(n for n in range(2, MOST) if TESTS * 2 * len(FIGURES) / math.factorial(n) <= level)
    change = next(n for n in range(2 * EDGE, MOST) if TESTS * 2 / math.comb(n, n // 2) <= level)
    return trend, change


def note_on(windows: int, trend_from: int, change_from: int) -> str:
    """Return a sentence where a trend or a change point can't be seen yet, else nothing."""
    if windows < trend_from:
        so_far = "1 window" if windows == 1 else f"{windows} windows"
        return (
            f"Over time: {so_far} so far; a trend can be seen from {trend_from} on, a change point from "
            f"{change_from} on."
        )
    return f"A change point can be seen from {change_from} windows on, there are {windows}." * (windows < change_from)


def orders_tested(values: Floats, permutations: int, seed: int = 0) -> Tested:
    """Test `values` (n, F), a row a window in their order, none of them constant, with so many random orders."""
    from scipy.stats import rankdata

    random = np.random.default_rng(seed)
    count = len(values)
    ranks, scaled = _units(rankdata(values, axis=0)), _units(values)
    order = _units(np.arange(count, dtype=np.float64)[:, None])[:, 0]
    rho = order @ ranks / count
    splits = np.abs(_steps(scaled[None])[0])
    change = splits.max(axis=0)
    reached = np.zeros((TESTS, values.shape[1]))
    done = 0
    while done < permutations:
        orders = random.permuted(np.tile(np.arange(count), (min(BATCH, permutations - done), 1)), axis=1)
        done += len(orders)
        largest = np.abs(order[orders] @ ranks / count).max(axis=1)
        reached[0] += np.sum(largest[:, None] >= np.abs(rho) - 1e-9, axis=0)
        largest = np.abs(_steps(scaled[orders])).max(axis=(1, 2))
        reached[1] += np.sum(largest[:, None] >= change - 1e-9, axis=0)
    p = np.minimum(TESTS * (1 + reached) / (1 + done), 1.0)
    return Tested(p[0], rho, p[1], splits.argmax(axis=0) + EDGE)


def _units(values: Floats) -> Floats:
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0))


def _steps(scaled: Floats) -> Floats:
    """Return (B, T, F) for each place of a change the difference of means, of series (B, n, F) of mean 0, spread 1."""
    count = scaled.shape[1]
    before = np.arange(EDGE, count - EDGE + 1)
    sums = np.cumsum(scaled, axis=1)[:, EDGE - 1 : count - EDGE]
    return np.asarray(-sums / np.sqrt(before * (count - before) / count)[None, :, None])


def _figure(
    name: str, values: Floats, tested: Tested, place: int, points: Sequence[Point], level: float
) -> FigureOverTime:
    start, third = int(tested.start[place]), math.ceil(len(values) / 3)
    at = np.arange(len(values))
    step = np.where(at < start, values[:start].mean(), values[start:].mean())
    line = np.polynomial.Polynomial.fit(at, values, 1)(at)
    stepped = bool(np.sum((values - step) ** 2) <= np.sum((values - line) ** 2))
    trend, change = float(tested.trend[place]), float(tested.change[place])
    shown = "change" if change <= level and (stepped or trend > level) else "trend" if trend <= level else ""
    parts = (values[:start], values[start:]) if shown != "trend" else (values[:third], values[-third:])
    return {
        "name": name,
        "trend_p": trend,
        "rho": float(tested.rho[place]),
        "change_p": change,
        "window": points[start].window,
        "since": points[start].date,
        "before": float(parts[0].mean()),
        "after": float(parts[1].mean()),
        "shown": shown,
    }


def in_words(figures: Sequence[FigureOverTime], windows: int) -> list[str]:
    """Return a sentence on the strongest change point and one on the strongest trend, the others by name."""
    said = []
    for shown in ("change", "trend"):
        found = [one for one in figures if one["shown"] == shown]
        if not found:
            continue
        p = [one["change_p"] if shown == "change" else one["trend_p"] for one in found]
        first = int(np.argmin(p))
        one, others = found[first], [other["name"] for k, other in enumerate(found) if k != first]
        unit, before, after = in_units(one["name"], one["before"], one["after"])
        also = f"; and {', '.join(others)}" if others else ""
        if shown == "change":
            said.append(
                f"since {one['since']} (window {one['window']}) this site looks different: {unit} {before} before, "
                f"{after} since (change point, p {p[first]:.4f} after correction){also}"
            )
        else:
            way = "rises" if one["after"] > one["before"] else "falls"
            said.append(
                f"trend over {windows} windows: {unit} {way} from {before} to {after} (p {p[first]:.4f} after "
                f"correction){also}"
            )
    return said
