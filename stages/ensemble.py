"""Stage `ensemble`: combine the best few candidates by validation, and let the result compete with them.

Members share one input size, that of the best, so that the served model reads each picture once. The stacking
regression learns from validation pictures; its figures on these come from folds that leave whole groups out, so that
it is not chosen for having seen the answers.
"""

from __future__ import annotations

import shutil
import sys

import numpy as np

from plumbline.common.errors import run
from plumbline.common.files import replacing_folder, write_json, write_table
from plumbline.common.params import load_sections
from plumbline.models.assemble import CROSS_VALIDATION, HEAD_WEIGHTS, MEMBERS, MODEL, NOT_MADE
from plumbline.models.combination import write_head
from plumbline.models.ensembles import (
    CANDIDATES,
    ENSEMBLES,
    Ensemble,
    Named,
    choose_members,
    combine_predictions,
    cross_validated,
    describe,
    history_of,
    read_members,
)
from plumbline.models.fitting import predictions_of, targets_of


def main() -> None:
    """Read build/candidates, write build/ensembles/NAME for every entry of `ensembles`, or why not: not_made.json."""
    entries = load_sections("ensembles", Ensemble, optional=True)
    names = list(load_sections("candidates", Named))
    # A candidate whose training failed is named as failed by `evaluate`; the others go on without it.
    trained = [name for name in names if (CANDIDATES / name / MODEL).is_file()]
    members = read_members(CANDIDATES, trained or names)
    not_made: dict[str, str] = {}
    with replacing_folder(ENSEMBLES) as top:
        for name, entry in entries.items():
            chosen = choose_members(members, entry.members)
            if len(chosen) < 2:
                size = chosen[0].model["image_size"]
                not_made[name] = (
                    f"no other candidate reads {size}-pixel pictures as the best one, {chosen[0].name}, does"
                )
                print(f"{name}: not made: {not_made[name]}", file=sys.stderr)
                continue
            probabilities, head = combine_predictions(chosen, entry.kind)
            table = chosen[0].table
            targets = targets_of(table["label"])
            folder = top / name
            folder.mkdir()
            for member in chosen:
                (folder / MEMBERS / member.name).mkdir(parents=True)
                for file in (MODEL, HEAD_WEIGHTS):
                    shutil.copyfile(CANDIDATES / member.name / file, folder / MEMBERS / member.name / file)
            folds = cross_validated(chosen, entry.kind)
            if folds is not None:
                write_table(folder / CROSS_VALIDATION, folds)
            write_head(folder / HEAD_WEIGHTS, *(head or (np.zeros((0, 0)), np.zeros(0))))
            write_table(folder / "predictions.parquet", predictions_of(table, targets, probabilities))
            write_table(folder / "history.csv", history_of(targets, probabilities, table["split"]))
            write_json(folder / MODEL, describe(name, entry, chosen, sum(part.size for part in head) if head else 0))
            print(f"{name}: {', '.join(member.name for member in chosen)}", file=sys.stderr)
        write_json(top / NOT_MADE, not_made)


if __name__ == "__main__":
    run(main)
