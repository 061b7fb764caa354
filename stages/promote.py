"""Stage promote: register the chosen candidate in MLflow and make it champion, or record why not; and undo it.

    python -m stages.promote [--dry-run] [--force --reason TEXT]
    python -m stages.promote rollback [--to VERSION] --reason TEXT [--dry-run]
    python -m stages.promote history

Reads what the stages before left under build/, writes build/promotion.json. HOLD and REJECT are results: the champion
stays, the refusal goes into the registry's log, and the exit code is 0.
"""

from __future__ import annotations

from pathlib import Path

from plumbline.common.errors import run
from plumbline.common.files import write_json
from plumbline.common.params import load_section
from plumbline.registry.promotion import (
    BUILD,
    PROMOTION,
    Project,
    PromoteParams,
    Wish,
    compare,
    history,
    load_network,
    parse,
    promote,
    read_pictures,
    rollback,
)


def main() -> None:
    found = parse()
    params = load_section("promote", PromoteParams)
    if found.command == "history":
        print("\n".join(history(params)))
    elif found.command == "rollback":
        print(rollback(params, found.to, found.reason.strip(), found.dry_run))
    else:
        wish = Wish(found.force, found.reason.strip(), found.dry_run)
        result = promote(params, wish, Project(BUILD, Path(), read_pictures, load_network, compare))
        if not wish.dry_run:
            write_json(PROMOTION, result)
        print(f"{result['outcome']}: {result['reason']} Champion: version {result['champion'] or 'none'}.")


if __name__ == "__main__":
    run(main)
