"""Structured pruning: the filters that matter least are taken out, and the graph really shrinks.

A smaller network is the same architecture at a smaller width, so its shapes fit; what is chosen is which filters of the
large one become those of the small one. Maps that are added or multiplied have to keep the same channels, so whatever
fills them is judged together; a depthwise convolution keeps those that it gets, and a concatenation all that its parts
keep. In steps, with some epochs of training behind each.

What matters is told by a filter's L1 norm (Li et al. 2017), or by what the loss of training pictures would change
without it, to first order (Molchanov et al. 2017, 2019): |sum over places of map x gradient of the loss|, the mean over
pictures. A filter of small weights that the answer hangs on has a small norm and a large score. A map counts behind its
batch normalisation, whose scale makes the weights' own size arbitrary. Of maps that are joined the sums add up before
their size is taken: what one gives and the other takes away is not missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.models.batches import Batches
from plumbline.models.candidates import TRANSFER, TRIPLET, Candidate, build_network
from plumbline.models.compressed import Pruning
from plumbline.models.training import TrainingSet, fit_in_phases

if TYPE_CHECKING:
    import keras

Channels = tuple[tuple[int, int], ...]
"""What a tensor's last axis is made of, in order: (space, its size) of each part."""
FILLS = ("Conv2D", "Dense")
KEEPS = (
    *("BatchNormalization", "Rescaling", "ReLU", "LeakyReLU", "Activation", "Dropout", "SpatialDropout2D"),
    *("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "ZeroPadding2D"),
    "DepthwiseConv2D",
)
MEETS = ("Add", "Multiply", "Average", "Maximum")
PICTURES = 1024
"""Training pictures whose loss is asked for Taylor scores, at most: evenly spaced."""
Parts = Callable[[Any], NDArray[np.float64]]
"""What a node that fills channels says of them, (P, channels); the mean over P of its size is how strong each is."""


def prune_in_steps(
    network: keras.Model, candidate: Candidate, pruning: Pruning, data: TrainingSet, name: str
) -> tuple[keras.Model, Candidate]:
    """Return `network` with `pruning.keep` of its filters, trained on, and the candidate whose network it is.

    Args:
        network: what `candidate` trained.
        candidate: an architecture that reads pixels, whose `width` says how many filters it has.
        pruning: the share that is kept, in how many steps, how long it is trained behind each.
        data: the pictures.
        name: of the pruned candidate, for messages.

    Raises UserError where the architecture can't be pruned, or training fails.
    """
    if candidate.architecture in (TRANSFER, TRIPLET):
        raise UserError(
            f"params.yaml: {name}.pruning is for networks trained from pixels, whose `width` can be less; a frozen "
            "backbone stays whole: take `pruning` out."
        )
    for step in range(1, pruning.steps + 1):
        width = candidate.width * pruning.keep ** (step / pruning.steps)
        narrow = candidate.model_copy(update={"width": width})
        small = build_network(narrow, data.features.shape, len(data.targets.classes), data.targets.task)
        taylor = pruning.by == "taylor"
        take_over(network, small, name, taylor_parts(network, data, candidate.batch_size) if taylor else norm_parts)
        training = {
            "epochs": pruning.epochs,
            "early_stopping_patience": pruning.epochs,
            "learning_rate": pruning.learning_rate,
        }
        fitted = fit_in_phases(small, narrow, data.lesson(narrow.model_copy(update=training), step), name)
        if fitted.status != "trained":
            raise UserError(f"params.yaml: {name} did not learn any more once it was pruned: keep more of it.")
        network = small
    return network, narrow


def norm_parts(node: Any) -> NDArray[np.float64]:
    """The L1 norms of a layer's filters (1, channels)."""
    kernel = node.operation.get_weights()[0]
    return np.asarray(np.abs(kernel).sum(axis=tuple(range(kernel.ndim - 1))))[None]


def taylor_parts(network: keras.Model, data: TrainingSet, batch_size: int) -> Parts:
    """Return what the loss of each training picture (P) changes where a channel of a layer grows, to first order.

    That is the sum over places of map x gradient; with its sign turned, what taking the channel out changes.
    """
    import keras
    import tensorflow as tf

    nodes = _nodes(network)
    filling = [node for node in nodes if type(node.operation).__name__ in FILLS]
    seen = keras.Model(network.inputs[0], [*(_counted(node, nodes) for node in filling), network.outputs[0]])
    loss, _ = data.targets.task.loss(network.output_shape[-1])
    found: list[list[NDArray[np.float64]]] = [[] for _ in filling]
    for pixels, answers in _asked(data, batch_size).dataset():
        with tf.GradientTape() as tape:
            tape.watch(pixels)  # a network whose weights don't learn would leave no trace otherwise
            *maps, output = seen(pixels, training=False)
            total = loss(answers, output) * len(pixels)  # Keras gives the mean; batches differ in size
        slopes = tape.gradient(total, maps, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        for one, map_, slope in zip(found, maps, slopes, strict=True):
            products = np.asarray(map_ * slope, np.float64)
            one.append(products.sum(axis=tuple(range(1, products.ndim - 1))))
    parts = {id(node): np.concatenate(one) for node, one in zip(filling, found, strict=True)}
    return lambda node: parts[id(node)]


def _asked(data: TrainingSet, batch_size: int) -> Batches:
    inside = data.inside("train")
    step = -(-int(inside.sum()) // PICTURES)
    return Batches(data.features.values, data.rows[inside][::step], data.targets.values[inside][::step], batch_size)


def _counted(node: Any, nodes: list[Any]) -> Any:
    """The tensor at which a filling node's channels count: behind its batch normalisation, where it has one."""
    tensor = node.outputs[0]
    while True:
        readers = [one for one in nodes if any(tensor is given for given in one.input_tensors)]
        kind = type(readers[0].operation).__name__ if len(readers) == 1 else ""
        if kind not in KEEPS or kind == "DepthwiseConv2D":
            return node.outputs[0]
        tensor = readers[0].outputs[0]
        if kind == "BatchNormalization":
            return tensor


def take_over(large: keras.Model, small: keras.Model, name: str = "", parts: Parts = norm_parts) -> None:
    """Give `small`, the same architecture with fewer filters, the weights of the strongest filters of `large`.

    How strong they are is what `parts` says of them.

    Raises UserError naming the first layer that can't be pruned, or where the two are no such pair.
    """
    plan = _Plan.of(_nodes(large), name, parts)
    nodes = _nodes(small)
    if len(nodes) != len(plan.nodes):
        raise UserError(f"params.yaml: {name} can't be pruned: at a smaller width it has other layers.")
    sizes: dict[int, int] = {}
    for wide, narrow in zip(plan.nodes, nodes, strict=True):
        kind = type(wide.operation).__name__
        if kind != type(narrow.operation).__name__:
            raise UserError(f"params.yaml: {name} can't be pruned: at a smaller width it has other layers.")
        if kind in (*FILLS, "InputLayer"):
            space = plan.root(plan.channels[id(wide.outputs[0])][0][0])
            sizes[space] = int(narrow.outputs[0].shape[-1])
    kept = {space: _strongest(np.abs(plan.parts[space]).mean(axis=0), size) for space, size in sizes.items()}
    for wide, narrow in zip(plan.nodes, nodes, strict=True):
        if wide.operation.weights:
            before = plan.places(wide.input_tensors[0], kept)
            narrow.operation.set_weights(_chosen(wide.operation, before, plan.places(wide.outputs[0], kept)))


def _chosen(layer: Any, before: NDArray[np.intp], after: NDArray[np.intp]) -> list[NDArray[Any]]:
    """A layer's weights for the channels `before` it and `after` it that are kept."""
    weights: list[NDArray[Any]] = layer.get_weights()
    kind = type(layer).__name__
    if kind in FILLS:
        kernel, *bias = weights
        return [np.take(kernel, before, axis=-2)[..., after], *(one[after] for one in bias)]
    if kind == "DepthwiseConv2D":
        kernel, *bias = weights
        return [np.take(kernel, after, axis=-2), *(one[after] for one in bias)]
    return [one[after] for one in weights]


def _strongest(strength: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """The places of the `count` greatest, in order."""
    return np.sort(np.argsort(-strength, kind="stable")[:count])


def _nodes(model: keras.Model) -> list[Any]:
    levels = (getattr(model, "_functional", None) or model)._nodes_by_depth
    return [node for depth in sorted(levels, reverse=True) for node in levels[depth]]


@dataclass
class _Plan:
    """Which channels of a network belong together: `channels` of each tensor by id, and what `say` says of each space's
    in `parts`, added up over all that fills it."""

    nodes: list[Any]
    say: Parts
    channels: dict[int, Channels] = field(default_factory=dict)
    parts: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    _parents: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: list[Any], name: str, say: Parts) -> _Plan:
        plan = cls(nodes, say)
        for node in nodes:
            for output in node.outputs:
                plan.channels[id(output)] = plan._after(node, name)
        return plan

    def _after(self, node: Any, name: str) -> Channels:
        kind, operation = type(node.operation).__name__, node.operation
        inputs = [self.channels[id(tensor)] for tensor in node.input_tensors]
        size = int(node.outputs[0].shape[-1])
        if kind == "InputLayer":
            return self._new(np.zeros((1, size)))
        if kind in FILLS and getattr(operation, "groups", 1) == 1:
            return self._new(self.say(node))
        if kind in KEEPS and getattr(operation, "depth_multiplier", 1) == 1:
            return inputs[0]
        if kind == "Flatten":
            return inputs[0] * (size // sum(part for _, part in inputs[0]))
        if kind == "Concatenate" and operation.axis in (-1, len(node.outputs[0].shape) - 1):
            return tuple(part for one in inputs for part in one)
        if kind in MEETS and len({tuple(part for _, part in one) for one in inputs}) == 1:
            for parts in zip(*inputs, strict=True):
                for space, _ in parts[1:]:
                    self._join(parts[0][0], space)
            return inputs[0]
        raise UserError(f"params.yaml: {name} can't be pruned: its layer {operation.name} ({kind}) is not known to it.")

    def _new(self, parts: NDArray[np.float64]) -> Channels:
        space = len(self._parents)
        self._parents[space] = space
        self.parts[space] = parts
        return ((space, parts.shape[1]),)

    def root(self, space: int) -> int:
        """The space that stands for all that are joined with `space`."""
        while self._parents[space] != space:
            space = self._parents[space]
        return space

    def _join(self, one: int, other: int) -> None:
        one, other = self.root(one), self.root(other)
        if one != other:
            self._parents[other] = one
            self.parts[one] = self.parts[one] + self.parts[other]

    def places(self, tensor: Any, kept: dict[int, NDArray[np.intp]]) -> NDArray[np.intp]:
        """The places on a tensor's last axis that are kept."""
        found, start = [], 0
        for space, size in self.channels[id(tensor)]:
            found.append(kept[self.root(space)] + start)
            start += size
        return np.concatenate(found)
