"""Figures on every candidate, with intervals. Judging them is left to `gate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.files import replacing_folder, write_json
from plumbline.common.params import Named, Section, load_sections
from plumbline.common.records import read_table
from plumbline.evidence import baselines as reference
from plumbline.evidence import calibration, conformal, curves, intervals, probes, shortcuts, slices, thresholds
from plumbline.evidence.candidates import SPLITS, Predictions, TrainedCandidate
from plumbline.evidence.compressed import against_original
from plumbline.evidence.records import (
    AgainstOriginal,
    AtThreshold,
    CalibrationNull,
    CandidateEvidence,
    CostCurve,
    Costs,
    Count,
    Evaluation,
    Figure,
    Gain,
    LeaderboardRow,
    ProbeEvidence,
    Reliability,
    Shortcut,
    SiteLeftOut,
    SliceEvidence,
    SplitEvidence,
    SplitSize,
)
from plumbline.models.features import open_features
from plumbline.tasks import scores
from plumbline.tasks.scores import Floats

SHOWN_THRESHOLDS = (0.3, 0.5, 0.7)


class CostParams(Section):
    """What a mistake costs, in any one unit."""

    missed_violation: float = Field(default=10, gt=0)
    false_alarm: float = Field(default=1, gt=0)


class Evaluate(Section):
    """params.yaml `evaluate`."""

    violation_class: str | None = "without_helmet"
    costs: CostParams = CostParams()
    resamples: int = Field(default=2000, ge=200)
    calibration_bins: int = Field(default=15, ge=2)
    permutations: int = Field(default=500, ge=100)
    slice_minimum_groups: int = Field(default=10, ge=2)
    audit_images: int = Field(default=3000, ge=100)
    seed: int = 0


def evaluate(
    candidates: dict[str, TrainedCandidate],
    missing: list[str],
    manifest: pd.DataFrame,
    pixels: NDArray[np.uint8],
    params: Evaluate,
    probed: dict[str, probes.Probe] | None = None,
    not_made: dict[str, str] | None = None,
    not_probed: dict[str, str] | None = None,
) -> Evaluation:
    """Return all figures on the candidates and their data.

    `manifest` and `pixels` (N, H, W, 3) hold the pictures that the candidates predicted, in their tables' order;
    `missing` names candidates of params.yaml without a result; `probed` holds the answers of probed candidates
    to disturbed test pictures; `not_made` names ensembles that could not be made, `not_probed` candidates whose probes
    were left out, with the reason.
    """
    first = next(iter(candidates.values()))
    classes = first.classes
    violation = violation_index(classes, params.violation_class)
    samples = {split: first.sample(split) for split in SPLITS}
    draws = {
        split: intervals.draw_weights(sample.codes, params.resamples, params.seed + place)
        for place, (split, sample) in enumerate(samples.items())
    }
    everything = first.sample()
    references = baselines(everything, first.table["split"], pixels)
    cuts, skipped = slices.slicings(manifest)
    in_test = (first.table["split"] == "test").to_numpy()
    test_cuts = [slices.Slicing(cut.column, cut.values[in_test]) for cut in cuts]
    return Evaluation(
        classes=tuple(classes),
        **first.task.record,
        violation_class=None if violation is None else classes[violation],
        costs=Costs(**params.costs.model_dump()),
        data={split: split_size(sample, classes) for split, sample in samples.items()},
        missing=tuple(missing),
        slices_skipped=tuple(skipped),
        shortcuts=tuple(find_shortcuts(manifest, pixels, everything, params)),
        sites=tuple(unseen_sites(manifest, pixels, everything, params)),
        baselines={
            name: evaluate_baseline(probabilities, everything, first.table["split"], draws)
            for name, probabilities in references.items()
        },
        candidates={
            name: with_uncertainty(
                evaluate_candidate(
                    candidate,
                    draws,
                    violation,
                    params,
                    slices=evaluate_slices(candidate.sample("test"), test_cuts, draws["test"], violation, params),
                    versus=versus(candidate.sample("test"), references, in_test, draws["test"]),
                    looks=look(candidate, (probed or {}).get(name), params),
                ),
                candidate,
                candidates,
                draws["test"],
                (probed or {}).get(name),
                params.seed,
            ).model_copy(update=beside_original(candidate, candidates, test_cuts, draws["test"], params))
            for name, candidate in candidates.items()
        },
        not_made=not_made or {},
        not_probed=not_probed or {},
    )


def beside_original(
    candidate: TrainedCandidate,
    candidates: dict[str, TrainedCandidate],
    cuts: list[slices.Slicing],
    draws: Floats,
    params: Evaluate,
) -> dict[str, AgainstOriginal]:
    """Return what is to be said of a compressed candidate beside its original, nothing of others."""
    record = candidate.model.compressed
    if record is None or record.of not in candidates:
        return {}
    return {"original": against_original(candidate, candidates[record.of], cuts, draws, params.slice_minimum_groups)}


def look(candidate: TrainedCandidate, probe: probes.Probe | None, params: Evaluate) -> ProbeEvidence | None:
    """Return the figures of a candidate's probes, None where it was not probed."""
    if probe is None:
        return None
    return probes.evaluate_probe(probe, candidate.sample("test"), params.resamples, params.seed)


