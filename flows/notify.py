"""Tell people what happened, through what PLUMBLINE_NOTIFY names: a Prefect notification block, a webhook, mail."""

from __future__ import annotations

import os
import re
from typing import Any, Literal

What = Literal["promotion", "refusal", "drift", "failure", "intake"]


def notify(what: What, subject: str, text: str, key: str | None = None) -> str | None:
    """Send one message where PLUMBLINE_NOTIFY says; return why it could not be sent, None if it was or nobody asked.

    PLUMBLINE_NOTIFY is a Prefect block (`slack-webhook/plumbline`), a webhook (`https://...`, which gets JSON with
    `what`, `subject`, `text`) or any other Apprise URL (`mailto://user:password@host?to=...`). A message that can't be
    sent never fails the run it tells of; the caller logs the reason. `key` becomes the webhook's `id`, by which
    receivers recognise a message that is sent again after a kill.
    """
    target = os.environ.get("PLUMBLINE_NOTIFY", "")
    if not target:
        return None
    try:
        if target.startswith(("http://", "https://")):
            _post(target, {"what": what, "subject": subject, "text": text, **({"id": key} if key else {})})
        elif "://" in target:
            _apprise(target, subject, text)
        else:
            _block(target, subject, text)
    except Exception as error:  # A messenger may raise anything; the run's own result stands.
        return f"{type(error).__name__}: {_without_address(error, target)}"
    return None


def _without_address(error: Exception, target: str) -> str:
    """An error's words without any address: a webhook's is a secret, and these go to the log."""
    return re.sub(r"\S+://[^\s'\"]+", "(its address)", str(error).replace(target, "(its address)"))


def _post(url: str, body: dict[str, str]) -> None:
    import httpx

    httpx.post(url, json=body, timeout=10).raise_for_status()


def _apprise(url: str, subject: str, text: str) -> None:
    import apprise

    sender = apprise.Apprise()
    if not sender.add(url):
        raise ValueError("PLUMBLINE_NOTIFY is no URL that Apprise knows")
    if not sender.notify(title=subject, body=text):
        raise ConnectionError("the message was not taken")


def _block(slug: str, subject: str, text: str) -> None:
    from prefect.blocks.core import Block

    block: Any = Block.load(slug)
    block.notify(text, subject=subject)
