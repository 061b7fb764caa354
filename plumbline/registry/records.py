"""The records that this room writes: build/promotion.json, and the JSON files in a version's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from plumbline.common import artefacts
from plumbline.common.files import text_digest
from plumbline.common.records import Record, read_record
from plumbline.evidence.records import Decision, Rule, Verdict

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
    """build/promotion.json: what was done about the decision, and the champion's version before and after.

    `forced` says why the champion was promoted by force, None where it was not; `decision_sha256` tells which decision
    this was about.
    """

    outcome: Outcome
    reason: str
    verdict: Verdict
    candidate: str | None
    champion: int | None
    champion_before: int | None
    comparison: Compared | None
    registry: str
    forced: str | None = None
    decision_sha256: str = ""


def digest_of(decision: Decision) -> str:
    """Return the SHA-256 of what a decision says."""
    return text_digest(decision.model_dump_json())


def still_forced(now: Promotion, before: Promotion | None) -> Promotion:
    """Return `now`, and that its champion was promoted by force where `before` says so of the same decision.

    A run that follows a promotion by force finds the gate's refusal again, and the champion as it is.
    """
    if before is None or now.forced is not None or now.champion is None:
        return now
    same = (now.decision_sha256, now.champion) == (before.decision_sha256, before.champion)
    return now.model_copy(update={"forced": before.forced}) if same else now


def read_by_force(decision: Decision, root: Path = Path()) -> str | None:
    """Return what build/promotion.json says of a promotion by force, as `by_force`; None without such a file."""
    path = root / artefacts.PROMOTION
    if not path.is_file():
        return None
    return by_force(read_record(path, Promotion, artefacts.PROMOTION.by), decision)


def by_force(promotion: Promotion, decision: Decision) -> str | None:
    """Return in a sentence that the model of `decision` was promoted by force, and why; None where it was not."""
    if promotion.forced is None or promotion.decision_sha256 != digest_of(decision):
        return None
    against = "" if decision.verdict == "PROMOTE" else f", although the gate said {decision.verdict}"
    return f"Promoted by force as version {promotion.champion}{against}: {promotion.forced}"


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
