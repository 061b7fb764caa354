"""The records that this room writes: build/promotion.json, and the JSON files in a version's folder."""

from __future__ import annotations

from typing import Literal

from plumbline.common.records import Record
from plumbline.evidence.records import Rule, Verdict

Outcome = Literal[
    "promoted", "on trial", "refused", "unchanged", "would promote", "would go on trial", "would refuse", "not here"
]


class Compared(Record):
    """comparison.json: the challenger against the champion on `images` that neither learnt from, in `groups`.

    `note` says why nothing was compared.
    """

    champion: int | None
    note: str | None = None
    images: int | None = None
    groups: int | None = None
    passed: bool | None = None
    rules: tuple[Rule, ...] = ()


class Promotion(Record):
    """build/promotion.json: what was done about the decision, and the champion's version before and after."""

    outcome: Outcome
    reason: str
    verdict: Verdict
    candidate: str | None
    champion: int | None
    champion_before: int | None
    comparison: Compared | None
    registry: str


class Provenance(Record):
    """provenance.json: Git commit, dvc.lock and data version; None for what is missing.

    `data_md5` is what data.dvc records; `manifest_sha256` is over the ids and labels of the images that were read, and
    exists even where DVC does not track the data.
    """

    git_commit: str | None
    git_changed: tuple[str, ...]
    dvc_lock_sha256: str | None
    data_md5: str | None
    manifest_sha256: str
    images: int
