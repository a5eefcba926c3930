"""Re-ranking against the published algorithm, written out densely, and by its properties."""

import numpy as np
import pytest

from san_core.evaluation import ranking, rerank
from san_core.evaluation.check import reference
from san_core.evaluation.kernels import rows
from san_core.evaluation.labels import Labels
from san_core.evaluation.rerank import RerankSettings


def dense(distances, num_query, k1, k2, kept):
    settings = RerankSettings(k1, k2, kept)
    return reference.rerank_distances(distances, num_query=num_query, settings=settings)


def some_features(seed=0, *, people=12, n_query=15, n_gallery=90, dim=16, noise=0.9):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people + 1, dim))
    pids = [rng.integers(1, people + 1, n) for n in (n_query, n_gallery)]
    features = [
        (centres[p] + noise * rng.normal(size=(len(p), dim))).astype(np.float32) for p in pids
    ]
    who = {"query": Labels(pids[0], None), "gallery": Labels(pids[1], None)}
    return features, who


def squared(features, metric="euclidean"):
    rows = np.concatenate(features).astype(float)
    if metric == "cosine":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return ((rows[:, None] - rows) ** 2).sum(axis=2)


# Gallery images, k1, k2, lambda; few images where k1 takes in all, for which dense() needs long.
SETTINGS = [(90, 20, 6, 0.3), (90, 5, 1, 0.0), (90, 7, 3, 1.0), (90, 1, 2, 0.5), (25, 400, 6, 0.3)]
SETTINGS += [(90, 4, 9, 0.3), (90, 1, 40, 0.0)]  # averaged over more than are looked through


@pytest.mark.parametrize(("count", "k1", "k2", "kept"), SETTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_given_distances_are_reranked_as_published(seed, count, k1, k2, kept):
    features, _ = some_features(seed, n_gallery=count)
    distances = squared(features).astype(np.float32)
    found = rerank.rerank_distances(distances, num_query=15, settings=RerankSettings(k1, k2, kept))
    np.testing.assert_allclose(found, dense(distances, 15, k1, k2, kept), rtol=0, atol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("count", "k1", "k2", "kept"), SETTINGS)
def test_features_are_reranked_as_published(monkeypatch, metric, count, k1, k2, kept):
    features, _ = some_features(3, n_gallery=count)
    expected = dense(squared(features, metric), 15, k1, k2, kept)
    for side in (1024, 32, 7):  # tiles above, on and across the diagonal
        monkeypatch.setattr(rerank, "_TILE_SIDE", side)
        for threads in (1, 2):
            tiles = rerank.rerank_features(
                *features,
                metric=metric,
                settings=RerankSettings(k1, k2, kept),
                threads=threads,
                entries=count * 4,
            )
            found = np.concatenate([tile.distances for tile in tiles])
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_neighbours_are_the_nearest_with_ties_in_order(monkeypatch):
    monkeypatch.setattr(rerank, "_TILE_SIDE", 16)
    rng = np.random.default_rng(4)
    query, half = (rng.integers(-2, 3, (n, 3)).astype(np.float32) for n in (20, 35))
    features = query, np.concatenate([half, -half])  # integers around 0: exact, and tied
    images = rerank._all_images(*features, "euclidean")
    for threads in (1, 2):
        near = rerank.find_neighbours(images, 9, threads=threads)
        expected = squared(features)
        np.testing.assert_array_equal(
            near.indices, np.argsort(expected, axis=1, kind="stable")[:, :9]
        )
        np.testing.assert_array_equal(near.farthest, expected.max(axis=1))


def test_reranking_a_memory_mapped_file_is_reranking_what_it_holds(tmp_path):
    features, _ = some_features(5)
    place = np.random.default_rng(0).permutation(105)
    matrix = np.empty((105, 16), np.float32)
    matrix[place] = np.concatenate(features)
    np.save(tmp_path / "features.npy", matrix)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    parts = rows.select_rows(mapped, place[:15]), rows.select_rows(mapped, place[15:])
    for one, two in zip(
        rerank.rerank_features(*parts), rerank.rerank_features(*features), strict=True
    ):
        np.testing.assert_array_equal(one.distances, two.distances)


def test_reranking_helps_where_neighbours_agree():
    features, who = some_features(6, people=30, n_query=60, n_gallery=400, noise=1.3)
    before = ranking.rank(*features, **who)
    after = ranking.rank_distances(rerank.rerank_features(*features), **who)
    assert after.mAP > before.mAP + 0.02


def test_all_of_the_original_distance_ranks_as_without():
    features, who = some_features(7)
    before = ranking.rank(*features, **who)
    after = ranking.rank_distances(
        rerank.rerank_features(*features, settings=RerankSettings(original_share=1)), **who
    )
    np.testing.assert_array_equal(after.first_rank, before.first_rank)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k1": 0}, "k1 is 0 and k2 is 6; both must be at least 1"),
        ({"k2": 0}, "k1 is 20 and k2 is 0"),
        ({"original_share": 1.5}, "lambda is 1.5; it must be between 0 and 1"),
        ({"original_share": float("nan")}, "lambda is nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RerankSettings(**settings)


def with_row_1(*values) -> np.ndarray:
    distances = np.ones((3, 3), np.float32)
    distances[1, : len(values)] = values
    return distances


@pytest.mark.parametrize(
    ("distances", "num_query", "message"),
    [
        (np.ones((3, 4), np.float32), 1, r"float32 of shape \(3, 4\); expected float32, square"),
        (np.ones((3, 3)), 1, r"float64 of shape \(3, 3\)"),
        (np.ones((3, 3), np.float32), 3, "3 of 3 images are queries; expected 1 to 2"),
        (np.ones((3, 3), np.float32), 0, "0 of 3 images are queries; expected 1 to 2"),
        (
            np.zeros((2000, 2000), np.float32),
            9,
            "image 0 go from 0.0 to 0.0; expected finite distances",
        ),
        (with_row_1(np.nan), 1, "distances of image 1 go from nan to nan"),
        (with_row_1(np.inf), 1, "distances of image 1 go from 1.0 to inf"),
        (with_row_1(-np.inf), 1, "distances of image 1 go from -inf to 1.0"),
        (with_row_1(-1, 0, -2), 1, "distances of image 1 go from -2.0 to 0.0"),
        (with_row_1(-1e38, 1e-30, 0), 1, "finite distances with a largest above 0"),
    ],
)
def test_distances_that_cannot_be_reranked_are_refused(distances, num_query, message):
    with pytest.raises(ValueError, match=message):
        rerank.rerank_distances(distances, num_query=num_query)


def test_features_that_do_not_fit_are_refused_at_once():
    with pytest.raises(ValueError, match="must come from one model"):
        rerank.rerank_features(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_features_that_are_all_the_same_are_refused(metric):
    one = np.random.default_rng(8).normal(size=(1, 300)).astype(np.float32)
    for feature in (one, np.ones_like(one)):
        features = [np.repeat(feature, n, axis=0) for n in (7, 90)]
        if metric == "cosine":
            features[1] *= np.float32(3)
        with pytest.raises(ValueError, match="the same feature as image 0, as far as float32"):
            rerank.rerank_features(*features, metric=metric)
