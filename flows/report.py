"""Prefect artifacts and names: how far a run is, what it found, where its pages are."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

from plumbline.commands.summary import PAGES
from plumbline.common import artefacts
from plumbline.common.errors import one_line
from plumbline.common.files import Artefact
from plumbline.common.records import read_record, read_records
from plumbline.evidence.records import Decision, Evaluation, LeaderboardRow
from plumbline.evidence.results import FAILED, NOT_APPLICABLE, NOT_JUDGED, PASSED, Result, result_of
from plumbline.leakage.records import Certificate
from plumbline.registry.records import read_by_force

Say = Callable[[str], None]
Table = list[dict[str, Any]]

EVERY = 1.0  # seconds between two looks at how far a run is
ORDER: tuple[Result, ...] = (FAILED, NOT_JUDGED, NOT_APPLICABLE, PASSED)
ALARMING = (FAILED, NOT_JUDGED)
ACCURACY = "Accuracy of each candidate, with 95% intervals"


class Progress:
    """A Prefect progress artifact that is made on the first report and updated when the figure changes.

    If the Prefect API is away for a moment, only a line is logged.
    """

    def __init__(self, key: str, description: str, warn: Say) -> None:
        self.key, self.description, self.warn = artifact_key(key), description, warn
        self._id: UUID | None = None
        self._last: float | None = None
        self._at = 0.0

    def report(self, percent: float) -> None:
        """Show `percent`, 0 to 100; not more than once a second, but the last."""
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        now = time.monotonic()
        if percent == self._last or (self._id is not None and percent < 100 and now < self._at + EVERY):
            return
        try:
            if self._id is None:
                self._id = create_progress_artifact(percent, key=self.key, description=self.description)  # type: ignore[assignment]
            else:
                update_progress_artifact(self._id, percent)
            self._last, self._at = percent, now
        except Exception as error:  # The HTTP client's errors are many; none of them is the stage's.
            self.warn(f"Progress could not be shown: {type(error).__name__}: {error}")

    def finish(self) -> None:
        """Show 100 percent, if anything was shown."""
        if self._id is not None:
            self.report(100.0)


def artifact_key(text: str) -> str:
    """Return `text` with what Prefect refuses in a key (all but a-z, 0-9, dashes) made dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def label_run(name: str, tags: list[str]) -> None:
    """Give the current flow run a name, and tags beside those it has."""
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run

    if flow_run.id is None:
        return
    with get_client(sync_client=True) as client:
        known = client.read_flow_run(UUID(flow_run.id)).tags
        client.update_flow_run(UUID(flow_run.id), name=name, tags=sorted({*known, *tags}))


