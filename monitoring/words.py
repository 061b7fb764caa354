"""What a test found, in words."""

from __future__ import annotations

import numpy as np

from monitoring.observations import Floats

# Name: words for lower and for higher values, the figure's name, its factor and its digits.
SAID = {
    "brightness": ("darker", "brighter", "brightness", 255.0, 0),
    "contrast": ("flatter", "harsher", "contrast", 255.0, 0),
    "sharpness": ("blurrier", "sharper", "sharpness", 1.0, 0),
    "colourfulness": ("greyer", "more colourful", "colourfulness", 1.0, 0),
    "warmth": ("bluer", "redder", "red less blue", 255.0, 0),
    "noise": ("smoother", "noisier or more finely textured", "noise", 1.0, 1),
    "blockiness": ("less blocky", "blockier, as by strong compression", "block borders", 100.0, 0),
    "bits_per_pixel": ("compressed harder", "compressed less", "bits a pixel", 1.0, 1),
    "aspect": ("narrower", "wider", "width / height", 1.0, 2),
    "size": ("smaller pictures", "larger pictures", "side in pixels", 1.0, 0),
    "confidence": ("the champion is less sure", "the champion is surer", "confidence", 1.0, 2),
}
FAR_AWAY = "far from the reference"
_UNITS = {FAR_AWAY: ("distance to the nearest known pictures", 1.0, 3)}


def in_units(name: str, *values: float) -> tuple[str, ...]:
    """Return what the figure `name` is called, then `values` of it as people read them."""
    unit, factor, digits = _UNITS[name] if name in _UNITS else SAID[name][2:]
    return (unit, *(f"{factor * value:.{digits}f}" for value in values))


def sentence(name: str, reference: Floats | None, window: Floats | None, far_share: float, windows: int = 1) -> str:
    """Return what test `name` found; `reference` and `window` are its figures, None where it has none of its own.

    `windows` is how many it looked at together.
    """
    found = _finding(name, reference, window, far_share)
    return found if windows == 1 else f"in the last {windows} windows together: {found}"


def _finding(name: str, reference: Floats | None, window: Floats | None, far_share: float) -> str:
    if name == FAR_AWAY:
        return f"{far_share:.0%} of the images lie further from the reference than 99% of it"
    if name == "embeddings (MMD)":
        return "what they show is distributed differently (maximum mean discrepancy of embeddings)"
    if name == "embeddings (classifier)":
        return "a classifier can tell them from the reference by their embeddings"
    if name == "places":
        return "light and dark lie at other places in the picture: is the lens dirty, or was the camera moved?"
    assert reference is not None
    assert window is not None
    if name.startswith("score of "):
        return f"the champion's {name} moved (median {np.median(window):.2f} against {np.median(reference):.2f})"
    lower, higher, unit, factor, digits = SAID[name]
    middle = float(np.median(window))
    low, high = (float(value) for value in np.quantile(reference, [0.05, 0.95]))
    shown = f"{unit} {factor * middle:.{digits}f} against {factor * low:.{digits}f} to {factor * high:.{digits}f}"
    if middle < reference.min() or middle > reference.max():
        word = lower if middle < reference.min() else higher
        return f"{word} than anything in the reference ({shown})"
    return f"{lower if middle < np.median(reference) else higher} ({shown})"
