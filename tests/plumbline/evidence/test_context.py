"""Photographs blurred outside their boxes or inside, and how many boxes a detector still finds."""

import numpy as np
import pandas as pd
import pytest

from plumbline.evidence.context import conditions_of, in_words, measure, under

SIDES = ["left", "top", "right", "bottom"]
BOXES = pd.DataFrame(
    [("a", "head", 0.25, 0.25, 0.75, 0.75), ("b", "head", 0.0, 0.0, 0.2, 0.2)], columns=["path", "label", *SIDES]
)
PHOTOGRAPHS = pd.DataFrame({"path": ["a", "b", "c"], "width": 100, "height": 100, "group": ["g", "h", "i"]})


def test_what_is_blurred_is_outside_or_inside():
    noise = np.random.default_rng(0).integers(0, 256, (200, 100, 3)).astype(np.uint8)
    box = np.array([[0.2, 0.2, 0.8, 0.8]])
    outside, inside = (under(noise, box, one) for one in ("context blurred", "boxes blurred"))
    assert (under(noise, box, "as it is") == noise).all()
    assert (outside[40:160, 20:80] == noise[40:160, 20:80]).all()
    assert outside[:15].std() < noise[:15].std() / 5
    assert (inside[:20] == noise[:20]).all()
    assert inside[50:150, 30:70].std() < noise[50:150, 30:70].std() / 5
    assert (under(noise, box[:0], "boxes blurred") == noise).all()
    ((path, versions),) = conditions_of(["x"], [noise], BOXES)
    assert path == "x"
    assert (versions["boxes blurred"] == noise).all()


def test_what_is_still_found_is_a_share_of_what_was():
    found = BOXES.assign(score=0.9)
    under = {
        "as it is": found,
        "context blurred": found[found["path"] == "a"],
        "boxes blurred": found.assign(score=0.1),
    }
    result = measure("one", PHOTOGRAPHS, BOXES, under, {"head": 0.5}, [], 100, 0)
    assert {one: figure.value for one, figure in result.found.items()} == {
        "as it is": 1.0, "context blurred": 0.5, "boxes blurred": 0.0,
    }  # fmt: skip
    assert result.still["context blurred"].value == pytest.approx(0.5)
    assert in_words(result).startswith("Of the boxes that one finds, it still finds 50% (")


def test_nothing_found_is_not_measured():
    nothing = dict.fromkeys(("as it is", "context blurred", "boxes blurred"), BOXES.iloc[:0].assign(score=0.9))
    result = measure("one", PHOTOGRAPHS, BOXES, nothing, {"head": 0.5}, [], 100, 0)
    assert result.still["context blurred"] is None
    assert in_words(result).startswith("Not measured")
