"""Stage `promote`: register the chosen candidate in MLflow and make it champion, or record why not; and undo it.

    plumbline promote [--dry-run] [--here --reason TEXT] [--force --reason TEXT]
    plumbline rollback [--to VERSION] --reason TEXT [--dry-run] [--model NAME]
    plumbline history [--model NAME]

Reads what the stages before left under build/, writes build/promotion.json. HOLD and REJECT are results: the champion
stays, the refusal goes into the registry's log, and the exit code is 0. Inside an experiment, or from a branch, commit
or workspace that `promote.place` does not allow, the registry is not touched at all. In detection/ what is chosen is a
detector, perhaps with a classifier, under a registered model of its own; all else is the same.
"""

from __future__ import annotations

import runpy
from contextlib import suppress
from functools import partial
from pathlib import Path

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.params import load_section
from plumbline.common.records import read_record, write_record
from plumbline.common.served import ServedAs
from plumbline.imaging.settings import DataParams
from plumbline.registry import detector_version
from plumbline.registry.eyes import LooksWith
from plumbline.registry.folder import build_folder
from plumbline.registry.promotion import (
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
from plumbline.registry.records import Promotion, still_forced


def main() -> None:
    """Run the stage, `rollback` or `history`."""
    found = parse()
    params = load_section("promote", PromoteParams)
    if getattr(found, "model", None):
        params = params.model_copy(update={"model": found.model})
    if found.command == "history":
        print("\n".join(history(params)))
    elif found.command == "rollback":
        print(rollback(params, found.to, found.reason.strip(), found.dry_run))
    else:
        wish = Wish(found.force, found.reason.strip(), found.dry_run, found.here)
        project = of_detectors(params) if detects() else of_classifiers()
        before = None
        with suppress(UserError):  # none yet, or a damaged one: it is written anew
            before = read_record(artefacts.PROMOTION, Promotion)
        result = still_forced(promote(params, wish, project), before)
        if not wish.dry_run:
            write_record(artefacts.PROMOTION, result)
        how = f"{result.outcome} by force" if wish.force and result.outcome == "promoted" else result.outcome
        champion = "" if result.outcome == "not here" else f" Champion: version {result.champion or 'none'}."
        print(f"{how}: {result.reason}{champion}")
        if wish.force and not wish.dry_run:
            page = "stages.page" if detects() else "stages.leaderboard"  # which says what was overruled
            runpy.run_module(page, run_name="__main__")


def detects() -> bool:
    """Whether this is the pipeline of whole photographs."""
    return load_section("data", DataParams, optional=True).task == "detect"


def of_classifiers() -> Project:
    """The project of crops in the working folder."""
    served = load_section("serving", ServedAs, optional=True).state
    eyes = load_section("drift", LooksWith, optional=True).embedding
    export = partial(build_folder, eyes=eyes)
    return Project(artefacts.BUILD, Path(), read_pictures, load_network, compare, served, export)


def of_detectors(params: PromoteParams) -> Project:
    """The project of whole photographs in the working folder."""
    if params.trial.wanted:
        raise UserError("params.yaml: promote.trial.wanted: detectors are not served, so none can be on trial.")
    return Project(
        artefacts.BUILD,
        Path(),
        read_pictures,
        detector_version.load_network,
        detector_version.compare,
        export=detector_version.build_folder,
        decided=detector_version.read_detector_decision,
        read=detector_version.read_chosen_detector,
        pair=detector_version.pair,
    )


if __name__ == "__main__":
    run(main)
