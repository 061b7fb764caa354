"""Say that a judged window is fine: its pictures join the reference of the site's later verdicts.

    python -m monitoring.accept SITE WINDOW [--reason TEXT]      exit code 0, or 3 where nothing was changed
    python -m monitoring.accept --revoke SITE WINDOW             take that back

What joins is what drift's own eyes saw of the pictures, and their descriptors (`monitoring.reference.with_accepted`);
never the champion's scores, which are compared with pictures of known class that it did not train on. Verdicts that
were given before stay as they are, and the window is no evidence of drift any more when windows are judged together.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from monitoring.acceptance import ACCEPTED, REVOKED, Statement
from monitoring.drift import ERROR
from monitoring.judge import POOLS
from monitoring.pages import write_index
from monitoring.reference import eyes_called
from monitoring.settings import DriftParams, checked_site, site_names
from monitoring.site_state import SiteState
from plumbline.common import artefacts
from plumbline.common.errors import UserError, one_line, run
from plumbline.common.params import load_section
from plumbline.common.users import user_name
from plumbline.registry import bundle
from plumbline.registry import versions as registry
from plumbline.registry.eyes import read_eyes
from plumbline.registry.promotion import PromoteParams
from plumbline.registry.versions import DIGEST_TAG, Version


def accept(state: SiteState, window: str, champion: Version, reason: str = "") -> Statement:
    """Let the pictures of `window` join the site's reference; UserError where they can't, and nothing is changed."""
    if known := state.accepted().get(window):
        raise UserError(
            f"Window {window} of {state.site} was {known.sentence}; `plumbline drift accept --revoke` takes that back."
        )
    check_window(state, window)
    result = state.result(window)
    judge = result["champion"]
    if judge.get("digest") != champion.tags[DIGEST_TAG]:
        raise UserError(
            f"Window {window} of {state.site} was judged by version {judge.get('version')}, and version "
            f"{champion.version} is champion: accept a window that the champion judged."
        )
    eyes = read_eyes(champion.folder / bundle.HOME / "reference")
    if eyes is None or eyes.through == "the champion's":
        raise UserError(
            f"Version {champion.version} brings no eyes of its own for drift, and what its own network sees of "
            "pictures of unknown class joins no reference: promote anew where pretrained weights are at hand "
            "(drift.embedding)."
        )
    if not state.has_looks(window):
        raise UserError(
            f"What drift's eyes saw of window {window} of {state.site} is not kept (it is of the newest "
            f"{max(POOLS) - 1} windows, unless their pictures were served and not kept): accept a newer window."
        )
    statement = Statement(
        window=window,
        said=ACCEPTED,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        by=user_name(),
        reason=one_line(reason),
        verdict=result["verdict"],
        version=int(champion.version),
        digest=champion.tags[DIGEST_TAG],
        eyes=eyes_called(eyes),
        images=state.keep_accepted(window),
    )
    state.say(statement)
    return statement


def revoke(state: SiteState, window: str, reason: str = "") -> Statement:
    """Take back that `window` was accepted; UserError where it is not accepted, and nothing is changed."""
    known = state.accepted().get(window)
    if known is None:
        check_window(state, window)
        raise UserError(f"Window {window} of {state.site} is not accepted: there is nothing to revoke.")
    said = {
        "said": REVOKED,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": user_name(),
        "reason": one_line(reason),
    }
    statement = known.model_copy(update=said)
    state.say(statement)
    return statement


def check_window(state: SiteState, window: str) -> None:
    """Raise UserError where the site has no judged window of that name."""
    names = state.windows()
    if window in names:
        return
    there = f"it has {names[0]} to {names[-1]}" if names else f"none is in {state.root}"
    raise UserError(f"{state.site} has no judged window {window!r}: {there} (`plumbline drift {state.site}` judges).")


def in_words(site: str, statement: Statement) -> str:
    """Return what was done, in one sentence."""
    pictures = f"what its {statement.images} pictures look like"
    if statement.said == REVOKED:
        return f"{site}: window {statement.window} is no longer accepted: {pictures} left the reference of {site}"
    return f"{site}: window {statement.window} is accepted: {pictures} joined the reference of {site}"


def main(arguments: list[str] | None = None) -> None:
    """Accept a window, or revoke that, and draw the index of the sites anew."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.accept", description="Say that a window is fine.")
    parser.add_argument("site", help="a site that was judged")
    parser.add_argument("window", help="one of its windows, as in 0003")
    parser.add_argument("--revoke", action="store_true", help="it is not fine after all")
    parser.add_argument("--reason", default="", help="why; it is kept and shown")
    given = parser.parse_args(arguments)
    params, listed = load_section("drift", DriftParams), site_names()
    state = SiteState(params.state, checked_site(given.site))
    if given.window not in state.accepted():  # which outlasts the window
        check_window(state, given.window)  # before its folder is locked: a site that was never judged has none
    if given.revoke:
        with state.locked(params.lock_timeout):
            statement = revoke(state, given.window, given.reason)
    else:
        champion = registry.load_version(model=load_section("promote", PromoteParams).model, cached_if_down=True)
        with state.locked(params.lock_timeout):
            statement = accept(state, given.window, champion, given.reason)
    print(in_words(state.site, statement), flush=True)
    write_index(artefacts.DRIFT_PAGES.path, params.state, listed, judged=[state.site])


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]), failed=ERROR)