def with_uncertainty(
    entry: CandidateEvidence,
    candidate: TrainedCandidate,
    candidates: dict[str, TrainedCandidate],
    draws: Floats,
    probe: probes.Probe | None,
    seed: int,
) -> CandidateEvidence:
    """Return the evidence with the candidate's conformal sets, and how far an ensemble's members disagree.

    The sets rest on validation alone: what folds answer is another model's, about which nothing would be promised.
    """
    validation, test = (candidate.sample(split).scaled(entry.temperature) for split in ("validation", "test"))
    answers = {} if probe is None else probes.disturbed(probe, candidate.sample("test"))
    disturbed = {name: sample.scaled(entry.temperature) for name, sample in answers.items()}
    found: dict[str, object] = {"sets": conformal.conformal_sets(validation, test, draws, disturbed, seed)}
    members = {one.name: candidates[one.name].sample("test") for one in candidate.model.members}
    if members:
        found["spread"] = conformal.members_spread(members, test, draws)
    return entry.model_copy(update=found)


def baselines(sample: Predictions, splits: pd.Series, pixels: NDArray[np.uint8]) -> dict[str, Floats]:
    """Return the reference models' probabilities (N, K) for every picture."""
    train, validation = (splits == "train").to_numpy(), (splits == "validation").to_numpy()
    return {
        reference.MAJORITY: reference.majority(sample, train),
        reference.PIXELS: reference.pixel_regression(pixels, sample, train, validation),
    }


def evaluate_baseline(
    probabilities: Floats, sample: Predictions, splits: pd.Series, draws: dict[str, Floats]
) -> dict[str, Figure]:
    """Return a reference model's accuracy by split, with its interval."""
    result = {}
    for split in SPLITS:
        part = sample.answering(probabilities).take((splits == split).to_numpy())
        everywhere = np.full(len(part.truth), True)
        result[split] = intervals.rate_with_interval(part.right, everywhere, part.codes, draws[split])
    return result


def versus(
    sample: Predictions, references: dict[str, Floats], in_test: NDArray[np.bool_], draws: Floats
) -> dict[str, Gain]:
    """Return by how much the candidate is more accurate than each reference on the test pictures, paired by picture."""
    result = {}
    for name, probabilities in references.items():
        gain = sample.right.astype(np.float64) - sample.answering(probabilities[in_test]).right
        drawn = (draws @ gain) / draws.sum(axis=1)
        low, high = np.percentile(drawn, [2.5, 97.5])
        result[name] = Gain(
            value=float(gain.mean()),
            low=float(low),
            high=float(high),
            spread=float(drawn.std()),
            share_better=float((drawn > 0).mean()),
        )
    return result


