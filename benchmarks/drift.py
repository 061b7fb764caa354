"""The numbers of the monitoring room, on real photographs with a real champion.

    python -m benchmarks.drift [--shared ../shared] [--cache DIR] [--alibi PYTHON] [--seeds 10] [--only PART ...]

Parts: alarms (windows without drift), power (each kind of drift), accuracy (estimate against truth), time. The champion
is the pipeline's `mobilenet_v2` candidate: ImageNet weights from SHARED/weights, its head trained on 70 percent of
helmet/, its reference the validation photographs; windows are drawn from the rest of helmet/ and from sites/, whole
photographs at a time. Beside our verdict stand Evidently's defaults on the same windows and, with --alibi PYTHON of an
environment that has it, alibi-detect's MMD. Results go to build/benchmarks/drift.json.
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.drifted import CONDITIONS, WEIGHTS, Pool, changed, export_network, load_pool
from monitoring.accuracy import calibrated, estimate_accuracy
from monitoring.judge import Judgement, judge
from monitoring.observations import Observations
from monitoring.reference import Reference, measures_of
from monitoring.settings import DriftParams
from plumbline.common.files import write_json, write_table
from plumbline.evidence.calibration import fit_temperature
from plumbline.registry import bundle
from plumbline.registry import versions as registry
from plumbline.tasks.one_label import ONE_LABEL

RESULTS = Path("build/benchmarks")
CLASSES = ["with_helmet", "without_helmet"]
AS_IS = "as they are"
PARAMS = DriftParams()
ALIBI_SETTINGS = 2  # its process takes longer to start than to test
EVIDENTLY_WINDOWS = 2  # of each setting: it draws as it computes, seconds a window


@dataclass(frozen=True)
class Setting:
    """One draw of train, validation and the rest: `part` (N,) of every picture of the pool, and the champion's head."""

    pool: Pool
    part: NDArray[np.object_]
    weights: NDArray[np.float64]
    bias: float
    temperature: float

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.asarray(self.pool.table["label"] == CLASSES[1], np.int64)

    def raw(self, condition: str, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return (n, 2) probabilities as the network gives them."""
        logits = self.pool.embeddings[condition][rows] @ self.weights + self.bias
        p = 1 / (1 + np.exp(-logits.astype(np.float64)))
        return np.stack([1 - p, p], axis=1)

    def sample(self, condition: str, rows: NDArray[np.intp], grouped: str = "photo") -> Observations:
        """Return pictures as monitoring would see them, those that share `grouped` belonging together."""
        return Observations(
            measures_of(self.pool.descriptors[condition].iloc[rows].reset_index(drop=True)),
            calibrated(self.raw(condition, rows), self.temperature),
            self.pool.embeddings[condition][rows],
            pd.factorize(self.pool.table[grouped].iloc[rows])[0].astype(np.int64),
        )

    def rows(self, *parts: str) -> NDArray[np.intp]:
        return np.flatnonzero(np.isin(self.part.astype(str), parts))

    def reference(self) -> Reference:
        rows = self.rows("validation")
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
        )


def draw_setting(pool: Pool, seed: int) -> Setting:
    """Part helmet/ 70/15/15, no re-published photograph on two sides, and train the head on the first."""
    random = np.random.default_rng(seed)
    helmet = pool.table["origin"] == "helmet"
    names = random.permutation(pool.table.loc[helmet, "repost_group"].unique())
    sizes = np.arange(len(names)) / len(names)
    sides = dict(zip(names, np.where(sizes < 0.7, "train", np.where(sizes < 0.85, "validation", "test")), strict=True))
    part = np.where(helmet, pool.table["repost_group"].map(sides).astype(str), pool.table["origin"])
    labels = np.asarray(pool.table["label"] == CLASSES[1], np.int64)
    vectors = pool.embeddings[AS_IS]
    weights, bias = train_head(vectors, labels, part == "train", part == "validation", seed)
    setting = Setting(pool, part.astype(object), weights, bias, 1.0)
    rows = setting.rows("validation")
    temperature = fit_temperature(labels[rows], setting.raw(AS_IS, rows))
    return Setting(pool, part.astype(object), weights, bias, temperature)


def train_head(
    vectors: NDArray[Any], labels: NDArray[Any], learn: NDArray[Any], stop: NDArray[Any], seed: int
) -> tuple[NDArray[np.float64], float]:
    """Train params.yaml's mobilenet_v2: one output on pooled features, Adam at 0.001, stopped on validation loss.

    Batch by batch: Keras' `fit` spends a second an epoch on its data pipeline, a hundred times as much as on training.
    """
    import keras

    keras.utils.set_random_seed(seed)
    network = keras.Sequential([keras.Input(vectors.shape[1:]), keras.layers.Dense(1, activation="sigmoid")])
    network.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    rows, random = np.flatnonzero(learn), np.random.default_rng(seed)
    best, since = (np.inf, network.get_weights()), 0
    for _ in range(100):
        for batch in np.array_split(random.permutation(rows), -(-len(rows) // 128)):
            network.train_on_batch(vectors[batch], labels[batch, None].astype(np.float32))
        loss = float(network.test_on_batch(vectors[stop], labels[stop, None].astype(np.float32)))
        since += 1
        if loss < best[0]:
            best, since = (loss, network.get_weights()), 0
        if since == 3:
            break
    kernel, bias = best[1]
    return np.asarray(kernel[:, 0], np.float64), float(bias[0])


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


SAME = ("test", "same_camera")
QUIET = [
    Windows("same camera, balanced", AS_IS, SAME),
    Windows("same camera, as they come", AS_IS, ("same_camera",), balance=False),
    Windows("same camera, as often with helmet as 71 percent", AS_IS, SAME, balance=False),
]
DRIFTED = [
    Windows("new gate, 100", AS_IS, ("new_gate",), balance=False),
    Windows("new gate, 50", AS_IS, ("new_gate",), size=50, balance=False),
    Windows("30 percent from the new gate", AS_IS, SAME, mixed=0.3),
    *(Windows(name, name, SAME) for name in CONDITIONS if name != AS_IS),
]


def windows(setting: Setting, kind: Windows, count: int, seed: int) -> Iterator[Observations]:
    """Yield windows of one kind."""
    usual = float(setting.labels[setting.rows("validation")].mean())
    for number in range(count):
        random = np.random.default_rng([seed, number])
        share = usual if kind.balance else 0.29 if "71 percent" in kind.name else None
        new = round(kind.size * kind.mixed)
        rows = draw_window(setting, setting.rows(*kind.parts), kind.size - new, share, random)
        if new:
            rows = np.concatenate([rows, draw_window(setting, setting.rows("new_gate"), new, share, random)])
        yield setting.sample(kind.condition, rows)


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


def judged(setting: Setting, window: Observations, seed: int) -> Judgement:
    return judge(setting.reference(), window, ["JPEG"] * len(window), PARAMS.model_copy(update={"seed": seed}))


def verdicts(settings: list[Setting], kinds: list[Windows], count: int, alibi: str | None) -> list[dict[str, Any]]:
    """Judge `count` windows of each kind, spread over the settings; return a row a kind."""
    rows = []
    for kind in kinds:
        ours: list[Judgement] = []
        sizes, groups, theirs, mmd, seconds = [], [], [], [], 0.0
        for seed, setting in enumerate(settings):
            each = list(windows(setting, kind, count // len(settings), seed))
            start = time.perf_counter()
            ours += [judged(setting, window, number) for number, window in enumerate(each)]
            seconds += time.perf_counter() - start
            sizes += [len(window) for window in each]
            groups += [window.group_count for window in each]
            reference = setting.reference().observations
            theirs += [evidently_says(reference, window) for window in each[:EVIDENTLY_WINDOWS]]
            if alibi and seed < ALIBI_SETTINGS:
                mmd += alibi_says(alibi, reference, each)
        share = {
            verdict: float(np.mean([one.verdict == verdict for one in ours])) for verdict in ("DRIFT", "WATCH", "OK")
        }
        firsts = pd.Series([one.tests[0].name for one in ours if one.verdict == "DRIFT"]).value_counts()
        rows.append(
            {
                "windows": kind.name,
                "count": len(ours),
                "images": float(np.mean(sizes)),
                "photographs": float(np.mean(groups)),
                **share,
                "share said to have moved": float(np.mean([any("usual" in r for r in one.reasons) for one in ours])),
                "below alpha before correction over time": float(
                    np.mean([min(test.adjusted for test in one.tests) <= PARAMS.alpha for one in ours])
                ),
                "Evidently's defaults": float(np.mean(theirs)),
                "alibi-detect MMD, 0.05": float(np.mean(mmd)) if mmd else None,
                "alibi-detect MMD, 0.0025": float(np.mean(np.array(mmd) <= 0.0025)) if mmd else None,
                "strongest test": dict(firsts.head(3)),
                "seconds a window": seconds / len(ours),
            }
        )
        rows[-1]["alibi-detect MMD, 0.05"] = float(np.mean(np.array(mmd) <= 0.05)) if mmd else None
        print(json.dumps(rows[-1], default=float), flush=True)
    return rows


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
    rows = []
    for setting in settings:
        reference = setting.reference()
        known = reference.observations.probabilities.max(axis=1)
        for site, parts in (("same camera", SAME), ("new gate", ("new_gate",))):
            for condition in CONDITIONS:
                chosen = setting.rows(*parts)
                window = setting.sample(condition, chosen)
                truth = float(np.mean(window.predicted == setting.labels[chosen]))
                confidence = window.probabilities.max(axis=1)
                groups = window.groups
                found = estimate_accuracy(known, reference.right, reference.observations.groups, confidence, groups)
                thresholded = np.mean(confidence >= np.quantile(known, 1 - reference.right.mean()))
                rows.append(
                    {
                        "site": site,
                        "condition": condition,
                        "truth": truth,
                        "estimate": found.value,
                        "truth inside the interval": float(found.low <= truth <= found.high),
                        "our estimate": abs(found.value - truth),
                        "average confidence": abs(float(setting.raw(condition, chosen).max(axis=1).mean()) - truth),
                        "average calibrated confidence": abs(float(confidence.mean()) - truth),
                        "average thresholded confidence": abs(float(thresholded) - truth),
                        "accuracy of the reference": abs(float(reference.right.mean()) - truth),
                    }
                )
    table = pd.DataFrame(rows)
    methods = [
        name for name in table if name not in ("site", "condition", "truth", "estimate", "truth inside the interval")
    ]
    return {
        "mean absolute error": table[methods].mean().to_dict(),
        "by site": table.groupby("site")[[*methods, "truth", "estimate"]].mean().T.to_dict(),
        "truth inside the 95% interval": table.groupby("site")["truth inside the interval"].mean().to_dict(),
        "temperatures": [setting.temperature for setting in settings],
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

    known = sample(500, 0.0)
    reference = Reference(
        known, known.predicted, [""] * 500, ["JPEG"] * 500, [], CLASSES, CLASSES[1], 0.5, 1.0, ONE_LABEL, {}
    )
    window = sample(count, 0.1)
    start = time.perf_counter()
    found = judge(reference, window, ["JPEG"] * count, PARAMS)
    return {
        "images": count,
        "seconds": time.perf_counter() - start,
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
    """Write the champion as promotion does, without its Keras files."""
    home = folder / bundle.HOME
    (home / "reference").mkdir(parents=True)
    export_network(shared / "weights" / WEIGHTS, folder / bundle.ONNX, (setting.weights, setting.bias))
    rows = setting.rows("validation")
    table = setting.pool.table.iloc[rows].reset_index(drop=True)
    figures = setting.pool.descriptors[AS_IS].iloc[rows].reset_index(drop=True)
    raw = setting.raw(AS_IS, rows)
    scores = {f"p_{name}": raw[:, place] for place, name in enumerate(CLASSES)}
    images = pd.concat([table[["path", "label"]], figures], axis=1)
    images = images.assign(id=table["path"], group=table["repost_group"], format="JPEG", **scores)
    write_table(home / "reference" / "images.parquet", images)
    np.save(home / "reference" / "embeddings.npy", setting.pool.embeddings[AS_IS][rows])
    write_table(home / "splits.parquet", images[["path", "id", "label", "group", "phash"]].assign(split="validation"))
    serving = {"candidate": "mobilenet_v2", "classes": CLASSES, "violation_class": CLASSES[1], "threshold": 0.5}
    write_json(home / "serving.json", serving | {"temperature": setting.temperature, "weights": "imagenet"})
    write_json(home / "provenance.json", {"data_md5": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "plumbline-drift")
    parser.add_argument("--alibi", help="python of an environment with alibi-detect and torch")
    parser.add_argument("--seeds", type=int, default=10, help="draws of train, validation and the rest")
    parser.add_argument("--quiet-windows", type=int, default=200)
    parser.add_argument("--drift-windows", type=int, default=100)
    parser.add_argument("--only", nargs="*", choices=["alarms", "power", "accuracy", "time"])
    given = parser.parse_args()
    parts = given.only or ["alarms", "power", "accuracy", "time"]
    results: dict[str, Any] = {}
    if "time" in parts:  # first: the peak of memory is that of the whole process
        results["time"] = [time_of_judging(count) for count in (1_000, 100_000)]
        print(json.dumps(results["time"]), flush=True)
    pool = load_pool(given.shared / "data", given.shared / "weights", given.cache)
    settings = [draw_setting(pool, seed) for seed in range(1 if parts == ["time"] else given.seeds)]
    if "time" in parts:
        results["time"].append(time_of_a_window(settings[0], given.shared, 1_000))
        print(json.dumps(results["time"][-1]), flush=True)
    if "accuracy" in parts:
        results["accuracy"] = accuracy_errors(settings)
        print(json.dumps(results["accuracy"], indent=1), flush=True)
    if "alarms" in parts:
        results["alarms"] = verdicts(settings, QUIET, given.quiet_windows, given.alibi)
    if "power" in parts:
        results["power"] = verdicts(settings, DRIFTED, given.drift_windows, given.alibi)
    write_json(RESULTS / "drift.json", json.loads(json.dumps(results, default=float)))


if __name__ == "__main__":
    main()
