"""Confidence intervals of means over queries, by resampling people with replacement.

Queries of one person are alike, so people are resampled and not queries (the cluster bootstrap).
The gallery stays the same.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation.labels import Ids

DRAWS = 1000
_SEED = 0
_DIGITS = 6  # the last ones of a sum depend on the order in which it is added up


class Interval(NamedTuple):
    """The interval `low` to `high` that holds the mean in 95 of 100 resamples of people."""

    low: float
    high: float


def mean_interval(values: NDArray[np.float64], pids: Ids) -> Interval:
    """The 95 % interval of the mean over queries, by the percentiles of DRAWS draws of people.

    Args:
        values: (Q,), a value of each query, such as its average precision; NaN if it has none.
        pids: (Q,), the person of each query.

    Raises:
        ValueError: no query has a figure.
    """
    judged = ~np.isnan(values)
    if not judged.any():
        raise ValueError(f"none of {len(values)} queries has a figure to draw from")
    people, person = np.unique(pids[judged], return_inverse=True)
    sums = np.bincount(person, values[judged])
    counts = np.bincount(person)
    rng, number = np.random.default_rng(_SEED), len(people)
    drawn = rng.multinomial(number, np.full(number, 1 / number), size=DRAWS)  # (DRAWS, people)
    low, high = np.percentile(drawn @ sums / (drawn @ counts), [2.5, 97.5])
    return Interval(round(float(low), _DIGITS), round(float(high), _DIGITS))
