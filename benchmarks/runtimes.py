"""Frozen backbones by runtime: `python -m benchmarks.runtimes [NETWORK ...] [--pictures data]`.

TensorFlow in float32 and bfloat16, ONNX Runtime in float32 and int8 (static, per channel, from other pictures),
OpenVINO in float32, bfloat16 and int8: milliseconds a picture of the clock and of the processor in batches of 16, what
it takes before the first batch (export, compilation), and the least cosine of pooled features to TensorFlow's float32.
Weights are those that params.yaml's `auto` finds; int8 of random weights says nothing of trained ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError, run
from plumbline.common.files import write_json
from plumbline.common.quiet import without_future_warnings

if TYPE_CHECKING:
    import keras

SIZES = {
    "vgg16": 200,
    "mobilenet_v2": 224,
    "mobilenet": 224,
    "inception_v3": 200,
    "densenet121": 200,
    "resnet50": 256,
    "efficientnet_b0": 256,
}
BATCH = 16
Features = NDArray[np.float32]
Run = Callable[[Features], Features]


def pictures_of(folder: Path, size: int) -> Features:
    """Two batches of pictures from a folder of folders, (2 * BATCH, size, size, 3)."""
    from plumbline.imaging.decode import decode_resized

    files = sorted(file for file in folder.glob("*/*") if file.suffix.lower() in (".jpg", ".png"))
    if len(files) < 2 * BATCH:
        raise UserError(f"{folder} holds fewer than {2 * BATCH} pictures in folders: give another with --pictures.")
    chosen = files[:: len(files) // (2 * BATCH)][: 2 * BATCH]
    return np.stack([decode_resized(file.read_bytes(), (size, size)) for file in chosen]).astype(np.float32)


def pooled_network(name: str, policy: str) -> keras.Model:
    """The network under `policy`, from pixels to pooled features in float32."""
    import keras

    from plumbline.models.networks import build_backbone, find_network, scale_pixels
    from plumbline.models.precision import precision
    from plumbline.models.weights import resolve_weights

    weights = resolve_weights(name, name, "auto")
    with precision(policy):
        network = build_backbone(name, SIZES[name], str(weights.path) if weights.path else None)
    pixels = keras.Input((SIZES[name], SIZES[name], 3), name="pixels")
    maps = network(scale_pixels(pixels, find_network(name).scaling), training=False)
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D(dtype="float32")(maps))


def runtimes(name: str, calibration: Features, folder: Path) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Name each runtime, and give what prepares it."""
    file, small = folder / "network.onnx", folder / "int8.onnx"
    networks: dict[str, keras.Model] = {}

    def tensorflow(policy: str) -> Run:
        networks[policy] = pooled_network(name, policy)
        return lambda batch: np.asarray(networks[policy].predict_on_batch(batch))

    def onnx(path: Path, prepare: Callable[[], None]) -> Run:
        import onnxruntime

        prepare()
        session = onnxruntime.InferenceSession(str(path))
        key = session.get_inputs()[0].name
        return lambda batch: np.asarray(session.run(None, {key: batch})[0])

    def export() -> None:
        with without_future_warnings():
            networks["float32"].export(str(file), format="onnx", verbose=False)

    def openvino(path: Path, hint: str) -> Run:
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        model.reshape([BATCH, SIZES[name], SIZES[name], 3])
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        return lambda batch: np.array(compiled(batch)[0])

    yield "tensorflow float32", lambda: tensorflow("float32")
    yield "tensorflow bfloat16", lambda: tensorflow("mixed_bfloat16")
    yield "onnxruntime float32", lambda: onnx(file, export)
    yield "onnxruntime int8", lambda: onnx(small, lambda: quantise(file, small, calibration))
    yield "openvino float32", lambda: openvino(file, "f32")
    yield "openvino bfloat16", lambda: openvino(file, "bf16")
    yield "openvino int8", lambda: openvino(small, "f32")


def quantise(file: Path, to: Path, calibration: Features) -> None:
    """Static int8 of an ONNX file, ranges from `calibration`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = to.with_suffix(".ready.onnx")
    quant_pre_process(str(file), str(ready), skip_symbolic_shape=True)
    import onnx

    key = onnx.load(str(ready)).graph.input[0].name
    rows = iter([{key: calibration}])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Features] | None:
            return next(rows, None)

    quantize_static(str(ready), str(to), Reader(), quant_format=QuantFormat.QDQ, per_channel=True)


def measure(name: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Figures of every runtime for one network."""
    pictures = pictures_of(folder, SIZES[name])
    judged, calibration = pictures[:BATCH], pictures[BATCH:]
    figures: dict[str, Any] = {}
    expected: Features | None = None
    with tempfile.TemporaryDirectory() as scratch:
        for runtime, prepare in runtimes(name, calibration, Path(scratch)):
            began = time.process_time()
            compute = prepare()
            found = compute(judged)
            ready = time.process_time() - began
            expected = found if expected is None else expected
            began, walls = time.process_time(), []
            for _ in range(rounds):
                start = time.perf_counter()
                compute(judged)
                walls.append(time.perf_counter() - start)
            figures[runtime] = {
                "ms": round(1000 * min(walls) / BATCH, 1),
                "processor ms": round(1000 * (time.process_time() - began) / rounds / BATCH, 1),
                "processor s before the first batch": round(ready, 1),
                "cosine": round(least_cosine(expected, found), 5),
            }
            print(name, runtime, figures[runtime], flush=True)
    return figures


def least_cosine(one: Features, other: Features) -> float:
    """The least cosine between rows of two tables (N, D)."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def main() -> None:
    """Measure, print, write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(SIZES))
    parser.add_argument("--pictures", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=Path("build/benchmarks/runtimes.json"))
    arguments = parser.parse_args()
    figures = {name: measure(name, arguments.pictures, arguments.rounds) for name in arguments.networks}
    write_json(arguments.results, figures)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    run(main)
