"""What a person's word and a row of windows are worth: accepted windows on real photographs, trends in simulation.

    python -m benchmarks.over_windows [--shared ../shared] [--cache DIR] [--seeds 10] [--only accepted trend]

accepted: by draw of the sides (benchmarks/drift.py), windows of one kind of drift are accepted, then a window of the
same kind, one without drift and one of another kind is judged by what it looks like (all tests but those of scores); no
photograph is in two of them. trend: medians of ten figures that depend on each other, in units of what chance does to a
window's median; sites are looked at with each window from the eighth on, over a horizon. Results go to
build/benchmarks/over_windows.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift import AS_IS, PARAMS, RESULTS, SAME, Row, Setting, draw_setting, draw_window
from benchmarks.drifted import load_pool
from monitoring.judge import run_tests
from monitoring.reference import with_accepted
from monitoring.trend import orders_tested
from plumbline.common.files import write_json

GATE, GAMMA, BLUR, DIRT = "new gate", "darkened (gamma 2)", "blurred (sigma 2)", "lens dirt"
SIZE = 45  # new_gate has few pictures
ACCEPTED = [(GATE, 1, BLUR), (GAMMA, 1, BLUR), (GAMMA, 3, BLUR), (DIRT, 1, BLUR), (DIRT, 3, BLUR)]
FIGURES, WINDOWS, HORIZON, LEVEL = 10, 28, 20, 0.0025
SITES = 200


def drawn(setting: Setting, kind: str, used: list[int], random: np.random.Generator) -> NDArray[np.intp]:
    """Draw a window of one kind from photographs that no row in `used` is of; they are used from here on."""
    photos = setting.pool.table["photo"].to_numpy()
    rows = setting.rows("new_gate") if kind == GATE else setting.rows(*SAME)
    free = rows[~np.isin(photos[rows], photos[used])]
    found = draw_window(setting, free, SIZE, None, random)
    used += found.tolist()
    return found


def looks_drifted(setting: Setting, condition: str, rows: NDArray[np.intp], accepted: list[Any]) -> bool:
    """Whether what a window looks like is DRIFT against a reference with accepted windows' looks."""
    reference = with_accepted(setting.reference, accepted, [True] * len(accepted))
    sample, looks = setting.sample(condition, rows), [setting.looks(condition, rows)]
    tests, _, _ = run_tests(reference, sample, ["JPEG"] * len(rows), PARAMS, looks)
    said = ("confidence", "score of", "far from")
    return any(one.adjusted <= PARAMS.alpha / PARAMS.horizon for one in tests if not one.name.startswith(said))


def after_acceptance(settings: list[Setting]) -> list[Row]:
    """Return a row for each kind and number of accepted windows: shares of the draws in which a window is DRIFT."""
    rows: list[Row] = []
    for kind, count, other in ACCEPTED:
        found: dict[str, list[bool]] = {name: [] for name in ("before", "the same again", "no drift", "another drift")}
        for seed, setting in enumerate(settings):
            random, used = np.random.default_rng([7, seed]), list[int]()
            condition = AS_IS if kind == GATE else kind
            accepted = [setting.looks(condition, drawn(setting, kind, used, random)) for _ in range(count)]
            again = drawn(setting, kind, used, random)
            plain, odd = (drawn(setting, AS_IS, used, random) for _ in range(2))
            found["before"].append(looks_drifted(setting, condition, again, []))
            found["the same again"].append(looks_drifted(setting, condition, again, accepted))
            found["no drift"].append(looks_drifted(setting, AS_IS, plain, accepted))
            found["another drift"].append(looks_drifted(setting, other, odd, accepted))
        shares = {name: float(np.mean(said)) for name, said in found.items()}
        rows.append({"accepted": kind, "windows": count, "another": other, "draws": len(settings), **shares})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def medians(seed: int) -> NDArray[np.float64]:
    """Return (WINDOWS, FIGURES) medians without change, half of whose variance is shared."""
    random = np.random.default_rng([8, seed])
    shared, own = random.normal(size=(WINDOWS, 1)), random.normal(size=(WINDOWS, FIGURES))
    return np.asarray((shared + own) / np.sqrt(2))


def told(values: NDArray[np.float64], permutations: int = 3999) -> tuple[bool, bool, int]:
    """Return whether a trend and a change point of the first figure are told, and where the change is."""
    tested = orders_tested(values, permutations)
    return bool(tested.trend[0] <= LEVEL), bool(tested.change[0] <= LEVEL), int(tested.start[0])


def trends() -> list[Row]:
    """Return how often sites without change are told of one, and with which power planted ones are found."""
    ever = 0
    for seed in range(SITES):
        values = medians(seed)
        tested = (orders_tested(values[:count], 1999, count) for count in range(8, 8 + HORIZON))
        ever += any(min(one.trend.min(), one.change.min()) <= LEVEL for one in tested)
    rows: list[Row] = [{"no change, sites": SITES, "looks": HORIZON, "ever told": ever / SITES}]
    print(json.dumps(rows[-1]), flush=True)
    for size in (2.0, 3.0, 5.0):
        for since in (4, 8, 14):
            found = []
            for seed in range(SITES // 2):
                values = medians(1_000 + seed)
                values[WINDOWS - since :, 0] += size
                found.append(told(values))
            right = [abs(place - (WINDOWS - since)) <= 1 for _, change, place in found if change]
            rows.append(
                {
                    "step": size,
                    "windows since": since,
                    "of": WINDOWS,
                    "change told": float(np.mean([change for _, change, _ in found])),
                    "within one window": float(np.mean(right)) if right else None,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    for size in (2.0, 3.0, 5.0):
        found = []
        for seed in range(SITES // 2):
            values = medians(2_000 + seed)
            values[:, 0] += np.linspace(0, size, WINDOWS)
            found.append(told(values))
        rows.append({"slope over all windows": size, "trend told": float(np.mean([trend for trend, _, _ in found]))})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "plumbline-drift")
    parser.add_argument("--seeds", type=int, default=10, help="draws of the data set and the rest")
    parser.add_argument("--only", nargs="*", choices=["accepted", "trend"], default=["accepted", "trend"])
    given = parser.parse_args()
    results: dict[str, Any] = {}
    if "trend" in given.only:
        results["trend"] = trends()
    if "accepted" in given.only:
        seen = (AS_IS, GAMMA, BLUR, DIRT)
        pool = load_pool(given.shared / "data", given.shared / "weights", given.cache, False, seen)
        results["accepted"] = after_acceptance(
            [draw_setting(pool, seed, "mobilenet_v2") for seed in range(given.seeds)]
        )
    write_json(RESULTS / "over_windows.json", results)


if __name__ == "__main__":
    main()
