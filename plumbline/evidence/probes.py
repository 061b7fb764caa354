"""Does a model look at the head? Figures, with intervals over groups, and sentences on what it predicts when framing,
background or head are taken away, from the results of the stages `disturb` and `probe`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.records import read_record
from plumbline.evidence.candidates import Predictions, TrainedCandidate, folder_of
from plumbline.evidence.intervals import draw_weights, group_codes, rate_with_interval
from plumbline.evidence.records import AttentionEvidence, ConditionAnswers, Disturbing, Figure, ProbeEvidence
from plumbline.models.combination import read_head, stacked, stacking_inputs
from plumbline.tasks.scores import Floats

REFRAMED, BLURRED, SWAPPED = "same framing", "background blurred", "background swapped"
COVERED, ELSEWHERE = "head covered", "elsewhere covered"
Conditions = dict[str, ConditionAnswers]


@dataclass(frozen=True)
class Probe:
    """`answers` maps a condition to probabilities (n, K) of the pictures `paths` (n,).

    `attention` has path, mass, area, and no row where the network has no feature maps.
    """

    paths: list[str]
    answers: dict[str, Floats]
    attention: pd.DataFrame


def zoom_name(factor: float) -> str:
    """Return the condition's name of a zoom."""
    return f"zoom {factor:g}"


def read_probes(build: Path, candidates: dict[str, TrainedCandidate]) -> dict[str, Probe]:
    """Return the probes of the candidates that were probed; an ensemble's are put together from its members'."""
    folder = artefacts.PROBES.inside(build)
    left_out = read_not_probed(build, candidates)
    probed = [name for name in candidates if name not in left_out and (folder / name).is_dir()]
    found = {name: _read(folder / name, candidates[name]) for name in probed}
    for name, candidate in candidates.items():
        members = [found.get(member.name) for member in candidate.model.members]
        complete = [member for member in members if member is not None]
        if complete and len(complete) == len(members):
            head = folder_of(artefacts.CANDIDATES.inside(build), name) / artefacts.HEAD_WEIGHTS
            found[name] = _combined(complete, candidate, head)
    return found


def read_not_probed(build: Path, candidates: dict[str, TrainedCandidate]) -> dict[str, str]:
    """Return the candidates whose probes were left out, with the reason; of an ensemble its member's."""
    folder = artefacts.PROBES.inside(build)
    files = {name: folder / name / artefacts.NOT_MEASURED for name in candidates}
    found = {name: read_record(file, Disturbing).not_measured or "" for name, file in files.items() if file.is_file()}
    for name, candidate in candidates.items():
        left_out = next((member.name for member in candidate.model.members if member.name in found), None)
        if left_out is not None:
            found[name] = f"its member {left_out} was not probed"
    return found


def _read(folder: Path, candidate: TrainedCandidate) -> Probe:
    again = f"run `dvc repro -f probe@{folder.name}`"
    try:
        table, attention = pd.read_parquet(folder / artefacts.ANSWERS), pd.read_parquet(folder / artefacts.ATTENTION)
        columns = [f"p_{name}" for name in candidate.classes]
        answers = {str(name): part for name, part in table.groupby("condition", sort=False)}
        paths = next(iter(answers.values()))["path"].tolist()
        found = {name: part[columns].to_numpy(np.float64) for name, part in answers.items()}
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise UserError(f"{folder} can't be read ({error}): {again}.") from None
    if not set(paths) <= set(candidate.table.loc[candidate.table["split"] == "test", "path"]):
        raise UserError(f"{folder} is about other pictures than the present test set: {again}.")
    return Probe(paths, found, attention)


def _combined(members: list[Probe], candidate: TrainedCandidate, head: Path) -> Probe:
    """The ensemble's answers on its members' pictures; its Grad-CAM is the mean of theirs."""
    first = members[0]
    if any(member.paths != first.paths or list(member.answers) != list(first.answers) for member in members):
        raise UserError(f"the members of {candidate.name} were probed on other pictures: run `dvc repro`.")
    answers = {}
    for condition in first.answers:
        seen = np.stack([member.answers[condition] for member in members], axis=1).astype(np.float64)
        if candidate.model.architecture == "soft_vote":
            answers[condition] = seen.mean(axis=1)
        else:
            task = candidate.task
            answers[condition] = stacked(stacking_inputs(seen, task), *read_head(head), task)
    looks = pd.concat([member.attention for member in members])
    return Probe(first.paths, answers, looks.groupby("path", sort=False, as_index=False).mean())


