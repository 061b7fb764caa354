"""What is done to a picture before a network sees it: part of the network, shared by training, serving and drift.

The layers made here stand between the pixels and everything else, in the extractor that computes features, in the model
that is exported and so in whatever runs that file. There is no second copy of it for serving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from plumbline.common.params import Section
from plumbline.imaging.decode import Fit

if TYPE_CHECKING:
    import keras

NORMS = {"grey_world": 1.0, "shades_of_grey": 6.0}
# Smith 1996: these exchanges (the smaller to the left) leave the median of nine values in the fifth place.
MEDIAN_OF_NINE = (
    *((1, 2), (4, 5), (7, 8), (0, 1), (3, 4), (6, 7), (1, 2), (4, 5), (7, 8)),
    *((0, 3), (5, 8), (4, 7), (3, 6), (1, 4), (2, 5), (4, 7), (4, 2), (6, 4), (4, 2)),
)


class Preprocess(Section):
    """`backbones.X.preprocess`. Every part leaves pixels in [0, 255], `colour` not in whole numbers.

    `noise: median` puts in each pixel's place the median of the nine around it, channel by channel (grain and single
    wrong pixels go, edges stay). `colour` takes the colour of the light out: each channel is multiplied so that all
    three have the same mean (`grey_world`, Buchsbaum 1980) or the same mean of sixth powers, in which bright places
    count for more (`shades_of_grey`, Finlayson and Trezzi 2004). `fit: letterbox` is the one part that has to come
    before the network, since a stretched picture no longer says what it was: see plumbline.imaging.decode.resize. The
    exported file says which `fit` it was trained with, and whoever reads pictures for it asks `OnnxModel.fit`.
    """

    noise: Literal["none", "median"] = "none"
    colour: Literal["none", "grey_world", "shades_of_grey"] = "none"
    fit: Fit = "stretch"


def prepared(pixels: keras.KerasTensor, preprocess: Preprocess | None) -> keras.KerasTensor:
    """RGB pixels (N, S, S, 3) in [0, 255] as a network gets to see them, of the same shape and range."""
    if preprocess is None:
        return pixels
    if preprocess.noise == "median":
        pixels = median(pixels)
    if preprocess.colour != "none":
        pixels = balanced(pixels, NORMS[preprocess.colour])
    return pixels


def median(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """The median of every 3x3 window, channel by channel; edges are mirrored outwards."""
    import keras

    ops = keras.ops
    height, width = pixels.shape[1:3]
    wide = ops.pad(pixels, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="symmetric")
    values = [wide[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
    for low, high in MEDIAN_OF_NINE:
        values[low], values[high] = ops.minimum(values[low], values[high]), ops.maximum(values[low], values[high])
    return values[4]


def balanced(pixels: keras.KerasTensor, norm: float) -> keras.KerasTensor:
    """Multiply each channel so that the three have the same mean of `norm`-th powers; clipped at 255."""
    import keras

    ops = keras.ops
    # In shares of white: sixth powers of 255 leave few digits of a 32-bit number for the dark places.
    powers = ops.mean(ops.power(pixels / 255.0 + 1e-4, norm), axis=(1, 2), keepdims=True)
    light = ops.power(powers, 1.0 / norm)
    gain = ops.mean(light, axis=-1, keepdims=True) / light
    return ops.clip(pixels * gain, 0.0, 255.0)