def evaluate_slices(
    sample: Predictions, cuts: list[slices.Slicing], draws: Floats, violation: int | None, params: Evaluate
) -> tuple[SliceEvidence, ...]:
    """Return accuracy and recall of the violation in every slice of the test pictures; small slices are marked."""
    right, predicted = sample.right, sample.predicted
    rows = []
    for cut in cuts:
        for value in sorted(set(cut.values) - {""}, key=_slice_order):
            inside = np.asarray(cut.values == value)
            groups = len(np.unique(sample.codes[inside]))
            row = SliceEvidence(
                column=cut.column,
                value=str(value),
                images=int(inside.sum()),
                groups=groups,
                judged=groups >= params.slice_minimum_groups,
                accuracy=intervals.rate_with_interval(right, inside, sample.codes, draws),
            )
            if violation is not None:
                among = inside & sample.truth[:, violation]
                recall = intervals.rate_if_any(predicted[:, violation], among, sample.codes, draws)
                row = row if recall is None else row.model_copy(update={"recall": recall})
            rows.append(row)
    return tuple(rows)


def _slice_order(value: str) -> tuple[int, str]:
    return (slices.THIRDS.index(value) if value in slices.THIRDS else -1, value)


def find_shortcuts(
    manifest: pd.DataFrame, pixels: NDArray[np.uint8], sample: Predictions, params: Evaluate
) -> list[Shortcut]:
    """Return the shortcut checks of the data set; for a large one on whole groups, drawn up to `audit_images`."""
    kept = intervals.some_groups(sample.codes, params.audit_images, params.seed)
    part = sample.take(kept)
    return shortcuts.measure_all(
        manifest[kept].reset_index(drop=True),
        pixels[kept],
        part.label_sets,
        part.codes,
        params.permutations,
        params.seed,
    )


def unseen_sites(
    manifest: pd.DataFrame, pixels: NDArray[np.uint8], sample: Predictions, params: Evaluate
) -> list[SiteLeftOut]:
    """Return leave-one-site-out on 16x16 pixels, empty without a `site` column."""
    if "site" not in manifest:
        return []
    kept = intervals.some_groups(sample.codes, params.audit_images, params.seed)
    features = shortcuts.thumbnail_features(pixels[kept], reference.SIDE)
    sites = manifest["site"].astype("string").fillna("").to_numpy(dtype=object)[kept]
    sets = sample.take(kept).label_sets
    return reference.leave_one_site_out(features, sets, sample.codes[kept], sites, params.seed)


def violation_index(classes: list[str], violation: str | None) -> int | None:
    """Return the index of the class that must not be missed, None where params.yaml says there is none."""
    if violation is None:
        return None
    if violation not in classes:
        raise UserError(
            f"params.yaml: evaluate.violation_class is '{violation}', but the classes are {', '.join(classes)}: "
            "name one of these, or null where no class is a violation."
        )
    return classes.index(violation)


def split_size(sample: Predictions, classes: list[str]) -> SplitSize:
    """Return how many images and groups a split holds, in all and by class."""
    return SplitSize(
        images=len(sample.truth),
        groups=sample.groups,
        by_class={
            name: Count(images=int(sample.truth[:, k].sum()), groups=len(np.unique(sample.codes[sample.truth[:, k]])))
            for k, name in enumerate(classes)
        },
    )


def evaluate_candidate(
    candidate: TrainedCandidate,
    draws: dict[str, Floats],
    violation: int | None,
    params: Evaluate,
    slices: tuple[SliceEvidence, ...] = (),
    versus: dict[str, Gain] | None = None,
    looks: ProbeEvidence | None = None,
) -> CandidateEvidence:
    """Return model, temperature, threshold, and by split: scores with intervals, confusion, calibration, alarms.

    `slices`, `versus` and `looks` (the probes) are kept with them.
    """
    classes = candidate.classes
    samples = {split: candidate.sample(split) for split in SPLITS}
    validation = samples["validation"]
    temperature = calibration.fit_temperature(*validation.decisions)
    threshold = None
    if violation is not None:
        threshold = thresholds.choose_threshold(
            validation.truth[:, violation],
            validation.scaled(temperature).probabilities[:, violation],
            params.costs.missed_violation,
            params.costs.false_alarm,
        )
    splits = {
        split: evaluate_split(sample, draws[split], classes, temperature, threshold, violation, params)
        for split, sample in samples.items()
    }
    train, test = (splits[split].scores["accuracy"].value for split in ("train", "test"))
    return CandidateEvidence(
        model=candidate.model.description(),
        temperature=temperature,
        threshold=threshold,
        train_test_difference=train - test,
        splits=splits,
        slices=slices,
        versus=versus or {},
        probes=looks,
    )


