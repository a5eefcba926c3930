"""The ranking in NumPy, by sorting: slow and short. The compiled loops must give the same results.

`rank` and `rank_distances` take and return what their namesakes in `ranking` do;
`rerank_distances` and `single_shot_expectation` are the twins of those in `rerank` and of
`protocols.single_shot.expected_single_shot`. They serve tests, `soundness`, and readers who want to
see what is computed.

Shapes: Q queries, G gallery images, N both, K top places, P right answers.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.data.records import JUNK
from san_core.evaluation import roc
from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.kernels.rows import Features, as_rows, validate_features
from san_core.evaluation.labels import Labels
from san_core.evaluation.protocol import Protocol, check_protocol_applies, default_protocol
from san_core.evaluation.ranking import (
    QueryResults,
    Ranking,
    check_rank_limits,
    check_tile,
    empty_results,
    make_ranking,
)
from san_core.evaluation.rerank import RerankSettings

_BINS = 2**19


def rank(
    query_features: Features,
    gallery_features: Features,
    *,
    query: Labels,
    gallery: Labels,
    metric: str = "euclidean",
    protocol: Protocol | None = None,
    max_rank: int = 50,
    top_k: int = 10,
    with_roc: bool = False,
) -> Ranking:
    """As `ranking.rank`, by distances in float64.

    Raises:
        ValueError: as `ranking.rank`.
    """
    return _rank_rows(
        _float64_distances(query_features, gallery_features, metric),
        query,
        gallery,
        protocol,
        max_rank=max_rank,
        top_k=top_k,
        with_roc=with_roc,
        distance_offset=1 if metric == "cosine" else 0,
    )


def rank_distances(
    tiles: Iterable[Tile],
    *,
    query: Labels,
    gallery: Labels,
    protocol: Protocol | None = None,
    max_rank: int = 50,
    top_k: int = 10,
    with_roc: bool = False,
) -> Ranking:
    """As `ranking.rank_distances`.

    Raises:
        ValueError: as `ranking.rank_distances`.
    """
    return _rank_rows(
        _iterate_distance_rows(tiles, len(query.pids), len(gallery.pids)),
        query,
        gallery,
        protocol,
        max_rank=max_rank,
        top_k=top_k,
        with_roc=with_roc,
    )


def rerank_distances(
    distances: NDArray[np.float64], *, num_query: int, settings: RerankSettings
) -> NDArray[np.float64]:
    """As `rerank.rerank_distances`: the paper's equations on whole matrices, sets as sets."""
    n = len(distances)
    d = distances / distances.max(axis=1, keepdims=True)
    order = np.argsort(d, axis=1, kind="stable")

    def reciprocal_neighbours(i: int, k: int) -> set[int]:
        return {int(j) for j in order[i, : k + 1] if i in order[j, : k + 1]}

    weights = np.zeros((n, n))
    for i in range(n):
        own = reciprocal_neighbours(i, settings.k1)
        members = set(own)
        for j in own:
            half = reciprocal_neighbours(j, round(settings.k1 / 2))
            if len(half & own) > 2 / 3 * len(half):
                members |= half
        listed = sorted(members)
        weights[i, listed] = np.exp(-d[i, listed]) / np.exp(-d[i, listed]).sum()
    if settings.k2 > 1:
        weights = np.array([weights[order[i, : settings.k2]].mean(axis=0) for i in range(n)])
    asked, searched = weights[:num_query], weights[num_query:]
    shared = np.array([np.minimum(row, searched).sum(axis=1) for row in asked])
    jaccard = 1 - shared / (2 - shared)
    kept = d[:num_query, num_query:] * settings.original_share
    mixed: NDArray[np.float64] = jaccard * (1 - settings.original_share) + kept
    return mixed


class DrawExpectation(NamedTuple):
    """CMC (K,) and mean average precision over all draws of one image for each person."""

    cmc: NDArray[np.float64]
    precision: float


def single_shot_expectation(
    distances: NDArray[np.float32], *, query: Labels, gallery: Labels, max_rank: int = 50
) -> DrawExpectation:
    """As `single_shot_expectation.exact`, by the probability of each number of nearer people.

    distances: (Q, G), without NaN.
    """
    protocol = default_protocol(query)
    chances = []  # (G,) each: of 0, 1, 2, ... nearer people
    for i, row in enumerate(distances):
        left = np.flatnonzero(~_excluded_mask(query, i, gallery, protocol))
        order = left[np.argsort(row[left], kind="stable")]
        pids = gallery.pids[order]
        places = np.flatnonzero(pids == query.pids[i])
        others = np.unique(pids[pids != query.pids[i]])
        of_query = np.zeros(len(gallery.pids))
        for place in places:
            chance = np.ones(1)
            for nearer in ((pids[:place] == pid).sum() / (pids == pid).sum() for pid in others):
                chance = np.convolve(chance, [1 - nearer, nearer])
            of_query[: len(chance)] += chance / len(places)
        if len(places):
            chances.append(of_query)
    mean = np.mean(chances, axis=0)
    cmc = np.cumsum(mean)[np.minimum(np.arange(max_rank), len(mean) - 1)]
    return DrawExpectation(cmc, float((mean / np.arange(1, len(mean) + 1)).sum()))


