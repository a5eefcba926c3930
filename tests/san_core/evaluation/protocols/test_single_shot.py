"""Single gallery shot: the exact expectation is that of every draw there is."""

import itertools

import numpy as np
import pytest

from san_core.evaluation import ranking
from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.labels import Labels
from san_core.evaluation.protocol import CAMERA_FREE, MARKET1501, SYSU_MM01, Protocol
from san_core.evaluation.protocols import single_shot

# SYSU-MM01's rule of its third camera, but one image of each person.
BARRED = Protocol("barred", own_camera=True, barred=((2, 1),))


def tile(rows) -> list[Tile]:
    rows = np.asarray(rows, np.float32)
    return [Tile(slice(0, len(rows)), rows)]


def labels(pids, camids=None) -> Labels:
    return Labels(np.array(pids), None if camids is None else np.array(camids))


def every_draw(row, pid, camid, gallery, protocol) -> tuple[list[int], list[float]]:
    """The rank of the right answer and its reciprocal in each draw, one after another."""
    people: dict[int, list[int]] = {}
    for g, (other, camera) in enumerate(zip(gallery.pids, gallery.camids, strict=True)):
        own = protocol.own_camera and other == pid and camera == camid
        if other != -1 and not own and (camid, camera) not in protocol.barred:
            people.setdefault(other, []).append(g)
    ranks = []
    for draw in itertools.product(*people.values()) if pid in people else ():
        ordered = sorted(draw, key=lambda g: (row[g], g))
        ranks.append(1 + [gallery.pids[g] for g in ordered].index(pid))
    return ranks, [1 / rank for rank in ranks]


@pytest.mark.parametrize("protocol", [MARKET1501, CAMERA_FREE, BARRED], ids=lambda p: p.name)
@pytest.mark.parametrize("seed", range(6))
def test_the_expectation_is_the_mean_over_every_draw(seed, protocol):
    rng = np.random.default_rng(seed)
    query = labels(rng.integers(1, 5, 4), rng.integers(0, 3, 4))
    gallery = labels(rng.integers(-1, 6, 14), rng.integers(0, 3, 14))
    gallery.pids[0], gallery.camids[0] = query.pids[0], (query.camids[0] + 1) % 3
    rows = rng.integers(0, 6 if seed % 2 else 100, (4, 14)).astype(np.float32)  # odd: many ties
    cmc, precision = [], []
    for row, pid, camid in zip(rows, *query, strict=True):
        ranks, reciprocal = every_draw(row, pid, camid, gallery, protocol)
        if ranks:
            cmc.append([np.mean(np.array(ranks) <= k) for k in range(1, 21)])
            precision.append(np.mean(reciprocal))
    for threads in (1, 2):
        found = single_shot.expected_single_shot(
            tile(rows),
            query=query,
            gallery=gallery,
            protocol=protocol,
            max_rank=20,
            threads=threads,
        )
        np.testing.assert_allclose(found.cmc, np.mean(cmc, axis=0), rtol=0, atol=1e-12)
        assert found.mAP_of_draw == pytest.approx(np.mean(precision), abs=1e-12)
    assert found.ranking.num_skipped == 4 - len(precision)


def test_expectation_by_hand():
    # Right at distance 2. Person 8 has one of two images nearer, person 9 its only one.
    gallery = labels([7, 8, 8, 9])
    found = single_shot.expected_single_shot(
        tile([[2, 1, 3, 1]]), query=labels([7]), gallery=gallery
    )
    # 9 is nearer for sure; 8 with chance 1/2: rank 2 or 3, half the time each.
    assert found.cmc[:4].tolist() == [0, 1 / 2, 1, 1]
    assert found.mAP_of_draw == pytest.approx((1 / 2 + 1 / 3) / 2, abs=1e-15)
    assert found.mAP_of_gallery == 1 / 3  # two images of all are nearer
    assert set(found.scores()) == {"rank1", "rank5", "rank10", "mAP_of_draw", "mAP_of_gallery"}


