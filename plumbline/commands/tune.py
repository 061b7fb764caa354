"""Search a candidate's parameters on its cached features: `plumbline tune CANDIDATE [--trials N] [--write]`."""

from __future__ import annotations

import argparse
import json

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import write_json, write_text
from plumbline.common.params import PARAMS, load_section
from plumbline.common.records import read_table
from plumbline.models.candidates import Candidate
from plumbline.models.features import open_features
from plumbline.models.search import Tune, as_it_stands, open_study, search, study_key, write_back


def main() -> None:
    """Search, print the winner, and with --write put it into params.yaml."""
    from optuna.trial import TrialState

    from plumbline.models.training import TrainParams

    parser = argparse.ArgumentParser(
        prog="plumbline tune", description="Search a candidate's parameters on validation pictures."
    )
    parser.add_argument("candidate")
    parser.add_argument("--trials", type=int, help="how many more (default: params.yaml, tune.trials)")
    parser.add_argument("--write", action="store_true", help="put the winning values into params.yaml")
    arguments = parser.parse_args()
    if arguments.trials is not None and arguments.trials < 1:
        parser.error("--trials: 1 or more")
    params = load_section("tune", Tune)
    candidate = load_section(f"candidates.{arguments.candidate}", Candidate)
    seed = load_section("train", TrainParams).seed
    splits = read_table(artefacts.SPLITS)
    features = open_features(artefacts.FEATURES / candidate.backbone)
    study = open_study(arguments.candidate, study_key(candidate, splits, features, seed), params.seed)
    changes = search(arguments.candidate, candidate, splits, features, study, arguments.trials or params.trials, seed)
    best, first = study.best_trial, as_it_stands(study, TrialState.COMPLETE)
    assert first is not None, "search begins with it"
    result = {
        "candidate": arguments.candidate,
        "trials": len(study.trials),
        "as_it_stood": {"val_loss": first.value, "val_accuracy": first.user_attrs.get("val_accuracy")},
        "best": {"trial": best.number, "val_loss": best.value, "val_accuracy": best.user_attrs["val_accuracy"]},
        "changes": changes,
    }
    write_json(artefacts.TRIALS / f"{arguments.candidate}.json", result)
    print(json.dumps(result, indent=2))
    if arguments.write and best.number != first.number:
        write_text(PARAMS, write_back(PARAMS.read_text(encoding="utf-8"), arguments.candidate, changes))
        print(f"{PARAMS}: candidates.{arguments.candidate} has the winning values; `dvc repro` trains with them")
    elif arguments.write:
        print(f"{PARAMS}: left as it is: nothing was better than the entry as it stands")


if __name__ == "__main__":
    run(main)
