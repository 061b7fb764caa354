"""A compressed candidate beside its original: what it lost, what it gained, and who is on the frontier of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from plumbline.common.wilson import Z_95
from plumbline.evidence.candidates import TrainedCandidate
from plumbline.evidence.intervals import rate_with_interval
from plumbline.evidence.records import AgainstOriginal, Figure, SliceGain
from plumbline.evidence.slices import THIRDS, Slicing
from plumbline.tasks.scores import Floats, Ints


def against_original(
    copy: TrainedCandidate,
    original: TrainedCandidate,
    cuts: Sequence[Slicing],
    draws: Floats,
    minimum_groups: int,
) -> AgainstOriginal:
    """Return how `copy` differs from its `original` on the test pictures, paired by picture.

    `cuts` slice these pictures in the order of their paths, `draws` (R, N) says how often each is in a redrawing; a
    slice with fewer than `minimum_groups` groups is left out.
    """
    old, new = original.sample("test"), copy.sample("test")
    everywhere = np.full(len(old.truth), True)
    gain = new.right.astype(np.float64) - old.right
    parts = {
        (cut.column, str(value)): np.asarray(cut.values == value) for cut in cuts for value in set(cut.values) - {""}
    }
    judged = {key: part for key, part in parts.items() if len(np.unique(old.codes[part])) >= minimum_groups}
    classes = [(name, old.truth[:, place]) for place, name in enumerate(copy.classes)]
    hits = (new.predicted == old.truth).astype(np.float64) - (old.predicted == old.truth)
    return AgainstOriginal(
        of=original.name,
        agreement=rate_with_interval((new.predicted == old.predicted).all(axis=1), everywhere, old.codes, draws),
        accuracy=paired(gain, everywhere, old.codes, draws),
        by_class={
            name: paired(hits[:, place], among, old.codes, draws)
            for place, (name, among) in enumerate(classes)
            if among.any()
        },
        slices=tuple(
            SliceGain(column=column, value=value, accuracy=paired(gain, part, old.codes, draws))
            for (column, value), part in sorted(judged.items(), key=lambda item: _order(*item[0]))
        ),
    )


def _order(column: str, value: str) -> tuple[str, int, str]:
    return column, THIRDS.index(value) if value in THIRDS else -1, value


def paired(gain: Floats, among: NDArray[np.bool_], codes: Ints, draws: Floats) -> Figure:
    """Return the mean of `gain` (N,) over the pictures `among` (N,), with its 95% interval.

    The bootstrap over groups (`codes` (N,), `draws` (R, N)) gives the error, and one group more is counted on which
    the two disagree, as in `selection`: two that agree on ninety pictures have not shown that they always do.
    """
    drawn = draws[:, among].sum(axis=1)
    means = (draws[:, among] @ gain[among])[drawn > 0] / drawn[drawn > 0]
    groups = len(np.unique(codes[among]))
    value, error = float(gain[among].mean()), float(np.sqrt(means.var() + 1 / groups**2))
    return Figure(value=value, low=value - Z_95 * error, high=value + Z_95 * error)


def frontier(figures: Mapping[str, tuple[float, ...]]) -> set[str]:
    """Return the names that no other is better than: at least as small in every figure, and smaller in one.

    Each figure is one of which less is better, such as mistakes, bytes and milliseconds.
    """
    return {
        name
        for name, own in figures.items()
        if not any(all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in figures.values())
    }
