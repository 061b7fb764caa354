"""The registry's journal: every promotion, rollback and refusal, one MLflow run each (see `versions.journal_of`).

A run with all its tags is made in one call on every MLflow store, so an entry exists whole or not at all. Nothing
here changes or deletes one. Each entry has the SHA-256 of the entry before it: `broken_links` finds entries that were
altered or removed by other means.

An action that moves the alias writes `begun` first and its outcome after. A `begun` without an outcome belongs to a run
that was killed: the next one completes it, by where the alias points then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from plumbline.common.errors import UserError
from plumbline.common.files import text_digest
from plumbline.common.served import CHAMPION
from plumbline.registry import versions as registries
from plumbline.registry.versions import Registry

ENTRY_TAG = "plumbline.entry"
DIGEST_TAG = "plumbline.entry_sha256"
LONGEST_REASON = 1000


@dataclass(frozen=True)
class Entry:
    """One line of the log. `champion_before` and `champion_after` are version numbers, None for none."""

    action: str  # promote, rollback
    outcome: str  # begun, done, on trial, refused, unchanged, failed, interrupted
    reason: str
    version: int | None = None
    candidate: str = ""
    verdict: str = ""
    forced: bool = False
    champion_before: int | None = None
    champion_after: int | None = None
    commit: str = ""
    settles: str = ""  # digest of the `begun` entry that this one ends
    number: int = 0
    at: str = ""
    who: str = ""
    follows: str = ""


def append(registry: Registry, entry: Entry) -> Entry:
    """Add an entry in one call; return it with its number, time, author and link filled in.

    Raises UserError for a reason longer than 1,000 characters.
    """
    if len(entry.reason) > LONGEST_REASON:
        raise UserError(f"The reason is {len(entry.reason)} characters long: keep it under {LONGEST_REASON}.")
    before = entries(registry)
    last = before[-1] if before else None
    entry = replace(
        entry,
        number=last.number + 1 if last else 1,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        who=registries.holder(),
        follows=digest(last) if last else "",
    )
    text = json.dumps(asdict(entry), ensure_ascii=False)
    shown = {
        "action": entry.action,
        "outcome": entry.outcome,
        "version": entry.version,
        "candidate": entry.candidate,
        "verdict": entry.verdict,
        "champion_after": entry.champion_after,
        "reason": entry.reason,
        "who": entry.who,
        "forced": entry.forced,
    }
    tags = {key: str(value) for key, value in shown.items() if value not in (None, "")}
    run = registry.client.create_run(
        registries.experiment(registry, registries.journal_of(registry.model)),
        run_name=f"{entry.number:04d} {entry.action} {entry.outcome}: champion {entry.champion_after or 'none'}",
        tags={**tags, ENTRY_TAG: text, DIGEST_TAG: text_digest(text), "mlflow.note.content": in_words(entry)},
    )
    went_wrong = entry.outcome in ("failed", "interrupted")
    registry.client.set_terminated(run.info.run_id, "FAILED" if went_wrong else "FINISHED")
    return entry


def entries(registry: Registry) -> list[Entry]:
    """Return the log, oldest first; entries that somebody deleted in MLflow's UI are among them."""
    return [Entry(**json.loads(run.data.tags[ENTRY_TAG])) for run in _runs(registry)]


def broken_links(registry: Registry) -> list[str]:
    """Return one sentence for each entry that was altered, deleted or taken out; empty if the log is whole."""
    runs = _runs(registry)
    digests = {run.data.tags.get(DIGEST_TAG, "") for run in runs}
    problems = []
    for run in runs:
        text = run.data.tags[ENTRY_TAG]
        entry = Entry(**json.loads(text))
        if text_digest(text) != run.data.tags.get(DIGEST_TAG):
            problems.append(f"entry {entry.number} was altered")
        if entry.follows and entry.follows not in digests:
            problems.append(f"the entry before {entry.number} was altered or taken out")
        if run.info.lifecycle_stage == "deleted":
            problems.append(f"entry {entry.number} was deleted in MLflow (still readable)")
    return problems


