"""Distances against a slow obvious twin, whatever the tiling."""

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from san_core.evaluation.kernels import distance, rows


def features(rows: list[list[float]]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


def whole(query, gallery, **kwargs) -> NDArray[np.float32]:
    return np.concatenate(
        [tile.distances for tile in distance.distance_tiles(query, gallery, **kwargs)]
    )


def test_euclidean_distance_is_squared():
    found = whole(features([[0, 0], [1, 2]]), features([[3, 4], [1, 2]]))
    # 3^2 + 4^2, 1^2 + 2^2; (3-1)^2 + (4-2)^2, 0
    np.testing.assert_array_equal(found, [[25, 5], [8, 0]])
    assert found.dtype == np.float32


def test_cosine_distance_does_not_see_length():
    found = whole(features([[2, 0]]), features([[5, 0], [0, 3], [-1, 0], [3, 4]]), metric="cosine")
    np.testing.assert_allclose(found, [[0, 1, 2, 1 - 3 / 5]], atol=1e-7)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_are_those_of_a_loop_over_pairs(metric):
    rng = np.random.default_rng(1)
    query, gallery = rng.normal(size=(2, 7, 5)).astype(np.float32)

    def between(q, g):
        if metric == "euclidean":
            return sum((a - b) ** 2 for a, b in zip(q, g, strict=True))
        return 1 - np.dot(q, g) / (np.sqrt(np.dot(q, q)) * np.sqrt(np.dot(g, g)))

    expected = [[between(q, g) for g in gallery.astype(float)] for q in query.astype(float)]
    np.testing.assert_allclose(whole(query, gallery, metric=metric), expected, atol=1e-5)


@pytest.mark.parametrize(("entries", "heights"), [(1, [1] * 5), (6, [2, 2, 1]), (100, [5])])
def test_tiles_cover_the_queries_in_order_and_stay_small(entries, heights):
    rng = np.random.default_rng(2)
    query = rng.integers(-9, 9, (5, 4)).astype(np.float32)  # integers: exact in any tiling
    gallery = rng.integers(-9, 9, (3, 4)).astype(np.float32)
    tiles = list(distance.distance_tiles(query, gallery, entries=entries))
    assert [len(tile.distances) for tile in tiles] == heights
    assert [row for tile in tiles for row in range(tile.rows.start, tile.rows.stop)] == [*range(5)]
    np.testing.assert_array_equal(
        np.concatenate([tile.distances for tile in tiles]), whole(query, gallery)
    )


def test_cosine_of_features_whose_squares_vanish_is_still_right():
    found = whole(features([[1e-30, 0]]), features([[1e-25, 0], [0, 1e-30]]), metric="cosine")
    np.testing.assert_allclose(found, [[0, 1]], atol=1e-6)


def test_a_feature_of_zeros_is_as_far_by_cosine_from_everything():
    found = whole(features([[0, 0], [3, 4]]), features([[0, 0], [0, 2], [6, 8]]), metric="cosine")
    np.testing.assert_allclose(found, [[1, 1, 1], [1, 0.2, 0]], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64])
def test_a_matrix_of_any_numbers_becomes_tiles_of_float32(dtype):
    matrix = np.arange(12).reshape(4, 3).astype(dtype)
    tiles = list(
        distance.matrix_tiles(matrix, rows=np.array([3, 0, 1]), columns=np.array([2, 0]), entries=6)
    )
    assert [(tile.rows.start, tile.rows.stop) for tile in tiles] == [(0, 2), (2, 3)]
    np.testing.assert_array_equal(
        np.concatenate([tile.distances for tile in tiles]), [[11, 9], [2, 0], [5, 3]]
    )
    assert {tile.distances.dtype for tile in tiles} == {np.dtype(np.float32)}


@pytest.mark.parametrize("columns", [[0, 1, 2], [1, 2], [0, 1], [2, 1, 0]])
def test_columns_of_a_matrix_are_those_asked_for(columns):
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    (tile,) = distance.matrix_tiles(matrix, rows=np.array([0, 2]), columns=np.array(columns))
    np.testing.assert_array_equal(tile.distances, matrix[[0, 2]][:, columns])


def test_a_row_longer_than_a_tile_is_a_tile_of_its_own():
    tiles = distance.matrix_tiles(
        np.ones((3, 5), np.float32), rows=np.arange(3), columns=np.arange(5), entries=4
    )
    assert [len(tile.distances) for tile in tiles] == [1, 1, 1]


ONE = features([[1, 2]])


@pytest.mark.parametrize(
    ("query", "gallery", "metric", "message"),
    [
        (ONE, ONE, "manhattan", "no metric 'manhattan'; there are euclidean, cosine"),
        (ONE.astype(float), ONE, "euclidean", "query features are float64 of shape"),
        (ONE, ONE[0], "euclidean", r"gallery features are float32 of shape \(2,\)"),
        (ONE[:0], ONE, "euclidean", r"there are no query features: shape \(0, 2\)"),
        (ONE, features([[1, 2, 3]]), "euclidean", "have 2 dimensions and gallery features 3"),
        (ONE, features([[0, 1], [0, np.nan]]), "euclidean", "gallery feature 1 is not finite"),
        (features([[np.inf, 1]]), ONE, "euclidean", "query feature 0 is not finite"),
        (features([[1e30, 1]]), ONE, "cosine", "query feature 0 is not finite .* beyond 1e18"),
    ],
)
def test_features_that_have_no_distance_are_refused_before_the_first_tile(
    query, gallery, metric, message
):
    with pytest.raises(ValueError, match=message):
        distance.distance_tiles(query, gallery, metric=metric)


@pytest.mark.parametrize(
    ("matrix", "index", "message"),
    [
        (ONE, np.array([0, 10**9]), f"the features have 1 rows; there is no row {10**9}"),
        (ONE, np.array([-1]), "the features have 1 rows; there is no row -1"),
        (ONE, [0, 10**9], "the indices of features are list; expected a contiguous array of int64"),
        (ONE, np.array([0], np.int32), r"the indices of features are int32 of shape \(1,\)"),
        (ONE, np.array([[0]]), r"the indices of features are int64 of shape \(1, 1\)"),
        (features([[1], [2]]), np.array([0, 1, 1])[::2], r"strides \(16,\); expected a contiguous"),
        (ONE.astype(float), None, "the features are float64 of shape"),
        (features([[1, 2], [3, 4]]).T, None, "the features are float32 .* a contiguous array of"),
        (ONE[0], None, "with 2 dimensions"),
    ],
)
def test_rows_that_the_loops_could_not_follow_are_refused(matrix, index, message):
    with pytest.raises(ValueError, match=message):
        rows.Rows(matrix, index)


def test_every_other_index_makes_rows():
    some = rows.select_rows(features([[1], [2], [3], [4]]), np.array([0, 9, 3, 9])[::2])
    np.testing.assert_array_equal(some.squared_norms(), [1, 16])


def test_products_are_made_by_as_many_threads_as_are_given(monkeypatch):
    honest, used = distance._distances, []

    def counted(*args):
        blas = (lib for lib in threadpool_info() if lib["user_api"] == "blas")
        used.extend(lib["num_threads"] for lib in blas)
        return honest(*args)

    monkeypatch.setattr(distance, "_distances", counted)
    with threadpool_limits(2, user_api="blas"):
        whole(features([[1, 2]]), features([[3, 4]]), threads=1)
        assert {*used} == {1}
        whole(features([[1, 2]]), features([[3, 4]]))
    assert {*used} == {1, 2}