def evaluate_split(
    sample: Predictions,
    draws: Floats,
    classes: list[str],
    temperature: float,
    threshold: float | None,
    violation: int | None,
    params: Evaluate,
) -> SplitEvidence:
    """Return one candidate's figures on one split."""
    scaled = sample.scaled(temperature)
    found = SplitEvidence(
        scores=scores_with_intervals(sample, scaled, draws, classes, violation, params.calibration_bins),
        confusion=tuple(sample.task.confusions(sample.truth, sample.predicted, classes)),
        reliability=Reliability(
            before=calibration.reliability(*sample.decisions, params.calibration_bins),
            after=calibration.reliability(*scaled.decisions, params.calibration_bins),
        ),
        calibration_null=null_summary(scaled.decisions[1], params),
    )
    if violation is None or threshold is None:
        return found
    is_violation, score = sample.truth[:, violation], scaled.probabilities[:, violation]
    grid = np.round(np.arange(0.01, 1.0, 0.01), 2)
    cost = thresholds.cost_at(is_violation, score, grid, params.costs.missed_violation, params.costs.false_alarm)
    alarms = {
        "operating_points": tuple(
            thresholds.operating_point(is_violation, score, at, chosen=at == threshold)
            for at in sorted({*SHOWN_THRESHOLDS, threshold})
        ),
        "scores_at_threshold": rates_at_threshold(sample, score >= threshold, is_violation, draws),
        "cost_curve": CostCurve(threshold=tuple(grid.tolist()), cost=tuple(cost.tolist())),
    }
    return found.model_copy(update=alarms)


def rates_at_threshold(
    sample: Predictions, alarm: NDArray[np.bool_], is_violation: NDArray[np.bool_], draws: Floats
) -> AtThreshold:
    """Return accuracy, recall and false alarm rate, with intervals, when the chosen threshold decides."""
    everywhere = np.full(len(alarm), True)
    return AtThreshold(
        accuracy=intervals.rate_with_interval(alarm == is_violation, everywhere, sample.codes, draws),
        recall=intervals.rate_if_any(alarm, is_violation, sample.codes, draws),
        false_alarm_rate=intervals.rate_if_any(alarm, ~is_violation, sample.codes, draws),
    )


def null_summary(scaled: Floats, params: Evaluate) -> CalibrationNull:
    """Return mean, 95% and 99% point of the calibration error that a truly calibrated model would show here."""
    null = calibration.null_calibration_errors(scaled, params.calibration_bins, params.resamples, params.seed)
    return CalibrationNull(
        mean=float(null.mean()), in_95=float(np.quantile(null, 0.95)), in_99=float(np.quantile(null, 0.99))
    )


def scores_with_intervals(
    sample: Predictions, scaled: Predictions, draws: Floats, classes: list[str], violation: int | None, bins: int
) -> dict[str, Figure]:
    """Return each score with its interval; scores by class are named `recall:CLASS`, after scaling `ece_scaled`.

    One that these pictures can't give is left out.
    """
    weights = np.vstack([np.ones((1, len(sample.truth))), draws])
    positive = len(classes) - 1 if violation is None else violation
    values = sample.task.scores(sample.truth, sample.probabilities, weights, positive, bins)
    answers, probabilities = scaled.decisions
    decisions = len(answers) // len(sample.truth)  # decisions of a picture all have the picture's weight
    weights = np.repeat(weights, decisions, axis=1) if decisions > 1 else weights
    after = scores.probability_scores(answers, probabilities, weights, bins)
    values |= {f"{name}_scaled": value for name, value in after.items()}
    losses = {
        f"{name}{suffix}": of_each(*one.decisions).reshape(len(one.truth), -1).mean(axis=1)
        for suffix, one in (("", sample), ("_scaled", scaled))
        for name, of_each in (("log_loss", scores.log_loss_of_each), ("brier", scores.brier_of_each))
    }
    result = {}
    for name, drawn in values.items():
        if not np.isfinite(drawn[0]):
            continue
        score, _, place = name.partition(":")
        by_truth = bool(place) and score != "precision"
        rests_on = sample.truth[:, int(place)] if by_truth else np.full(len(sample.truth), True)
        images, groups = int(rests_on.sum()), len(np.unique(sample.codes[rests_on]))
        value = float(drawn[0])
        if score in losses:
            low, high = intervals.mean_interval(losses[score], sample.codes, draws)
        else:
            low, high = intervals.interval(score, value, drawn[1:], images, groups)
        result[f"{score}:{classes[int(place)]}" if place else score] = Figure(value=value, low=low, high=high)
    return result


