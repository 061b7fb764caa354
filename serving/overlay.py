"""Where the network looks: what covering each part of the picture does to the answer (Zeiler and Fergus 2014, 3.2).

It asks nothing of a network but its answers, so it works for any export, and what it shows is what was served.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plumbline.imaging.decode import Pixels
from serving.engine import Engine
from serving.model import Scored, Served

CELLS = 8
OPACITY = 0.65
SUREST = 1e-7  # what float32 can tell from 0 or 1
FAINTEST = 0.1  # in log odds: a drop that gets the full colour, at least


def covered(pixels: Pixels) -> list[Pixels]:
    """Return CELLS x CELLS copies of a picture (S, S, 3), row by row, each with one part in the mean colour."""
    side = pixels.shape[0]
    mean = pixels.reshape(-1, 3).mean(axis=0).astype(np.uint8)
    edges = np.linspace(0, side, CELLS + 1)
    margin = side / CELLS / 2
    copies = []
    for row in range(CELLS):
        for column in range(CELLS):
            copy = pixels.copy()
            top, left = max(0, round(edges[row] - margin)), max(0, round(edges[column] - margin))
            copy[top : round(edges[row + 1] + margin), left : round(edges[column + 1] + margin)] = mean
            copies.append(copy)
    return copies


async def occlusion(engine: Engine, served: Served, pixels: Pixels, found: Scored) -> dict[str, Any]:
    """Return the picture with what speaks for its label coloured, and by how much covering lowers its log odds."""
    scored = await engine.batcher.score(served, covered(pixels))
    given = served.calibrated(np.stack([found.probabilities, *(one.probabilities for one in scored)]))
    place = int(given[0].argmax())
    odds = _log_odds(given[:, place])
    drop = (odds[0] - odds[1:]).reshape(CELLS, CELLS)
    return {
        "kind": "occlusion",
        "label": served.classes[place],
        "drop": [[round(float(value), 4) for value in row] for row in drop],
        "picture": _coloured(pixels, drop),
    }


def _log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log odds: where a network is sure, covering a part hardly moves the probability, but moves the odds."""
    sure = np.clip(probabilities, SUREST, 1 - SUREST)
    return np.asarray(np.log(sure / (1 - sure)))


def _coloured(pixels: Pixels, drop: NDArray[np.float64]) -> str:
    """The picture in grey under a wash of orange where covering lowers the probability; a data: address of a PNG."""
    strength = np.clip(drop, 0, None)
    strength = strength / max(float(strength.max()), FAINTEST)
    side = pixels.shape[0]
    mask = (
        np.asarray(
            Image.fromarray((255 * strength).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC),
            np.float64,
        )[:, :, None]
        / 255
    )
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float64)[:, :, None].repeat(3, axis=2)
    shown = grey * (1 - OPACITY * mask) + np.array([255.0, 120.0, 0.0]) * OPACITY * mask
    buffer = io.BytesIO()
    Image.fromarray(shown.astype(np.uint8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
