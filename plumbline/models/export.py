"""A Keras model as ONNX: pixels to probabilities and an embedding, checked against Keras."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.common.quiet import without_future_warnings
from plumbline.imaging.decode import Fit

if TYPE_CHECKING:
    import keras

INPUT = "pixels"
PROBABILITIES = "probabilities"
EMBEDDING = "embedding"
FIT = "fit"
MEMBER = "member_"  # how plumbline.models.combination.combine names the members


def with_embedding(model: keras.Model) -> keras.Model:
    """Return `model` with two named outputs: `probabilities` (N, C) and `embedding` (N, D).

    The embedding is what the head sees: the backbone's feature maps averaged over the picture (or its pooled features);
    for a network trained from pixels, its last feature maps averaged (of the picture itself, where it has none); for an
    ensemble, its members' side by side. Drift compares new pictures with the validation images by it, without a second
    network. A single sigmoid output (N, 1) becomes two columns.
    """
    import keras

    members = [layer for layer in model.layers if isinstance(layer, keras.Model) and layer.name.startswith(MEMBER)]
    if members:
        pixels, output, seen = _through_members(model)
    else:
        pixels, output, seen = model.inputs[0], model.outputs[0], _embedding(model)
    if output.shape[-1] == 1:
        one = keras.Input((1,))
        # A model of its own: the names that Keras gives its operations may be taken in one that was read from a file.
        output = keras.Model(one, keras.ops.concatenate([1.0 - one, one], axis=-1), name="both_classes")(output)
    return keras.Model(pixels, {PROBABILITIES: output, EMBEDDING: seen})


def _embedding(model: keras.Model) -> Any:
    import keras

    last = model.layers[-1]
    if isinstance(last, keras.Model):
        seen = last._inbound_nodes[-1].input_tensors[0]
    else:
        # By the nodes of this graph: a layer that another graph uses as well has outputs there, too.
        graph = getattr(model, "_functional", None) or model
        nodes = [node for depth in sorted(graph._nodes_by_depth, reverse=True) for node in graph._nodes_by_depth[depth]]
        outputs = [node.outputs[0] for node in nodes if isinstance(node.operation, keras.layers.Layer)]
        seen = [output for output in outputs if len(output.shape) == 4][-1]
    return keras.layers.GlobalAveragePooling2D(name="averaged_maps")(seen) if len(seen.shape) == 4 else seen


def _through_members(model: keras.Model) -> tuple[Any, Any, Any]:
    """Rebuild an ensemble's graph, each member once, and keep the embeddings: (pixels, output, embeddings)."""
    import keras

    seen: dict[str, Any] = {}

    def operation(layer: Any) -> Any:
        if not (isinstance(layer, keras.Model) and layer.name.startswith(MEMBER)):
            return layer
        both = keras.Model(layer.inputs[0], [layer.outputs[0], _embedding(layer)], name=layer.name)

        def call(pixels: Any, **_: Any) -> Any:
            output, embedding = both(pixels)
            seen[layer.name] = embedding
            return output

        return call

    pixels = keras.Input(model.input_shape[1:], name=INPUT)
    output = model._run_through_graph(pixels, operation_fn=operation)
    # Keras does not run a graph in the order of members.
    ordered = [seen[name] for name in sorted(seen, key=lambda name: int(name.removeprefix(MEMBER)))]
    return pixels, output, keras.layers.Concatenate(name="embeddings")(ordered)


def export_onnx(model: keras.Model, path: Path, fit: Fit = "stretch") -> None:
    """Write `model` (from `with_embedding`) to `path` as ONNX; its single input is called `pixels`.

    The model must map float32 pixels (N, S, S, 3) in [0, 255]; the batch size stays free. `fit`, how pictures are to be
    brought to that size, is written into the file.
    """
    import onnx

    model(np.zeros((1, *model.inputs[0].shape[1:]), np.float32), training=False)  # Keras exports only what was called
    with without_future_warnings():
        model.export(str(path), format="onnx", verbose=False)
    exported = onnx.load(str(path))
    _rename_input(exported, INPUT)
    onnx.helper.set_model_props(exported, {FIT: fit})
    onnx.checker.check_model(exported)
    onnx.save(exported, str(path))


