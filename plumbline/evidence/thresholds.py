"""From what it costs to miss a violation or to raise a false alarm to the threshold that raises an alarm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from plumbline.evidence.records import OperatingPoint
from plumbline.tasks.scores import Floats


def cost_at(violation: NDArray[np.bool_], score: Floats, thresholds: Floats, missed: float, alarm: float) -> Floats:
    """Return the mean cost per image (T,) when an alarm is raised at `score` (N,) >= threshold, for each of (T,)."""
    violations, others = np.sort(score[violation]), np.sort(score[~violation])
    misses = np.searchsorted(violations, thresholds, side="left")
    alarms = len(others) - np.searchsorted(others, thresholds, side="left")
    return np.asarray((missed * misses + alarm * alarms) / len(score))


def choose_threshold(violation: NDArray[np.bool_], score: Floats, missed: float, alarm: float) -> float:
    """Return the cheapest threshold; of those that cost the same the one nearest, in log odds, to alarm/(alarm+missed).

    That is the threshold that theory gives for calibrated probabilities, so that a stretch without images
    does not leave the choice to chance.
    """
    ideal = alarm / (alarm + missed)
    distinct = np.unique(score)
    options = np.concatenate([[ideal], (distinct[1:] + distinct[:-1]) / 2])
    options = options[(options > 0) & (options < 1)]
    costs = cost_at(violation, score, options, missed, alarm)
    cheapest = options[costs <= costs.min() + 1e-12]
    return float(cheapest[np.abs(_log_odds(cheapest) - _log_odds(np.array(ideal))).argmin()])


def operating_point(violation: NDArray[np.bool_], score: Floats, threshold: float, chosen: bool) -> OperatingPoint:
    """Return counts and rates of alarms at one threshold; `chosen` is kept beside them."""
    alarms = score >= threshold
    caught, missed = int((alarms & violation).sum()), int((~alarms & violation).sum())
    false, quiet = int((alarms & ~violation).sum()), int((~alarms & ~violation).sum())
    return OperatingPoint(
        threshold=threshold,
        caught=caught,
        missed=missed,
        false_alarms=false,
        quiet=quiet,
        recall=caught / (caught + missed) if violation.any() else None,
        precision=caught / max(caught + false, 1),
        false_alarm_rate=None if violation.all() else false / (false + quiet),
        accuracy=(caught + quiet) / len(score),
        chosen=chosen,
    )


def _log_odds(probability: Floats) -> Floats:
    return np.asarray(np.log(probability / (1 - probability)))
