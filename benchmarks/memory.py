"""Peak memory of featurize and train at N images and at twenty times as many: `python -m benchmarks.memory`.

Each is run in a process of its own on pictures drawn at random in memory; the peak is the process's own high-water
mark (VmHWM: everything resident, libraries and mapped files included), less that of the same process before it began.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.common.errors import run
from plumbline.common.files import write_json

SIZE = 64


def pictures(paths: list[str], ids: list[str], size: int) -> Iterator[NDArray[np.uint8]]:
    """A picture for each path, brighter for one class than for the other."""
    for path in paths:
        number = int(path)
        random = np.random.default_rng(number)
        yield random.integers(0, 200, (size, size, 3), dtype=np.uint8) + np.uint8(50 * (number % 2))


def table_of(count: int) -> pd.DataFrame:
    """Splits of `count` pictures of two classes."""
    paths = [str(number) for number in range(count)]
    splits = [("train", "train", "train", "validation", "test")[number // 2 % 5] for number in range(count)]
    labels = ["dark" if number % 2 == 0 else "light" for number in range(count)]
    return pd.DataFrame({"path": paths, "id": paths, "label": labels, "split": splits, "group": paths})


def high_water_megabytes() -> float:
    """The most this process ever held."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1000


def featurize_and_train(network: str, count: int, folder: Path, connection: Any) -> None:
    """In a process of its own: featurize, train, and send the peaks of both."""
    from plumbline.models.backbones import Backbone
    from plumbline.models.candidates import Candidate, Head
    from plumbline.models.extraction import featurize
    from plumbline.models.features import open_features
    from plumbline.models.fitting import make_deterministic
    from plumbline.models.training import train
    from plumbline.models.weights import Weights

    make_deterministic(0)
    table = table_of(count)
    pixels = network == "pixels"
    entry = Backbone(network=network, image_size=SIZE)
    weights = [Weights("b", "random", "none" if pixels else "random", None, None, None)]
    start = high_water_megabytes()
    featurize(table, functools.partial(pictures), "b", entry, weights, folder / "b")
    featurized = high_water_megabytes()
    candidate = Candidate(
        architecture="custom_cnn" if pixels else "transfer",
        backbone="b",
        head=None if pixels else Head(),
        epochs=1,
        width=0.125 if pixels else 1.0,
    )
    train("x", candidate, table, open_features(folder / "b"), 0)
    bytes_ = (folder / "b" / "features.npy").stat().st_size
    connection.send(
        {"start": start, "featurize": featurized, "train": high_water_megabytes(), "features": bytes_ / 1e6}
    )


def measure(network: str, count: int) -> dict[str, float]:
    """Peaks in megabytes of one run, and the features' size."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=featurize_and_train, args=(network, count, Path(folder), sender))
        process.start()
        result: dict[str, float] = receiver.recv()
        process.join()
    return {key: round(value) for key, value in result.items()}


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(description="Does memory grow with the number of images?")
    parser.add_argument("--images", type=int, default=631)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--results", type=Path, default=Path("build/benchmarks/memory.json"))
    arguments = parser.parse_args()
    counts = (arguments.images, arguments.images * arguments.times)
    figures = {name: {str(count): measure(name, count) for count in counts} for name in ("pixels", "mobilenet")}
    write_json(arguments.results, figures)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    run(main)
