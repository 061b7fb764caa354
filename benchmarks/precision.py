"""Which architectures over pixels train faster in bfloat16 on this processor: `python -m benchmarks.precision`.

Training steps on random pictures, in the sizes of params.yaml's candidates, in float32 and in bfloat16 by turns after
both were traced; the ratio of the medians. `plumbline.models.training.FASTER_IN_BFLOAT16` names those that gain.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.common.errors import UserError, run
from plumbline.common.files import write_json
from plumbline.models.candidates import Candidate, build_network
from plumbline.models.fitting import make_deterministic
from plumbline.models.precision import BFLOAT16_UNITS, precision, processor_flags
from plumbline.models.training import FASTER_IN_BFLOAT16

if TYPE_CHECKING:
    import keras

# architecture: (image size, width, batch size) of its candidate
SIZES: dict[str, tuple[int, float, int]] = {
    "simple_cnn": (200, 1.0, 128),
    "compact_cnn": (96, 1.0, 32),
    "custom_cnn": (96, 0.5, 32),
    "lenet5": (32, 1.0, 32),
    "alexnet": (96, 0.25, 32),
    "se_resnet": (64, 0.5, 32),
    "inception_small": (64, 0.5, 32),
    "densenet_small": (64, 0.5, 32),
}


def compiled(architecture: str, policy: str) -> keras.Model:
    """The candidate's network, its layers under `policy`."""
    import keras

    size, width, _ = SIZES[architecture]
    candidate = Candidate(architecture=architecture, backbone="pixels", width=width)
    with precision(policy):
        network = build_network(candidate, (size, size, 3), 2)
    network.compile(keras.optimizers.Adam(), keras.losses.BinaryCrossentropy())
    return network


def step_seconds(architecture: str, rounds: int) -> dict[str, float]:
    """Median seconds of a training step in each format, and bfloat16's over float32's."""
    size, _, batch = SIZES[architecture]
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (batch, size, size, 3)).astype(np.float32)
    labels = random.integers(0, 2, batch).astype(np.float32)[:, None]
    make_deterministic(0)
    networks = {policy: compiled(architecture, policy) for policy in ("float32", "mixed_bfloat16")}
    seconds: dict[str, list[float]] = {policy: [] for policy in networks}
    for turn in range(rounds + 2):
        for policy, network in networks.items():
            start = time.perf_counter()
            network.train_on_batch(pixels, labels)
            if turn >= 2:  # the first steps trace and warm up
                seconds[policy].append(time.perf_counter() - start)
    medians = {policy: statistics.median(times) for policy, times in seconds.items()}
    return {**medians, "ratio": medians["mixed_bfloat16"] / medians["float32"]}


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--results", type=Path, default=Path("build/benchmarks/precision.json"))
    arguments = parser.parse_args()
    if not processor_flags() & BFLOAT16_UNITS:
        raise UserError("This processor has no bfloat16 units: training runs in float32 here, whatever is measured.")
    figures: dict[str, Any] = {name: step_seconds(name, arguments.rounds) for name in SIZES}
    for name, figure in figures.items():
        figure["trained in bfloat16"] = name in FASTER_IN_BFLOAT16
    write_json(arguments.results, figures)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    run(main)