def export_embedding(model: keras.Model, path: Path) -> None:
    """Write `model`, pixels (N, S, S, 3) to an embedding (N, D), as `export_onnx` does."""
    import keras

    export_onnx(keras.Model(model.inputs[0], {EMBEDDING: model.outputs[0]}), path)


def _rename_input(exported: Any, name: str) -> None:
    old = exported.graph.input[0].name
    exported.graph.input[0].name = name
    for node in exported.graph.node:
        node.input[:] = [name if item == old else item for item in node.input]
    for axis in (exported.graph.input[0], *exported.graph.output):
        axis.type.tensor_type.shape.dim[0].dim_param = "N"


class OnnxModel:
    """An exported model ready to score pictures with ONNX Runtime on the processor."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        """Open `path`; `threads` 0 lets ONNX Runtime choose. Raises UserError if the file is no such model."""
        self._session = _opened(path, threads)
        self.image_size: int = self._session.get_inputs()[0].shape[1]
        self.fit: Fit = self._session.get_modelmeta().custom_metadata_map.get(FIT, "stretch")

    def __call__(self, pixels: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return probabilities (N, C) and embeddings (N, D) of RGB pictures (N, S, S, 3) in [0, 255]."""
        feed = {INPUT: np.ascontiguousarray(pixels, dtype=np.float32)}
        probabilities, embeddings = self._session.run([PROBABILITIES, EMBEDDING], feed)
        return probabilities, embeddings

    def score(
        self, pictures: Iterable[NDArray[np.uint8]], batch_size: int = 32
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Score pictures (S, S, 3) in order, `batch_size` at a time: probabilities (N, C), embeddings (N, D)."""
        results = [self(batch) for batch in stacked(pictures, batch_size)]
        if not results:
            raise UserError("there is no picture to score: run `dvc repro` from `split`.")
        probabilities = np.concatenate([result[0] for result in results]).astype(np.float64)
        embeddings = np.concatenate([result[1] for result in results])
        return probabilities, embeddings


class Embedder:
    """An exported network that only embeds, on the processor."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        """Open `path`, as `OnnxModel` does."""
        self._session = _opened(path, threads)
        self.image_size: int = self._session.get_inputs()[0].shape[1]

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return embeddings (N, D) of RGB pictures (N, S, S, 3) in [0, 255]."""
        feed = {INPUT: np.ascontiguousarray(pixels, dtype=np.float32)}
        return np.asarray(self._session.run([EMBEDDING], feed)[0])

    def embed(self, pictures: Iterable[NDArray[np.uint8]], batch_size: int) -> NDArray[np.float32]:
        """Return the embeddings (N, D) of pictures (S, S, 3), at least one, `batch_size` at a time."""
        return np.concatenate([self(batch) for batch in stacked(pictures, batch_size)])


def _opened(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"{path} can't be loaded as ONNX ({str(error).splitlines()[0]}).") from None


def stacked(pictures: Iterable[NDArray[np.uint8]], batch_size: int) -> Iterator[NDArray[np.uint8]]:
    """Yield pictures (S, S, 3) as batches (n, S, S, 3), n <= batch_size."""
    iterator = iter(pictures)
    while batch := list(islice(iterator, batch_size)):
        yield np.stack(batch)


def check_export(model: keras.Model, path: Path, pixels: NDArray[Any], tolerance: float) -> float:
    """Return the largest difference of any probability between Keras and the ONNX file at `path` on `pixels`.

    Raises UserError if it exceeds `tolerance`.
    """
    expected = np.asarray(model(pixels.astype(np.float32), training=False)[PROBABILITIES])
    difference = float(np.abs(OnnxModel(path)(pixels)[0] - expected).max())
    if not difference <= tolerance:
        raise UserError(
            f"{path} differs from the Keras model by {difference:.2g} in a probability, more than the "
            f"{tolerance:.2g} of promote.onnx_tolerance: it is not the model that was evaluated."
        )
    return difference
