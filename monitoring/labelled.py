"""What labels say of a site, once some have come: how often the champion is right there, and whether that is settled.

They are those of pictures that were drawn at random (`labelling.drawn_evenly`): pictures chosen for being hard say
nothing of the others. Two statements rest on them, both by whole groups:

A window's accuracy, prediction-powered: the labels measure by how much the champion's confidence is wrong, and the
confidence of all the other pictures makes the interval narrower (`powered_accuracy`).

The verdict on risk: is the champion's error on the site larger than on the reference by more than
`drift.risk_tolerance`? Podkopaev and Ramdas 2022, "Tracking the risk of a deployed model and detecting harmful
distribution shifts", ICLR, arXiv 2110.06177: a bound on the error there that holds at every look, against a bound on
the reference's. Either is wrong with chance alpha / 2, so "worse" is ever said wrongly with chance alpha at most, while
each group's pictures are wrong independently of other groups' and labels come back whatever they say.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monitoring.accuracy import Estimate
from monitoring.observations import Floats
from monitoring.result import HeldAgainst, LabelledSite, LabelledWindow, Result, Risk, RiskVerdict
from monitoring.site_state import NEW, SiteState
from plumbline.common.wilson import Z_95, wilson
from plumbline.evidence.betting import capital
from plumbline.evidence.intervals import effective_images

if TYPE_CHECKING:
    import pandas as pd

RISKS = np.linspace(0.005, 0.995, 199)
LISTED = 12  # windows with a row of their own; the verdict on risk rests on all


# -------------------------------------------------------------------------------------------------- a window's accuracy


def powered_accuracy(
    right: NDArray[np.bool_], rows: NDArray[np.intp], confidence: Floats, groups: NDArray[np.int64], z: float = Z_95
) -> Estimate:
    """Return the champion's accuracy, from labels of some images and its confidence in all.

    Args:
        right: (n,) whether it was right on the images `rows` (n,), which were drawn at random.
        confidence: (N,) the calibrated probability that it is right, of every image.
        groups: (N,) numbers, equal for images that are not independent.
        z: half the interval's width in standard errors.

    Angelopoulos et al. 2023, "Prediction-powered inference", arXiv 2301.09633, for a mean: the labels' mean, plus
    lambda times what the confidence of all images is above that of the labelled. Lambda makes the variance least
    (Angelopoulos, Duchi and Zrnic 2023, "PPI++", arXiv 2311.01453); the variance is that of sums over groups. Wilson's
    interval at the number of images which that variance is worth: few labels without an error promise no perfection.
    """
    every, y = np.asarray(confidence, np.float64), right.astype(np.float64)
    labels, guesses = np.zeros(len(every)), (every.mean() - every) / len(every)
    labels[rows] = (y - y.mean()) / len(rows)
    guesses[rows] += (every[rows] - every[rows].mean()) / len(rows)
    by_label, by_guess = np.bincount(groups, labels), np.bincount(groups, guesses)
    moved = float(by_guess @ by_guess)
    # Nothing to learn from confidence where it is the same everywhere, or every image has its label.
    weight = float(np.clip(by_label @ by_guess / moved, 0, 1)) if moved > 1e-12 else 0.0
    value = float(np.clip(y.mean() + weight * (every.mean() - every[rows].mean()), 0, 1))
    independent = len(np.unique(groups[rows]))
    variance = float(np.sum((by_label - weight * by_guess) ** 2)) * independent / max(1, independent - 1)
    low, high = wilson(value, effective_images(value, variance, len(rows), independent, least=0.0), z)
    return Estimate(value, low, high)


# ------------------------------------------------------------------------------------------------------------- the risk


@dataclass(frozen=True)
class Errors:
    """Labelled images by group, (G,): how many are wrong, how many there are, and how many a group has at most."""

    wrong: NDArray[np.int64]
    images: NDArray[np.int64]
    most: NDArray[np.int64]


def errors_of(right: NDArray[np.bool_], groups: NDArray[np.int64]) -> Errors:
    """Return one window's labelled images (n,) by group."""
    codes = np.unique(groups, return_inverse=True)[1]
    images = np.bincount(codes)
    return Errors(np.bincount(codes, ~right).astype(np.int64), images, np.full(len(images), images.max(initial=0)))


def error_at_every_look(errors: Errors, alpha: float) -> tuple[float, float]:
    """Return the bounds on the mean error that hold at all looks together, each end wrong with chance alpha / 2.

    Bets on each group's sum over its images (`plumbline.evidence.betting`). What counts is the capital after all that
    came, which does not depend on the order in which labels came back.
    """

    def settled(risk: float, above: bool) -> bool:
        # A group's images move the capital together, so what they can cost together must not be more than everything.
        values = risk + (errors.wrong - errors.images * risk) / errors.most
        ever = capital(values, risk, worst=0.0) if above else capital(-values, -risk)
        return bool(ever[-1] >= 2 / alpha)

    # The smaller a mean the more is won by bets that it is more, and the other way round.
    above = bisect_left(RISKS, True, key=lambda risk: not settled(risk, True))
    below = bisect_left(RISKS, True, key=lambda risk: settled(risk, False))
    return (float(RISKS[above - 1]) if above else 0.0), (float(RISKS[below]) if below < len(RISKS) else 1.0)


