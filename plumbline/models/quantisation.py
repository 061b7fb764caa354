"""An ONNX network in fewer bits: static int8, or weights kept as float16. What is served is the file that is made here.

Static int8 (Jacob et al. 2018; QDQ, ONNX Runtime's format): weights and activations become 8-bit integers with a scale,
one for a whole tensor or one for each output channel; the activations' ranges are those that calibration pictures show,
either the least and the greatest value or the range that loses least information (entropy, Migacz 2017). What makes
the picture ready and the layer that gives the answer stay in float32: they cost nothing, and probabilities in 256 steps
would not add up to 1.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError, first_line
from plumbline.models.compressed import AT_ONCE
from plumbline.models.export import INPUT, PROBABILITIES

if TYPE_CHECKING:
    import onnx

Scales = Literal["per_channel", "per_tensor"]
Ranges = Literal["minmax", "entropy"]
WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""Operations that int8 makes quicker; without one of them there is nothing to quantise."""
QUANTISED = (
    *WEIGHTED,
    *("Add", "Mul", "Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool", "Concat"),
    *("Pad", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Resize"),
)
"""Operations between those that ONNX Runtime computes on integers, or hands them on. The mean of a whole map is none of
them: it has more digits than each of the integers that it is taken of."""
SMALL = 16
"""Arrays with fewer values stay float32."""
FLOAT16_MOST = 65504.0


class Recipe(NamedTuple):
    """One way to quantise: how many scales a weight has, and how the activations' ranges are found."""

    scales: Scales
    ranges: Ranges

    def __str__(self) -> str:
        return f"int8, {self.scales.replace('_', ' ')}, {'min-max' if self.ranges == 'minmax' else 'entropy'}"


RECIPES = tuple(Recipe(scales, ranges) for ranges in ("minmax", "entropy") for scales in ("per_channel", "per_tensor"))


def prepare(file: Path, ready: Path) -> None:
    """Write the network of `file` as quantisation wants it: constants computed, batch normalisation in the weights.

    Raises UserError where ONNX Runtime can't, or nothing in it can be quantised.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    try:
        with _silent():
            quant_pre_process(str(file), str(ready), skip_symbolic_shape=True)
    except Exception as error:  # ONNX and ONNX Runtime each raise their own
        raise UserError(f"its graph can't be prepared ({first_line(error)})") from None
    model = onnx.load(str(ready))
    if not inner_nodes(model):
        ready.unlink()  # what is there counts as prepared
        kinds = ", ".join(sorted({node.op_type for node in model.graph.node}))
        raise UserError(f"none of its operations has weights to quantise (it is made of {kinds})")


def quantise(ready: Path, to: Path, pictures: Iterable[NDArray[np.uint8]], recipe: Recipe, ranges: Path) -> None:
    """Write the network of `ready` (from `prepare`) in int8 to `to`.

    Args:
        ready: the network in float32, pixels (N, S, S, 3) to its answers.
        to: the file that is written.
        pictures: for calibration, (S, S, 3) each.
        recipe: how.
        ranges: a file that keeps what the pictures show: it is read where it exists, and written where it does not.

    Raises UserError where ONNX Runtime refuses.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = onnx.load(str(ready))
    inner = inner_nodes(model)
    methods = {"minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy}
    shown = [] if ranges.is_file() else list(pictures)
    kept = len(shown) // AT_ONCE * AT_ONCE or len(shown)
    try:
        with _silent():
            quantize_static(
                str(ready),
                str(to),
                _reader(shown[:kept]),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                per_channel=recipe.scales == "per_channel",
                # Unsigned activations beside signed weights: what processors with VNNI multiply in one step.
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[node.name for node in model.graph.node if node.name not in inner],
                calibrate_method=methods[recipe.ranges],
                extra_options={"CalibStridedMinMax": min(AT_ONCE, kept)} if kept else {},
                calibration_cache_path=str(ranges),
            )
    except Exception as error:  # ONNX and ONNX Runtime each raise their own
        raise UserError(f"ONNX Runtime can't quantise it ({first_line(error)})") from None


def inner_nodes(model: onnx.ModelProto) -> set[str]:
    """Return the names of what is quantised: from the first weighted operation on, up to the one that answers.

    The last weighted operation on the way to the probabilities stays as it is, and all that follows it; a network with
    no other keeps it.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    answering = _last_weighted(PROBABILITIES, makers)
    inner: set[str] = set()
    behind: set[str] = set()  # tensors that come out of a weighted operation, or of what follows one
    for node in model.graph.node:  # in the order of computation, as ONNX demands
        weighted = node.op_type in WEIGHTED
        if weighted or behind & set(node.input):
            behind |= set(node.output)
            if node.op_type in QUANTISED and node.name != answering:
                inner.add(node.name)
    after = _after(answering, model)
    inner -= after
    has_weights = any(node.name in inner and node.op_type in WEIGHTED for node in model.graph.node)
    return inner if has_weights else set()


def _last_weighted(tensor: str, makers: dict[str, Any]) -> str | None:
    """The weighted operation that is met first on the way back from a tensor."""
    waiting = [tensor]
    while waiting:
        node = makers.get(waiting.pop(0))
        if node is None:
            continue
        if node.op_type in WEIGHTED:
            return str(node.name)
        waiting += node.input
    return None


def _after(name: str | None, model: onnx.ModelProto) -> set[str]:
    found: set[str] = set()
    tensors: set[str] = set()
    for node in model.graph.node:
        if node.name == name or tensors & set(node.input):
            tensors |= set(node.output)
            found |= {node.name} - {name}
    return found


def halve(file: Path, to: Path) -> None:
    """Write the network of `file` with its weights kept as float16, half the bytes, and computed in float32 as before.

    ONNX Runtime turns them back once, when the file is opened. Weights above 65504 stay float32.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(file))
    graph = model.graph
    casts, kept = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < SMALL or np.abs(values).max() > FLOAT16_MOST:
            kept.append(tensor)
            continue
        half = f"{tensor.name}_float16"
        kept.append(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [tensor.name], f"{tensor.name}_cast", to=TensorProto.FLOAT))
    if not casts:
        raise UserError("none of its weights are kept as float32")
    nodes = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend([*casts, *nodes])
    onnx.checker.check_model(model)
    onnx.save(model, str(to))


def _reader(pictures: Sequence[NDArray[np.uint8]]) -> Any:
    """Calibration pictures (S, S, 3) as ONNX Runtime reads them, one at a time."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest: Iterator[NDArray[np.uint8]] = iter(pictures)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            picture = next(self._rest, None)
            return None if picture is None else {INPUT: picture[None].astype(np.float32)}

        def __len__(self) -> int:
            return len(pictures)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._rest = iter(pictures[start_index:end_index])

    return Reader()


@contextmanager
def _silent() -> Iterator[None]:
    """Keep ONNX Runtime's advice on quantisation out of the log: it prints, and writes through the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(before)
