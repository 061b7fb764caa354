"""EfficientNet-Lite0 without its top (Apache-2.0, from TensorFlow's TPU models): a network keras.applications lacks.

EfficientNet-B0 without squeeze-and-excitation, its swish made ReLU6: made for processors that calculate in whole
numbers. The batch normalisation of the published weights is folded into the convolutions, so there is none here.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

STEM, TOP = 32, 1280
# kernel, stride of the first block, widening, maps, blocks
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def build(input_shape: tuple[int | None, int | None, int], name: str) -> keras.Model:
    """Build it from pixels (N, H, W, 3) scaled by (x - 127) / 128 to feature maps (N, H / 32, W / 32, 1280).

    Layers are called as the published arrays are, dots made underscores: `stem`, `block03_expand`, `head`, and
    `..._relu` what follows them. Random weights keep the size of the signal from layer to layer, because no batch
    normalisation would put it right.
    """
    import keras

    pixels = keras.Input(input_shape, name="pixels")
    x = _relu6(_convolution(STEM, 3, 2, "stem", gain=2)(pixels), "stem")
    number = 0
    for kernel, first_stride, widening, maps, blocks in STAGES:
        for place in range(blocks):
            x = _block(x, kernel, 1 if place else first_stride, widening, maps, f"block{number:02}")
            number += 1
    x = _relu6(_convolution(TOP, 1, 1, "head", gain=2)(x), "head")
    return keras.Model(pixels, x, name=name)


def _block(x: keras.KerasTensor, kernel: int, stride: int, widening: int, maps: int, name: str) -> keras.KerasTensor:
    """Widen, look at each map by itself, narrow; the input is added where the shape stays the same."""
    import keras

    y = x
    if widening > 1:
        expand = f"{name}_expand"
        y = _relu6(_convolution(widening * x.shape[-1], 1, 1, expand, gain=2)(y), expand)
    depthwise = f"{name}_depthwise"
    start = keras.initializers.RandomNormal(stddev=math.sqrt(2 / kernel**2))
    y = keras.layers.DepthwiseConv2D(kernel, stride, "same", depthwise_initializer=start, name=depthwise)(y)
    y = _convolution(maps, 1, 1, f"{name}_project", gain=1)(_relu6(y, depthwise))
    return y if stride != 1 or x.shape[-1] != maps else keras.layers.Add(name=f"{name}_add")([x, y])


def _convolution(filters: int, kernel: int, stride: int, name: str, gain: float) -> keras.layers.Layer:
    import keras

    start = keras.initializers.VarianceScaling(gain)
    return keras.layers.Conv2D(filters, kernel, stride, "same", kernel_initializer=start, name=name)


def _relu6(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    import keras

    return keras.layers.ReLU(6.0, name=f"{name}_relu")(x)


def load_arrays(network: keras.Model, path: Path) -> None:
    """Give `network` the published arrays (.npz: `stem.kernel`, `block03.expand.bias`, ...).

    Raises ValueError or OSError where the file lacks one, or holds one of another shape.
    """
    with np.load(path, allow_pickle=False) as arrays:
        for layer in network.layers:
            if layer.weights:
                name = layer.name.replace("_", ".")
                missing = [key for key in (f"{name}.kernel", f"{name}.bias") if key not in arrays]
                if missing:
                    raise ValueError(f"it has no array {missing[0]}")
                layer.set_weights([arrays[f"{name}.kernel"], arrays[f"{name}.bias"]])