def held_against(right: NDArray[np.bool_], groups: NDArray[np.int64], alpha: float, tolerance: float) -> HeldAgainst:
    """Return what a site's error is held against: the reference's, of images (N,) with labels, each end alpha / 2."""
    z = NormalDist().inv_cdf(1 - alpha / 2)
    found = powered_accuracy(right, np.arange(len(right)), np.zeros(len(right)), groups, z)
    return {
        "error": 1 - found.value,
        "low": 1 - found.high,
        "high": 1 - found.low,
        "alpha": alpha,
        "tolerance": tolerance,
    }


def risk_of(windows: Sequence[Errors], against: HeldAgainst) -> Risk:
    """Return the verdict on the error over a site's windows, at least one label in all."""
    every = Errors(*(np.concatenate([getattr(one, name) for one in windows]) for name in ("wrong", "images", "most")))
    low, high = error_at_every_look(every, against["alpha"])
    tolerance = against["tolerance"]
    verdict: RiskVerdict = "not settled"
    if low > against["high"] + tolerance:
        verdict = "worse"
    elif high < against["low"] + tolerance:
        verdict = "not worse"
    return {
        "windows": len(windows),
        "labelled": int(every.images.sum()),
        "error": float(every.wrong.sum() / every.images.sum()),
        "low": low,
        "high": high,
        "against": against,
        "verdict": verdict,
    }


# ------------------------------------------------------------------------------------------------------------- the site


def labels_by_id(manifest: Path) -> pd.Series[str] | None:
    """Return the labels of the present data by id, None where there is no data here."""
    import pandas as pd

    if not manifest.is_file():
        return None
    return pd.read_parquet(manifest, columns=["id", "label"]).drop_duplicates("id").set_index("id")["label"]


def labelled_site(state: SiteState, champion: str | None, labels: pd.Series[str] | None) -> LabelledSite | None:
    """Return what labels say of the windows since a champion (its digest) judges; None where none has come.

    Windows of which only counts and hashes are kept are left out.
    """
    if labels is None:
        return None
    rows: list[LabelledWindow] = []
    errors: list[Errors] = []
    against: HeldAgainst | None = None
    for name in reversed(state.whole_windows()):
        result = state.result(name)
        if result["champion"].get("digest") != champion:
            break
        if not result.get("drawn"):
            continue
        images = state.images(name, ["id", "status", "predicted", "confidence", "group"])
        images = images[images["status"] == NEW].reset_index(drop=True)
        place = np.flatnonzero(images["id"].isin(result["drawn"]) & images["id"].isin(labels.index))
        if not len(place):
            continue
        known, groups = images.iloc[place], images["group"].to_numpy(np.int64)
        right = known["predicted"].to_numpy() == labels.loc[known["id"]].to_numpy()
        found = powered_accuracy(right, place, images["confidence"].to_numpy(np.float64), groups)
        rows.append(row_of(result, len(images), found, right))
        errors.append(errors_of(right, groups[place]))
        against = against or result["held_against"]
    if against is None:
        return None
    risk = risk_of(errors, against)
    return {"windows": rows[:LISTED], "risk": risk, "said": [said_of_window(rows[0]), said_of_risk(risk)]}


def row_of(result: Result, images: int, found: Estimate, right: NDArray[np.bool_]) -> LabelledWindow:
    """Return what labels say of one window, `right` (n,) being the labelled ones of those drawn."""
    return {
        "window": str(result["window"]),
        "images": images,
        "drawn": len(result["drawn"]),
        "labelled": len(right),
        "right": int(right.sum()),
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "expected": result["accuracy"]["value"] if result["accuracy"] else None,
    }


def said_of_window(row: LabelledWindow) -> str:
    """Return it as people read it."""
    lost = row["drawn"] - row["labelled"]
    missing = f" Of those drawn {lost} have no label yet: were they harder, it is less." if lost else ""
    before = "" if row["expected"] is None else f"; {row['expected']:.0%} were expected without labels"
    return (
        f"By labels of {row['labelled']} pictures drawn at random and its confidence in all {row['images']}, the "
        f"champion is right on {row['value']:.0%} ({row['low']:.0%} to {row['high']:.0%}) in window "
        f"{row['window']}{before}.{missing}"
    )


def said_of_risk(risk: Risk) -> str:
    """Return the verdict on risk as people read it."""
    against, points = risk["against"], f"{100 * risk['against']['tolerance']:g} points"
    settled = {
        "worse": f"worse than there by more than {points}, and that is settled",
        "not worse": f"not worse than there by more than {points}, and that is settled",
        "not settled": f"whether it is worse than there by more than {points} is not settled",
    }[risk["verdict"]]
    windows = f"{risk['windows']} windows" if risk["windows"] > 1 else "one window"
    return (
        f"Of {risk['labelled']} labelled pictures of {windows} it errs on {risk['error']:.0%} ({risk['low']:.0%} to "
        f"{risk['high']:.0%}), of the reference's pictures on {against['error']:.0%} ({against['low']:.0%} to "
        f"{against['high']:.0%}): {settled}."
    )
