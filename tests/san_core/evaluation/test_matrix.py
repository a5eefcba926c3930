"""The figures of a matrix of distances, whatever numbers it is of."""

import numpy as np
import pytest

from san_core.evaluation.check import reference
from san_core.evaluation.labels import Labels
from san_core.evaluation.matrix import rank
from san_core.evaluation.protocols.given_distances import DistanceScorer, MeasuredImages
from san_core.evaluation.ranking import rank as rank_features

QUERY, GALLERY = [1, 2], [2, 1, 1, 3]
# Query 1: its person's images are 2nd and 4th; of query 2: 1st.
DISTANCES = [[0.1, 0.5, 0.2, 0.4], [0.1, 0.2, 0.3, 0.4]]
MEAN_AP = ((1 / 2 + 2 / 4) / 2 + 1) / 2


@pytest.mark.parametrize(
    "given",
    [
        DISTANCES,
        np.array(DISTANCES),
        np.array(DISTANCES, np.float32),
        np.array(DISTANCES, np.float16),
        (10 * np.array(DISTANCES)).astype(int),
        [list(row) for row in np.array(DISTANCES, np.float32)],
    ],
)
def test_lists_and_arrays_of_any_width_are_ranked_alike(given):
    found = rank(given, QUERY, GALLERY)
    assert (found.mAP, found.cmc[0]) == (MEAN_AP, 0.5)
    assert (found.protocol, found.first_rank.tolist()) == ("camera-free", [2, 1])


def test_cameras_leave_out_what_the_own_camera_saw():
    found = rank(DISTANCES, QUERY, GALLERY, [0, 0], [1, 0, 1, 1])
    assert found.protocol == "market1501"
    assert found.num_right.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[1.0, 2.0], [1.0]], "distances have rows of several lengths"),
        ([["a"] * 4] * 2, "distances are <U1 of shape"),
        ([1.0, 2.0], r"distances are float64 of shape \(2,\); expected numbers of shape"),
        (np.full((2, 4), 1e300), "a distance is beyond 3.4e38, the largest of float32"),
        (np.zeros((4, 2)), r"of shape \(4, 2\), but there are 2 query_ids and 4 gallery_ids"),
    ],
)
def test_what_is_no_matrix_of_these_images_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        rank(given, QUERY, GALLERY)


def test_names_in_the_place_of_numbers_are_refused():
    with pytest.raises(ValueError, match=r"query_ids are <U3 of shape .* list of whole numbers"):
        rank(DISTANCES, ["ann", "bob"], GALLERY)


@pytest.mark.parametrize("side", ["query", "gallery", "both"])
def test_features_of_zeros_tie_with_all_and_rank_as_by_sorting(side):
    rng = np.random.default_rng(0)
    query = Labels(rng.integers(1, 9, 20), rng.integers(0, 3, 20))
    gallery = Labels(rng.integers(-1, 9, 90), rng.integers(0, 3, 90))
    asked, searched = (rng.random((n, 6), np.float32) for n in (20, 90))
    if side != "gallery":
        asked[[2, 7]] = 0
    if side != "query":
        searched[::9] = 0
    same = {"query": query, "gallery": gallery, "metric": "cosine", "with_roc": True}
    found, expected = (
        rank_features(asked, searched, **same),
        reference.rank(asked, searched, **same),
    )
    for name in ("first_rank", "top", "num_right"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.mAP == pytest.approx(expected.mAP, abs=1e-12)
    if side == "query":
        left = np.flatnonzero(
            (gallery.pids != -1)
            & ~((gallery.pids == query.pids[2]) & (gallery.camids == query.camids[2]))
        )
        assert found.top[2].tolist() == left[:10].tolist()  # in gallery order


@pytest.mark.parametrize("name", ["market1501", "single-gallery-shot", "sampled-gallery-shot"])
def test_part_of_a_matrix_is_scored_as_that_part_alone(name):
    rng = np.random.default_rng(1)
    whole = rng.random((30, 70)).astype(np.float64)
    rows, columns = rng.permutation(30)[:20], rng.permutation(70)[:50]
    query = Labels(rng.integers(1, 6, 20), rng.integers(0, 2, 20))
    gallery = Labels(rng.integers(1, 6, 50), rng.integers(0, 2, 50))
    part = DistanceScorer(MeasuredImages(whole, rows, columns, query, gallery))
    alone = MeasuredImages(
        whole[np.ix_(rows, columns)], np.arange(20), np.arange(50), query, gallery
    )
    assert part.score(name).scores == DistanceScorer(alone).score(name).scores


@pytest.mark.parametrize(
    ("name", "reranked", "message"),
    [
        ("multi-query", False, "multi-query takes means of features, and distances of queries to"),
        ("market1501", True, "re-ranking needs distances within the gallery, and distances of"),
    ],
)
def test_what_needs_features_is_refused_where_distances_are_given(name, reranked, message):
    labels = Labels(np.array([1]), np.array([0]))
    images = MeasuredImages(np.zeros((1, 1)), np.arange(1), np.arange(1), labels, labels)
    with pytest.raises(ValueError, match=message):
        DistanceScorer(images).score(name, reranked=reranked)
