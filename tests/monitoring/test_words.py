"""A finding in words: the direction of the change, and the figures it rests on."""

import numpy as np
import pytest

from monitoring.words import SAID, sentence

KNOWN = np.linspace(0.4, 0.6, 101)


@pytest.mark.parametrize(
    ("window", "words"),
    [
        (np.full(9, 0.45), "darker (brightness 115 against 105 to 150)"),
        (np.full(9, 0.55), "brighter (brightness 140 against 105 to 150)"),
        (np.full(9, 0.2), "darker than anything in the reference (brightness 51 against 105 to 150)"),
        (np.full(9, 0.9), "brighter than anything in the reference (brightness 230 against 105 to 150)"),
    ],
)
def test_the_direction_and_the_usual_range_are_named(window, words):
    assert sentence("brightness", KNOWN, window, 0.0) == words


def test_findings_without_figures_of_their_own():
    assert sentence("far from the reference", None, None, 0.25).startswith("25% of the images lie further")
    assert "maximum mean discrepancy" in sentence("embeddings (MMD)", None, None, 0.0)
    assert "a classifier can tell them" in sentence("embeddings (classifier)", None, None, 0.0)
    assert "is the lens dirty" in sentence("places", None, None, 0.0)


def test_a_finding_of_several_windows_says_of_how_many():
    found = sentence("places", None, None, 0.0, windows=3)
    assert found.startswith("in the last 3 windows together: light and dark lie at other places")


def test_a_class_score_is_named_with_both_medians():
    found = sentence("score of helmet", np.full(5, 0.9), np.full(5, 0.62), 0.0)
    assert found == "the champion's score of helmet moved (median 0.62 against 0.90)"


def test_every_figure_has_words_for_both_directions():
    for name in SAID:
        low, high = (sentence(name, KNOWN, np.full(3, value), 0.0) for value in (0.41, 0.59))
        assert low.split(" (")[0] != high.split(" (")[0], name
