"""Scores by the height of queries: whether small, distant people are found too.

Shapes: Q queries.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from san_core.evaluation.ranking import Ranking, exact_mean

_THIRDS = (1 / 3, 2 / 3)


class HeightThird(NamedTuple):
    """The queries of a range of heights, in rows, both ends counted; fractions are 0-1."""

    lowest: int
    highest: int
    num_query: int
    rank1: float
    mAP: float  # noqa: N815 - the field's own word


def score_heights(ranking: Ranking, heights: Sequence[int]) -> list[HeightThird]:
    """The figures of the lowest, the middle and the highest third of the judged queries.

    Queries of equal height stay together, so thirds may be uneven; empty if all have one height.

    heights: (Q,), the rows of each query's image.
    """
    judged = np.flatnonzero(ranking.first_rank)
    rows = np.asarray(heights)[judged]
    third = np.searchsorted(np.quantile(rows, _THIRDS, method="higher"), rows, side="right")
    found = []
    for which in np.unique(third):
        chosen = judged[third == which]
        found.append(
            HeightThird(
                lowest=int(rows[third == which].min()),
                highest=int(rows[third == which].max()),
                num_query=len(chosen),
                rank1=float(np.mean(ranking.first_rank[chosen] == 1)),
                mAP=exact_mean(ranking.average_precision[chosen]),
            )
        )
    return found if len(found) > 1 else []
