"""How a rule of the gate ended: passed, failed, not judged because its figure was not measured, or not applicable.

A rule is not applicable where the data has nothing that it could be about; it then stands in nobody's way. Pages,
terminal, registry and artifacts say these very words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from plumbline.evidence.records import Rule, Verdict

Result = Literal["passed", "failed", "not judged", "not applicable"]
PASSED: Result = "passed"
FAILED: Result = "failed"
NOT_JUDGED: Result = "not judged"
NOT_APPLICABLE: Result = "not applicable"


def result_of(rule: Rule) -> Result:
    """Return how a rule of decision.json or comparison.json ended."""
    if not rule.applies:
        return NOT_APPLICABLE
    if not rule.judged:
        return NOT_JUDGED
    return PASSED if rule.passed else FAILED


def printed(rule: Rule) -> str:
    """Return the result as a terminal shows it: what may stand in the way in capitals, all of one width."""
    result = result_of(rule)
    return f"{result.upper() if result in (FAILED, NOT_JUDGED) else result:<{len(NOT_APPLICABLE)}}"


def stands_in_the_way(rule: Rule, unjudged: Literal["hold", "allow"]) -> bool:
    """Whether a rule prevents promotion: it failed, or it was not judged and `gate.unjudged` is hold."""
    result = result_of(rule)
    return result == FAILED or (result == NOT_JUDGED and unjudged == "hold")


def verdict_on(rules: Sequence[Rule], unjudged: Literal["hold", "allow"]) -> tuple[Verdict, int | None]:
    """Return the verdict, and about how many more test groups would settle a HOLD, None where that is not known.

    REJECT where a rule that was judged stands in the way and no number of test groups would help.
    """
    against = [rule for rule in rules if stands_in_the_way(rule, unjudged)]
    lacking = [rule.more_test_groups for rule in against if rule.judged]
    if None in lacking:
        return "REJECT", None
    return "HOLD" if against else "PROMOTE", max((groups for groups in lacking if groups is not None), default=None)
