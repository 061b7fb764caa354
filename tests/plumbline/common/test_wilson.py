import pytest
from statsmodels.stats.proportion import proportion_confint

from plumbline.common.wilson import wilson


@pytest.mark.parametrize(("right", "count"), [(0, 5), (5, 5), (37, 40), (500, 1000)])
def test_it_is_the_interval_of_statsmodels(right, count):
    assert wilson(right / count, count) == pytest.approx(proportion_confint(right, count, method="wilson"), abs=1e-9)


def test_the_ends_are_exact_and_nothing_observed_says_nothing():
    assert wilson(0, 7)[0] == 0
    assert wilson(1, 7)[1] == 1
    assert wilson(0.5, 0) == (0, 1)