def evaluate_probe(probe: Probe, sample: Predictions, resamples: int, seed: int) -> ProbeEvidence:
    """Return by condition how many answers change and how many are right, where Grad-CAM falls, and lines to read.

    `sample` holds the candidate's test pictures; those that were probed are whole groups of them.
    """
    clean = _probed(probe, sample)
    draws = draw_weights(clean.codes, resamples, seed)
    everywhere = np.full(len(probe.paths), True)
    conditions = {}
    for name, now in disturbed(probe, sample).items():
        changed = (now.predicted != clean.predicted).any(axis=1)
        conditions[name] = ConditionAnswers(
            changed=rate_with_interval(changed, everywhere, clean.codes, draws),
            right=rate_with_interval(now.right, everywhere, clean.codes, draws),
        )
    looks = evaluate_attention(probe.attention, clean, resamples, seed)
    return ProbeEvidence(
        images=len(probe.paths),
        groups=clean.groups,
        test_images=len(sample.paths),
        right=rate_with_interval(clean.right, everywhere, clean.codes, draws),
        conditions=conditions,
        attention=looks,
        lines=lines(conditions, looks),
    )


def _probed(probe: Probe, sample: Predictions) -> Predictions:
    place = {path: number for number, path in enumerate(sample.paths)}
    return sample.take(np.array([place[path] for path in probe.paths]))


def disturbed(probe: Probe, sample: Predictions) -> dict[str, Predictions]:
    """Return what a candidate answered under each condition; `sample` holds its test pictures."""
    clean = _probed(probe, sample)
    return {name: clean.answering(probabilities) for name, probabilities in probe.answers.items()}


def evaluate_attention(
    attention: pd.DataFrame, sample: Predictions, resamples: int, seed: int
) -> AttentionEvidence | None:
    """Return the mean share of Grad-CAM inside the head with its interval, and the share that chance would give.

    None without feature maps, or where no Grad-CAM is above zero.
    """
    seen = attention.dropna()
    if seen.empty:
        return None
    place = {path: number for number, path in enumerate(sample.paths)}
    codes = group_codes(sample.codes[[place[path] for path in seen["path"]]])
    draws = draw_weights(codes, resamples, seed)
    means = (draws @ seen["mass"].to_numpy(np.float64)) / draws.sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    mass = Figure(value=float(seen["mass"].mean()), low=float(low), high=float(high))
    return AttentionEvidence(images=len(seen), mass=mass, area=float(seen["area"].mean()))


def worst_zoom(conditions: Conditions) -> str | None:
    """Return the zoom (or the same framing) that changes most answers, None where none was tried."""
    tried = [name for name in conditions if name.startswith("zoom ") or name == REFRAMED]
    return max(tried, key=lambda name: conditions[name].changed.value, default=None)


def lines(conditions: Conditions, looks: AttentionEvidence | None) -> tuple[str, ...]:
    """Return one sentence for each thing that was taken away."""
    said = [head_line(conditions), background_line(conditions), zoom_line(conditions), attention_line(looks)]
    return tuple(line for line in said if line)


def head_line(conditions: Conditions) -> str:
    """Return what covering the head does."""
    head, other = conditions[COVERED], conditions[ELSEWHERE]
    return (
        f"covering the head changes {_share(head.changed)} of the answers, "
        f"covering as much elsewhere {_share(other.changed)}"
    )


def background_line(conditions: Conditions) -> str:
    """Return what another background does."""
    return (
        f"the background of a picture with another label changes {_share(conditions[SWAPPED].changed)} "
        f"of the answers, a blurred one {_share(conditions[BLURRED].changed)}"
    )


def zoom_line(conditions: Conditions) -> str:
    """Return what the zoom does that changes most; empty where none was tried."""
    worst = worst_zoom(conditions)
    return "" if worst is None else f"{worst} changes {_share(conditions[worst].changed)} of the answers"


def attention_line(looks: AttentionEvidence | None) -> str:
    """Return where Grad-CAM falls."""
    if looks is None:
        return "Grad-CAM can't say where it looks: its last feature maps have a single place, or nothing spoke"
    return f"{looks.mass.value:.0%} of Grad-CAM falls on the head, which takes {looks.area:.0%} of the picture"


def _share(figure: Figure) -> str:
    return f"{figure.value:.0%}"
