"""The compiled ranking is that of its NumPy twin, to the last rank, whatever input and tiling."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from san_core.evaluation import ranking
from san_core.evaluation.check import reference
from san_core.evaluation.kernels import rows, streaming
from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.kernels.operands import make_operands
from san_core.evaluation.kernels.streaming import TileShape
from san_core.evaluation.labels import Labels
from san_core.evaluation.protocol import CAMERA_FREE, MARKET1501, SYSU_MM01, Protocol
from san_core.evaluation.ranking import Ranking

# SYSU-MM01's rule, whatever the cameras.
BARRED = Protocol("barred", own_camera=True, barred=((2, 1),))
SPECIAL = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 2.0], np.float32)


def assert_same(found: Ranking, expected: Ranking) -> None:
    """Ranks and top equal, averages within 1e-12."""
    for name in ("first_rank", "num_right", "top", "right", "cmc"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    for name in ("average_precision", "inverse_penalty", "mAP", "mINP"):
        a, b = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12, err_msg=name)
    for name in ("num_query", "num_gallery", "num_skipped", "protocol"):
        assert getattr(found, name) == getattr(expected, name)
    assert (found.roc is None) == (expected.roc is None)
    if found.roc and expected.roc:
        for a, b in zip(found.roc, expected.roc, strict=True):
            np.testing.assert_array_equal(a, b)


def some_labels(rng, n_query, n_gallery, *, people=6, cameras=4) -> dict[str, Labels]:
    """Random labels, junk and distractors among them; the first query has a right answer."""
    query = Labels(rng.integers(1, people, n_query), rng.integers(0, cameras, n_query))
    gallery = Labels(rng.integers(-1, people, n_gallery), rng.integers(0, cameras, n_gallery))
    gallery.pids[0], gallery.camids[0] = query.pids[0], (query.camids[0] + 2) % cameras
    return {"query": query, "gallery": gallery}


def by_distances(ranker, rows, who, **kwargs) -> Ranking:
    rows = np.asarray(rows, np.float32)
    return ranker.rank_distances([Tile(slice(0, len(rows)), rows)], **who, **kwargs)


def if_judged(rows, who, **kwargs) -> Ranking | None:
    """The twin's ranking, or None where no query can be judged."""
    try:
        return by_distances(reference, rows, who, **kwargs)
    except ValueError as error:
        if not re.search("none of the .* has a right answer", str(error)):
            raise
        return None


