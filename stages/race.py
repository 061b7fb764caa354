"""Stage `race`: which pictures select, and which candidates are still in question on them; chooses nobody (gate does).

All candidates are judged on validation. With gate.selection auto, those that it does not tell apart are trained again
without a fold of the training pictures and asked about it, fold by fold, until they are told apart or train.minutes
are spent. Reads build/candidates/, build/ensembles/, build/features/ and build/splits.parquet, writes build/race/
(race.json, each finalist's predictions of pictures it never saw, and by backbone whether stage `disturb` is worth its
time: a file each, so that another race does not disturb again what was disturbed). build/folds/ keeps every answer
about a fold under a digest of all that it depends on: a new candidate costs its own folds, and what was finished before
a kill is found again.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import replacing_folder, write_table
from plumbline.common.params import load_section
from plumbline.common.records import read_record, read_table, write_record
from plumbline.common.store import open_store
from plumbline.evidence.candidates import TrainedCandidate, folder_of, read_candidates
from plumbline.evidence.evaluation import names_of_all
from plumbline.evidence.race import Answers, Entrant, Terms, all_folds, disturbing, race, validation_alone
from plumbline.evidence.rules import Gate, cost_of, standing
from plumbline.evidence.unseen import Unseen
from plumbline.models.assemble import load_served
from plumbline.models.candidates import Candidate, entry_of
from plumbline.models.compressed import Compressed
from plumbline.models.compression import AfterTraining, Original
from plumbline.models.export import export_onnx, with_embedding
from plumbline.models.features import open_features
from plumbline.models.folds import FoldAnswers, count_folds, folds_of
from plumbline.models.latency import latencies_served
from plumbline.models.records import BackboneRecord
from plumbline.models.training import TrainParams


def main() -> None:
    """Write build/race/ and build/folds/."""
    import pandas as pd

    train, gate = load_section("train", TrainParams), load_section("gate", Gate)
    candidates, _ = read_candidates(artefacts.CANDIDATES.path, names_of_all())
    splits = read_table(artefacts.SPLITS)
    part = folds_of(splits, train.folds, train.seed)
    answers = FoldAnswers(splits, part, train.seed, artefacts.FOLDS.path, open_store())

    def ask(name: str, number: int) -> pd.DataFrame:
        compressed = candidates[name].model.compressed
        candidate = entry_of(compressed.of if compressed else name)
        features = open_features(artefacts.FEATURES / candidate.backbone)
        after = after_training(candidates[name], candidate, train.seed) if compressed else None
        teacher = None
        if candidate.teacher is not None:
            teaching = entry_of(candidate.teacher)
            teacher = teaching, open_features(artefacts.FEATURES / teaching.backbone)
        return answers.of(name, candidate, features, number, after, teacher)

    artefacts.FOLDS.path.mkdir(parents=True, exist_ok=True)
    unseen = Unseen(candidates, ask, gate.resamples, gate.seed)
    stand = standing(candidates, gate)
    latencies = served_latencies(stand) if gate.prefer == "latency" else {}
    entrants = [
        replace(entrant(one, candidates, train.folds), cost=cost_of(one, gate.prefer, latencies))
        for one in stand.values()
    ]
    terms = Terms(count_folds(part), train.minutes, gate.margin, gate.confidence, gate.alpha)
    runs = {"auto": race, "validation": validation_alone, "cross_validation": all_folds}

    def look(names: list[str], asked: int) -> Answers:
        before, began = len(answers.trained), time.monotonic()
        found = unseen.answers(names, asked)
        if trained_for := len(answers.trained) - before:
            seconds = time.monotonic() - began
            print(
                f"race: {len(names)} candidates on validation and {asked} of {terms.folds} folds: {trained_for} "
                f"trainings in {seconds:.0f} s",
                file=sys.stderr,
            )
        for name, why in found.failed.items():
            print(f"race: {name} leaves: {why}", file=sys.stderr)
        return found

    found = runs[gate.selection](entrants, look, terms)
    if latencies:
        found = found.model_copy(update={"latencies": latencies})
    with replacing_folder(artefacts.RACE) as folder:
        write_record(folder / artefacts.RACE_RECORD, found)
        for name in found.finalists:
            write_table(folder / f"{name}.parquet", unseen.table(name, found.folds))
        standing_on = {one for name in found.finalists for one in backbones_of(candidates[name])}
        left_out = []
        for file in sorted(artefacts.FEATURES.path.glob(f"*/{artefacts.BACKBONE}")):
            name = file.parent.name
            verdict = disturbing(read_record(file, BackboneRecord).weights, name in standing_on)
            write_record(folder / artefacts.DISTURB / f"{name}.json", verdict)
            left_out += [name] if verdict.not_measured else []
    # Answers that this run did not use are removed: the same run leaves the same files.
    for file in artefacts.FOLDS.path.iterdir():
        if file.name not in answers.used:
            file.unlink()
    print(f"{len(answers.used)} folds asked, {len(answers.trained)} of them trained for", file=sys.stderr)
    if left_out:
        print(f"not probed: candidates on {', '.join(left_out)}: random weights, and none of them is in question")
    print(found.why)


def backbones_of(candidate: TrainedCandidate) -> set[str]:
    """Return the names of the backbones that a candidate stands on, or its members do."""
    return {member.backbone for member in candidate.model.members} or {candidate.model.backbone}


def entrant(candidate: TrainedCandidate, candidates: dict[str, TrainedCandidate], folds: int) -> Entrant:
    """Return a candidate as the race sees it. A fold takes what training took, on so many fewer pictures.

    A compressed one's original is trained for it, and then compressed; a student's teacher is trained before it. Where
    no candidate's time was measured, none pays for a fold.
    """
    asked = [member.name for member in candidate.model.members] or [candidate.name]
    measured = [one.seconds for one in candidates.values() if one.seconds is not None]
    longest = max(measured, default=math.inf)  # one whose time was not measured may be the slowest

    def took(name: str) -> float:
        one = candidates.get(name)
        own = longest if one is None or one.seconds is None else one.seconds
        if one is None:
            return own
        before = one.model.compressed.of if one.model.compressed else one.model.settings.get("teacher")
        return own + took(before) if before else own

    seconds = {name: (folds - 1) / folds * took(name) for name in asked}
    return Entrant(candidate.name, (candidate.parameters,), seconds)


def served_latencies(candidates: dict[str, TrainedCandidate]) -> dict[str, float]:
    """Return what each candidate takes for a picture as it is served (see plumbline.models.latency), by name."""
    with tempfile.TemporaryDirectory(prefix="plumbline-race-") as scratch:
        files = []
        for name, one in candidates.items():
            features = artefacts.FEATURES / min(backbones_of(one))
            served = load_served(folder_of(artefacts.CANDIDATES.path, name), features)
            if not isinstance(served, Path):
                network, served = served, Path(scratch) / f"{name}.onnx"
                export_onnx(with_embedding(network), served, one.model.fit)
            files.append(served)
        return dict(zip(candidates, latencies_served(files), strict=True))


def after_training(one: TrainedCandidate, original: Candidate, seed: int) -> AfterTraining:
    """Return what is done to compressed candidate `one`'s `original` once it is trained without a fold."""
    from plumbline.imaging.reading import iter_rgb
    from plumbline.imaging.settings import DataParams

    data, model = load_section("data", DataParams), one.model
    assert model.compressed is not None
    return AfterTraining(
        name=one.name,
        entry=load_section(f"compressed.{one.name}", Compressed),
        recipe=model.compressed.kept,
        original=Original(
            candidate=original,
            features=artefacts.FEATURES / original.backbone,
            fit=model.fit,
            pictures=lambda paths: iter_rgb(data, paths, (model.image_size, model.image_size), fit=model.fit),
            classes=len(model.classes),
            task=one.task,
        ),
        seed=seed,
    )


if __name__ == "__main__":
    run(main)
