"""`plumbline compare`: which of champion and challenger is better on what was served, and is that settled?

In mode `shadow` both answered every picture, and a pair is a picture; in mode `share` each answered its own clients,
and a pair is the next labelled answer of each. It may be asked as often as you like: see
plumbline/evidence/betting.py. What it says is kept under `serving.state`, where `plumbline promote` finds it.

Exit code 0: settled for the challenger; 1: settled for the champion; 2: not settled; 3: error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Literal

from plumbline.common.errors import UserError, run
from plumbline.common.files import write_json
from plumbline.common.params import load_section
from plumbline.common.served import CHALLENGER, CHAMPION, RECORD, Labelled, labelled
from plumbline.evidence.betting import bet
from plumbline.registry import trial
from plumbline.registry.glance import glance
from plumbline.registry.trial import ServedVerdict, keep_verdict
from plumbline.registry.versions import registry_uri
from serving.settings import Promoted, ServingParams

EXIT = {"challenger": 0, "champion": 1, "not settled": 2}
ERROR = 3


def pairs_of(answers: list[Labelled]) -> tuple[list[int], Literal["same picture", "one of each"]]:
    """Return the differences, challenger's right less champion's, in the order in which they were known."""
    by_id: dict[str, dict[str, bool]] = {}
    for answer in answers:
        by_id.setdefault(answer.id, {})[answer.role] = answer.right
    both = [right for right in by_id.values() if len(right) == 2]
    if both:
        return [int(right[CHALLENGER]) - int(right[CHAMPION]) for right in both], "same picture"
    ours = [answer.right for answer in answers if answer.role == CHALLENGER]
    theirs = [answer.right for answer in answers if answer.role == CHAMPION]
    return [int(a) - int(b) for a, b in zip(ours, theirs, strict=False)], "one of each"


def compare(record: Path, champion: int, challenger: int, alpha: float) -> ServedVerdict:
    """Return the verdict on two versions."""
    differences, pairing = pairs_of(labelled(record, champion, challenger))
    found = bet(differences, alpha)
    return ServedVerdict(
        champion=champion,
        challenger=challenger,
        better=trial.better(found.better, found.worse, alpha),
        pairing=pairing,
        pairs=found.pairs,
        differing=found.differing,
        difference=found.difference,
        low=found.low,
        high=found.high,
        evidence_for_challenger=found.better,
        evidence_for_champion=found.worse,
        needed=trial.needed(alpha),
        alpha=alpha,
    )


def in_words(verdict: ServedVerdict) -> str:
    """Return it as people read it."""
    said = (
        f"champion version {verdict.champion}, challenger version {verdict.challenger}: "
        + {
            "challenger": "the CHALLENGER is better, and that is settled",
            "champion": "the CHAMPION is better, and that is settled",
            "not settled": "NOT SETTLED",
        }[verdict.better]
    )
    return (
        f"{said}\n  {trial.in_words(verdict)}\n  evidence {verdict.evidence_for_challenger:.3g} for the challenger, "
        f"{verdict.evidence_for_champion:.3g} for the champion, {verdict.needed:.3g} needed"
    )


def main() -> int:
    """Compare, print, write; return the exit code."""
    parser = argparse.ArgumentParser(prog="plumbline compare", description="Champion against challenger, as served.")
    parser.add_argument("--challenger", type=int, metavar="VERSION", help="default: the alias challenger")
    parser.add_argument("--alpha", type=float, default=0.05, help="chance of ever settling on the wrong one")
    parser.add_argument("--json", type=Path, help="where to write the verdict for other programs, too")
    given = parser.parse_args()
    if not 0 < given.alpha < 1:
        raise UserError(f"--alpha {given.alpha} is no chance: give one between 0 and 1, such as 0.05.")
    params = load_section("serving", ServingParams, optional=True)
    model, uri = load_section("promote", Promoted, optional=True).model, registry_uri()
    champion = glance(uri, model, CHAMPION)
    challenger = given.challenger
    if challenger is None and (found := glance(uri, model, CHALLENGER)) is not None:
        challenger = found.version
    if champion is None or challenger is None:
        missing = CHAMPION if champion is None else CHALLENGER
        raise UserError(f"There is no {missing} to compare: set the alias '{missing}' of model '{model}' in MLflow.")
    if champion.version == challenger:
        raise UserError(f"Version {challenger} is the champion itself: name another challenger.")
    verdict = compare(params.state / RECORD, champion.version, challenger, given.alpha)
    keep_verdict(params.state, verdict)
    if given.json:
        write_json(given.json, verdict.model_dump())
    print(in_words(verdict))
    return EXIT[verdict.better]


if __name__ == "__main__":
    run(lambda: sys.exit(main()), failed=ERROR)
