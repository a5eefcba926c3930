"""The ranking against hand cases, against a slow obvious twin, and by its symmetries."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from san_core.data.records import ListedImage
from san_core.evaluation import ranking
from san_core.evaluation.check import reference
from san_core.evaluation.kernels import distance
from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.ranking import Labels, Ranking

# The compiled loops and their NumPy twin: most tests are run on both.
RANKERS = {"compiled": ranking, "numpy": reference}


@pytest.fixture(params=RANKERS, scope="module")
def ranker(request):
    return RANKERS[request.param]


def labels(pids, camids=None) -> Labels:
    return Labels(np.array(pids, np.int64), None if camids is None else np.array(camids, np.int64))


def rank_rows(ranker, rows, query, gallery, **kwargs) -> Ranking:
    """Ranks by a distance matrix written out by hand."""
    distances = np.array(rows, np.float32)
    tile = Tile(slice(0, len(distances)), distances)
    return ranker.rank_distances([tile], query=query, gallery=gallery, **kwargs)


def test_average_precision_and_inverse_penalty_by_hand(ranker):
    # In order of distance: wrong, right, wrong, right, so right answers at ranks 2 and 4.
    result = rank_rows(ranker, [[4, 1, 3, 2]], labels([7], [0]), labels([7, 8, 9, 7], [1] * 4))
    assert result.mAP == (1 / 2 + 2 / 4) / 2
    assert result.mINP == 2 / 4
    assert result.first_rank.tolist() == [2]
    assert result.top[0, :5].tolist() == [1, 3, 2, 0, -1]
    assert result.right[0, :5].tolist() == [False, True, False, True, False]


def test_means_are_over_queries_by_hand(ranker):
    rows = [[1, 2, 3, 4]] * 3
    gallery = labels([1, 2, 3, 3], [5] * 4)
    result = rank_rows(ranker, rows, labels([1, 2, 3], [0] * 3), gallery)
    # Right at rank 1; at rank 2; at ranks 3 and 4.
    assert result.first_rank.tolist() == [1, 2, 3]
    assert result.mAP == pytest.approx((1 + 1 / 2 + (1 / 3 + 2 / 4) / 2) / 3, abs=1e-15)
    assert result.mINP == pytest.approx((1 + 1 / 2 + 2 / 4) / 3, abs=1e-15)
    assert result.cmc[:4].tolist() == [1 / 3, 2 / 3, 1, 1]


def test_features_are_ranked_by_distance_by_hand():
    # Query at 0, gallery at 3, 1, 2: in order 1, 2, 3.
    query, gallery = np.array([[0]], np.float32), np.array([[3], [1], [2]], np.float32)
    result = ranking.rank(query, gallery, query=labels([4]), gallery=labels([5, 6, 4]))
    assert result.top[0, :3].tolist() == [1, 2, 0]
    assert result.first_rank.tolist() == [2]


def test_same_camera_matches_are_left_out(ranker):
    # The nearest shows the person in the query's camera; a stranger there stays.
    result = rank_rows(ranker, [[1, 2, 3]], labels([7], [2]), labels([7, 8, 7], [2, 2, 3]))
    assert result.top[0, :3].tolist() == [1, 2, -1]
    assert result.mAP == 1 / 2


def test_without_cameras_nothing_is_left_out(ranker):
    result = rank_rows(ranker, [[1, 2, 3]], labels([7]), labels([7, 8, 7]))
    assert result.top[0, :3].tolist() == [0, 1, 2]
    assert result.mAP == (1 / 1 + 2 / 3) / 2
    assert result.protocol == "camera-free"


def test_junk_is_left_out_and_distractors_are_wrong_answers(ranker):
    result = rank_rows(ranker, [[1, 2, 3]], labels([7], [0]), labels([-1, 0, 7], [1, 1, 1]))
    assert result.top[0, :3].tolist() == [1, 2, -1]
    assert result.mAP == 1 / 2
    assert (result.num_gallery, result.num_skipped) == (3, 0)


def test_tied_distances_rank_in_gallery_order(ranker):
    query = labels([7], [0])
    first = rank_rows(ranker, [[1, 1, 1]], query, labels([7, 8, 8], [1] * 3))
    last = rank_rows(ranker, [[1, 1, 1]], query, labels([8, 8, 7], [1] * 3))
    assert (first.first_rank[0], last.first_rank[0]) == (1, 3)
    assert last.top[0, :3].tolist() == [0, 1, 2]


def test_queries_with_no_match_left_are_excluded_and_counted(ranker):
    # Person 9 is absent, person 8 was seen by the query's camera only.
    rows = [[1, 2], [1, 2], [1, 2]]
    result = rank_rows(ranker, rows, labels([7, 8, 9], [0, 0, 0]), labels([8, 7], [0, 1]))
    assert (result.num_query, result.num_skipped) == (3, 2)
    assert result.first_rank.tolist() == [2, 0, 0]
    assert result.mAP == 1 / 2
    assert np.isnan(result.average_precision[1:]).all()
    assert result.cmc[:2].tolist() == [0, 1]


def test_cmc_stays_one_beyond_the_end_of_a_small_gallery(ranker):
    result = rank_rows(ranker, [[1, 2]], labels([7]), labels([8, 7]), max_rank=20)
    assert result.cmc.tolist() == [0] + [1] * 19


def test_first_answers_beyond_max_rank_count_nowhere_in_cmc(ranker):
    pids = [8] * 12 + [7]
    result = rank_rows(ranker, [range(13)], labels([7]), labels(pids), max_rank=10)
    assert result.first_rank[0] == 13
    assert result.cmc.tolist() == [0] * 10
    assert result.mAP == 1 / 13


def test_scores_are_the_five_headline_fractions(ranker):
    result = rank_rows(ranker, [range(7)], labels([7]), labels([8] * 6 + [7]))
    assert result.scores() == {
        "rank1": 0.0,
        "rank5": 0.0,
        "rank10": 1.0,
        "mAP": 1 / 7,
        "mINP": 1 / 7,
    }


def twin(rows, query: Labels, gallery: Labels) -> dict:
    """Market's protocol in plain Python: ranks are counted, nothing is sorted in one go."""
    first, precisions, penalties = [], [], []
    for i, row in enumerate(rows):
        kept = []
        for j in range(len(row)):
            same_person = gallery.pids[j] == query.pids[i]
            same_camera = query.camids is not None and gallery.camids[j] == query.camids[i]
            if gallery.pids[j] != -1 and not (same_person and same_camera):
                kept.append(j)
        kept.sort(key=lambda j, row=row: (row[j], j))
        ranks = [n for n, j in enumerate(kept, 1) if gallery.pids[j] == query.pids[i]]
        first.append(ranks[0] if ranks else 0)
        if ranks:
            precisions.append(math.fsum(k / r for k, r in enumerate(ranks, 1)) / len(ranks))
            penalties.append(len(ranks) / ranks[-1])
    judged = [rank for rank in first if rank]
    return {
        "first": first,
        "mAP": math.fsum(precisions) / len(precisions),
        "mINP": math.fsum(penalties) / len(penalties),
        "cmc": [sum(rank <= k for rank in judged) / len(judged) for k in range(1, 51)],
    }


