"""The layers of a network: activation, parameters and receptive field of each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

WHOLE = math.inf


@dataclass(frozen=True)
class Layer:
    """`shape` is one picture's activation; `receptive_field` the pixels' side that one value sees, or WHOLE."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    receptive_field: float
    trained: bool

    @property
    def activation(self) -> int:
        """Number of values of one picture's activation."""
        return math.prod(self.shape)


def layer_table(model: keras.Model) -> list[Layer]:
    """Every layer of `model`, those of models inside it too, in the order of computation.

    The receptive field grows by (k - 1) x jump, where the jump is the product of the strides so far; for stride 1 and
    L layers that is the course notes' 1 + L (f - 1). Where branches meet the largest counts.
    """
    rows: list[Layer] = []
    _walk(model, [(1.0, 1.0)], rows)
    return rows


def _graph(model: Any) -> Any:
    return getattr(model, "_functional", None) or model


def _nodes(model: Any) -> list[Any]:
    levels = _graph(model)._nodes_by_depth
    return [node for depth in sorted(levels, reverse=True) for node in levels[depth]]


def _walk(model: Any, inputs: list[tuple[float, float]], rows: list[Layer]) -> tuple[float, float]:
    import keras

    seen: dict[int, tuple[float, float]] = {
        id(tensor): state for tensor, state in zip(_graph(model).inputs, inputs, strict=True)
    }
    walked: set[int] = set()
    for node in _nodes(model):
        operation = node.operation
        if isinstance(operation, keras.layers.InputLayer):
            continue
        states = [seen[id(tensor)] for tensor in node.input_tensors]
        if isinstance(operation, keras.Model):
            again = id(operation) in walked  # a network that sees a picture at several sizes is listed at the first
            walked.add(id(operation))
            inside: list[Layer] = []
            state = _walk(_of_known_size(operation, node.input_tensors[0].shape), states, inside)
            rows += [] if again else inside
        else:
            state = _after(operation, states, node.input_tensors)
            rows.append(_row(operation, node, state[0]))
        seen |= {id(tensor): state for tensor in node.outputs}
    return max(seen[id(tensor)] for tensor in _graph(model).outputs)


def _of_known_size(model: keras.Model, shape: tuple[int | None, ...]) -> keras.Model:
    """The same layers at the size they are used at, where `model` takes pictures of any."""
    import keras

    graph = _graph(model)
    if len(graph.inputs) != 1 or None not in graph.inputs[0].shape[1:]:
        return model
    pixels = keras.Input(shape[1:])
    return keras.Model(pixels, graph._run_through_graph(pixels, operation_fn=lambda operation: operation))


def _row(operation: Any, node: Any, receptive_field: float) -> Layer:
    weights = getattr(operation, "weights", [])
    return Layer(
        name=operation.name,
        kind=type(operation).__name__,
        shape=tuple(int(side) for side in node.outputs[0].shape[1:]),
        parameters=int(sum(np.prod(weight.shape) for weight in weights)),
        receptive_field=receptive_field,
        trained=bool(getattr(operation, "trainable_variables", [])),
    )


def _after(operation: Any, states: list[tuple[float, float]], inputs: list[Any]) -> tuple[float, float]:
    """Receptive field and jump behind a layer."""
    field = max(state[0] for state in states)
    jump = max(state[1] for state in states)
    kind = type(operation).__name__
    if kind.startswith("Global") or kind in ("Flatten", "Reshape") or (kind == "Dense" and len(inputs[0].shape) == 2):
        return WHOLE, jump
    window = getattr(operation, "kernel_size", None) or getattr(operation, "pool_size", None)
    if window is None or kind == "Dense":
        return field, jump
    dilation = getattr(operation, "dilation_rate", 1)
    dilation = dilation[0] if isinstance(dilation, tuple | list) else dilation
    return field + (window[0] - 1) * dilation * jump, jump * operation.strides[0]


def attention(
    model: keras.Model, inputs: NDArray[np.float32], classes: NDArray[np.intp], inputs_are_maps: bool = False
) -> NDArray[np.float32] | None:
    """Grad-CAM (Selvaraju et al. 2017): which places of the pictures (N, S, S, 3) support `classes` (N,).

    Returns (N, h, w) in [0, 1] over the last feature maps with more than one place, zero where nothing supports the
    class; None where there are no such maps, as when they shrink to one place inside a frozen backbone. The gradient
    is that of the class's log odds, because the probability itself is flat near 0 and 1.
    `inputs_are_maps`: `inputs` (N, h, w, C) are not pixels but a frozen network's feature maps, and count as maps too.
    """
    import keras
    import tensorflow as tf

    maps = _maps(model, inputs_are_maps)
    if not maps:
        return None
    looking = keras.Model(_graph(model).inputs, [maps[-1], _graph(model).outputs[0]])
    given = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(given)
        seen, output = looking(given, training=False)
        if output.shape[1] == 1:
            p = tf.where(tf.constant(classes)[:, None] == 1, output, 1 - output)[:, 0]
        else:
            p = tf.gather(output, classes, axis=1, batch_dims=1)
        score = tf.math.log(tf.clip_by_value(p, 1e-7, 1.0)) - tf.math.log(tf.clip_by_value(1 - p, 1e-7, 1.0))
    gradients = tape.gradient(score, seen)
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    cam = np.maximum(np.asarray(tf.reduce_sum(weights * seen, axis=-1)), 0)
    highest = cam.max(axis=(1, 2), keepdims=True)
    return np.asarray(np.divide(cam, highest, out=np.zeros_like(cam), where=highest > 0), dtype=np.float32)


def _maps(model: keras.Model, inputs_are_maps: bool) -> list[Any]:
    """The tensors (N, h, w, C) with more than one place that come out of trained layers, in order."""
    graph = _graph(model)
    learnt = {id(tensor) for tensor in graph.inputs} if inputs_are_maps else set()
    found = list(graph.inputs) if inputs_are_maps else []
    for node in _nodes(model):
        if getattr(node.operation, "weights", []) or any(id(tensor) in learnt for tensor in node.input_tensors):
            learnt |= {id(tensor) for tensor in node.outputs}
            found += node.outputs
    return [t for t in found if len(t.shape) == 4 and t.shape[1] and t.shape[1] > 1]
