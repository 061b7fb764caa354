"""Stage `ensemble`: combine the best few candidates by validation, and let the result compete with them.

Members share one input size, that of the best, so that the served model reads each picture once. The stacking
regression learns from validation pictures; its figures on these come from folds that leave whole groups out, so that
it is not chosen for having seen the answers.
"""

from __future__ import annotations

import shutil
import sys

import numpy as np

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import replacing_folder, write_json, write_table
from plumbline.common.params import Named, load_sections
from plumbline.common.records import write_record
from plumbline.models.combination import write_head
from plumbline.models.ensembles import (
    Ensemble,
    choose_members,
    combine_predictions,
    cost_of,
    history_of,
    model_record,
    read_members,
    why_not_made,
)
from plumbline.models.fitting import predictions_of, targets_of


def main() -> None:
    """Read build/candidates, write build/ensembles/NAME for every entry of `ensembles`, or why not: not_made.json."""
    entries = load_sections("ensembles", Ensemble, optional=True)
    names = [*load_sections("candidates", Named), *load_sections("students", Named, optional=True)]
    # A candidate whose training failed is named as failed by `evaluate`; the others go on without it.
    trained = [name for name in names if (artefacts.CANDIDATES / name / artefacts.MODEL).is_file()]
    members = read_members(artefacts.CANDIDATES.path, trained or names)
    not_made: dict[str, str] = {}
    with replacing_folder(artefacts.ENSEMBLES) as top:
        for name, entry in entries.items():
            chosen = choose_members(members, entry.members)
            if len(chosen) < 2:
                not_made[name] = why_not_made(chosen)
                print(f"{name}: not made: {not_made[name]}", file=sys.stderr)
                continue
            probabilities, head = combine_predictions(chosen, entry.kind)
            table = chosen[0].table
            targets = targets_of(table["label"])
            folder = top / name
            folder.mkdir()
            for member in chosen:
                (folder / artefacts.MEMBERS / member.name).mkdir(parents=True)
                for file in (artefacts.MODEL, artefacts.HEAD_WEIGHTS):
                    shutil.copyfile(
                        artefacts.CANDIDATES / member.name / file, folder / artefacts.MEMBERS / member.name / file
                    )
            write_head(folder / artefacts.HEAD_WEIGHTS, *(head or (np.zeros((0, 0)), np.zeros(0))))
            write_table(folder / artefacts.PREDICTIONS, predictions_of(table, targets, probabilities))
            write_table(folder / artefacts.HISTORY, history_of(targets, probabilities, table["split"]))
            trained_here = sum(part.size for part in head) if head else 0
            write_record(folder / artefacts.MODEL, model_record(name, entry, chosen, trained_here))
            write_record(folder / artefacts.COST, cost_of(chosen))
            print(f"{name}: {', '.join(member.name for member in chosen)}", file=sys.stderr)
        write_json(top / artefacts.NOT_MADE, not_made)


if __name__ == "__main__":
    run(main)
