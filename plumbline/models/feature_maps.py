"""Feature maps of a network by stride, for detectors and whatever else needs to know where things are.

At stride 8 a map has one place for every 8 x 8 pixels. Architectures name the layers that make their maps in
`FEATURE_MAPS`, or say in `NO_FEATURE_MAPS` why there are none; pretrained networks do so in `NETWORKS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from plumbline.common.errors import UserError
from plumbline.models.candidates import architecture_names
from plumbline.models.networks import NETWORKS

if TYPE_CHECKING:
    import keras

STRIDES = (4, 8, 16, 32)


def maps_offered(name: str) -> dict[int, str]:
    """Return for each stride the layer whose output holds the maps of an architecture or pretrained network.

    Raises UserError where `name` is neither, or has no maps: the sentence says why.
    """
    offered: dict[int, str] | str
    if name in NETWORKS:
        offered = NETWORKS[name].maps
    elif name in architecture_names():
        module = importlib.import_module(f"plumbline.models.architectures.{name}")
        why_not = getattr(module, "NO_FEATURE_MAPS", "its module names none in FEATURE_MAPS")
        offered = getattr(module, "FEATURE_MAPS", why_not)
    else:
        known = ", ".join([*architecture_names(), *sorted(NETWORKS)])
        raise UserError(f"nothing is called '{name}' that could have feature maps: use one of {known}.")
    if isinstance(offered, str):
        raise UserError(f"{name} has no feature maps to build on: {offered}.")
    return offered


def feature_maps(network: keras.Model, name: str, strides: Sequence[int] = ()) -> dict[int, keras.KerasTensor]:
    """Return the maps of `network`, which is a model of architecture or pretrained network `name`, by stride.

    The tensors (N, H / stride, W / stride, C) are the network's own: a model from its input to them shares its
    layers and weights. `strides` must divide H and W; by default they are all that are offered and do. UserError says
    what is missing.
    """
    offered = maps_offered(name)
    absent = [stride for stride in strides if stride not in offered]
    if absent:
        raise UserError(f"{name} has no feature maps of stride {absent[0]}: it has {', '.join(map(str, offered))}.")
    height, width = network.input_shape[1:3]
    wanted = strides or [stride for stride in offered if not height % stride and not width % stride]
    odd = [stride for stride in wanted if height % stride or width % stride]
    if odd or not wanted:
        stride = odd[0] if odd else min(offered)
        raise UserError(
            f"pictures of {width} x {height} pixels have no feature maps of stride {stride}: "
            f"give them sides that are multiples of {max(wanted or offered)}."
        )
    return {stride: network.get_layer(offered[stride]).output for stride in sorted(wanted)}


def pyramid(network: keras.Model, name: str, strides: Sequence[int] = ()) -> keras.Model:
    """Return a model from what `network` reads (N, H, W, 3) to its maps, {stride: (N, H / stride, W / stride, C)}.

    It shares the layers and weights of `network`; see `feature_maps`.
    """
    import keras

    maps = feature_maps(network, name, strides)
    return keras.Model(network.inputs[0], maps, name=f"{name}_maps")
