"""A tiny grey version of a picture, by which a site's near-duplicates are compared."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plumbline.imaging.decode import shrink_grey

SMALL = (24, 18)  # width, height


def small_grey(grey: Image.Image) -> NDArray[np.uint8]:
    """Return (18, 24) uint8 of a picture's luma."""
    return np.asarray(cv2.resize(np.asarray(shrink_grey(grey)), SMALL, interpolation=cv2.INTER_AREA), np.uint8)
