"""A start without labels: SimSiam (Chen and He 2021) on every picture that is not test, and unlabelled ones as well.

Two views of a picture, cropped and recoloured by chance, go through the same network; a small predictor learns to
predict the features of one from those of the other. Labels play no part, so pictures of incoming/ can teach too.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.imaging.decode import SUFFIXES, DecodeError, decode_resized
from plumbline.imaging.litter import is_litter
from plumbline.models.candidates import Candidate
from plumbline.models.pretexts import descend, fit_pretext
from plumbline.models.records import BackboneRecord, StartRecord

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from plumbline.models.training import TrainingSet

SMALLEST_CROP = 0.4
GAIN = 0.4
GREY_SHARE = 0.2
PROJECTED, PREDICTED = 128, 32
COLLAPSED = 0.1


def start_without_labels(
    network: keras.Model, candidate: Candidate, data: TrainingSet, seed: int, name: str
) -> StartRecord:
    """Train all of `network` but its last layer on pictures without their labels; returns what on, and how it went."""
    assert candidate.start is not None
    seen = np.flatnonzero(~data.inside("test"))
    known = np.stack([data.features.values[row, 0] for row in data.rows[seen]])
    kept_out = set(data.splits["id"])  # copies of what is known already, and of test pictures
    more, unreadable, digest = unlabelled(candidate.start.unlabelled, data.features.backbone, kept_out)
    pixels = np.concatenate([known, more]) if len(more) else known
    if unreadable:
        where = candidate.start.unlabelled
        print(f"{name}: {unreadable} files of {where} can't be read and taught nothing", file=sys.stderr)
    spread = explained = None
    if candidate.start.method == "simsiam":
        loss, spread = fit_pairs(network, pixels, candidate, seed)
        if spread < COLLAPSED:
            print(f"{name}: SimSiam collapsed (every picture at the same place, spread {spread:.3f})", file=sys.stderr)
    else:
        loss, explained = fit_pretext(network, pixels, candidate, seed)
    return StartRecord(
        method=candidate.start.method,
        known=len(known),
        unlabelled=len(more),
        unreadable=unreadable,
        sha256=digest,
        loss=loss,
        spread=spread,
        explained=explained,
    )


def unlabelled(folder: str | None, backbone: BackboneRecord, kept_out: set[str]) -> tuple[NDArray[np.uint8], int, str]:
    """Pictures (N, S, S, 3) below `folder` as the backbone stores them, in order of path, each once.

    Those whose id is in `kept_out` are left out. Returns how many files can't be read, too, and a digest of the ids.
    """
    from plumbline.models.extraction import build_extractor

    size = backbone.image_size
    if folder is None:
        return np.empty((0, size, size, 3), np.uint8), 0, hashlib.sha256().hexdigest()
    if not Path(folder).is_dir():
        raise UserError(f"params.yaml: start.unlabelled names {folder}, which is no folder: correct it, or set null.")
    found: dict[str, NDArray[np.uint8]] = {}
    unreadable = 0
    below = (path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    for path in sorted(path for path in below if not any(map(is_litter, path.relative_to(folder).parts))):
        content = path.read_bytes()
        image_id = hashlib.sha256(content).hexdigest()
        if image_id in kept_out or image_id in found:
            continue
        try:
            found[image_id] = decode_resized(content, (size, size), fit=backbone.fit)
        except DecodeError:
            unreadable += 1
    digest = hashlib.sha256("".join(found).encode()).hexdigest()
    pixels = np.stack(list(found.values())) if found else np.empty((0, size, size, 3), np.uint8)
    prepare = build_extractor(backbone, [None]).extract
    return (np.asarray(prepare(pixels)) if len(pixels) else pixels), unreadable, digest


def fit_pairs(network: keras.Model, pixels: NDArray[np.uint8], candidate: Candidate, seed: int) -> tuple[float, float]:
    """SimSiam on pixels (N, S, S, 3); returns the last epoch's loss and the spread of what comes out.

    The spread is the deviation of unit vectors' values times the root of their number: about 1 where pictures are
    spread over all directions, 0 where they all lie in one place.
    """
    import keras
    import tensorflow as tf

    assert candidate.start is not None
    trunk = keras.Model(network.inputs[0], network.layers[-1].input)
    project = _layers([(PROJECTED, True), (PROJECTED, False)])
    predict = _layers([(PREDICTED, True), (PROJECTED, None)])

    def figures(images: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seen = [trunk(varied(images, number, side), training=True) for side in (0, 1)]
        one, two = (project(tf.cast(side, tf.float32), training=True) for side in seen)
        loss = (away(predict(one, training=True), two) + away(predict(two, training=True), one)) / 2
        spread = tf.reduce_mean(tf.math.reduce_std(tf.math.l2_normalize(one, axis=1), axis=0)) * PROJECTED**0.5
        return loss, spread

    models = [trunk, project, predict]
    loss, spread = descend(figures, models, pixels, candidate.start, candidate.batch_size, seed)
    return loss, spread


def _layers(widths: list[tuple[int, bool | None]]) -> keras.Sequential:
    """Dense layers, each normalised and with relu (True), normalised (False), or plain (None)."""
    import keras

    made: list[Any] = []
    for width, relu in widths:
        made.append(keras.layers.Dense(width, use_bias=relu is None, dtype="float32"))
        if relu is not None:
            made.append(keras.layers.BatchNormalization(momentum=0.9, dtype="float32"))
        if relu:
            made.append(keras.layers.ReLU(dtype="float32"))
    return keras.Sequential(made)


def away(predicted: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """The mean negative cosine of (N, D) and (N, D); the second is taken as it is."""
    import tensorflow as tf

    other = tf.stop_gradient(tf.math.l2_normalize(other, axis=1))
    return -tf.reduce_mean(tf.reduce_sum(tf.math.l2_normalize(predicted, axis=1) * other, axis=1))


def varied(images: tf.Tensor, number: tf.Tensor, side: int) -> tf.Tensor:
    """Images (N, S, S, 3) in [0, 255], each cropped, mirrored, recoloured, at times grey, by `number` (2,)."""
    import tensorflow as tf

    count, size = tf.shape(images)[0], images.shape[1]

    def draw(kind: int, shape: list[Any], low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, number * 16 + 2 * kind + side, low, high)

    sides = tf.sqrt(draw(0, [count], SMALLEST_CROP, 1.0))
    top, left = draw(1, [count]) * (1 - sides), draw(2, [count]) * (1 - sides)
    mirrored = draw(3, [count]) < 0.5
    x1, x2 = tf.where(mirrored, left + sides, left), tf.where(mirrored, left, left + sides)
    boxes = tf.stack([top, x1, top + sides, x2], axis=1)
    images = tf.image.crop_and_resize(images, boxes, tf.range(count), [size, size])
    images = images * draw(4, [count, 1, 1, 3], 1 - GAIN, 1 + GAIN)
    middle = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    images = middle + (images - middle) * draw(5, [count, 1, 1, 1], 1 - GAIN, 1 + GAIN)
    grey = tf.reduce_mean(images, axis=3, keepdims=True) * tf.ones_like(images)
    images = tf.where(draw(6, [count, 1, 1, 1]) < GREY_SHARE, grey, images)
    return tf.clip_by_value(images, 0.0, 255.0)
