"""The numbers of the monitoring room, on real photographs with real champions.

    python -m benchmarks.drift [--shared ../shared] [--cache DIR] [--alibi PYTHON] [--seeds 10] [--only PART ...]
        [--champion mobilenet_v2|scratch] [--eyes own|champion] [--without TEST ...] [--windows N] [--sites N]

Parts: alarms (sites without drift over 20 windows, by reference), power (each kind of drift), accuracy (estimates
against truth, without labels and with some), time, simulation (alarms where images never run out). A quarter of
helmet/'s photographs is held out; the rest is the data set, parted 70/15/15 as the pipeline does, and the reference.
Windows are drawn from what was held out and from sites/, whole photographs at a time; a site's windows repeat images,
since there are 300 in all, and as monitoring does it, each counts once in what is judged together. The champion is the
candidate `mobilenet_v2` (ImageNet weights from SHARED/weights, its head trained on the training part) or a
`compact_cnn` trained from scratch on 64 x 64 pixels. Pictures are measured and embedded once, into the cache. Beside
our verdict stand Evidently's defaults on the same windows and, with --alibi PYTHON of an environment that has it,
alibi-detect's MMD. Results go to build/benchmarks/drift.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.drifted import CONDITIONS, WEIGHTS, Pool, changed, export_network, load_pool
from benchmarks.label_free import (
    density_ratios,
    importance_weighted,
    shrunk_difference,
    thresholded_confidence,
    transported_confidence,
    weighted_difference,
)
from monitoring import judge as judging
from monitoring import looks
from monitoring.accuracy import calibrated, estimate_accuracy, expected_accuracy
from monitoring.judge import ONLY_WATCHED, POOLS, Tested, judge, run_tests
from monitoring.labelled import errors_of, held_against, powered_accuracy, risk_of
from monitoring.labelling import drawn_evenly
from monitoring.looks import Known, Looks
from monitoring.observations import Observations
from monitoring.permutation import MARGIN, Layout, Statistic, classifier, kolmogorov, mean_discrepancy
from monitoring.reference import Reference, measures_of
from monitoring.settings import DriftParams
from plumbline.common.files import write_json, write_table
from plumbline.common.records import write_record
from plumbline.common.wilson import wilson
from plumbline.evidence.calibration import fit_temperature
from plumbline.registry import bundle
from plumbline.registry import versions as registry
from plumbline.registry.eyes import RECORD as EYES_RECORD
from plumbline.registry.eyes import SIZE as EYES_SIZE
from plumbline.registry.eyes import EyesRecord
from plumbline.tasks.one_label import ONE_LABEL

RESULTS = Path("build/benchmarks")
CLASSES = ["with_helmet", "without_helmet"]
AS_IS = "as they are"
PARAMS = DriftParams(permutations=1999)  # a fifth of the default: power and level hardly depend on it
PARTS = ["time", "simulation", "accuracy", "power", "alarms"]
Row = dict[str, Any]
RIVALS_SETTINGS, RIVALS_WINDOWS = 2, 5  # Evidently draws as it computes, alibi-detect's process is slow to start


@dataclass(frozen=True)
class Setting:
    """One draw of the data set and the rest: `part` (N,) of every picture of the pool, and what the champion makes of
    them by condition: `raw` (N, 2) probabilities as the network gives them, `own` (N, D) embeddings."""

    pool: Pool
    part: NDArray[np.object_]
    raw: dict[str, NDArray[np.float64]]
    own: dict[str, NDArray[np.float32]]
    temperature: float
    head: tuple[NDArray[np.float64], float] | None = None

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.asarray(self.pool.table["label"] == CLASSES[1], np.int64)

    def sample(self, condition: str, rows: NDArray[np.intp], grouped: str = "photo") -> Observations:
        """Return pictures as monitoring would see them, those that share `grouped` belonging together."""
        return Observations(
            measures_of(self.pool.descriptors[condition].iloc[rows].reset_index(drop=True)),
            calibrated(self.raw[condition][rows], self.temperature),
            self.own[condition][rows],
            pd.factorize(self.pool.table[grouped].iloc[rows])[0].astype(np.int64),
        )

    def looks(self, condition: str, rows: NDArray[np.intp], grouped: str = "photo") -> Looks:
        """Return what pictures look like."""
        return Looks(
            measures_of(self.pool.descriptors[condition].iloc[rows].reset_index(drop=True)),
            self.pool.embeddings[condition][rows],
            self.pool.small[condition][rows],
            pd.factorize(self.pool.table[grouped].iloc[rows])[0].astype(np.int64),
        )

    def rows(self, *parts: str) -> NDArray[np.intp]:
        return np.flatnonzero(np.isin(self.part.astype(str), parts))

    @cached_property
    def reference(self) -> Reference:
        rows, every = self.rows("validation", "test"), self.rows("train", "validation", "test")
        return Reference(
            # The stage `group` finds 37 of the 38 photographs that were published twice.
            observations=self.sample(AS_IS, rows, "repost_group"),
            labels=self.labels[rows],
            paths=list(self.pool.table["path"].iloc[rows]),
            formats=["JPEG"] * len(rows),
            thumbnails=[],
            classes=CLASSES,
            violation=CLASSES[1],
            threshold=0.5,
            temperature=self.temperature,
            task=ONE_LABEL,
            champion={},
            through_eyes=Known(self.looks(AS_IS, every, "repost_group"), self.labels[every]),
        )


def draw_setting(pool: Pool, seed: int, champion: str, held_out: float = 0.25) -> Setting:
    """Hold a share of helmet/ out, part the rest 70/15/15, no re-published photograph on two sides, and train."""
    random = np.random.default_rng(seed)
    helmet = pool.table["origin"] == "helmet"
    names = random.permutation(pool.table.loc[helmet, "repost_group"].unique())
    sizes = np.arange(len(names)) / len(names)
    edges = np.cumsum([held_out, *((1 - held_out) * np.array([0.7, 0.15]))])
    side = np.array(["held out", "train", "validation", "test"])[np.searchsorted(edges, sizes, side="right")]
    sides = dict(zip(names, side, strict=True))
    part = np.where(helmet, pool.table["repost_group"].map(sides).astype(str), pool.table["origin"])
    labels = np.asarray(pool.table["label"] == CLASSES[1], np.int64)
    learn, stop = part == "train", part == "validation"
    head = None
    if champion == "scratch":
        raw, own = train_from_scratch(pool, labels, learn, stop, seed)
    else:
        head = train_head(pool.embeddings[AS_IS], labels, learn, stop, seed)
        raw, own = {}, pool.embeddings
        for condition, vectors in own.items():
            p = 1 / (1 + np.exp(-(vectors @ head[0] + head[1]).astype(np.float64)))
            raw[condition] = np.stack([1 - p, p], axis=1)
    temperature = fit_temperature(labels[stop], raw[AS_IS][stop])
    return Setting(pool, part.astype(object), raw, own, temperature, head)


def train_from_scratch(
    pool: Pool, labels: NDArray[Any], learn: NDArray[Any], stop: NDArray[Any], seed: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float32]]]:
    """Train compact_cnn on small pictures, stopped on validation loss; return its probabilities and embeddings."""
    import keras

    from plumbline.models.architectures import compact_cnn
    from plumbline.models.candidates import Candidate
    from plumbline.models.export import EMBEDDING, PROBABILITIES, with_embedding

    keras.utils.set_random_seed(seed)
    candidate = Candidate(architecture="compact_cnn", backbone="pixels_64")
    shape = pool.tiny[AS_IS].shape[1:]
    network = compact_cnn.build(shape, keras.layers.Dense(1, activation="sigmoid"), candidate)
    network.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    fit(network, pool.tiny[AS_IS].astype(np.float32), labels, learn, stop, seed, epochs=40, batch=32, patience=8)
    whole = with_embedding(network)
    raw, own = {}, {}
    for condition, pictures in pool.tiny.items():
        found = whole.predict(pictures.astype(np.float32), batch_size=128, verbose=0)
        raw[condition], own[condition] = found[PROBABILITIES].astype(np.float64), found[EMBEDDING]
    return raw, own


def train_head(
    vectors: NDArray[Any], labels: NDArray[Any], learn: NDArray[Any], stop: NDArray[Any], seed: int
) -> tuple[NDArray[np.float64], float]:
    """Train params.yaml's mobilenet_v2: one output on pooled features, Adam at 0.001, stopped on validation loss."""
    import keras

    keras.utils.set_random_seed(seed)
    network = keras.Sequential([keras.Input(vectors.shape[1:]), keras.layers.Dense(1, activation="sigmoid")])
    network.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    fit(network, vectors, labels, learn, stop, seed, epochs=100, batch=128, patience=3)
    kernel, bias = network.get_weights()
    return np.asarray(kernel[:, 0], np.float64), float(bias[0])


