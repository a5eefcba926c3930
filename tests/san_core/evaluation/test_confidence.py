"""How far a mean over queries may be chance."""

import numpy as np
import pytest

from san_core.evaluation.confidence import mean_interval


def test_of_one_value_alone_the_interval_is_that_value():
    assert mean_interval(np.full(40, 0.25), np.repeat(np.arange(10), 4)) == (0.25, 0.25)


def test_it_holds_the_mean_and_narrows_with_people():
    rng = np.random.default_rng(0)
    values = rng.random(4_000)
    widths = []
    for people in (10, 100, 1000):
        part = values[: 4 * people]
        low, high = mean_interval(part, np.repeat(np.arange(people), 4))
        assert low < part.mean() < high
        widths.append(high - low)
    # of independent queries: 2 * 1.96 standard errors of a mean of uniform numbers
    assert widths[2] == pytest.approx(2 * 1.96 * np.sqrt(1 / 12 / 4_000), rel=0.1)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_queries_of_one_person_that_are_alike_count_once():
    values = np.random.default_rng(1).random(50)
    alone = mean_interval(values, np.arange(50))
    assert mean_interval(np.repeat(values, 8), np.repeat(np.arange(50), 8)) == alone


def test_queries_without_a_figure_do_not_count():
    values, pids = np.array([0.5, np.nan, 1.0]), np.array([1, 2, 3])
    assert mean_interval(values, pids) == (0.5, 1.0)
    with pytest.raises(ValueError, match="none of 1 queries has a figure"):
        mean_interval(values[1:2], pids[1:2])
