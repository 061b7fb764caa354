"""Augmented views of a picture, drawn from the picture's own id: the same view on every machine and in every run."""

from __future__ import annotations

import hashlib
import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common.params import Section


class Augmentation(Section):
    """Ranges of the random affine transform, as in Keras' ImageDataGenerator (the HelmNet study's settings).

    rotation and shear are in degrees either way, shifts are shares of width and height either way, zoom is the share
    by which each axis is enlarged or reduced on its own. Pixels from outside take the nearest one's colour.
    """

    rotation: Annotated[float, Field(ge=0, le=180)] = 30.0
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.2
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.2
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.2


def augmented_view(image: NDArray[np.uint8], image_id: str, view: int, augmentation: Augmentation) -> NDArray[np.uint8]:
    """Return view number `view` (1, 2, ...) of `image` (H, W, 3): rotated, shifted, sheared, zoomed about its centre.

    The draw depends on `image_id`, `view` and the settings alone. Source of the composition: Keras'
    `apply_affine_transform` (rotation, then shift, shear, zoom, about the centre, nearest fill).
    """
    import cv2

    height, width = image.shape[:2]
    matrix = _affine_matrix(_generator(image_id, view), height, width, augmentation)
    # WARP_INVERSE_MAP: like Keras, the matrix maps places of the new picture to places of the old one.
    return cv2.warpAffine(
        image,
        matrix[:2],
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.uint8)


def _generator(image_id: str, view: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{image_id}:{view}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _affine_matrix(
    random: np.random.Generator, height: int, width: int, augmentation: Augmentation
) -> NDArray[np.float64]:
    angle = math.radians(random.uniform(-augmentation.rotation, augmentation.rotation))
    shift_x = random.uniform(-augmentation.shift, augmentation.shift) * width
    shift_y = random.uniform(-augmentation.shift, augmentation.shift) * height
    shear = math.radians(random.uniform(-augmentation.shear, augmentation.shear))
    zoom_x, zoom_y = random.uniform(1 - augmentation.zoom, 1 + augmentation.zoom, size=2)
    rotation = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    shift = np.array([[1, 0, shift_x], [0, 1, shift_y], [0, 0, 1]])
    shearing = np.array([[1, -math.sin(shear), 0], [0, math.cos(shear), 0], [0, 0, 1]])
    zoom = np.diag([zoom_x, zoom_y, 1.0])
    centre = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    return np.asarray(centre @ rotation @ shift @ shearing @ zoom @ np.linalg.inv(centre))
