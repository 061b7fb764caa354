"""A race asks candidates that are still in question about more pictures, within its budget."""

import numpy as np
import pytest

from plumbline.evidence.race import Answers, Entrant, Terms, race, within_budget

SKILL = {"small": 0.9, "large": 0.9, "bad": 0.5}
ENTRANTS = [
    Entrant("small", (1,), {"small": 30.0}),
    Entrant("large", (2,), {"large": 60.0}),
    Entrant("bad", (3,), {"bad": 60.0}),
]
TERMS = Terms(folds=3, minutes=60, margin=0.02, confidence=0.9, level=0.05)


def answers_of(names, images=100):
    """Each picture is a group of its own; a candidate is right on the easiest share of them, its skill."""
    ease = np.random.default_rng(0).permutation(images) / images
    right = np.stack([ease < SKILL[name] for name in names])
    times = np.random.default_rng(1).multinomial(images, np.full(images, 1 / images), 400).astype(float)
    return Answers(right, np.where(right, 0.05, 0.4), np.arange(images), times)


def look(names, folds):
    return answers_of(names, 100 * (1 + folds))


def test_who_is_surely_behind_goes_home_after_the_first_look_and_is_asked_no_more():
    found = race(ENTRANTS, look, TERMS)
    assert found.rounds[0].asked == ["small", "large", "bad"]
    assert set(found.left) == {"bad"}
    assert found.left["bad"].endswith("points less accurate than small")
    assert all("bad" not in later.asked for later in found.rounds[1:])
    assert "small" in found.finalists


def test_the_race_ends_once_the_simplest_is_surely_within_the_margin():
    found = race(ENTRANTS[:2], look, TERMS)
    assert (found.ended, found.finalists) == ("settled", ["small", "large"])
    assert found.folds < TERMS.folds


def test_without_time_nobody_is_asked_about_a_fold():
    found = race(ENTRANTS[:2], look, Terms(3, 0, 0.0001, 0.9, 0.05))
    assert (found.ended, found.folds, found.minutes) == ("minutes", 0, 0.0)


@pytest.mark.parametrize(("seconds", "names"), [(150, ["small", "large", "bad"]), (149, []), (89, [])])
def test_the_more_accurate_half_is_asked_where_time_is_short(seconds, names):
    assert [one.name for one in within_budget(ENTRANTS, answers_of(list(SKILL)), seconds)] == names


def test_of_four_the_two_most_accurate_are_asked_where_time_pays_for_two(monkeypatch):
    monkeypatch.setitem(SKILL, "worse", 0.4)
    entrants = [*ENTRANTS, Entrant("worse", (0,), {"worse": 10.0})]
    kept = within_budget(entrants, answers_of([one.name for one in entrants]), 100)
    assert [one.name for one in kept] == ["small", "large"]