@st.composite
def problems(draw: Callable) -> tuple:
    """Galleries shorter and longer than the blocks of the loops, with ties and special numbers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_query = draw(st.integers(1, 6))
    n_gallery = draw(st.sampled_from([1, 7, 63, 64, 65, 255, 256, 257, 320, 700]))
    values = draw(st.sampled_from(["tied", "special", "smooth"]))
    if values == "tied":
        rows = rng.integers(-3, 3, (n_query, n_gallery)).astype(np.float32)
    elif values == "special":
        rows = rng.choice(SPECIAL, (n_query, n_gallery))
    else:
        rows = rng.normal(size=(n_query, n_gallery)).astype(np.float32)
    people = draw(st.sampled_from([2, 6, 60]))
    return rows, some_labels(rng, n_query, n_gallery, people=people)


@settings(deadline=None, max_examples=300)
@given(
    problems(),
    st.sampled_from([MARKET1501, CAMERA_FREE, BARRED]),
    st.sampled_from([0, 1, 5, 1000]),
    st.sampled_from([1, 2, 3]),
)
def test_given_distances_are_ranked_as_by_the_twin(problem, protocol, top_k, threads):
    rows, who = problem
    same = {"protocol": protocol, "top_k": top_k}
    expected = if_judged(rows, who, **same)
    if expected:
        assert_same(by_distances(ranking, rows, who, **same, threads=threads), expected)


@settings(deadline=None, max_examples=60)
@given(problems())
def test_the_roc_curve_is_that_of_the_twin(problem):
    rows, who = problem
    expected = if_judged(rows, who, with_roc=True)
    for top_k in (0, 5) if expected else ():
        found = by_distances(ranking, rows, who, with_roc=True, top_k=top_k)
        assert (found.roc is None) == (expected.roc is None)
        for a, b in zip(found.roc or (), expected.roc or (), strict=True):
            np.testing.assert_array_equal(a, b)


def test_nan_ranks_last_in_gallery_order_after_infinity():
    # Left to the query, nearest first: -inf, -0 and 0 in order, inf, NaN and NaN in order.
    row = [[np.nan, np.inf, 0.0, -np.nan, -np.inf, -0.0]]
    for ranker in (ranking, reference):
        who = {"query": Labels(np.array([1]), None)}
        for right, rank in enumerate([5, 4, 2, 6, 1, 3]):
            pids = np.full(6, 2)
            pids[right] = 1
            found = by_distances(ranker, row, {**who, "gallery": Labels(pids, None)})
            assert found.first_rank[0] == rank
            assert found.top[0, :6].tolist() == [4, 2, 5, 1, 0, 3]


@pytest.mark.parametrize("levels", [3, 50, 10**6])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_person_on_many_images_is_ranked_as_by_the_twin(levels, share):
    # So many right answers that wrong ones are placed among them one by one, and so many wrong ones
    # that they are counted by vectors; tied a lot, a little and hardly.
    rng = np.random.default_rng(levels)
    gallery = Labels(np.where(rng.random(2000) < share, 1, 2), None)
    who = {"query": Labels(np.array([1, 2]), None), "gallery": gallery}
    rows = rng.integers(0, levels, (2, 2000))
    for top_k in (0, 20):
        expected = by_distances(reference, rows, who, top_k=top_k)
        assert_same(by_distances(ranking, rows, who, top_k=top_k), expected)


def features(rng, who, *, dim, noise) -> tuple[np.ndarray, np.ndarray]:
    """A direction for each person, noise, and some images twice, so that distances are tied."""
    centres = rng.normal(size=(100, dim))
    made = []
    for labels in (who["query"], who["gallery"]):
        rows = centres[labels.pids] + noise * rng.normal(size=(len(labels.pids), dim))
        made.append((rows * rng.uniform(0.5, 2, (len(rows), 1))).astype(np.float32))
    copies = rng.integers(0, len(made[1]), (2, len(made[1]) // 8))
    made[1][copies[0]] = made[1][copies[1]]
    return made[0], made[1]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("dim", "noise"), [(1, 0.5), (3, 0.1), (40, 2.0), (257, 4.0)])
@pytest.mark.parametrize("protocol", [MARKET1501, CAMERA_FREE, BARRED], ids=lambda p: p.name)
def test_features_are_ranked_by_their_distance_in_float64(metric, dim, noise, protocol):
    rng = np.random.default_rng(dim)
    who = some_labels(rng, 40, 700, people=40)
    query, gallery = features(rng, who, dim=dim, noise=noise)
    same = {"metric": metric, "protocol": protocol, "top_k": 30}
    expected = reference.rank(query, gallery, **who, **same)
    for threads in (1, 2, 3):
        assert_same(ranking.rank(query, gallery, **who, **same, threads=threads), expected)
    assert_same(
        ranking.rank(query, gallery, **who, **{**same, "top_k": 0}),
        reference.rank(query, gallery, **who, **{**same, "top_k": 0}),
    )


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(
    "shape", [TileShape(1, 1), TileShape(7, 64), TileShape(13, 100), TileShape(40, 700)]
)
def test_tiles_of_any_shape_give_the_same_ranking(monkeypatch, metric, shape):
    rng = np.random.default_rng(5)
    who = some_labels(rng, 40, 700, people=30)
    query, gallery = features(rng, who, dim=33, noise=1.5)
    expected = ranking.rank(query, gallery, **who, metric=metric)
    monkeypatch.setattr(streaming, "choose_tile_shape", lambda *_, **__: shape)
    for threads in (1, 2):
        assert_same(ranking.rank(query, gallery, **who, metric=metric, threads=threads), expected)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("offset", [30.0, 1000.0])
def test_what_features_have_in_common_costs_neither_ranks_nor_time(metric, offset):
    # A ReLU leaves features that are alike but for a little. Unless that is taken off before the
    # product, it bounds hardly any distance, and nearly all must be had again in float64.
    rng = np.random.default_rng(10)
    who = some_labels(rng, 40, 700, people=30)
    query, gallery = (rows + np.float32(offset) for rows in features(rng, who, dim=64, noise=1.5))
    same = {"metric": metric, "top_k": 30}
    expected = reference.rank(query, gallery, **who, **same)
    assert_same(ranking.rank(query, gallery, **who, **same), expected)
    for of in make_operands(rows.select_rows(query), rows.select_rows(gallery), metric):
        before = of.squares * (1 if of.scales is None else of.scales**2)
        assert of.read_range(0, len(of)).squares.mean() < before.mean() / 50


def test_near_ties_that_float32_confuses_are_ranked_rightly():
    # All at a distance of nearly 1 from the query, 1e-9 apart: below what float32 can tell.
    rng = np.random.default_rng(6)
    gallery = np.zeros((300, 64), np.float32)
    gallery[:, 0] = 1
    gallery[:, 1] = np.float32(3e-5) * np.sqrt(rng.permutation(300)).astype(np.float32)
    query = np.zeros((1, 64), np.float32)
    who = {"query": Labels(np.array([1]), None)}
    nearest_first = np.argsort((gallery.astype(float) ** 2).sum(axis=1), kind="stable")
    pids = np.full(300, 2)
    pids[nearest_first[[20, 200]]] = 1
    found = ranking.rank(query + 1, gallery + 1, **who, gallery=Labels(pids, None), top_k=300)
    assert_same(
        found,
        reference.rank(query + 1, gallery + 1, **who, gallery=Labels(pids, None), top_k=300),
    )
    assert found.num_right[0] == 2


@pytest.mark.parametrize("ranker", [ranking, reference])
def test_cosines_that_would_tie_as_distances_are_distinguished(ranker):
    # cos is -1e-18 of the wrong answer and 1e-18 of the right one; 1 - cos is 1 of both.
    query = np.array([[1, 0]], np.float32)
    gallery = np.array([[-1e-18, 1], [1e-18, 1]], np.float32)
    who = {"query": Labels(np.array([7]), None), "gallery": Labels(np.array([8, 7]), None)}
    assert ranker.rank(query, gallery, **who, metric="cosine").first_rank[0] == 1


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_rows_of_a_memory_mapped_file_are_ranked_as_they_are_in_memory(tmp_path, metric):
    rng = np.random.default_rng(7)
    who = some_labels(rng, 20, 300)
    query, gallery = features(rng, who, dim=16, noise=1)
    place = rng.permutation(320)  # queries and gallery lie mixed in the file
    matrix = np.empty((320, 16), np.float32)
    matrix[place] = np.concatenate([query, gallery])
    np.save(tmp_path / "features.npy", matrix)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    found = ranking.rank(
        rows.select_rows(mapped, place[:20]),
        rows.select_rows(mapped, place[20:]),
        **who,
        metric=metric,
    )
    assert_same(found, ranking.rank(query, gallery, **who, metric=metric))


def test_rows_that_lie_together_are_not_copied():
    matrix = np.arange(40, dtype=np.float32).reshape(10, 4)
    assert np.shares_memory(rows.select_rows(matrix, np.arange(3, 8)).read_range(0, 5), matrix)
    np.testing.assert_array_equal(
        rows.select_rows(matrix, np.array([5, 2])).read_range(0, 2), matrix[[5, 2]]
    )


def test_rows_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="query features have 3 rows; there is no row 7"):
        rows.select_rows(np.ones((3, 2), np.float32), np.array([0, 7]), role="query")


def test_features_of_any_length_are_ranked_by_cosine():
    rng = np.random.default_rng(8)
    who = some_labels(rng, 10, 100)
    query, gallery = features(rng, who, dim=8, noise=1)
    lengths = np.float32(2) ** rng.integers(-100, 50, (100, 1)).astype(np.float32)
    found = ranking.rank(query, gallery * lengths, **who, metric="cosine")
    assert_same(found, ranking.rank(query, gallery, **who, metric="cosine"))


def test_sparse_pids_are_grouped_as_dense_ones_are():
    rng = np.random.default_rng(9)
    who = some_labels(rng, 10, 100)
    sparse = {
        role: Labels(np.where(labels.pids > 0, labels.pids * 10**8, labels.pids), labels.camids)
        for role, labels in who.items()
    }
    rows = rng.random((10, 100))
    assert_same(by_distances(ranking, rows, sparse), by_distances(ranking, rows, who))


def test_everybody_in_the_barred_camera_is_left_out_for_sysu():
    # Camera 3 of the paper is 2 here, and camera 2 is 1.
    gallery = Labels(np.array([5, 7, 7, 8]), np.array([1, 1, 0, 0]))  # by visible light
    rows = [[1, 2, 3, 4], [1, 2, 3, 4]]
    query = Labels(np.array([7, 7]), np.array([2, 5]))
    for ranker in (ranking, reference):
        found = by_distances(ranker, rows, {"query": query, "gallery": gallery}, protocol=SYSU_MM01)
        assert found.top[:, :4].tolist() == [[2, 3, -1, -1], [0, 1, 2, 3]]
        assert found.first_rank.tolist() == [1, 2]


def test_camera_free_ignores_cameras_that_are_known():
    gallery = Labels(np.array([7, 8]), np.array([0, 0]))
    who = {"query": Labels(np.array([7]), np.array([0])), "gallery": gallery}
    for ranker in (ranking, reference):
        assert by_distances(ranker, [[1, 2]], who, protocol=CAMERA_FREE).first_rank[0] == 1


@pytest.mark.parametrize("ranker", [ranking, reference])
def test_a_protocol_that_goes_by_cameras_needs_them(ranker):
    who = {"query": Labels(np.array([7]), None), "gallery": Labels(np.array([7]), None)}
    with pytest.raises(ValueError, match="protocol market1501 needs cameras, but camids are unk"):
        by_distances(ranker, [[1]], who, protocol=MARKET1501)


@pytest.mark.parametrize("ranker", [ranking, reference])
def test_sysu_is_refused_where_cameras_are_numbered_from_one(ranker):
    # As in the paper: 3 and 6 are infrared. The rule would leave out another camera, unnoticed.
    gallery = Labels(np.array([7, 8, 7]), np.array([1, 2, 5]))
    query = Labels(np.array([7, 8]), np.array([3, 6]))
    rows = [[1, 2, 3]] * 2
    with pytest.raises(
        ValueError, match=r"query 0 is by camera 3, .* is by cameras 2, 5 \(counted"
    ):
        by_distances(ranker, rows, {"query": query, "gallery": gallery}, protocol=SYSU_MM01)
    query = Labels(query.pids, query.camids - 1)
    with pytest.raises(ValueError, match=r"gallery 1 is by camera 2, .* is by cameras 0, 1, 3, 4"):
        by_distances(ranker, rows, {"query": query, "gallery": gallery}, protocol=SYSU_MM01)
    gallery = Labels(gallery.pids, gallery.camids - 1)
    found = by_distances(ranker, rows, {"query": query, "gallery": gallery}, protocol=SYSU_MM01)
    assert found.first_rank.tolist() == [1, 2]


@pytest.mark.parametrize("ranker", [ranking, reference])
@pytest.mark.parametrize(
    ("protocol", "pids", "message"),
    [
        (
            CAMERA_FREE,
            [8],
            "camera-free: 1 show a person who is not in the gallery; check the labels$",
        ),
        (
            MARKET1501,
            [7],
            "0 show .*, and 1 a person whose gallery images are all by the query's "
            "own camera; check",
        ),
        (
            BARRED,
            [7],
            "the query's own camera or by one that the protocol leaves out with it; .* "
            "camera-free$",
        ),
    ],
)
def test_errors_for_no_valid_query_depend_on_the_protocol(ranker, protocol, pids, message):
    who = {
        "query": Labels(np.array([7]), np.array([2])),
        "gallery": Labels(np.array(pids), np.array([2])),
    }
    with pytest.raises(ValueError, match=message):
        by_distances(ranker, [[1]], who, protocol=protocol)


def test_threads_must_be_at_least_one():
    who = {"query": Labels(np.array([7]), None), "gallery": Labels(np.array([7]), None)}
    with pytest.raises(ValueError, match="threads is 0; it must be at least 1"):
        by_distances(ranking, [[1]], who, threads=0)


def test_distances_must_be_float32():
    who = {"query": Labels(np.array([7]), None), "gallery": Labels(np.array([7]), None)}
    tile = Tile(slice(0, 1), np.ones((1, 1)))
    for ranker in (ranking, reference):
        with pytest.raises(ValueError, match="distances are float64; expected float32"):
            ranker.rank_distances([tile], **who)


def test_tiles_shrink_as_the_gallery_grows():
    sizes = [entries(tile_shape(gallery=n), 512) for n in (10**4, 10**5, 10**6, 10**7)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 4
    assert tile_shape(widest=10**6).queries <= 4  # 16 bytes a right answer, 4 MiB at most


@pytest.mark.parametrize("dim", [1, 64, 512, 2048, 10**5])
@pytest.mark.parametrize("threads", [1, 2, 16])
def test_tiles_shrink_as_features_grow_and_threads_do(dim, threads):
    found = entries(tile_shape(dim=dim, threads=threads), dim)
    assert found <= max(3 * 2**20 / threads, 2**19, 2 * dim + 1)  # at the least 1 x 1


def entries(shape, dim):
    """Float32 numbers that a tile takes: both sides, and their products."""
    return shape.queries * dim + shape.gallery * dim + shape.queries * shape.gallery


def tile_shape(*, gallery=10**4, dim=512, widest=50, threads=1) -> TileShape:
    return streaming.choose_tile_shape(3368, gallery, dim=dim, widest=widest, threads=threads)
