"""Ranking a gallery for each query, and the figures ReID papers give: CMC, mAP and mINP.

Nothing is sorted. The rank of a right answer is one more than the number of nearer answers, wrong
and right. So it is enough to count, which `_ranking` does while distances are computed. `reference`
computes the same in NumPy, by sorting.

- the protocol decides what is left out of the gallery (`protocol`);
- tied distances rank in gallery order, and NaN, which only given distances may hold, ranks last;
- queries with no right answer left are excluded and counted in `num_skipped`.

With the right answers of a query at ranks r_1 < ... < r_P among what is left, its average precision
is the mean of i / r_i, and its inverse negative penalty P / r_P (Ye et al. 2021, "Deep Learning for
Person Re-identification"). Ranks are counted as integers, means taken of exact sums.

Ranking by features is exact: the ranks are those of the distances in float64, whatever the order of
summation in a matrix product. So they do not depend on tiles, threads or the machine. The ROC curve
is exact up to the rounding that `roc` describes.

Shapes: Q queries, G gallery images, D dimensions, K top places.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial, reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation import roc
from san_core.evaluation.kernels import streaming
from san_core.evaluation.kernels.compiled import _ranking
from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.kernels.operands import make_operands
from san_core.evaluation.kernels.rows import Features, Rows, as_rows
from san_core.evaluation.labels import Ids, Labels, labels_of
from san_core.evaluation.protocol import Protocol, RankingProblem, default_protocol, ranking_problem
from san_core.evaluation.roc import Roc

__all__ = ["Labels", "Ranking", "labels_of", "rank", "rank_distances"]


@dataclass(frozen=True, eq=False)
class Ranking:
    """How well a gallery was ranked; fractions are 0-1.

    Attributes:
        cmc: (max_rank,) float64, the share of judged queries with a right answer by rank 1, 2, ...
        mAP: mean average precision over the judged queries.
        mINP: mean inverse negative penalty over the judged queries.
        first_rank: (Q,) int64, rank of the first right answer, from 1; 0 where skipped.
        num_right: (Q,) int64, right answers left to each query.
        average_precision: (Q,) float64; NaN where skipped.
        inverse_penalty: (Q,) float64; NaN where skipped.
        top: (Q, K) int64, gallery indices of the nearest images that are not left out; -1 where
            fewer than K are.
        right: (Q, K) bool, whether they show the query's person.
        roc: the curve of all pairs of judged queries; None if it was not asked for, or no judged
            query has a wrong answer left.
        num_query: all queries, skipped ones included.
        num_gallery: all gallery images, junk included.
        num_skipped: queries with no right answer left.
        protocol: name of the protocol.
    """

    cmc: NDArray[np.float64]
    mAP: float  # noqa: N815 - the field's own word
    mINP: float  # noqa: N815
    first_rank: Ids
    num_right: Ids
    average_precision: NDArray[np.float64]
    inverse_penalty: NDArray[np.float64]
    top: Ids
    right: NDArray[np.bool_]
    roc: Roc | None
    num_query: int
    num_gallery: int
    num_skipped: int
    protocol: str

    def scores(self) -> dict[str, float]:
        """The five headline figures as fractions: rank1, rank5, rank10, mAP, mINP."""
        ranks = {f"rank{k}": float(self.cmc[k - 1]) for k in (1, 5, 10)}
        return {**ranks, "mAP": self.mAP, "mINP": self.mINP}


def rank(
    query_features: Features | Rows,
    gallery_features: Features | Rows,
    *,
    query: Labels,
    gallery: Labels,
    metric: str = "euclidean",
    protocol: Protocol | None = None,
    max_rank: int = 50,
    top_k: int = 10,
    with_roc: bool = False,
    threads: int | None = None,
) -> Ranking:
    """Ranks the gallery for each query by the distance of features, and scores it by the labels.

    Args:
        query_features: (Q, D) float32, or some rows of a matrix.
        gallery_features: (G, D) float32, or some rows of a matrix, such as a memory-mapped file.
        query: labels of the queries; every pid from 1.
        gallery: labels of the gallery.
        metric: "euclidean" or "cosine".
        protocol: what is left out; `protocol.default_protocol` by default.
        max_rank: length of the CMC curve, at least 10. Beyond the end of a gallery it is 1.
        top_k: how many of the nearest images are kept for each query; 0 is fastest.
        with_roc: whether to draw the ROC curve too, which takes longer.
        threads: cores to use, by default all this process may; the result is the same, but for
            the rounding of the ROC curve.

    Raises:
        ValueError: the features or labels do not fit each other, features are not finite, the
            gallery or the query is empty, a query shows no person, the protocol needs cameras that
            are unknown, or no query can be judged.
    """
    counting = _RankTally(
        query, gallery, protocol, max_rank=max_rank, top_k=top_k, with_roc=with_roc, threads=threads
    )
    counting.count_features(query_features, gallery_features, metric)
    return counting.ranking()


def rank_each_query(
    query_features: Features | Rows,
    gallery_features: Features | Rows,
    *,
    query: Labels,
    gallery: Labels,
    metric: str = "euclidean",
    protocol: Protocol | None = None,
    top_k: int = 0,
    threads: int | None = None,
) -> "QueryResults":
    """The results of `rank` for each query, without means; possibly no query can be judged.

    Args:
        query_features: as in `rank`.
        gallery_features: as in `rank`.
        query: as in `rank`.
        gallery: as in `rank`.
        metric: as in `rank`.
        protocol: as in `rank`.
        top_k: as in `rank`.
        threads: as in `rank`.

    Raises:
        ValueError: as `rank`, except where no query can be judged.
    """
    counting = _RankTally(
        query, gallery, protocol, max_rank=10, top_k=top_k, with_roc=False, threads=threads
    )
    counting.count_features(query_features, gallery_features, metric)
    return counting.results


def rank_distances(
    tiles: Iterable[Tile],
    *,
    query: Labels,
    gallery: Labels,
    protocol: Protocol | None = None,
    max_rank: int = 50,
    top_k: int = 10,
    with_roc: bool = False,
    threads: int | None = None,
) -> Ranking:
    """Ranks the gallery by given distances, whatever they come from; as `rank` otherwise.

    Args:
        tiles: distances of all queries in order; (rows, G) each, smaller is nearer.
        query: as in `rank`.
        gallery: as in `rank`.
        protocol: as in `rank`.
        max_rank: as in `rank`.
        top_k: as in `rank`.
        with_roc: as in `rank`.
        threads: as in `rank`.

    Raises:
        ValueError: as `rank`, or a tile has a wrong shape or type, or is out of order.
    """
    counting = _RankTally(
        query, gallery, protocol, max_rank=max_rank, top_k=top_k, with_roc=with_roc, threads=threads
    )
    counting.count_distances(tiles)
    return counting.ranking()


def rank_each_query_by_distances(
    tiles: Iterable[Tile],
    *,
    query: Labels,
    gallery: Labels,
    protocol: Protocol | None = None,
    threads: int | None = None,
) -> "QueryResults":
    """The results of `rank_distances` for each query, without means; possibly none can be judged.

    Arguments as in `rank_distances`.

    Raises:
        ValueError: as `rank_distances`, except where no query can be judged.
    """
    counting = _RankTally(
        query, gallery, protocol, max_rank=10, top_k=0, with_roc=False, threads=threads
    )
    counting.count_distances(tiles)
    return counting.results


class QueryResults(NamedTuple):
    """The results of each query; attributes as in `Ranking`, `right_bins` as uint8."""

    first_rank: Ids
    num_right: Ids
    average_precision: NDArray[np.float64]
    inverse_penalty: NDArray[np.float64]
    top: Ids
    right: NDArray[np.uint8]


class _RankTally:
    """A problem and its results while they are counted."""

    def __init__(
        self,
        query: Labels,
        gallery: Labels,
        protocol: Protocol | None,
        *,
        max_rank: int,
        top_k: int,
        with_roc: bool,
        threads: int | None,
    ) -> None:
        check_rank_limits(max_rank=max_rank, top_k=top_k)
        self.query, self.gallery, self.max_rank = query, gallery, max_rank
        self.protocol = protocol or default_protocol(query)
        self.threads = usable_threads(threads)
        self.problem: RankingProblem = ranking_problem(query, gallery, self.protocol)
        self.results = empty_results(len(query.pids), top_k)
        # Of wrong answers by thread; of right ones, which are counted one thread at a time.
        self.wrong_bins = np.zeros((self.threads, _ranking.BINS), np.int64) if with_roc else None
        self.right_bins = np.zeros(_ranking.BINS, np.int64) if with_roc else None
        self._counter_factory = partial(_ranking.Counter, self.problem, self.results, top_k=top_k)

    def make_counter(self, *, first: int, size: int, worker: int) -> "_ranking.Counter":
        wrong = None if self.wrong_bins is None else self.wrong_bins[worker]
        return self._counter_factory(first=first, size=size, bins=wrong, right_bins=self.right_bins)

    def count_features(self, query: Features | Rows, gallery: Features | Rows, metric: str) -> None:
        asked, searched = as_rows("query", query), as_rows("gallery", gallery)
        moved = make_operands(asked, searched, metric)
        for role, features, labels in (
            ("query", asked, self.query),
            ("gallery", searched, self.gallery),
        ):
            n = len(labels.pids)
            if len(features) != n:
                raise ValueError(f"{len(features)} {role} features but {n} {role} pids")
        shape = streaming.choose_tile_shape(
            len(asked),
            len(searched),
            dim=asked.matrix.shape[1],
            widest=self.problem.widest,
            threads=self.threads,
        )
        streaming.count_by_features(
            moved, metric, self.make_counter, shape=shape, threads=self.threads
        )

    def count_distances(self, tiles: Iterable[Tile]) -> None:
        num_query, done = len(self.query.pids), 0
        for rows, distances in tiles:
            check_tile(rows, distances, start=done, shape=(num_query, len(self.gallery.pids)))
            counter = self.make_counter(first=done, size=len(distances), worker=0)
            counter.count_distances(
                np.ascontiguousarray(distances), bins=self.wrong_bins, threads=self.threads
            )
            done = rows.stop
        if done != num_query:
            raise ValueError(f"distances were given for {done} of {num_query} queries")

    def ranking(self) -> Ranking:
        curve = None
        if self.wrong_bins is not None and self.right_bins is not None:
            right, wrong = self.right_bins, reduce(np.add, self.wrong_bins)
            curve = roc.roc_from_bins(right, wrong) if right.any() and wrong.any() else None
        return make_ranking(
            self.results,
            self.query,
            self.gallery,
            protocol=self.protocol,
            max_rank=self.max_rank,
            curve=curve,
        )


def make_ranking(
    results: QueryResults,
    query: Labels,
    gallery: Labels,
    *,
    protocol: Protocol,
    max_rank: int,
    curve: Roc | None,
) -> Ranking:
    """The ranking made from the results of all queries.

    Raises:
        ValueError: no query can be judged.
    """
    judged = results.first_rank > 0
    if not judged.any():
        raise ValueError(_no_judged_query_message(query, gallery, protocol))
    return Ranking(
        cmc=_cmc(results.first_rank[judged], max_rank),
        mAP=exact_mean(results.average_precision[judged]),
        mINP=exact_mean(results.inverse_penalty[judged]),
        **{**results._asdict(), "right": results.right.view(np.bool_)},
        roc=curve,
        num_query=len(query.pids),
        num_gallery=len(gallery.pids),
        num_skipped=int(len(query.pids) - judged.sum()),
        protocol=protocol.name,
    )


def exact_mean(values: NDArray[np.float64]) -> float:
    """The mean from a sum that is rounded once, so it does not depend on the order of queries."""
    return math.fsum(values.tolist()) / len(values)


def empty_results(num_query: int, top_k: int) -> QueryResults:
    """Empty results, for queries not yet judged."""
    return QueryResults(
        first_rank=np.zeros(num_query, np.int64),
        num_right=np.zeros(num_query, np.int64),
        average_precision=np.full(num_query, np.nan),
        inverse_penalty=np.full(num_query, np.nan),
        top=np.full((num_query, top_k), -1, np.int64),
        right=np.zeros((num_query, top_k), np.uint8),
    )


def usable_threads(threads: int | None) -> int:
    """The given number of threads, or as many as this process may use.

    Raises:
        ValueError: it is less than 1.
    """
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if threads < 1:
        raise ValueError(f"threads is {threads}; it must be at least 1")
    return threads


def check_rank_limits(*, max_rank: int, top_k: int) -> None:
    """Check the lengths of a CMC curve and of the top.

    Raises:
        ValueError: the curve is too short for the figures, or the top is negative.
    """
    if max_rank < 10:
        raise ValueError(f"max_rank is {max_rank}; rank 10 is reported, so it must be at least 10")
    if top_k < 0:
        raise ValueError(f"top_k is {top_k}; it must be at least 0")


def check_tile(
    rows: slice, distances: NDArray[np.float32], *, start: int, shape: tuple[int, int]
) -> None:
    """Check that a tile holds the distances from query `start` on; shape: (Q, G) of all of them.

    Raises:
        ValueError: its shape or type is wrong, or it goes beyond the queries.
    """
    num_query, gallery = shape
    if rows.start != start or distances.shape != (rows.stop - rows.start, gallery):
        raise ValueError(
            f"distances of shape {distances.shape} for queries {rows.start} to {rows.stop}; "
            f"expected those from query {start} on, {gallery} each"
        )
    if rows.stop > num_query:
        raise ValueError(
            f"distances for queries {rows.start} to {rows.stop}, but there are {num_query}"
        )
    if distances.dtype != np.float32:
        raise ValueError(f"distances are {distances.dtype}; expected float32")


def _cmc(first_rank: Ids, max_rank: int) -> NDArray[np.float64]:
    counts = np.bincount(np.minimum(first_rank, max_rank + 1), minlength=max_rank + 2)
    return np.cumsum(counts[1 : max_rank + 1]) / len(first_rank)


def _no_judged_query_message(query: Labels, gallery: Labels, protocol: Protocol) -> str:
    absent = int(np.isin(query.pids, gallery.pids, invert=True).sum())
    why = f"{absent} show a person who is not in the gallery"
    if protocol.needs_cameras:
        cameras = "the query's own camera" + (
            " or by one that the protocol leaves out with it" if protocol.barred else ""
        )
        why += (
            f", and {len(query.pids) - absent} a person whose gallery images are all by {cameras}"
        )
    remedy = ", or use the protocol camera-free" if protocol.needs_cameras else ""
    return (
        f"none of the {len(query.pids)} queries has a right answer left in the gallery by protocol "
        f"{protocol.name}: {why}; check the labels{remedy}"
    )
