"""Where the time of training from pixels goes: `python -m benchmarks.where_time_goes CANDIDATE ...`.

Reads the workspace (after `dvc repro`), trains each candidate for a few epochs in a process of its own, and prints, in
seconds of processor and of the clock: start-up (imports, the features copied to memory, building and tracing), an
epoch's batches by themselves (reading, augmenting), an epoch of training, and how many cores that kept busy. The cores
are only worth reading on a machine that does nothing else; the processor's seconds nearly always are.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from plumbline.common.errors import run
from plumbline.common.files import write_json

EPOCHS = 4
NAMES = ["simple_cnn", "compact_cnn", "custom_cnn", "lenet5", "alexnet", "se_resnet"]


class Spent(NamedTuple):
    """Seconds of the clock, and of all threads on a processor."""

    wall: float
    processor: float


def spent(work: Callable[[], Any]) -> Spent:
    """Time `work`."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - processor)


def figures_of(name: str, connection: Any) -> None:
    """In a process of its own: train `name`, send the figures."""
    began = time.perf_counter()
    import pandas as pd

    from plumbline.common import artefacts
    from plumbline.common.params import load_section
    from plumbline.models.candidates import Candidate
    from plumbline.models.features import open_features
    from plumbline.models.fitting import fit, make_deterministic
    from plumbline.models.precision import precision
    from plumbline.models.training import TrainingSet, builder, training_precision

    candidate = load_section(f"candidates.{name}", Candidate)
    features = open_features(artefacts.FEATURES / candidate.backbone)
    data = TrainingSet.of(pd.read_parquet(artefacts.SPLITS), features)
    make_deterministic(0)
    with precision(training_precision(candidate, features)):
        network = builder(candidate, data)()
    lesson = data.lesson(candidate, 0)
    # What an epoch takes is the difference of two trainings: start-up is the same in both.
    patient = {"early_stopping_patience": 1000}
    few, many = (candidate.model_copy(update={**patient, "epochs": count}) for count in (1, 1 + EPOCHS))
    built = Spent(time.perf_counter() - began, time.process_time())
    first = spent(lambda: fit(network, few, lesson, name))
    both = spent(lambda: fit(network, many, lesson, name))
    wall, processor = ((more - less) / EPOCHS for more, less in zip(both, first, strict=True))
    batches = spent(lambda: [None for _ in lesson.train.dataset(EPOCHS)])
    connection.send(
        {
            "start-up": built.wall + first.wall - wall,
            "reading and augmenting": batches.processor / EPOCHS,
            "arithmetic": processor - batches.processor / EPOCHS,
            "epoch": wall,
            "cores busy": processor / wall,
        }
    )


def measure(name: str) -> dict[str, float]:
    """The figures of one candidate."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=figures_of, args=(name, sender))
    process.start()
    sender.close()
    figures: dict[str, float] = receiver.recv()
    process.join()
    return {key: round(value, 3) for key, value in figures.items()}


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("candidates", nargs="*", default=NAMES)
    parser.add_argument("--results", type=Path, default=Path("build/benchmarks/where_time_goes.json"))
    arguments = parser.parse_args()
    figures = {name: measure(name) for name in arguments.candidates}
    write_json(arguments.results, figures)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    run(main)