def test_cmc_stays_one_beyond_the_number_of_people():
    # Peers fall to 0 there.
    found = single_shot.expected_single_shot(
        tile([[1, 2, 3]]), query=labels([7]), gallery=labels([7, 8, 9]), max_rank=20
    )
    assert found.cmc.tolist() == [1] * 20


def many(people=60, seed=0):
    rng = np.random.default_rng(seed)
    query = labels(np.arange(1, people + 1), np.zeros(people, int))
    gallery = labels(np.repeat(np.arange(1, people + 1), 5), rng.integers(0, 2, 5 * people))
    rows = rng.random((people, 5 * people)).astype(np.float32)
    rows[query.pids[:, None] == gallery.pids] *= 0.3
    return tile(rows), {"query": query, "gallery": gallery}


def test_fewer_nodes_give_what_the_exact_number_gives(monkeypatch):
    tiles, who = many(people=400)
    few = single_shot.expected_single_shot(tiles, **who)
    nodes, weights = np.polynomial.legendre.leggauss(201)
    monkeypatch.setattr(single_shot, "_quadrature", lambda _: ((nodes + 1) / 2, weights / 2))
    assert few.mAP_of_draw == pytest.approx(
        single_shot.expected_single_shot(tiles, **who).mAP_of_draw, abs=1e-13
    )


def test_samples_come_near_the_expectation_and_from_their_seed():
    tiles, who = many()
    expected = single_shot.expected_single_shot(tiles, **who)
    found = single_shot.sampled_single_shot(tiles, **who, draws=400, seed=1)
    np.testing.assert_allclose(found.cmc, expected.cmc, atol=0.02)
    assert found.mAP_of_draw == pytest.approx(expected.mAP_of_draw, abs=0.01)
    assert found.mAP_of_gallery == expected.mAP_of_gallery
    again = single_shot.sampled_single_shot(tiles, **who, draws=400, seed=1)
    other = single_shot.sampled_single_shot(tiles, **who, draws=400, seed=2)
    assert again.mAP_of_draw == found.mAP_of_draw != other.mAP_of_draw


def test_a_draw_by_camera_ranks_people_by_the_nearest_of_theirs_by_hand():
    # One image of each person and camera, so every draw is the whole gallery. To query 0, in order:
    # 8, 8, right, 9, right; 7 is the second of the people.
    gallery = labels([7, 7, 8, 8, 9], [0, 3, 0, 4, 0])
    who = {"query": labels([7, 9], [5, 2]), "gallery": gallery, "protocol": SYSU_MM01}
    found = single_shot.sampled_single_shot(tile([[3, 5, 1, 2, 4], [2, 3, 1, 1, 4]]), **who)
    # To query 1: 8, 8, 7, 7, right; 9 is the third of the people.
    assert found.cmc[:4].tolist() == [0, 1 / 2, 1, 1]
    assert found.mAP_of_draw == pytest.approx(((1 / 3 + 2 / 5) / 2 + 1 / 5) / 2, abs=1e-15)
    assert found.mAP_of_draw == pytest.approx(found.mAP_of_gallery, abs=1e-15)


def every_draw_by_camera(row, pid, camid, gallery) -> tuple[list[int], list[float]]:
    """The rank of the person and the average precision in each draw by SYSU-MM01's rule."""
    drawn_of: dict[tuple[int, int], list[int]] = {}
    for g, (other, camera) in enumerate(zip(gallery.pids, gallery.camids, strict=True)):
        if other != -1 and (camid, camera) not in SYSU_MM01.barred:
            drawn_of.setdefault((other, camera), []).append(g)
    ranks, precisions = [], []
    for draw in itertools.product(*drawn_of.values()):
        pids = [gallery.pids[g] for g in sorted(draw, key=lambda g: (row[g], g))]
        places = [place for place, other in enumerate(pids, 1) if other == pid]
        people = list(dict.fromkeys(pids))  # in order of their nearest
        if places:
            ranks.append(1 + people.index(pid))
            precisions.append(np.mean([i / place for i, place in enumerate(places, 1)]))
    return ranks, precisions


