"""The ROC curve by hand, and where there is none."""

import numpy as np
import pytest

from san_core.evaluation import ranking, roc
from san_core.evaluation.check import reference
from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.labels import Labels

RANKERS = [ranking, reference]


def ranked(ranker, rows, pids) -> ranking.Ranking:
    tile = Tile(slice(0, len(rows)), np.array(rows, np.float32))
    query = Labels(np.array([1] * len(rows)), None)
    return ranker.rank_distances(
        [tile], query=query, gallery=Labels(np.array(pids), None), with_roc=True
    )


@pytest.mark.parametrize("ranker", RANKERS)
def test_rates_are_shares_of_all_pairs_by_hand(ranker):
    # Right at 1 and 3 and, of the second query, 2 and 2; wrong at 2, 4, 8 and at 1, 16, 32.
    curve = ranked(ranker, [[1, 3, 2, 4, 8], [2, 2, 1, 16, 32]], [1, 1, 2, 2, 2]).roc
    # Thresholds 1, 2, 3, 4, 8, 16, 32.
    assert curve.tpr.tolist() == [1 / 4, 3 / 4, 1, 1, 1, 1, 1]
    assert curve.fpr.tolist() == [1 / 6, 2 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1]
    assert (curve.num_right, curve.num_wrong) == (4, 6)
    assert curve.tpr_at(0.1) == 0
    assert curve.tpr_at(1 / 6) == 1 / 4
    assert curve.tpr_at(0.4) == curve.tpr_at(1) == 1
    assert curve.threshold_at(0.1) is None
    assert curve.threshold_at(1 / 6) == curve.threshold[np.searchsorted(curve.fpr, 0.17) - 1]
    assert curve.threshold_at(1) == curve.threshold[-1]


@pytest.mark.parametrize("ranker", RANKERS)
def test_signs_zeros_and_infinities_keep_their_order(ranker):
    rows = [[-np.inf, -2, -1e-30, -0.0, 0.0, 1e-30, 2, np.inf, np.nan]]
    pids = [1, 2, 1, 2, 1, 2, 1, 2, 1]
    curve = ranked(ranker, rows, pids).roc
    # -0 and 0 are one threshold.
    assert curve.tpr.tolist() == [1 / 5, 1 / 5, 2 / 5, 3 / 5, 3 / 5, 4 / 5, 4 / 5, 1]
    assert curve.fpr.tolist() == [0, 1 / 4, 1 / 4, 2 / 4, 3 / 4, 3 / 4, 1, 1]


def test_thresholds_are_those_that_give_the_rates():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(5, 400)).astype(np.float32)  # of both signs
    pids = rng.integers(1, 3, 400)
    curve = ranked(ranking, rows, pids).roc
    is_right = np.broadcast_to(pids == 1, rows.shape)
    for fpr, tpr, threshold in zip(curve.fpr, curve.tpr, curve.threshold, strict=True):
        assert tpr == (rows[is_right] <= threshold).mean()
        assert fpr == (rows[~is_right] <= threshold).mean()


def test_thresholds_are_finite_where_distances_are_not():
    curve = ranked(ranking, [[-np.inf, 0, np.inf, np.nan]], [1, 2, 1, 2]).roc
    assert np.isfinite(curve.threshold).all()
    assert (np.diff(curve.threshold) >= 0).all()


def test_thinned_curve_is_as_good_as_the_whole_one():
    rng = np.random.default_rng(4)
    rows = np.where(rng.random(20000) < 0.1, rng.normal(1, 1, 20000), rng.normal(3, 1, 20000))
    curve = ranked(ranking, [rows], rng.integers(1, 3, 20000)).roc
    thin = curve.thin_out(99)
    assert len(curve.fpr) > 1000
    assert 60 < len(thin.fpr) <= 99
    assert (thin.fpr[-1], thin.tpr[-1]) == (1, 1)
    whole = {*zip(curve.fpr, curve.tpr, curve.threshold, strict=True)}
    assert whole.issuperset(zip(thin.fpr, thin.tpr, thin.threshold, strict=True))
    # No step over more than a fiftieth of the TPR, nor beyond the next tenth of a decade of FPR.
    assert np.diff(thin.tpr).max() < 0.03
    area, thin_area = (np.trapezoid(each.tpr, each.fpr) for each in (curve, thin))
    assert thin_area == pytest.approx(area, abs=1e-3)