def publish_results(root: Path) -> None:
    """Make artifacts of leaderboard, decision, leakage certificate and links to the pages, where they exist."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    decision = read_decision(root)
    leaderboard, evaluation = root / artefacts.LEADERBOARD, root / artefacts.EVALUATION
    if leaderboard.is_file():
        chosen = decision.candidate if decision else None
        failed = read_record(evaluation, Evaluation).missing if evaluation.is_file() else ()
        rows = leaderboard_table(read_records(leaderboard, LeaderboardRow), chosen, failed)
        create_table_artifact(rows, key="leaderboard", description=ACCURACY)
    if decision:
        verdict = f"{decision.verdict}: {decision.candidate}"
        text = decision_text(decision, read_by_force(decision, root))
        create_markdown_artifact(text, key="decision", description=verdict)
    if (root / artefacts.CERTIFICATE).is_file():
        certificate = read_record(root / artefacts.CERTIFICATE, Certificate)
        found = _pairs(certificate.pairs_across_splits)
        text = certificate_text(certificate)
        create_markdown_artifact(text, key="leakage-certificate", description=f"{found} on two sides")
    links = page_links(root)
    if links:
        create_markdown_artifact("\n".join(links), key="pages", description="Reports of this run")


def read_decision(root: Path) -> Decision | None:
    """Return build/decision.json, in detection/ build/detection_decision.json; None before there is one."""
    file = decision_file(root)
    return read_record(root / file, Decision, file.by) if (root / file).is_file() else None


def decision_file(root: Path) -> Artefact:
    """Return which file says what the gate of the pipeline at `root` decided."""
    return artefacts.DETECTION_DECISION if (root / artefacts.BOXES).is_file() else artefacts.DECISION


def leaderboard_table(rows: Sequence[LeaderboardRow], chosen: str | None, failed: Sequence[str]) -> Table:
    """Flatten leaderboard.json: one row per candidate with its accuracy by split; `failed` ones are last.

    In the order of the page: the chosen one, then the others by accuracy on validation.
    """
    splits = ("train", "validation", "test")

    def place(row: LeaderboardRow) -> tuple[bool, float, str]:
        return row.candidate != chosen, -row.accuracy("validation"), row.candidate

    compared = [
        {
            "candidate": row.candidate + (" (chosen)" if row.candidate == chosen else ""),
            **{split: _accuracy(row, split) for split in splits},
            "parameters": _short(row.parameters),
            "weights": row.weights,
        }
        for row in sorted(rows, key=place)
    ]
    nothing = {**dict.fromkeys(splits, "–"), "parameters": "–", "weights": "–"}
    return compared + [{"candidate": f"{name} (failed)", **nothing} for name in failed]


def decision_text(decision: Decision, forced: str | None = None) -> str:
    """Return the decision as Markdown: verdict, its sentence, every rule with its figure, then why.

    `forced` is the sentence that it was overruled by force. The reasons are a list because Prefect's tables don't wrap:
    a column of sentences would run off the page.
    """
    lines = [f"# {decision.verdict}: {decision.candidate}", "", decision.reason, ""]
    lines += [f"**{one_line(forced)}**", ""] if forced else []
    lines += ["| rule | figure | bound | result |", "| --- | --- | --- | --- |"]
    for rule in decision.rules:
        result = result_of(rule)
        shown = f"**{result}**" if result in ALARMING else result
        cells = [rule.name, _short(rule.value), _short(rule.bound), shown]
        lines.append("| " + " | ".join(cells) + " |")
    for result in ORDER:
        rules = [rule for rule in decision.rules if result_of(rule) == result]
        if rules:
            lines += ["", f"**{result.capitalize()}**", ""]
            lines += [f"- {rule.name}: {one_line(rule.reason)}" for rule in rules]
    return "\n".join(lines)


def certificate_text(certificate: Certificate) -> str:
    """Return leakage.json as Markdown: copies on two sides, the sides, and what a random split would have claimed."""
    lines = [f"# {_pairs(certificate.pairs_across_splits)} on two sides", ""]
    lines += ["| side | images | groups | share |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {side} | {part.images:,} | {part.groups:,} | {part.share:.0%} |" for side, part in certificate.sides.items()
    ]
    lines += ["", f"- Set aside, on no side: {len(certificate.set_aside):,} images"]
    lines += [f"- Embedding neighbours: {certificate.embeddings}", f"- {certificate.price_sentence}"]
    return "\n".join(lines)


def _pairs(count: int) -> str:
    return {0: "No pair of copies", 1: "One pair of copies"}.get(count, f"{count:,} pairs of copies")


def page_links(root: Path) -> list[str]:
    """Return a Markdown list of the report pages that exist."""
    return [f"- {link(what, root / page, root)}" for what, page in PAGES.items() if (root / page).exists()]


def link(what: str, page: Path, root: Path) -> str:
    """Return a Markdown link to a page under reports/, below PLUMBLINE_REPORTS_URL if somebody serves them there.

    Otherwise only its path: browsers don't follow links from Prefect's pages to local files.
    """
    base = os.environ.get("PLUMBLINE_REPORTS_URL", "").rstrip("/")
    if not base:
        return f"{what}: `{page.resolve()}`"
    return f"[{what}]({base}/{quote(page.relative_to(root / artefacts.REPORTS).as_posix())})"


def _accuracy(row: LeaderboardRow, split: str) -> str:
    low, high = row.intervals[split]["accuracy"]
    return f"{row.accuracy(split):.1%} ({low:.1%} to {high:.1%})"


def _short(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
    return "–" if value is None else str(value)