@pytest.mark.parametrize("seed", range(3))
def test_draws_by_camera_come_near_the_mean_over_every_draw(seed):
    rng = np.random.default_rng(seed)
    query = labels(rng.integers(1, 4, 4), rng.choice(SYSU_MM01.asking, 4))
    gallery = labels(rng.integers(-1, 4, 18), rng.choice(SYSU_MM01.searched, 18))
    gallery.pids[0], gallery.camids[0] = query.pids[0], 0
    rows = rng.integers(0, 9, (4, 18)).astype(np.float32)
    cmc, precision = [], []
    for row, pid, camid in zip(rows, *query, strict=True):
        ranks, precisions = every_draw_by_camera(row, pid, camid, gallery)
        if ranks:
            cmc.append([np.mean(np.array(ranks) <= k) for k in range(1, 11)])
            precision.append(np.mean(precisions))
    who = {"query": query, "gallery": gallery, "protocol": SYSU_MM01, "max_rank": 10}
    found = single_shot.sampled_single_shot(tile(rows), **who, draws=20000)
    # A share of 20,000 draws is off by 0.0035 at most, as one standard deviation.
    np.testing.assert_allclose(found.cmc, np.mean(cmc, axis=0), rtol=0, atol=0.015)
    assert found.mAP_of_draw == pytest.approx(np.mean(precision), abs=0.015)
    assert found.ranking.num_skipped == 4 - len(precision)


def test_the_expectation_over_draws_by_camera_is_refused():
    who = {"query": labels([7], [2]), "gallery": labels([7], [0]), "protocol": SYSU_MM01}
    with pytest.raises(ValueError, match="sysu-mm01 one image of each person and camera"):
        single_shot.expected_single_shot(tile([[1]]), **who)


def test_a_query_to_which_nothing_is_left_is_skipped():
    who = {"query": labels([7, 8], [2, 5]), "gallery": labels([7, 8], [1, 1])}
    found = single_shot.sampled_single_shot(tile([[1, 2], [1, 2]]), **who, protocol=SYSU_MM01)
    assert (found.ranking.num_skipped, found.cmc[:2].tolist()) == (1, [0, 1])


def test_both_skip_the_same_queries():
    who = {"query": labels([7, 8], [0, 0]), "gallery": labels([7, 8, 9], [1, 0, 1])}
    for score in (single_shot.expected_single_shot, single_shot.sampled_single_shot):
        found = score(tile([[1, 2, 3], [1, 2, 3]]), **who)
        assert (found.ranking.num_skipped, found.cmc[0]) == (1, 1)


def test_the_whole_gallery_is_ranked_as_ever():
    tiles, who = many()
    expected = ranking.rank_distances(tiles, **who)
    assert single_shot.expected_single_shot(tiles, **who).mAP_of_gallery == expected.mAP


def test_nan_too_many_rows_and_no_draws_are_refused():
    who = {"query": labels([7]), "gallery": labels([7, 8])}
    for score in (single_shot.expected_single_shot, single_shot.sampled_single_shot):
        with pytest.raises(ValueError, match="the distances of query 0 hold NaN"):
            score(tile([[1, np.nan]]), **who)
        with pytest.raises(ValueError, match="distances for queries 0 to 900, but there are 1"):
            score(tile([[1, 2]] * 900), **who)
    with pytest.raises(ValueError, match="draws is 0; there must be at least 1"):
        single_shot.sampled_single_shot(tile([[1, 2]]), **who, draws=0)


def test_a_perfect_ranking_scores_exactly_one():
    rng = np.random.default_rng(0)
    gallery = labels(np.repeat(np.arange(1, 8), 3))
    rows = rng.uniform(1, 2, (7, 21))
    rows[np.arange(7)[:, None] == gallery.pids - 1] *= 0.1
    found = single_shot.expected_single_shot(
        tile(rows), query=labels(np.arange(1, 8)), gallery=gallery
    )
    assert set(found.scores().values()) == {1.0}
