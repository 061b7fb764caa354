"""Search a candidate's parameters on its cached features.

Optuna proposes learning rate, batch size and, by architecture, head, dropout, width and augmentation; each trial trains
as `train@CANDIDATE` would and is judged by its least validation loss. The test pictures are taken out of the table
before the first trial. Trials are kept in build/tune/CANDIDATE.db (`optuna-dashboard sqlite:///build/tune/...`) and go
on where they stopped; the first is the entry as it is, so that "better" means better than that. `--write` puts
the winning values into params.yaml, comments kept, and `dvc repro` trains with them.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
import yaml
from pydantic import Field

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.params import Section
from plumbline.models.candidates import TRANSFER, TRIPLET, Candidate
from plumbline.models.features import Features

if TYPE_CHECKING:
    import optuna

AS_IT_STANDS = "as it stands"
HEADS: dict[str, tuple[int, ...]] = {"linear": (), "128": (128,), "256": (256,), "256-128": (256, 128)}
DIGITS = 3  # of a number between bounds: more say nothing, and read badly in params.yaml
SPACE = 3  # another number where `propose` asks for something else: trials of another space are another study


Settings = dict[str, Any]
"""Values of a candidate's entry by key, as JSON: what a trial changes."""


class Tune(Section):
    """params.yaml, section `tune`."""

    trials: Annotated[int, Field(ge=1)] = 20
    seed: Annotated[int, Field(ge=0)] = 0