def leaderboard(evaluation: Evaluation) -> list[LeaderboardRow]:
    """Return one row per candidate: its size, the origin of its weights, its scores by split and their intervals."""
    return [
        LeaderboardRow(
            candidate=name,
            parameters=entry.model.parameters,
            trainable_parameters=entry.model.trainable_parameters,
            weights=entry.model.weights,
            metrics={
                split: {score: figure.value for score, figure in entry.splits[split].scores.items()} for split in SPLITS
            },
            intervals={
                split: {score: (figure.low, figure.high) for score, figure in entry.splits[split].scores.items()}
                for split in SPLITS
            },
        )
        for name, entry in evaluation.candidates.items()
    ]


def headline(entry: CandidateEvidence, violation: str | None) -> dict[str, float]:
    """Return the few figures of a candidate that `dvc metrics show` and `diff` put in its row, those that exist."""
    wanted = ["accuracy", "f1_macro", "roc_auc", "log_loss", "ece_scaled"]
    if violation is not None:
        wanted.insert(1, f"recall:{violation}")
    return {
        f"{split} {score.replace(':', ' ')}": round(entry.splits[split].scores[score].value, 6)
        for split in ("validation", "test")
        for score in wanted
        if score in entry.splits[split].scores
    }


def write_metrics(evaluation: Evaluation, folder: Path) -> None:
    """Write one small JSON per candidate: DVC shows a row for each file, and all of one file in a single row."""
    with replacing_folder(folder) as temporary:
        for name, entry in evaluation.candidates.items():
            write_json(temporary / f"{name}.json", headline(entry, evaluation.violation_class))


def write_plots(candidates: dict[str, TrainedCandidate], violation: str | None, folder: Path) -> None:
    """Write the data series that `dvc plots show` draws: one folder per kind, one CSV per candidate."""
    with replacing_folder(folder) as temporary:
        for name, candidate in candidates.items():
            sample = candidate.sample("test")
            tables: dict[str, pd.DataFrame] = {
                "learning": curves.learning(candidate.history),
                "confusion": curves.pairs(sample, candidate.classes),
                "roc": curves.roc(sample, candidate.classes, violation),
                "pr": curves.precision_recall(sample, candidate.classes, violation),
            }
            for kind, table in tables.items():
                (temporary / kind).mkdir(exist_ok=True)
                table.to_csv(temporary / kind / f"{name}.csv", index=False)


def pictures_of(candidate: TrainedCandidate) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    """Return manifest rows and pixels (N, H, W, 3) of the pictures a candidate predicted, in its table's order."""
    paths = candidate.table["path"].tolist()
    manifest = read_table(artefacts.MANIFEST).set_index("path", drop=False)
    absent = next((path for path in paths if path not in manifest.index), None)
    if absent is not None:
        raise UserError(f"{artefacts.MANIFEST} has no row for {absent}: run `dvc repro`.")
    features = open_features(artefacts.FEATURES / "pixels")
    rows = features.rows_of(paths)
    return manifest.loc[paths].reset_index(drop=True), np.asarray(features.values[rows, 0], dtype=np.uint8)


def names_of_all() -> list[str]:
    """Return the names under `candidates` and, where there are such sections, `students`, `compressed`, `ensembles`."""
    others = (load_sections(section, Named, optional=True) for section in ("students", "compressed", "ensembles"))
    return [*load_sections("candidates", Named), *(name for names in others for name in names)]