def settle(registry: Registry) -> list[Entry]:
    """Write the outcome of this user's actions that were killed half-way; return the entries written.

    Must be called under `registry.locked`: then no action of ours is still under way.
    """
    log = entries(registry)
    settled = {entry.settles for entry in log}
    champion = registries.number(registries.find(registry, CHAMPION))
    written = []
    for entry in log:
        if entry.outcome != "begun" or digest(entry) in settled or entry.who != registries.holder():
            continue
        moved = champion == entry.version
        if moved:
            finish(registry, entry)
        note = "was cut short after the alias had moved" if moved else "was cut short before the alias moved"
        outcome = replace(
            entry,
            outcome="done" if moved else "interrupted",
            reason=f"Entry {entry.number} {note}. {entry.reason}"[:LONGEST_REASON],
            champion_after=champion,
            settles=digest(entry),
        )
        written.append(append(registry, outcome))
    return written


def finish(registry: Registry, entry: Entry) -> None:
    """After the alias moved: mark a version left by rollback, unmark one that came back, end a challenger's trial."""
    assert entry.version is not None
    registries.end_trial(registry, entry.version)
    if entry.action == "rollback" and entry.champion_before is not None:
        registries.withdraw(registry, entry.champion_before, entry.version, entry.reason)
    else:
        registries.reinstate(registry, entry.version)


def carry_out(registry: Registry, action: Entry) -> Entry:
    """Move the champion to `action.version`, in the log's order: begun, the alias, its outcome; return the last entry.

    Raises UserError, logged as well, if the champion is no longer `action.champion_before`.
    """
    assert action.version is not None
    before = action.champion_before
    begun = append(registry, replace(action, outcome="begun", champion_after=before))
    ending = replace(action, settles=digest(begun))
    try:
        registries.move_champion(registry, action.version, before)
    except UserError as error:
        append(registry, replace(ending, outcome="refused", reason=str(error), champion_after=before))
        raise
    finish(registry, begun)
    return append(registry, replace(ending, outcome="done", champion_after=action.version))


def in_words(entry: Entry) -> str:
    """Return the entry as one sentence."""
    unnamed = "an earlier version" if entry.action == "rollback" else entry.candidate or "the candidate"
    subject = f"version {entry.version}" if entry.version else unnamed
    way = "to" if entry.action == "rollback" else "of"
    force = " by force" if entry.forced else ""
    return (
        f"{entry.action.capitalize()} {way} {subject} {entry.outcome}{force} by {entry.who}: "
        f"champion {entry.champion_before or 'none'} -> {entry.champion_after or 'none'}. {entry.reason}"
    )


def champions(log: Sequence[Entry]) -> list[int]:
    """Return the versions that were champion, in order, without immediate repeats."""
    order: list[int] = []
    for entry in log:
        if entry.outcome == "done" and entry.champion_after and order[-1:] != [entry.champion_after]:
            order.append(entry.champion_after)
    return order


def forced_because(log: Sequence[Entry], version: int) -> str | None:
    """Return why `version` was made champion by force when it last became champion; None where it was not."""
    moved = [entry for entry in log if entry.outcome == "done" and entry.champion_after == version]
    return moved[-1].reason if moved and moved[-1].forced else None


def last_champion(registry: Registry) -> int | None:
    """Return the version that was champion last, even one that is gone by now; None if there never was one."""
    return next(reversed(champions(entries(registry))), None)


def what_became_of_it(registry: Registry) -> str:
    """Return what happened where there is no champion, as a clause without full stop; empty if there never was one."""
    last = last_champion(registry)
    if last is None:
        return ""
    if registries.find(registry, last) is None:
        return f"version {last}, the last one, was deleted in MLflow"
    return f"the alias '{CHAMPION}' was taken off version {last} in MLflow"


def digest(entry: Entry) -> str:
    """Return the entry's SHA-256, which the next one carries and its outcome refers to."""
    return text_digest(json.dumps(asdict(entry), ensure_ascii=False))


def _runs(registry: Registry) -> list[Any]:
    from mlflow.entities import ViewType

    found = registry.client.get_experiment_by_name(registries.journal_of(registry.model))
    if found is None:
        return []
    runs: list[Any] = []
    token = None
    while True:
        page = registry.client.search_runs(
            [found.experiment_id], run_view_type=ViewType.ALL, max_results=1000, page_token=token
        )
        runs += [run for run in page if ENTRY_TAG in run.data.tags]
        token = page.token
        if not token:
            return sorted(runs, key=lambda run: int(json.loads(run.data.tags[ENTRY_TAG])["number"]))
