"""Views of one picture, each much like what a camera could have taken instead."""

from __future__ import annotations

import numpy as np

from plumbline.imaging.decode import Pixels, resize

CROPS = (0.0, 0.04, 0.08)
LIGHTS = (1.0, 0.85, 1.15)


def views_of(pixels: Pixels, count: int) -> list[Pixels]:
    """Return `count` views of a picture (S, S, 3), itself first: mirrored, a little closer, darker or lighter."""
    side = pixels.shape[0]
    views = []
    for number in range(count):
        crop = round(side * CROPS[number // 2 % len(CROPS)])
        view = resize(np.ascontiguousarray(pixels[crop : side - crop, crop : side - crop]), (side, side))
        light = LIGHTS[number // (2 * len(CROPS)) % len(LIGHTS)]
        if light != 1:
            view = np.clip(view * light, 0, 255).astype(np.uint8)
        views.append(np.ascontiguousarray(view[:, ::-1] if number % 2 else view))
    return views