def propose(trial: optuna.Trial, candidate: Candidate, features: Features) -> Settings:
    """Return what this trial changes in the candidate's entry. The entry's own values are always among the choices."""
    rate = candidate.learning_rate
    changes: Settings = {
        "learning_rate": _suggest(trial, "learning_rate", rate, min(1e-5, rate), 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", _with((16, 32, 64, 128), candidate.batch_size)),
    }
    if candidate.architecture in (TRANSFER, TRIPLET) and features.views:
        changes["augmented"] = trial.suggest_categorical("augmented", [False, True])
    if candidate.architecture == TRIPLET:
        return changes
    if candidate.head is not None:
        heads = HEADS | {_head_name(candidate.head.hidden): candidate.head.hidden}
        hidden = heads[trial.suggest_categorical("hidden", list(heads))]
        head: Settings = {**candidate.head.model_dump(mode="json"), "hidden": list(hidden)}
        head["dropout"] = _suggest(trial, "dropout", candidate.head.dropout, 0.0, 0.6) if hidden else 0.0
        if len(features.shape) > 1:
            poolings = _with(("flatten", "average"), candidate.head.pooling)
            head["pooling"] = trial.suggest_categorical("pooling", poolings)
        return {**changes, "head": head}
    changes["width"] = trial.suggest_categorical("width", _with((0.25, 0.5, 0.75, 1.0), candidate.width))
    changes["mirror"] = trial.suggest_categorical("mirror", [False, True])
    changes["brightness"] = _suggest(trial, "brightness", candidate.brightness, 0.0, 0.4)
    return changes


def _suggest(trial: optuna.Trial, name: str, own: float, low: float, high: float, log: bool = False) -> float:
    """A number between `low` and `high`, or the entry's `own` if larger, of `DIGITS` significant digits.

    The rounded value is what the trial trains with, so what --write puts down is what was judged; the entry's own value
    stays as it was written.
    """
    high = max(high, own)
    value = trial.suggest_float(name, low, high, log=log)
    return value if value == own else min(float(f"{value:.{DIGITS}g}"), high)


def starting_point(candidate: Candidate) -> Settings:
    """The entry as it is, as parameters of the search; those that this search does not ask for are passed over."""
    names = ("learning_rate", "batch_size", "augmented", "width", "mirror", "brightness")
    point: Settings = {name: getattr(candidate, name) for name in names}
    if candidate.head is None:
        return point
    head = candidate.head
    return point | {"hidden": _head_name(head.hidden), "dropout": head.dropout, "pooling": head.pooling}


def _with(choices: tuple[Any, ...], own: Any) -> list[Any]:
    return list(dict.fromkeys((*choices, own)))


def _head_name(hidden: tuple[int, ...]) -> str:
    return "-".join(map(str, hidden)) or "linear"


def changed(candidate: Candidate, changes: Settings) -> Candidate:
    """The candidate with a trial's changes, validated."""
    return Candidate.model_validate({**candidate.model_dump(mode="json"), **changes})


def search(
    name: str,
    candidate: Candidate,
    splits: pd.DataFrame,
    features: Features,
    study: optuna.Study,
    trials: int,
    seed: int,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> Settings:
    """Run `trials` more trials of `study`; returns the best trial's changes. Test pictures are dropped first."""
    from optuna.trial import TrialState

    from plumbline.models.training import train

    visible = splits[splits["split"] != "test"].reset_index(drop=True)
    if as_it_stands(study, TrialState.COMPLETE, TrialState.WAITING) is None:
        study.enqueue_trial(starting_point(candidate), user_attrs={AS_IT_STANDS: True})

    def objective(trial: optuna.Trial) -> float:
        changes = propose(trial, candidate, features)
        trial.set_user_attr("changes", changes)
        history = train(name, changed(candidate, changes), visible, features, seed).history
        losses = history["val_loss"].to_numpy(np.float64)
        trial.set_user_attr("val_accuracy", float(history["val_accuracy"].to_numpy()[losses.argmin()]))
        return float(losses.min())

    def report(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if trial.state == TrialState.COMPLETE:
            accuracy = trial.user_attrs["val_accuracy"]
            tried = {**trial.params, **_numbers(trial.user_attrs["changes"])}
            say(f"trial {trial.number}: validation loss {trial.value:.4f}, accuracy {accuracy:.3f}: {tried}")

    study.optimize(objective, n_trials=trials, callbacks=[report], catch=())
    result: Settings = study.best_trial.user_attrs["changes"]
    return result


def _numbers(changes: Settings) -> Settings:
    """The changes that are numbers, those of the head among them: as they were trained with."""
    flat = {**changes, **changes.get("head", {})}
    return {name: value for name, value in flat.items() if isinstance(value, float)}


def as_it_stands(study: optuna.Study, *states: optuna.trial.TrialState) -> optuna.trial.FrozenTrial | None:
    """The trial of the unchanged entry in one of `states`; None where it is missing, as after a kill."""
    trials = study.get_trials(deepcopy=False, states=states)
    return next((trial for trial in trials if trial.user_attrs.get(AS_IT_STANDS)), None)


def open_study(name: str, key: str, seed: int, folder: Path = artefacts.TRIALS.path) -> optuna.Study:
    """Open or create the study of candidate `name` for the data and settings behind `key`."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=f"{name}-{key}", storage=f"sqlite:///{folder / name}.db", direction="minimize", load_if_exists=True
    )
    # A sampler of the same seed would propose again what it proposed before.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    return study


def study_key(candidate: Candidate, splits: pd.DataFrame, features: Features, seed: int) -> str:
    """A digest of search space, entry, split, features and seed: trials are comparable while it is the same."""
    rows = splits[["path", "label", "split"]].to_csv(index=False)
    text = json.dumps([SPACE, candidate.model_dump(mode="json"), features.backbone.content(), seed], sort_keys=True)
    return hashlib.sha256((rows + text).encode()).hexdigest()[:12]


def write_back(text: str, name: str, changes: Settings) -> str:
    """params.yaml's text with `changes` in the entry candidates.`name`; every other line and comment stays.

    The entry is rewritten as a block, so comments inside it are lost. Raises UserError where any other entry would
    change.
    """
    entries = yaml.safe_load(text)["candidates"]
    lines = text.splitlines(keepends=True)
    start = next((n for n, line in enumerate(lines) if re.match(r"candidates:\s*(#.*)?$", line)), None)
    head = re.compile(rf"  {re.escape(name)}:(\s|$)")
    first = next((n for n in range(start + 1, len(lines)) if head.match(lines[n])), None) if start is not None else None
    if first is None:
        raise UserError(
            f"params.yaml: the entry candidates.{name} was not found as a line of its own: edit it by hand."
        )
    after = first + 1
    while after < len(lines) and (lines[after].startswith("   ") or not lines[after].strip()):
        after += 1
    while not lines[after - 1].strip():
        after -= 1
    entry = {**entries[name], **changes}
    block = [f"  {name}:\n"]
    for key, value in entry.items():
        shown = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
        block.append(f"    {key}: {shown}\n")
    written = "".join([*lines[:first], *block, *lines[after:]])
    try:
        safe = yaml.safe_load(written)["candidates"] == {**entries, name: entry}
    except yaml.YAMLError:
        safe = False
    if not safe:
        raise UserError(f"params.yaml: candidates.{name} could not be rewritten safely: put {changes} there by hand.")
    return written