def fit(
    network: Any,
    pictures: NDArray[Any],
    labels: NDArray[Any],
    learn: NDArray[np.bool_],
    stop: NDArray[np.bool_],
    seed: int,
    epochs: int,
    batch: int,
    patience: int,
) -> None:
    """Train on rows `learn`, and leave the weights of the least loss on rows `stop`.

    Batch by batch: Keras' `fit` spends a second an epoch on its data pipeline, a hundred times as much as on a head.
    """
    rows, random = np.flatnonzero(learn), np.random.default_rng(seed)
    best, since = (np.inf, network.get_weights()), 0
    for _ in range(epochs):
        for part in np.array_split(random.permutation(rows), -(-len(rows) // batch)):
            network.train_on_batch(pictures[part], labels[part, None].astype(np.float32))
        loss = float(network.test_on_batch(pictures[stop], labels[stop, None].astype(np.float32)))
        since += 1
        if loss < best[0]:
            best, since = (loss, network.get_weights()), 0
        if since == patience:
            break
    network.set_weights(best[1])


def draw_window(
    setting: Setting, rows: NDArray[np.intp], size: int, share: float | None, random: np.random.Generator
) -> NDArray[np.intp]:
    """Draw `size` pictures out of `rows`, whole photographs while they fit, `share` of them without helmet."""
    photos = setting.pool.table["photo"].to_numpy()[rows]
    labels = setting.labels[rows]
    room = np.array([size, size])
    if share is not None:
        room = np.array([size - round(size * share), round(size * share)])
    chosen: list[int] = []
    for photo in random.permutation(np.unique(photos)):
        members = photos == photo
        counts = np.bincount(labels[members], minlength=2)
        if (counts <= room).all() and len(chosen) + members.sum() <= size:
            chosen += rows[members].tolist()
            room = room - counts
    return np.array(chosen)


@dataclass(frozen=True)
class Windows:
    """A kind of window: where its pictures come from, in which condition, how many, with what share of violations."""

    name: str
    condition: str
    parts: tuple[str, ...]
    size: int = 100
    balance: bool = True
    mixed: float = 0.0


SAME = ("held out", "same_camera")
QUIET = [
    Windows("same camera, balanced", AS_IS, SAME),
    Windows("same camera, as they come", AS_IS, SAME, balance=False),
    Windows("same camera, as often with helmet as 71 percent", AS_IS, SAME, balance=False),
]
DRIFTED = [
    Windows("new gate, 100", AS_IS, ("new_gate",), balance=False),
    Windows("new gate, 50", AS_IS, ("new_gate",), size=50, balance=False),
    Windows("30 percent from the new gate", AS_IS, SAME, mixed=0.3),
    Windows("30 percent from the new gate, 300", AS_IS, SAME, mixed=0.3, size=300),
    *(Windows(name, name, SAME) for name in CONDITIONS if name != AS_IS),
]
SHIPPED = "difference of confidences (DoC), shipped"
TOGETHER = ("30 percent from the new gate", "mirrored", "lens dirt")  # within three windows, too


@dataclass(frozen=True)
class Window:
    """Pictures of the pool, `rows`, in one condition."""

    condition: str
    rows: NDArray[np.intp]


def windows(setting: Setting, kind: Windows, count: int, seed: int) -> Iterator[Window]:
    """Yield windows of one kind."""
    usual = float(setting.labels[setting.rows("train", "validation", "test")].mean())
    for number in range(count):
        random = np.random.default_rng([seed, number])
        share = usual if kind.balance else 0.29 if "71 percent" in kind.name else None
        new = round(kind.size * kind.mixed)
        rows = draw_window(setting, setting.rows(*kind.parts), kind.size - new, share, random)
        if new:
            # No more without helmet than there are: new_gate has few of one class.
            rows = np.concatenate([rows, draw_window(setting, setting.rows("new_gate"), new, None, random)])
        yield Window(kind.condition, rows)


def verdict_of(
    setting: Setting, history: list[Window], params: DriftParams, own_eyes: bool
) -> tuple[str, list[Tested]]:
    """Judge the last of a site's windows as monitoring does, those before it judged together with it."""
    newest = history[-1]
    looks: list[Looks] | None = None
    if own_eyes:
        photos, taken = setting.pool.table["photo"].to_numpy(), np.array([], object)
        looks = []
        for window in reversed(history[-max(POOLS) :]):
            rows = window.rows[~np.isin(photos[window.rows], taken)]
            taken = np.union1d(taken, photos[window.rows])
            if len(rows):
                looks.append(setting.looks(window.condition, rows))
    sample = setting.sample(newest.condition, newest.rows)
    tests, unseen, _ = run_tests(setting.reference, sample, ["JPEG"] * len(newest.rows), params, looks)
    level = params.alpha / params.horizon
    drift = any(test.adjusted <= level and test.name not in ONLY_WATCHED for test in tests)
    watch = bool(unseen) or any(test.adjusted <= params.alpha for test in tests)
    return ("DRIFT" if drift else "WATCH" if watch else "OK"), tests


def evidently_says(reference: Observations, window: Observations) -> bool:
    """Whether Evidently's default drift preset, on descriptors and scores, calls the window drifted."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    def table(sample: Observations) -> Dataset:
        scores = {f"p_{name}": sample.probabilities[:, k] for k, name in enumerate(CLASSES)}
        columns = sample.measures.assign(**scores, confidence=sample.probabilities.max(axis=1))
        return Dataset.from_pandas(columns, DataDefinition(numerical_columns=list(columns.columns)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = Report([DataDriftPreset()]).run(table(window), table(reference)).dict()
    counted = next(one for one in done["metrics"] if "DriftedColumnsCount" in one["metric_name"])
    return bool(counted["value"]["share"] >= 0.5)


def power(settings: list[Setting], kinds: list[Windows], count: int, own_eyes: bool, alibi: str | None) -> list[Row]:
    """Judge `count` windows of each kind, spread over the settings; return a row a kind."""
    rows: list[Row] = []
    for kind in kinds:
        found: list[tuple[str, list[Tested]]] = []
        within, sizes, theirs, mmd = [], [], [], []
        start = time.process_time()
        for seed, setting in enumerate(settings):
            length = 3 if kind.name in TOGETHER else 1
            each = list(windows(setting, kind, length * max(1, count // len(settings)), seed))
            sizes += [len(window.rows) for window in each]
            for first in range(0, len(each), length):
                said = "OK"
                for last in range(first, first + length):
                    params = PARAMS.model_copy(update={"seed": last})
                    verdict, tests = verdict_of(setting, each[first : last + 1], params, own_eyes)
                    if last == first:
                        found.append((verdict, tests))
                    said = "DRIFT" if verdict == "DRIFT" else said
                    if said == "DRIFT":
                        break
                within.append(said)
            if seed >= RIVALS_SETTINGS:
                continue
            reference = setting.reference.observations
            samples = [setting.sample(window.condition, window.rows) for window in each[:RIVALS_WINDOWS]]
            theirs += [evidently_says(reference, sample) for sample in samples]
            if alibi:
                mmd += alibi_says(alibi, reference, samples)
        level = PARAMS.alpha / PARAMS.horizon
        firsts = pd.Series([tests[0].name for verdict, tests in found if verdict == "DRIFT"], dtype=object)
        rows.append(
            {
                "windows": kind.name,
                "count": len(found),
                "images": float(np.mean(sizes)),
                **{said: float(np.mean([one == said for one, _ in found])) for said in ("DRIFT", "WATCH")},
                "DRIFT within three windows": float(np.mean(np.array(within) == "DRIFT"))
                if kind.name in TOGETHER
                else None,
                "by test": {
                    name: float(np.mean([any(t.name == name and t.adjusted <= level for t in ts) for _, ts in found]))
                    for name in sorted({test.name for _, tests in found for test in tests})
                },
                "strongest test": dict(firsts.value_counts().head(3)),
                "Evidently's defaults": float(np.mean(theirs)),
                "alibi-detect MMD, 0.05": float(np.mean(np.array(mmd) <= 0.05)) if mmd else None,
                "alibi-detect MMD, 0.0025": float(np.mean(np.array(mmd) <= 0.0025)) if mmd else None,
                "cpu seconds a window": (time.process_time() - start) / len(found),
            }
        )
        print(json.dumps(rows[-1], default=float), flush=True)
    return rows


def alarms(settings: list[Setting], kinds: list[Windows], sites: int, own_eyes: bool) -> list[Row]:
    """Judge `sites` sites without drift on each reference over PARAMS.horizon windows; return a row a kind."""
    rows: list[Row] = []
    for kind in kinds:
        by_reference, singles, watched, count = [], 0, 0, 0
        for seed, setting in enumerate(settings):
            cried = 0
            for site in range(sites):
                history: list[Window] = []
                said = False
                for number, window in enumerate(windows(setting, kind, PARAMS.horizon, 1_000 * (seed + 1) + site)):
                    history.append(window)
                    params = PARAMS.model_copy(update={"seed": number})
                    verdict, _ = verdict_of(setting, history, params, own_eyes)
                    said |= verdict == "DRIFT"
                    singles, watched, count = singles + (verdict == "DRIFT"), watched + (verdict == "WATCH"), count + 1
                    if verdict == "DRIFT":
                        history = []
                cried += said
            by_reference.append(cried)
        rows.append(
            {
                "windows": kind.name,
                "references": len(settings),
                "sites a reference": sites,
                "sites ever DRIFT, by reference": by_reference,
                "sites ever DRIFT": float(np.sum(by_reference) / (sites * len(settings))),
                "windows judged": count,
                "windows DRIFT": singles / count,
                "windows WATCH": watched / count,
            }
        )
        print(json.dumps(rows[-1], default=float), flush=True)
    return rows


def simulated(references: int, sites: int, size: int, margin: float) -> Row:
    """Sites without drift where images never run out: `sites` a reference of 500 images, over 20 windows of `size`.

    Images are normal, twelve descriptors and 32 components whose spread falls as that of real embeddings; `margin` as
    permutation.MARGIN, which a large number turns off.
    """
    from monitoring import permutation

    spread = 1 / np.sqrt(1 + np.arange(32))
    by_reference = []
    for number in range(references):
        random = np.random.default_rng(number)
        known = random.normal(size=(500, 44))
        cried = 0
        for site in range(sites):
            random = np.random.default_rng([number, site])
            history: list[NDArray[np.float64]] = []
            said = False
            for _ in range(PARAMS.horizon):
                history = [random.normal(size=(size, 44)), *history][: max(POOLS)]
                while sum(map(len, history)) > 2 * len(known) and len(history) > 1:
                    history.pop()
                every = np.concatenate([known, *history])
                ages = np.concatenate([np.full(len(one), age) for age, one in enumerate([known, *history])])
                layout = Layout(ages, np.arange(len(ages)), np.zeros(len(ages), np.int64))
                statistics = {f"{k}": kolmogorov(every[:, k]) for k in range(12)}
                statistics["mmd"] = mean_discrepancy(every[:, 12:] * spread)
                statistics["classifier"] = classifier(every[:, 12:], layout)
                pools = tuple(sorted({min(one, len(history)) for one in POOLS}))
                found = permutation.p_values(layout, statistics, pools, PARAMS.permutations, 0, margin)
                drift = min(one.adjusted for one in found.values()) <= PARAMS.alpha / PARAMS.horizon
                said |= drift
                history = [] if drift else history
            cried += said
        by_reference.append(cried)
    return {
        "images a window": size,
        "margin": margin,
        "sites a reference": sites,
        "sites ever DRIFT, by reference": by_reference,
        "sites ever DRIFT": float(np.sum(by_reference) / (sites * references)),
    }


ALIBI = """
import sys, numpy as np
from alibi_detect.cd import MMDDrift
data = np.load(sys.argv[1])
detector = MMDDrift(data["reference"], backend="pytorch", n_permutations=400)
for name in sorted(k for k in data.files if k != "reference"):
    print(detector.predict(data[name])["data"]["p_val"])
"""


def alibi_says(python: str, reference: Observations, each: list[Observations]) -> list[float]:
    """Return alibi-detect's p-values (MMD with its defaults, on the embeddings, images permuted one by one)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "windows.npz"
        arrays = {f"w{number:04d}": window.embeddings for number, window in enumerate(each)}
        np.savez(file, reference=reference.embeddings, **arrays)  # type: ignore[arg-type]
        done = subprocess.run([python, "-c", ALIBI, str(file)], capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def accuracy_errors(settings: list[Setting]) -> dict[str, Any]:
    """Return mean absolute errors of the accuracy estimate, and of rivals, over sites and conditions."""
    rows, methods = [], set[str]()
    for setting in settings:
        reference = setting.reference
        known = setting.raw[AS_IS][setting.rows("validation", "test")].max(axis=1)
        for site, parts in (("same camera", SAME), ("new gate", ("new_gate",))):
            for condition in CONDITIONS:
                chosen = setting.rows(*parts)
                window = setting.sample(condition, chosen)
                truth = float(np.mean(window.predicted == setting.labels[chosen]))
                confidence = setting.raw[condition][chosen].max(axis=1)
                groups = reference.observations.groups
                found = estimate_accuracy(known, reference.right, groups, confidence, window.groups)
                estimates = {SHIPPED: found.value, **label_free_estimates(setting, condition, chosen)}
                methods |= set(estimates)
                rows.append(
                    {
                        "site": site,
                        "condition": condition,
                        "truth": truth,
                        "estimate": found.value,
                        "inside": float(found.low <= truth <= found.high),
                        **{name: abs(value - truth) for name, value in estimates.items()},
                    }
                )
    table = pd.DataFrame(rows)
    names = sorted(methods, key=lambda name: float(table[name].to_numpy(np.float64).mean()))
    return {
        "mean absolute error": table[names].mean().to_dict(),
        "by site": table.groupby("site")[[*names, "truth", "estimate"]].mean().T.to_dict(),
        "draws in which it is better than the shipped one": {
            name: int((by_draw(table, name, len(settings)) < by_draw(table, SHIPPED, len(settings))).sum())
            for name in names
        },
        "truth inside the 95% interval": table.groupby("site")["inside"].mean().to_dict(),
        "temperatures": [setting.temperature for setting in settings],
    }


def labelled_accuracy(settings: list[Setting], count: int = 10, labels: int = 20) -> dict[str, Any]:
    """Return what some labels tell: windows of 100 at each site in each condition, `labels` of each drawn at random.

    Of the intervals how many hold the accuracy on all the site's pictures and on the window's, and their width beside
    that of Wilson's on the labels alone; of sites how many are called worse after 1, 3 and `count` windows, where the
    error is larger than on pictures of the same camera as they are by how much.
    """
    every: list[Row] = []
    sites: list[Row] = []
    for number, setting in enumerate(settings):
        reference = setting.reference
        groups = reference.observations.groups
        against = held_against(reference.right, groups, PARAMS.alpha, PARAMS.risk_tolerance)
        usual = setting.sample(AS_IS, setting.rows(*SAME)).predicted != setting.labels[setting.rows(*SAME)]
        for site, parts in (("same camera", SAME), ("new gate", ("new_gate",))):
            for condition in CONDITIONS:
                pool = setting.rows(*parts)
                wrong = setting.sample(condition, pool).predicted != setting.labels[pool]
                errors = []
                for place in range(count):
                    random = np.random.default_rng([number, place])
                    rows = draw_window(setting, pool, 100, None, random)
                    window = setting.sample(condition, rows)
                    right = window.predicted == setting.labels[rows]
                    drawn = drawn_evenly(window.groups, labels, [number, place])
                    found = powered_accuracy(right[drawn], drawn, window.probabilities.max(axis=1), window.groups)
                    alone = wilson(float(right[drawn].mean()), len(drawn))
                    errors.append(errors_of(right[drawn], window.groups[drawn]))
                    every.append(
                        {
                            "site": site,
                            "labels": len(drawn),
                            "holds the site's": found.low <= 1 - wrong.mean() <= found.high,
                            "holds the window's": found.low <= right.mean() <= found.high,
                            "labels alone hold the site's": alone[0] <= 1 - wrong.mean() <= alone[1],
                            "width": found.high - found.low,
                            "width of labels alone": alone[1] - alone[0],
                            "absolute error": abs(found.value - float(right.mean())),
                            "absolute error of labels alone": abs(float(right[drawn].mean() - right.mean())),
                        }
                    )
                said = [risk_of(errors[:looked], against)["verdict"] for looked in range(1, count + 1)]
                sites.append(
                    {
                        "site": site,
                        "condition": condition,
                        "error more than usual": float(wrong.mean() - usual.mean()),
                        **{f"worse within {looked}": "worse" in said[:looked] for looked in (1, 3, count)},
                        "said to be not worse": "not worse" in said,
                    }
                )
    return {
        "windows": pd.DataFrame(every).groupby("site").mean().T.to_dict(),
        "simulated": [simulated_risk(more) for more in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)],
        "risk": pd.DataFrame(sites).groupby(["site", "condition"]).mean().reset_index().to_dict("records"),
    }


def simulated_risk(more: float, sites: int = 200, error: float = 0.05) -> dict[str, float]:
    """Return the share of sites called worse within 1, 3 and 10 windows of 20 labels, erring `more` than usual.

    `error` is the usual one; each site has a reference of its own, 142 images in pairs that are right or wrong
    together, as those of a photograph are at the worst.
    """
    said = []
    for number in range(sites):
        random = np.random.default_rng(number)
        right = np.repeat(random.random(71) >= error, 2)
        against = held_against(right, np.repeat(np.arange(71), 2), PARAMS.alpha, PARAMS.risk_tolerance)
        windows = [errors_of(random.random(20) >= error + more, np.arange(20)) for _ in range(10)]
        said.append([risk_of(windows[: looked + 1], against)["verdict"] == "worse" for looked in range(10)])
    ever = np.logical_or.accumulate(np.array(said), axis=1).mean(axis=0)
    return {"more": more, **{f"worse within {looked}": float(ever[looked - 1]) for looked in (1, 3, 10)}}


def by_draw(table: pd.DataFrame, name: str, draws: int) -> NDArray[np.float64]:
    """Return a method's mean absolute error in each draw (S,), rows being in the order of draws."""
    return np.asarray(table[name].to_numpy(np.float64).reshape(draws, -1).mean(axis=1))


def label_free_estimates(setting: Setting, condition: str, rows: NDArray[np.intp]) -> dict[str, float]:
    """Return the accuracy that each method expects on pictures of the pool."""
    reference, window = setting.reference, setting.sample(condition, rows)
    probabilities, right = reference.observations.probabilities, reference.right
    known, confidence = probabilities.max(axis=1), window.probabilities.max(axis=1)
    unseen, embeddings = setting.rows("validation", "test"), setting.pool.embeddings
    ratios = density_ratios(embeddings[AS_IS][unseen], reference.observations.groups, embeddings[condition][rows])
    raw_known, raw = (setting.raw[name][which].max(axis=1) for name, which in ((AS_IS, unseen), (condition, rows)))
    return {
        "difference of calibrated confidences": expected_accuracy(known, right, confidence),
        "shrunk difference of confidences": shrunk_difference(raw_known, right, raw),
        "average confidence": float(raw.mean()),
        "average calibrated confidence": float(confidence.mean()),
        "thresholded confidence (ATC)": thresholded_confidence(known, right, confidence),
        "transported confidence (COTT)": transported_confidence(
            probabilities, reference.labels, right, window.probabilities
        ),
        "importance weighting": importance_weighted(right, ratios),
        "weighted difference of calibrated confidences": weighted_difference(known, right, ratios, confidence),
        "accuracy of the reference": float(right.mean()),
    }


def time_of_judging(count: int) -> dict[str, float]:
    """Seconds and peak memory of judging `count` images' descriptors and embeddings, in this process."""
    random = np.random.default_rng(0)
    names = ["brightness", "contrast", "sharpness", "colourfulness", "warmth", "noise", "blockiness", "bits_per_pixel"]

    def sample(images: int, moved: float) -> Observations:
        p = random.beta(0.3, 0.3, images)
        return Observations(
            pd.DataFrame(random.normal(moved, 1, (images, len(names))), columns=names),
            np.stack([1 - p, p], axis=1),
            random.normal(moved, 1, (images, 1280)).astype(np.float32),
            np.arange(images) // 2,
        )

    def look_of(one: Observations) -> Looks:
        small = random.integers(0, 255, (len(one), 18, 24)).astype(np.uint8)
        return Looks(one.measures, one.embeddings.astype(np.float16), small, one.groups)

    known = sample(1000, 0.0)
    seen = look_of(known)
    reference = Reference(
        known.take(np.arange(500)),
        known.predicted[:500],
        [""] * 500,
        ["JPEG"] * 500,
        [],
        CLASSES,
        CLASSES[1],
        0.5,
        1.0,
        ONE_LABEL,
        {},
        Known(seen, known.predicted),
    )
    window = sample(count, 0.1)
    newest = look_of(window)
    start = time.perf_counter()
    found = judge(reference, window, ["JPEG"] * count, DriftParams(), [newest])
    return {
        "images": count,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time(),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "verdict": found.verdict,  # type: ignore[dict-item]
    }


def time_of_a_window(setting: Setting, shared: Path, images: int) -> dict[str, Any]:
    """Seconds from `images` whole photographs in incoming/ to verdict and pages, by the command, in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_version(setting, shared, root / "version")
        (root / "params.yaml").write_text("data: {}\ngroup: {}\npromote: {}\nsites: {}\ndrift: {}\n")
        environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db", "PYTHONPATH": os.getcwd()}
        opened = registry.open_registry(uri=environment["MLFLOW_TRACKING_URI"])
        version = registry.register(opened, root / "version", bundle.seal(root / "version"), "x", {}, {}, {}, "")
        registry.move_champion(opened, version, None)
        (root / "incoming" / "SITE").mkdir(parents=True)
        photographs = sorted((shared / "data" / "scenes").glob("*.jpg"))
        names = [AS_IS, "darkened (gamma 2)", "colour cast", "mirrored"]
        for number in range(images):
            data = photographs[number % len(photographs)].read_bytes()
            data = changed(data, CONDITIONS[names[number // len(photographs)]])
            (root / "incoming" / "SITE" / f"{number}.jpg").write_bytes(data)
        start = time.perf_counter()
        command = [sys.executable, "-m", "monitoring.drift", "SITE"]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "images": images,
            "seconds": seconds,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "exit code": done.returncode,
            "pages": sorted(path.name for path in (root / "reports").rglob("*.html")),
            "said": done.stdout.splitlines()[:3],
        }


def write_version(setting: Setting, shared: Path, folder: Path) -> None:
    """Write the champion as promotion does, without its Keras files; drift's eyes are the champion's network."""
    home = folder / bundle.HOME
    (home / "reference").mkdir(parents=True)
    export_network(shared / "weights" / WEIGHTS, folder / bundle.ONNX, setting.head)
    rows, every = setting.rows("validation", "test"), setting.rows("train", "validation", "test")
    raw = setting.raw[AS_IS][rows]
    scores = {f"p_{name}": raw[:, place] for place, name in enumerate(CLASSES)}
    images = _described(setting, rows).assign(**scores)
    write_table(home / "reference" / "images.parquet", images)
    np.save(home / "reference" / "embeddings.npy", setting.own[AS_IS][rows])
    write_table(home / "reference" / "pool.parquet", _described(setting, every))
    for name, values in (
        ("seen", setting.pool.embeddings[AS_IS]),
        ("small", setting.pool.small[AS_IS]),
    ):
        stored = values[every]
        np.save(home / "reference" / f"pool_{name}.npy", stored if name == "small" else stored.astype(np.float16))
    eyes = EyesRecord(
        network="mobilenet_v2",
        origin="imagenet",
        image_size=EYES_SIZE,
        through="the champion's, which is the same network",
    )
    write_record(home / "reference" / EYES_RECORD, eyes)
    write_table(home / "splits.parquet", images[["path", "id", "label", "group", "phash"]].assign(split="validation"))
    serving = {"candidate": "mobilenet_v2", "classes": CLASSES, "violation_class": CLASSES[1], "threshold": 0.5}
    write_json(home / "serving.json", serving | {"temperature": setting.temperature, "weights": "imagenet"})
    write_json(home / "provenance.json", {"data_md5": None})


def _described(setting: Setting, rows: NDArray[np.intp]) -> pd.DataFrame:
    table = setting.pool.table.iloc[rows].reset_index(drop=True)
    figures = setting.pool.descriptors[AS_IS].iloc[rows].reset_index(drop=True)
    images = pd.concat([table[["path", "label"]], figures], axis=1)
    return images.assign(id=table["path"], group=table["repost_group"], format="JPEG")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "plumbline-drift")
    parser.add_argument("--alibi", help="python of an environment with alibi-detect and torch")
    parser.add_argument("--seeds", type=int, default=10, help="draws of the data set and the rest")
    parser.add_argument("--windows", type=int, default=100, help="of each kind of drift, over all draws")
    parser.add_argument("--sites", type=int, default=5, help="without drift, of each draw and kind")
    parser.add_argument("--champion", choices=["mobilenet_v2", "scratch"], default="mobilenet_v2")
    parser.add_argument("--eyes", choices=["own", "champion"], default="own")
    parser.add_argument("--without", nargs="*", default=[], help="tests of looks to leave out")
    parser.add_argument(
        "--held-out", type=float, default=0.25, help="share of helmet/ that only windows are drawn from"
    )
    parser.add_argument("--kinds", default="", help="only drift whose name holds this")
    parser.add_argument("--only", nargs="*", choices=PARTS)
    given = parser.parse_args()
    parts = given.only or PARTS
    results: dict[str, Any] = {"champion": given.champion, "eyes": given.eyes, "without": given.without}
    if given.without:
        leave_out(set(given.without))
    if "time" in parts:  # first: the peak of memory is that of the whole process
        results["time"] = [time_of_judging(count) for count in (1_000, 100_000)]
        print(json.dumps(results["time"]), flush=True)
    if "simulation" in parts:
        sizes = [(100, MARGIN), (100, np.inf), (300, MARGIN), (300, np.inf)]
        results["simulation"] = [simulated(given.seeds, given.sites, size, margin) for size, margin in sizes]
        print(json.dumps(results["simulation"], indent=1), flush=True)
    if set(parts) - {"time", "simulation"} or "time" in parts:
        pool = load_pool(given.shared / "data", given.shared / "weights", given.cache, given.champion == "scratch")
        draws = 1 if parts == ["time"] else given.seeds
        settings = [draw_setting(pool, seed, given.champion, given.held_out) for seed in range(draws)]
    if "time" in parts and given.champion == "mobilenet_v2":
        results["time"].append(time_of_a_window(settings[0], given.shared, 1_000))
        print(json.dumps(results["time"][-1]), flush=True)
    if "accuracy" in parts:
        results["accuracy"] = accuracy_errors(settings)
        print(json.dumps(results["accuracy"], indent=1), flush=True)
        results["labelled"] = labelled_accuracy(settings)
        print(json.dumps(results["labelled"], indent=1, default=float), flush=True)
    own_eyes = given.eyes == "own"
    if "power" in parts:
        kinds = [kind for kind in DRIFTED if given.kinds in kind.name]
        results["power"] = power(settings, kinds, given.windows, own_eyes, given.alibi)
    if "alarms" in parts:
        results["alarms"] = alarms(settings, QUIET, given.sites, own_eyes)
    write_json(RESULTS / "drift.json", json.loads(json.dumps(results, default=float)))


def leave_out(names: set[str]) -> None:
    """Judge without some tests of looks from here on: what is each of them worth?"""

    def fewer(known: Known, every: Sequence[Looks], shown: Sequence[str]) -> tuple[Layout, dict[str, Statistic]]:
        layout, statistics = looks.statistics_of(known, every, shown)
        return layout, {name: one for name, one in statistics.items() if name not in names}

    setattr(judging, "statistics_of", fewer)  # noqa: B010


if __name__ == "__main__":
    main()