def test_curve_of_few_thresholds_stays_whole():
    curve = ranked(ranking, [[1, 3, 2, 4, 8], [2, 2, 1, 16, 32]], [1, 1, 2, 2, 2]).roc
    assert curve.thin_out(1000).tpr.tolist() == [1 / 4, 3 / 4, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_features_give_the_curve_of_their_distances(metric):
    rng = np.random.default_rng(0)
    # Powers of two apart: no distance lies at the edge of a bin, where rounding would decide.
    query = np.array([[1, 0], [0, 1]], np.float32)
    gallery = rng.choice([1, 2, 4], (60, 2)).astype(np.float32)
    who = {
        "query": Labels(np.array([1, 2]), None),
        "gallery": Labels(rng.integers(1, 4, 60), None),
    }
    found, expected = (
        each.rank(query, gallery, **who, metric=metric, with_roc=True).roc for each in RANKERS
    )
    np.testing.assert_allclose(found.fpr[-1], 1)
    for rate in (0.05, 0.2, 0.5, 0.9):
        assert found.tpr_at(rate) == pytest.approx(expected.tpr_at(rate), abs=0.05)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dim", [3, 64])
def test_curves_of_features_are_the_twins_up_to_rounding(monkeypatch, metric, dim):
    rng = np.random.default_rng(dim)
    query, gallery = (rng.normal(size=(n, dim)).astype(np.float32) for n in (40, 700))
    gallery[::7], gallery[1::7] = query[rng.integers(0, 40, 100)], gallery[2::7]  # at 0, and tied
    pids = rng.integers(1, 4, 40), rng.integers(1, 4, 700)
    who = {"query": Labels(pids[0], None), "gallery": Labels(pids[1], None)}
    bins = []
    monkeypatch.setattr(roc, "roc_from_bins", lambda right, wrong: bins.append((right, wrong)))
    for threads in (1, 2):
        ranking.rank(query, gallery, **who, metric=metric, with_roc=True, threads=threads)
    reference.rank(query, gallery, **who, metric=metric, with_roc=True)
    (right, wrong), (right_of_two, wrong_of_two), (right_of_twin, _) = bins

    asked, searched = query.astype(float), gallery.astype(float)
    lengths = [np.linalg.norm(rows, axis=1) for rows in (asked, searched)]
    longest = lengths[1].max()
    # As of the compiled loops: D products and the roundings around them, 2^-24 each.
    if metric == "euclidean":
        distances = ((asked[:, None] - searched) ** 2).sum(axis=2)
        slack = (2 * dim + 16) * lengths[0] * longest + 8 * longest**2
    else:
        distances = 1 - asked @ searched.T / np.outer(*lengths)
        slack = np.full(40, dim + 16)
    slack = 2.0**-24 * slack[:, None]
    is_wrong = pids[0][:, None] != pids[1]

    def at_or_below(values):
        return np.cumsum(np.bincount(reference.roc_bins(values[is_wrong]), minlength=2**19))

    fewest, most = at_or_below(distances + slack), at_or_below(distances - slack)
    for counted in (wrong, wrong_of_two):
        assert (fewest <= np.cumsum(counted)).all()
        assert (np.cumsum(counted) <= most).all()
        assert counted.sum() == is_wrong.sum()
    np.testing.assert_array_equal(right, right_of_twin)
    np.testing.assert_array_equal(right, right_of_two)


def test_threads_count_every_pair_once():
    # All in one bin: threads that shared it would lose some.
    queries, wrong = 600, 3000
    tile = Tile(slice(0, queries), np.ones((queries, wrong + 1), np.float32))
    who = {
        "query": Labels(np.ones(queries, np.int64), None),
        "gallery": Labels(np.array([1] + [2] * wrong), None),
    }
    for threads in (1, 4):
        curve = ranking.rank_distances([tile], **who, with_roc=True, threads=threads).roc
        assert (curve.num_right, curve.num_wrong) == (queries, queries * wrong)


@pytest.mark.parametrize("ranker", RANKERS)
def test_without_wrong_answers_there_is_no_curve(ranker):
    assert ranked(ranker, [[1, 2]], [1, 1]).roc is None


def test_numbers_that_make_no_curve_are_refused():
    some, none = np.array([0, 2]), np.array([0, 0])
    with pytest.raises(ValueError, match="2 right and 0 wrong answers: a ROC curve needs some"):
        roc.roc_from_bins(some, none)
    with pytest.raises(ValueError, match="0 right and 2 wrong answers"):
        roc.roc_from_bins(none, some)
    with pytest.raises(ValueError, match=r"between 0 and 1, not 1\.5"):
        roc.roc_from_bins(some, some).tpr_at(1.5)
