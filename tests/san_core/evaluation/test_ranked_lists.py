"""The ranked list of each query, its distances and its first right answer."""

import csv

import numpy as np
import pytest

from san_core.data.records import ListedImage
from san_core.evaluation.kernels.distance import distances_between
from san_core.evaluation.kernels.rows import select_rows
from san_core.evaluation.labels import labels_of
from san_core.evaluation.protocol import PROTOCOLS
from san_core.evaluation.protocols.given_distances import DistanceScorer, MeasuredImages
from san_core.evaluation.ranked_lists import ListedTarget, RankedLists, write_ranked_lists
from san_core.evaluation.ranking import rank

RNG = np.random.default_rng(3)


def listed(split, number, pid, camid):
    return ListedImage(f"{split}/{number}.jpg", pid, camid, split, lambda: b"")


QUERY = [listed("query", i, 1 + i % 5, i % 2) for i in range(12)] + [listed("query", 99, 9, 0)]
GALLERY = [listed("gallery", i, (i % 7) - 1, i % 3) for i in range(60)]
WHO = {"query": labels_of(QUERY), "gallery": labels_of(GALLERY)}
FEATURES = {
    "query": RNG.standard_normal((len(QUERY), 6)).astype(np.float32),
    "gallery": RNG.standard_normal((len(GALLERY), 6)).astype(np.float32),
}


def slow_distances(metric):
    """(Q, G) in float64."""
    q, g = (FEATURES[role].astype(np.float64) for role in ("query", "gallery"))
    if metric == "euclidean":
        return ((q[:, None] - g[None]) ** 2).sum(axis=2)
    q, g = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (q, g))
    return 1 - q @ g.T


def lists_by(metric, protocol="market1501"):
    ranking = rank(*FEATURES.values(), **WHO, metric=metric, protocol=PROTOCOLS[protocol], top_k=3)
    rows = [select_rows(each) for each in FEATURES.values()]

    def measure(i, places):
        return distances_between(rows[0], i, rows[1], places, metric=metric)

    return RankedLists(ranking, measure, **WHO)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("protocol", ["market1501", "camera-free"])
def test_lists_hold_the_nearest_and_the_first_right_answer(metric, protocol):
    lists, far = lists_by(metric, protocol), slow_distances(metric)
    lower = 0
    for i, asked in enumerate(QUERY):
        left = [
            g
            for g, one in enumerate(GALLERY)
            if one.pid != -1
            and (protocol == "camera-free" or (one.pid, one.camid) != (asked.pid, asked.camid))
        ]
        order = sorted(left, key=lambda g: far[i, g])
        expected = [*enumerate(order[:3], 1)]
        right = [(r, g) for r, g in enumerate(order, 1) if GALLERY[g].pid == asked.pid]
        if right and right[0][0] > 3:
            lower += 1
            expected.append(right[0])
        found = lists.of_query(i)
        assert [(one.rank, one.place) for one in found] == expected
        places = [g for _, g in expected]
        np.testing.assert_allclose([one.distance for one in found], far[i, places])
        assert [one.is_right for one in found] == [GALLERY[g].pid == asked.pid for g in places]
    assert lower > 2


def test_a_shorter_list_still_ends_with_the_first_right_answer():
    lists = lists_by("cosine")
    i = int(np.argmax(lists.ranking.first_rank == 2))
    assert [one.rank for one in lists.of_query(i, count=1)] == [1, 2]
    assert [one.is_right for one in lists.of_query(i, count=1)] == [False, True]


def test_a_feature_of_zeros_is_as_far_from_everything():
    rows = select_rows(np.array([[0, 0], [3, 4]], np.float32))
    places = np.array([0, 1])
    assert distances_between(rows, 0, rows, places, metric="cosine").tolist() == [1, 1]
    assert distances_between(rows, 1, rows, places, metric="cosine").tolist() == [1, 0]
    assert distances_between(rows, 1, rows, places, metric="euclidean").tolist() == [25, 0]


def test_given_distances_are_reported_unchanged():
    matrix = np.arange(12, dtype=np.int64).reshape(3, 4)
    images = MeasuredImages(matrix, np.array([2, 0]), np.array([3, 1]), **WHO)
    scorer = DistanceScorer(images)
    assert scorer.measure(0, np.array([1, 0])).tolist() == [9, 11]


def test_lists_and_queries_are_written_as_tables(tmp_path):
    lists = lists_by("cosine")
    write_ranked_lists(tmp_path, [ListedTarget(lists, QUERY, GALLERY)])
    with (tmp_path / "ranked.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = lists.of_query(0)
    assert [row["image"] for row in rows if row["query"] == QUERY[0].name] == [
        GALLERY[one.place].name for one in found
    ]
    assert rows[0] == {
        "query": "query/0.jpg",
        "rank": "1",
        "image": GALLERY[found[0].place].name,
        "distance": f"{found[0].distance:.6g}",
        "right": str(int(found[0].is_right)),
    }
    with (tmp_path / "queries.csv").open(newline="") as file:
        told = list(csv.DictReader(file))
    assert len(told) == len(QUERY)
    assert told[0]["first_right_rank"] == str(lists.ranking.first_rank[0])
    assert float(told[0]["average_precision"]) == pytest.approx(
        lists.ranking.average_precision[0], abs=1e-5
    )
    assert told[-1] == {
        "query": "query/99.jpg",
        "person": "9",
        "camera": "0",
        "right_answers": "0",
        "first_right_rank": "",
        "average_precision": "",
    }
