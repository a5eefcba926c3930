"""Scores by the height of queries."""

import numpy as np
import pytest

from san_core.evaluation.labels import Labels
from san_core.evaluation.pages.query_heights import score_heights
from san_core.evaluation.ranking import rank


def ranked(right):
    """A ranking of queries whose right answer is the nearest where `right` says so, else second."""
    count = len(right)
    queries = np.arange(count, dtype=np.float32)[:, None] * 100
    own = queries + np.where(np.array(right), 1, 3)[:, None].astype(np.float32)
    others = queries + 2
    return rank(
        queries,
        np.concatenate([own, others]),
        query=Labels(np.arange(1, count + 1), np.zeros(count, np.int64)),
        gallery=Labels(
            np.concatenate([np.arange(1, count + 1), np.full(count, 999)]),
            np.ones(2 * count, np.int64),
        ),
    )


def test_low_middling_and_high_queries_are_scored_apart():
    thirds = score_heights(ranked([False, False, True, False, True, True]), [9, 20, 31, 42, 53, 64])
    assert [(t.lowest, t.highest, t.num_query) for t in thirds] == [
        (9, 20, 2),
        (31, 42, 2),
        (53, 64, 2),
    ]
    assert [t.rank1 for t in thirds] == [0, 0.5, 1]
    assert [t.mAP for t in thirds] == [0.5, 0.75, 1]


def test_queries_of_one_height_are_not_parted():
    thirds = score_heights(ranked([True] * 6), [32, 32, 32, 32, 64, 128])
    assert [(t.lowest, t.highest, t.num_query) for t in thirds] == [(32, 32, 4), (64, 128, 2)]


@pytest.mark.parametrize("heights", [[64] * 4])
def test_equal_heights_give_no_scores(heights):
    assert score_heights(ranked([True] * 4), heights) == []