def _rank_rows(
    rows: Iterable[NDArray[np.floating]],
    query: Labels,
    gallery: Labels,
    protocol: Protocol | None,
    *,
    max_rank: int,
    top_k: int,
    with_roc: bool,
    distance_offset: int = 0,
) -> Ranking:
    """The ranking by a row of values (G,) for every query.

    Distances are `distance_offset` above those values.
    """
    protocol = protocol or default_protocol(query)
    check_protocol_applies(protocol, query, gallery)
    check_rank_limits(max_rank=max_rank, top_k=top_k)
    results = empty_results(len(query.pids), top_k)
    bins = np.zeros((2, _BINS), np.int64)  # of wrong and of right answers
    for i, row in enumerate(rows):
        left = np.flatnonzero(~_excluded_mask(query, i, gallery, protocol))
        order = left[np.argsort(row[left], kind="stable")]  # nearest first, tied in gallery order
        matches = gallery.pids[order] == query.pids[i]
        _record_query(results, i, order, matches)
        if with_roc and matches.any():
            for right in (False, True):
                np.add.at(
                    bins[int(right)], roc_bins(row[order[matches == right]] + distance_offset), 1
                )
    curve = roc.roc_from_bins(bins[1], bins[0]) if bins.any(axis=1).all() else None
    return make_ranking(results, query, gallery, protocol=protocol, max_rank=max_rank, curve=curve)


def _excluded_mask(query: Labels, i: int, gallery: Labels, protocol: Protocol) -> NDArray[np.bool_]:
    left_out: NDArray[np.bool_] = gallery.pids == JUNK
    if query.camids is None or gallery.camids is None:
        return left_out
    if protocol.own_camera:
        left_out |= (gallery.pids == query.pids[i]) & (gallery.camids == query.camids[i])
    for of_query, of_gallery in protocol.barred:
        if query.camids[i] == of_query:
            left_out |= gallery.camids == of_gallery
    return left_out


def _record_query(
    results: QueryResults, i: int, order: NDArray[np.intp], matches: NDArray[np.bool_]
) -> None:
    """Record the results of query i from its ranked gallery."""
    nearest = order[: results.top.shape[1]]
    results.top[i, : len(nearest)] = nearest
    results.right[i, : len(nearest)] = matches[: len(nearest)]
    ranks = np.flatnonzero(matches) + 1  # (P,), ascending
    results.num_right[i] = len(ranks)
    if len(ranks):
        results.first_rank[i] = ranks[0]
        results.average_precision[i] = np.mean(np.arange(1, len(ranks) + 1) / ranks)
        results.inverse_penalty[i] = len(ranks) / ranks[-1]


def roc_bins(distances: NDArray[np.floating]) -> NDArray[np.int32]:
    """The bin of each distance for a ROC curve: in order, 1,024 to every power of two."""
    single = distances.astype(np.float32) + np.float32(0)  # -0 becomes 0
    bits = single.view(np.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return np.where(np.isnan(single), _BINS - 1, (ordered >> 13) + _BINS // 2)


def _float64_distances(
    query: Features, gallery: Features, metric: str
) -> Iterator[NDArray[np.float64]]:
    """Squared distances; for cosine -cos, because 1 - cos would round nearby values together."""
    validate_features(as_rows("query", query), as_rows("gallery", gallery), metric)
    searched = gallery.astype(np.float64)
    for asked in query.astype(np.float64):
        if metric == "euclidean":
            yield ((asked - searched) ** 2).sum(axis=1)
        else:
            lengths = np.sqrt((asked**2).sum() * (searched**2).sum(axis=1))
            cosines = (asked * searched).sum(axis=1) / np.where(lengths > 0, lengths, 1)
            yield -cosines  # 0 with a feature of zeros, which has no direction


def _iterate_distance_rows(
    tiles: Iterable[Tile], num_query: int, num_gallery: int
) -> Iterator[NDArray[np.float32]]:
    done = 0
    for rows, distances in tiles:
        check_tile(rows, distances, start=done, shape=(num_query, num_gallery))
        yield from distances
        done = rows.stop
    if done != num_query:
        raise ValueError(f"distances were given for {done} of {num_query} queries")
