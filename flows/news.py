"""News that people have not been told yet, kept on disk: a run that is killed leaves it to the next one.

A run killed between telling and noting that it told leads to a second message, under the same id.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from prefect.events import emit_event

from flows import report, workspace
from flows.notify import What, notify
from plumbline.common.files import file_digest, write_json
from plumbline.common.interrupted import ask_git, scratch

REQUEST = "plumbline.training.requested"


def folder_of(root: Path) -> Path:
    """Return where the news of the pipeline at `root` are kept."""
    return scratch(root) / "plumbline-news"


def _gate(root: Path) -> Path:
    """There while nobody was told of what the gate says."""
    return folder_of(root) / "gate.json"


def keep_batch(root: Path, commit: str, text: str, request_training: bool) -> None:
    """Keep the news of a batch before its `commit` becomes the workspace's version."""
    write_json(folder_of(root) / f"batch-{commit}.json", {"commit": commit, "text": text, "training": request_training})


def tell_of_batches(root: Path, say: Callable[[str], None]) -> None:
    """Tell of every batch that is in the workspace's version by now, and ask for training.

    Called with the workspace held alone and no intake unfinished: a batch whose commit is not in HEAD was not taken in.
    """
    kept = sorted(folder_of(root).glob("batch-*.json"))
    if kept and ask_git(root, "rev-parse", "--verify", "HEAD") is None:
        say(f"Git does not answer in {root}, so the news of {len(kept)} batches wait for the next run.")
        return
    for path in kept:
        news = json.loads(path.read_text(encoding="utf-8"))
        if ask_git(root, "merge-base", "--is-ancestor", news["commit"], "HEAD") is not None:
            name = uuid5(NAMESPACE_URL, f"{workspace.identity(root)}/{news['commit']}")
            send("intake", "New labelled pictures", news["text"], say, name)
            if news["training"]:
                workspace_id = {"prefect.resource.id": workspace.identity(root)}
                emit_event(REQUEST, resource=workspace_id, payload={"reason": news["text"]}, id=name)
        path.unlink()


def expect_decision(root: Path) -> None:
    """Note, before the gate runs, that its decision must be told, and which decision there was before."""
    if not _gate(root).exists():
        write_json(_gate(root), {"id": str(uuid4()), "before": _digest_of_decision(root)})


def tell_decision(root: Path, ran: bool, say: Callable[[str], None]) -> None:
    """Tell what the gate decided if nobody was told yet: it `ran` in this run, or in an earlier one that was killed."""
    if not _gate(root).exists():
        return
    expected = json.loads(_gate(root).read_text(encoding="utf-8"))
    decision = report.read_decision(root)
    if decision and (ran or _digest_of_decision(root) != expected["before"]):
        kind: What = "promotion" if decision.verdict == "PROMOTE" else "refusal"
        send(kind, f"{decision.verdict}: {decision.candidate}", decision.reason, say, UUID(expected["id"]))
        _gate(root).unlink()


def send(what: What, subject: str, text: str, say: Callable[[str], None], name: UUID | None = None) -> None:
    """Send one message; where that is impossible, `say` why."""
    if why_not := notify(what, subject, text, str(name) if name else None):
        say(f"The message «{subject}» could not be sent: {why_not}")


def _digest_of_decision(root: Path) -> str:
    path = root / report.decision_file(root)
    return file_digest(path) if path.is_file() else ""