@st.composite
def cases(draw: Callable) -> tuple:
    """Small problems with few distinct distances, so that ties are everywhere."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_query, n_gallery = draw(st.integers(1, 8)), draw(st.integers(1, 40))
    cameras = draw(st.booleans())
    levels = draw(st.sampled_from([2, 5, 1000]))

    def some(low: int, n: int) -> Labels:
        return Labels(rng.integers(low, 5, n), rng.integers(0, 3, n) if cameras else None)

    query, gallery = some(1, n_query), some(-1, n_gallery)
    # The first query has a right answer, so that there is something to judge.
    gallery.pids[0] = query.pids[0]
    if cameras:
        gallery.camids[0] = query.camids[0] + 1
    return rng.integers(0, levels, (n_query, n_gallery)).astype(np.float32), query, gallery


@settings(deadline=None, max_examples=150)
@given(cases())
def test_the_ranking_is_that_of_its_slow_twin(ranker, case):
    rows, query, gallery = case
    result, expected = rank_rows(ranker, rows, query, gallery), twin(rows, query, gallery)
    assert result.first_rank.tolist() == expected["first"]
    assert result.mAP == pytest.approx(expected["mAP"], abs=1e-14)
    assert result.mINP == pytest.approx(expected["mINP"], abs=1e-14)
    assert result.cmc.tolist() == expected["cmc"]
    assert result.num_skipped == expected["first"].count(0)


@settings(deadline=None, max_examples=50)
@given(cases())
def test_the_top_is_what_the_ranks_are_counted_on(ranker, case):
    rows, query, gallery = case
    result = rank_rows(ranker, rows, query, gallery, top_k=rows.shape[1])
    for i in range(len(rows)):
        top = result.top[i][result.top[i] >= 0]
        assert len(set(top)) == len(top)
        assert (np.diff(rows[i][top]) >= 0).all()
        assert (result.right[i, : len(top)] == (gallery.pids[top] == query.pids[i])).all()
        hits = np.flatnonzero(result.right[i])
        assert result.first_rank[i] == (hits[0] + 1 if len(hits) else 0)


@settings(deadline=None, max_examples=50)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_gallery_does_not_matter_without_ties(ranker, case, random):
    rows, query, gallery = case
    # Ties broken: no two gallery images keep the same distance.
    rows = rows + np.arange(rows.shape[1], dtype=np.float32) / 64
    shuffle = np.array(random.sample(range(rows.shape[1]), rows.shape[1]))
    shuffled = Labels(*(ids if ids is None else ids[shuffle] for ids in gallery))
    before, after = (
        rank_rows(ranker, rows, query, gallery),
        rank_rows(ranker, rows[:, shuffle], query, shuffled),
    )
    assert before.scores() == after.scores()
    expected = np.where(before.top < 0, -1, np.argsort(shuffle)[before.top])
    np.testing.assert_array_equal(after.top, expected)


@pytest.mark.parametrize("factor", [0.25, 8])
def test_scaling_the_features_changes_nothing(factor):
    rng = np.random.default_rng(3)
    query, gallery = (rng.normal(size=(n, 6)).astype(np.float32) for n in (9, 40))
    who = {
        "query": labels(rng.integers(1, 5, 9), rng.integers(0, 3, 9)),
        "gallery": labels(rng.integers(-1, 5, 40), rng.integers(0, 3, 40)),
    }
    # A power of two scales float32 without rounding.
    one, scaled = (ranking.rank(query * k, gallery * k, **who) for k in (1, np.float32(factor)))
    np.testing.assert_array_equal(one.top, scaled.top)
    assert one.scores() == scaled.scores()


def test_perfect_features_score_one():
    pids = np.repeat(np.arange(1, 6), 4)
    features = np.eye(6, dtype=np.float32)[pids]
    result = ranking.rank(features, features, query=labels(pids), gallery=labels(pids))
    assert set(result.scores().values()) == {1.0}


def test_tiles_of_any_height_give_the_same_ranking():
    rng = np.random.default_rng(4)
    query, gallery = (rng.integers(-9, 9, (n, 4)).astype(np.float32) for n in (7, 30))
    who = {"query": labels(rng.integers(1, 4, 7)), "gallery": labels(rng.integers(0, 4, 30))}
    whole = ranking.rank(query, gallery, **who)
    for entries in (1, 60, 100):
        streamed = ranking.rank_distances(
            distance.distance_tiles(query, gallery, entries=entries), **who
        )
        np.testing.assert_array_equal(streamed.top, whole.top)
        assert streamed.scores() == whole.scores()


def listed(pid, camid, split="query") -> ListedImage:
    return ListedImage(f"{pid}-{camid}.jpg", pid, camid, split, lambda: b"")


def test_labels_follow_the_records():
    found = ranking.labels_of([listed(3, 1), listed(2, 0)])
    assert (found.pids.tolist(), found.camids.tolist()) == ([3, 2], [1, 0])
    assert ranking.labels_of([listed(3, None), listed(2, None)]).camids is None


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([listed(None, 1)], "None-1.jpg: it has no pid"),
        ([listed(3, 1), listed(2, None)], "2-None.jpg: it has no camid, like 1 of 2 images"),
    ],
)
def test_records_without_labels_are_named(records, message):
    with pytest.raises(ValueError, match=message):
        ranking.labels_of(records)


Q, G = labels([7, 8], [0, 0]), labels([7, 8, 9], [1, 1, 1])
ROWS = [[1, 2, 3], [1, 2, 3]]


@pytest.mark.parametrize(
    ("rows", "query", "gallery", "message"),
    [
        (ROWS, labels([], []), G, "the query is empty"),
        (ROWS, Q, labels([], []), "the gallery is empty"),
        (ROWS, labels([7, 8], [0]), G, "2 query pids but 1 camids"),
        (ROWS, labels([7, 8]), G, "the gallery has camids and the query has none"),
        (ROWS, Q, labels([7, 8, 9]), "the query has camids and the gallery has none"),
        (ROWS, labels([7, 0], [0, 0]), G, "query 1 has pid 0; people are numbered from 1"),
        (ROWS, Q, labels([7, -2, 9], [0] * 3), "gallery 1 has pid -2"),
        ([[1, 2], [1, 2]], Q, G, r"distances of shape \(2, 2\) for queries 0 to 2"),
        ([[1, 2, 3]], Q, G, "distances were given for 1 of 2 queries"),
        ([[1, 2, 3]] * 20000, Q, G, "distances for queries 0 to 20000, but there are 2"),
        (ROWS, labels([7, 2**31], [0, 0]), G, f"query 1 has pid {2**31}; the largest"),
        (ROWS, labels([7, 8], [0, -1]), G, "query 1 has camid -1; cameras are numbered from 0"),
        (
            ROWS,
            labels([7, 5], [1, 1]),
            G,
            "none of the 2 queries .* 1 show a person who is not in the gallery, and 1 a person "
            "whose gallery images are all by",
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused(ranker, rows, query, gallery, message):
    with pytest.raises(ValueError, match=message):
        rank_rows(ranker, rows, query, gallery)


def test_tiles_out_of_order_are_refused():
    tile = Tile(slice(1, 2), np.ones((1, 3), np.float32))
    with pytest.raises(ValueError, match="expected those from query 0 on, 3 each"):
        ranking.rank_distances([tile], query=Q, gallery=G)


@pytest.mark.parametrize(
    ("option", "message"), [({"max_rank": 9}, "max_rank is 9"), ({"top_k": -1}, "top_k is -1")]
)
def test_too_short_lists_are_refused(ranker, option, message):
    with pytest.raises(ValueError, match=message):
        rank_rows(ranker, ROWS, Q, G, **option)


def test_labels_must_be_as_many_as_features():
    features = np.ones((2, 4), np.float32)
    with pytest.raises(ValueError, match="2 gallery features but 3 gallery pids"):
        ranking.rank(features, features, query=Q, gallery=G)
