"""The result of looking at a site (result.json, waiting.json), as plain data with known keys.

Windows on disk may be years old, so newer keys are read with `get`.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class Estimated(TypedDict):
    """An expected figure with the ends of its 95% interval."""

    value: float
    low: float
    high: float


class Tested(TypedDict):
    """One test of the window: its p-value, corrected, and what it found in words."""

    name: str
    p: float
    adjusted: float
    words: str
    window: dict[str, float]
    reference: dict[str, float]


# "class" can't be an attribute's name in Python.
ShareMoved = TypedDict(
    "ShareMoved", {"class": str, "reference": float, "value": float, "low": float, "high": float, "p": float}
)


class ChampionOf(TypedDict):
    """The registered version that judged."""

    version: NotRequired[int]
    candidate: NotRequired[str]
    digest: NotRequired[str]
    weights: NotRequired[str]
    data_md5: NotRequired[str | None]


class Furthest(TypedDict):
    """An image far from the reference, with the nearest known one; pictures as data addresses, or hex of a JPEG."""

    path: str
    distance: float
    predicted: str
    confidence: float
    picture: str | None
    nearest: str
    nearest_label: str
    nearest_picture: str | None


class MetadataSaid(TypedDict):
    """What metadata.csv has for the images."""

    rows: int
    unmatched: int
    first_unmatched: list[dict[str, str]]
    said: list[str]


class Accepted(TypedDict):
    """Accepted windows of the site that were part of the reference, and how many of their images."""

    windows: list[str]
    images: int


class FigureOverTime(TypedDict):
    """One figure over a site's windows, p-values corrected for all figures and both tests.

    window, since: the first window after the most likely change; before, after: means of its medians before and after
    the change, of a trend those of the first and the last third; shown: `change`, `trend`, or nothing.
    """

    name: str
    trend_p: float
    rho: float
    change_p: float
    window: str
    since: str
    before: float
    after: float
    shown: str


class OverTime(TypedDict):
    """Trend and change point over a site's windows, see monitoring.trend; `note` says what can't be seen yet."""

    windows: list[str]
    level: float
    figures: list[FigureOverTime]
    found: list[str]
    note: str


class Retrained(TypedDict):
    """On how many images of the site that the champion did not train on it is right, and those before it were.

    versions: those before it; p: that chance alone made the difference; said: all of it as a sentence.
    """

    images: int
    groups: int
    versions: list[int]
    before: int
    after: int
    p: float
    said: str


class HeldAgainst(TypedDict):
    """The champion's error on the reference, each end wrong with chance alpha / 2, and what more is tolerated."""

    error: float
    low: float
    high: float
    alpha: float
    tolerance: float


class LabelledWindow(TypedDict):
    """What labels say of a window: its images, those drawn to be labelled, those of them that are, and were right.

    value: the accuracy, prediction-powered, with the ends of its 95% interval; expected: what was, without labels.
    """

    window: str
    images: int
    drawn: int
    labelled: int
    right: int
    value: float
    low: float
    high: float
    expected: float | None


RiskVerdict = Literal["worse", "not worse", "not settled"]


class Risk(TypedDict):
    """The champion's error over windows that have labels, bounds that hold at every look, and the verdict."""

    windows: int
    labelled: int
    error: float
    low: float
    high: float
    against: HeldAgainst
    verdict: RiskVerdict


class LabelledSite(TypedDict):
    """What labels that have come say of a site's windows, the newest dozen first, and in words."""

    windows: list[LabelledWindow]
    risk: Risk
    said: list[str]


class Result(TypedDict):
    """The result of looking at a site; `window` is None where there were too few images for one.

    drawn: ids of images drawn at random to be labelled; labelled: what labels said of earlier windows by then.
    """

    site: str
    window: str | None
    verdict: str
    reasons: list[str]
    basis: str
    judged_at: str
    captured: list[str] | None
    champion: ChampionOf
    registry_was_down: bool
    violation: str | None
    counts: dict[str, int]
    quarantined: list[dict[str, str]]
    metadata: MetadataSaid | None
    level: float
    tests: list[Tested]
    shares: list[ShareMoved]
    accuracy: Estimated | None
    average_confidence: float | None
    recall: Estimated | None
    far_share: float | None
    notes: list[str]
    accepted: NotRequired[Accepted]
    retrained: NotRequired[Retrained | None]
    over_time: NotRequired[OverTime]
    furthest: NotRequired[list[Furthest]]
    to_label: NotRequired[str | None]
    drawn: NotRequired[list[str]]
    held_against: NotRequired[HeldAgainst]
    labelled: NotRequired[LabelledSite | None]
    retired: NotRequired[dict[str, object]]
    page: NotRequired[str | None]
