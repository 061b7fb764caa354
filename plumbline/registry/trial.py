"""A challenger on trial: what serving found of it beside the champion, on answers whose labels came.

`plumbline compare` leaves its verdict under `serving.state`, and `plumbline promote` reads it there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from plumbline.common.params import Section
from plumbline.common.records import Record, read_record, write_record

VERDICTS = "verdicts"
Better = Literal["champion", "challenger", "not settled"]


class Trial(Section):
    """Section `promote.trial`: whether a winner first serves as challenger; level at which serving's verdict counts."""

    wanted: bool = False
    alpha: float = Field(default=0.05, gt=0, lt=1)


class ServedVerdict(Record):
    """What is known of two versions from labelled answers; `better` is settled at level `alpha` however often asked."""

    champion: int
    challenger: int
    better: Better
    pairing: Literal["same picture", "one of each"]
    pairs: int
    differing: int
    difference: float
    low: float
    high: float
    evidence_for_challenger: float
    evidence_for_champion: float
    needed: float
    alpha: float


def needed(alpha: float) -> float:
    """Return the evidence that settles it at level `alpha`: half of it for each side (Ville's inequality)."""
    return 2 / alpha


def better(for_challenger: float, for_champion: float, alpha: float) -> Better:
    """Return who is better by these two evidences, or that it isn't settled at level `alpha`."""
    if max(for_challenger, for_champion) < needed(alpha):
        return "not settled"
    return "challenger" if for_challenger >= for_champion else "champion"


def keep_verdict(state: Path, verdict: ServedVerdict) -> None:
    """Write a verdict where `read_verdict` finds it."""
    path = _path(state, verdict.champion, verdict.challenger)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, verdict)


def read_verdict(state: Path, champion: int, challenger: int) -> ServedVerdict | None:
    """Return the last verdict on two versions, None where `plumbline compare` never gave one."""
    path = _path(state, champion, challenger)
    return read_record(path, ServedVerdict) if path.is_file() else None


def in_words(verdict: ServedVerdict) -> str:
    """Return the figures as a clause."""
    return (
        f"of {verdict.pairs} labelled pairs ({verdict.pairing}) {verdict.differing} differ, the challenger is right "
        f"{100 * verdict.difference:+.1f} points more often ({100 * verdict.low:+.1f} to {100 * verdict.high:+.1f})"
    )


def _path(state: Path, champion: int, challenger: int) -> Path:
    return state / VERDICTS / f"champion-{champion}-challenger-{challenger}.json"
