"""The nearest images of each query, against sorting all distances in float64."""

import numpy as np
import pytest

from san_core.evaluation.kernels.rows import FeatureError, select_rows
from san_core.search import nearest as searching
from san_core.search.nearest import nearest

METRICS = ("euclidean", "cosine")
# Queries that are compared in one pass, and those that are ranked by products.
QUERIES = (1, 3, 40)


def features(count, *, dim=13, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def by_sorting(query, gallery, count, metric):
    """Distances of all pairs in float64, sorted stably."""
    q, g = query.astype(np.float64), gallery.astype(np.float64)
    if metric == "cosine":
        lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(g, axis=1)
        distances = 1 - np.divide(q @ g.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    else:
        distances = ((q[:, None] - g) ** 2).sum(axis=2)
    index = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return index, np.take_along_axis(distances, index, 1)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", QUERIES)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_nearest_are_those_of_sorting_all_distances(metric, queries, threads):
    query, gallery = features(queries, seed=1), features(9001)
    found = nearest(query, gallery, count=7, metric=metric, threads=threads)
    index, distance = by_sorting(query, gallery, 7, metric)
    assert (found.places == index).all()
    assert found.distances == pytest.approx(distance, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", QUERIES)
def test_tied_images_are_in_gallery_order(metric, queries):
    gallery = np.tile(features(5), (40, 1))
    found = nearest(features(queries, seed=2), gallery, count=40, metric=metric, threads=2)
    assert (np.diff(found.places, axis=1) == 5).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", QUERIES)
def test_rows_of_a_matrix_may_be_named(metric, queries):
    matrix, rows = features(500), np.array([400, 3, 77, 12, 499])
    query = features(queries, seed=3)
    found = nearest(query, select_rows(matrix, rows), count=3, metric=metric)
    assert (found.places == by_sorting(query, matrix[rows], 3, metric)[0]).all()


@pytest.mark.parametrize("queries", QUERIES)
def test_a_gallery_smaller_than_the_number_asked_for_is_given_whole(queries):
    found = nearest(features(queries, seed=4), features(3), count=10)
    assert found.places.shape == (queries, 3)
    assert (np.sort(found.places, axis=1) == np.arange(3)).all()


@pytest.mark.parametrize("queries", QUERIES)
def test_a_feature_of_zeros_is_at_cosine_distance_one_of_all(queries):
    gallery = np.concatenate([np.zeros((1, 4), np.float32), -np.ones((2, 4), np.float32)])
    query = np.ones((queries, 4), np.float32)
    found = nearest(query, gallery, count=3, metric="cosine")
    assert (found.places == [0, 1, 2]).all()
    assert found.distances == pytest.approx(np.tile([1.0, 2.0, 2.0], (queries, 1)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", QUERIES)
def test_features_that_are_not_finite_are_named(metric, queries):
    gallery = features(6000)
    gallery[5000, 2] = np.nan
    with pytest.raises(FeatureError, match="gallery feature 5000 is not finite"):
        nearest(features(queries, seed=5), gallery, count=2, metric=metric, threads=2)
    query = features(queries, seed=5)
    query[-1, 0] = np.inf
    with pytest.raises(FeatureError, match=f"query feature {queries - 1} is not finite"):
        nearest(query, features(10), count=2, metric=metric)


def test_what_cannot_be_searched_is_named():
    with pytest.raises(ValueError, match="the number of nearest images is 0"):
        nearest(features(1), features(2), count=0)
    with pytest.raises(ValueError, match="no metric 'l1'; there are euclidean, cosine"):
        nearest(features(1), features(2), count=1, metric="l1")
    with pytest.raises(ValueError, match="there are no gallery features"):
        nearest(features(1), features(0), count=1)
    with pytest.raises(ValueError, match="they must come from one model"):
        nearest(features(1, dim=3), features(2), count=1)


def test_few_and_many_queries_find_the_same(monkeypatch):
    query, gallery = features(8, seed=6), features(3000)
    few = nearest(query, gallery, count=5, metric="cosine")
    monkeypatch.setattr(searching, "_FEW_QUERIES", 0)
    many = nearest(query, gallery, count=5, metric="cosine")
    assert (few.places == many.places).all()
    assert (few.distances == many.distances).all()
