"""Tables by camera, and queries of several images."""

import numpy as np
import pytest

from san_core.evaluation import ranking
from san_core.evaluation.kernels.rows import select_rows
from san_core.evaluation.labels import Labels
from san_core.evaluation.pages.camera_pairs import score_camera_pairs
from san_core.evaluation.protocol import CAMERA_FREE, MARKET1501
from san_core.evaluation.protocols import multi_query
from san_core.evaluation.protocols.multi_query import pool_queries
from san_core.evaluation.protocols.scoring import EmbeddedImages, Scorer


def line(*positions) -> np.ndarray:
    """Features on a line."""
    return np.array(positions, np.float32)[:, None]


def pairs_of(asked, searched, *, query, gallery, metric, protocol):
    """The pairs of embedded queries and gallery images."""
    images = EmbeddedImages(asked, searched, asked, query, gallery, query, metric)
    scorer = Scorer(images)
    return score_camera_pairs(
        lambda there: scorer.rank_among(there, protocol), query=query, gallery=gallery
    )


def test_pairs_of_cameras_by_hand():
    query = Labels(np.array([1, 2, 1]), np.array([0, 0, 1]))
    gallery = Labels(np.array([1, 2, 1, 2]), np.array([1, 1, 0, 2]))
    found = pairs_of(
        select_rows(line(0, 10, 0)),
        select_rows(line(1, 2, 3, 4)),
        query=query,
        gallery=gallery,
        metric="euclidean",
        protocol=MARKET1501,
    )
    # From 0 into 1: person 1 is at rank 1, and so is person 2, seen from 10.
    # From 0 into 2: only person 2 is there. From 1 into 0: person 1, alone.
    assert found == [(0, 1, 2, 1.0, 1.0), (0, 2, 1, 1.0, 1.0), (1, 0, 1, 1.0, 1.0)]


def test_a_pair_is_the_ranking_of_its_two_cameras():
    rng = np.random.default_rng(0)
    query = Labels(rng.integers(1, 6, 40), rng.integers(0, 3, 40))
    gallery = Labels(rng.integers(-1, 6, 200), rng.integers(0, 4, 200))
    asked, searched = (rng.normal(size=(n, 5)).astype(np.float32) for n in (40, 200))
    place = rng.permutation(240)  # mixed in one matrix
    matrix = np.empty((240, 5), np.float32)
    matrix[place] = np.concatenate([asked, searched])
    same = {"metric": "cosine", "protocol": CAMERA_FREE}
    found = pairs_of(
        select_rows(matrix, place[:40]),
        select_rows(matrix, place[40:]),
        query=query,
        gallery=gallery,
        **same,
    )
    assert [pair[:2] for pair in found] == [(a, b) for a in range(3) for b in range(4)]
    for pair in found:
        q = np.flatnonzero(query.camids == pair.query_camera)
        g = np.flatnonzero(gallery.camids == pair.gallery_camera)
        alone = ranking.rank(
            asked[q], searched[g], query=query.take(q), gallery=gallery.take(g), **same
        )
        assert pair.num_query == alone.num_query - alone.num_skipped
        assert (pair.rank1, pair.mAP) == pytest.approx((alone.cmc[0], alone.mAP), abs=1e-12)


def test_without_cameras_there_are_no_pairs():
    who = {"query": Labels(np.array([1]), None), "gallery": Labels(np.array([1]), None)}
    with pytest.raises(ValueError, match="cameras are unknown, so there are no pairs of them"):
        pairs_of(
            select_rows(line(0)),
            select_rows(line(1)),
            **who,
            metric="euclidean",
            protocol=CAMERA_FREE,
        )


def test_images_of_a_person_by_one_camera_are_averaged():
    labels = Labels(np.array([7, 5, 7, 7]), np.array([1, 0, 1, 2]))
    images = np.array([[1, 0], [3, 3], [0, 4], [5, 5]], np.float32)
    features, query = pool_queries(select_rows(images), labels, query=labels, metric="euclidean")
    assert (query.pids.tolist(), query.camids.tolist()) == ([5, 7, 7], [0, 1, 2])
    assert features.tolist() == [[3, 3], [0.5, 2], [5, 5]]


def test_for_cosine_directions_are_averaged():
    images = np.array([[2, 0], [0, 8]], np.float32)
    labels = Labels(np.array([1, 1]), np.array([0, 0]))
    features, _ = pool_queries(select_rows(images), labels, query=labels, metric="cosine")
    assert features.tolist() == [[0.5, 0.5]]


def test_a_feature_of_zeros_has_no_direction_to_add():
    images = np.array([[2, 0], [0, 0]], np.float32)
    labels = Labels(np.array([1, 1]), np.array([0, 0]))
    features, _ = pool_queries(select_rows(images), labels, query=labels, metric="cosine")
    assert features.tolist() == [[0.5, 0]]


def test_only_people_and_cameras_among_the_queries_ask():
    # Image 1 shows somebody else, image 2 the person by another camera.
    labels = Labels(np.array([7, 8, 7, 7]), np.array([1, 1, 2, 1]))
    images = np.array([[1, 0], [3, 3], [5, 5], [0, 4]], np.float32)
    asked = Labels(np.array([7, 7]), np.array([1, 1]))
    features, query = pool_queries(select_rows(images), labels, query=asked, metric="euclidean")
    assert (query.pids.tolist(), query.camids.tolist()) == ([7], [1])
    assert features.tolist() == [[0.5, 2]]


def test_many_images_are_averaged_as_at_once(monkeypatch):
    monkeypatch.setattr(multi_query, "_BLOCK", 7)
    rng = np.random.default_rng(3)
    labels = Labels(rng.integers(1, 4, 100), rng.integers(0, 2, 100))
    images = rng.normal(size=(100, 5)).astype(np.float32)
    features, query = pool_queries(select_rows(images), labels, query=labels, metric="euclidean")
    for feature, pid, camid in zip(features, query.pids, query.camids, strict=True):
        of = (labels.pids == pid) & (labels.camids == camid)
        np.testing.assert_allclose(feature, images[of].mean(axis=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (Labels(np.array([1, 1]), None), "multi-query pools .* by camera, but camids are unknown"),
        (Labels(np.array([1]), np.array([0])), "2 query features but 1 query pids"),
    ],
)
def test_images_that_cannot_be_pooled_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        pool_queries(select_rows(line(0, 1)), labels, query=labels, metric="euclidean")


@pytest.mark.parametrize(
    ("images", "asked", "metric", "message"),
    [
        ([[np.nan, 0], [0, 1]], [1, 1], "euclidean", "pooled feature 0 is not finite"),
        ([[1, 0], [0, 1]], [1, 2], "cosine", "no image to be pooled shows person 2 in camera 0"),
    ],
)
def test_pooled_images_that_make_no_query_are_refused(images, asked, metric, message):
    labels = Labels(np.array([1, 1]), np.array([0, 0]))
    query = Labels(np.array(asked), np.array([0, 0]))
    with pytest.raises(ValueError, match=message):
        pool_queries(select_rows(np.array(images, np.float32)), labels, query=query, metric=metric)
