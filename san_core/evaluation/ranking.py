"""Ranking a gallery for each query, and the figures ReID papers give: CMC, mAP and mINP.

The protocol is Market-1501's, single query (Zheng et al. 2015):

- gallery images of the query's person from the query's camera are left out;
- junk (pid -1) is left out; distractors (pid 0) stay, as wrong answers;
- tied distances rank in gallery order;
- queries with no right answer left are excluded and counted in `num_skipped`;
- where no camera is known (camids None) nothing is left out but junk.

With the right answers of a query at ranks r_1 < ... < r_P among what is left, its average precision
is the mean of i / r_i, and its inverse negative penalty P / r_P (Ye et al. 2021, "Deep Learning for
Person Re-identification"). Ranks are counted as integers, means taken in float64.

Shapes: Q queries, G gallery images, K top places.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.data.records import JUNK, Labelled
from san_core.evaluation import distance
from san_core.evaluation.distance import Features, Tile

Ids = NDArray[np.int64]


class Labels(NamedTuple):
    """Whom images show and which camera took them.

    `pids` is (N,): people from 1, in a gallery also 0 (distractor) and -1 (junk). `camids` is (N,),
    0-based, or None where cameras are unknown.
    """

    pids: Ids
    camids: Ids | None


def labels_of(records: Iterable[Labelled]) -> Labels:
    """The labels of records, in their order; `camids` is None if no record knows its camera.

    Raises:
        ValueError: a person is unknown, or a camera while others are known.
    """
    records = list(records)
    for record in records:
        if record.pid is None:
            raise ValueError(f"{record.name}: no pid, so a ranking cannot be judged by it")
    pids = np.array([record.pid for record in records], np.int64)
    without = [record.name for record in records if record.camid is None]
    if len(without) == len(records):
        return Labels(pids, None)
    if without:
        raise ValueError(
            f"{without[0]}: no camid, as {len(without)} of {len(records)} images; "
            "either every image has one or none"
        )
    return Labels(pids, np.array([record.camid for record in records], np.int64))


@dataclass(frozen=True, eq=False)
class Ranking:
    """How well a gallery was ranked; fractions are 0-1.

    Attributes:
        cmc: (max_rank,) float64, the share of judged queries with a right answer by rank 1, 2, ...
        mAP: mean average precision over the judged queries.
        mINP: mean inverse negative penalty over the judged queries.
        first_rank: (Q,) int64, rank of the first right answer, from 1; 0 where skipped.
        average_precision: (Q,) float64; NaN where skipped.
        top: (Q, K) int64, gallery indices of the nearest images that are not left out; -1 where
            fewer than K are.
        right: (Q, K) bool, whether they show the query's person.
        num_query: all queries, skipped ones included.
        num_gallery: all gallery images, junk included.
        num_skipped: queries with no right answer left.
        camera_rule: whether cameras were known, and so same-camera images left out.
    """

    cmc: NDArray[np.float64]
    mAP: float  # noqa: N815 - the field's own word
    mINP: float  # noqa: N815
    first_rank: Ids
    average_precision: NDArray[np.float64]
    top: Ids
    right: NDArray[np.bool_]
    num_query: int
    num_gallery: int
    num_skipped: int
    camera_rule: bool

    def scores(self) -> dict[str, float]:
        """The five headline figures as fractions: rank1, rank5, rank10, mAP, mINP."""
        ranks = {f"rank{k}": float(self.cmc[k - 1]) for k in (1, 5, 10)}
        return {**ranks, "mAP": self.mAP, "mINP": self.mINP}


def rank(
    query_features: Features,
    gallery_features: Features,
    *,
    query: Labels,
    gallery: Labels,
    metric: str = "euclidean",
    max_rank: int = 50,
    top_k: int = 10,
) -> Ranking:
    """Ranks the gallery for each query by the distance of features, and judges it by the labels.

    Args:
        query_features: (Q, D) float32.
        gallery_features: (G, D) float32.
        query: labels of the queries; every pid from 1.
        gallery: labels of the gallery.
        metric: "euclidean" or "cosine", see `distance.tiles`.
        max_rank: length of the CMC curve, at least 10. It stays 1 beyond the end of a gallery.
        top_k: how many of the nearest images are kept for each query.

    Raises:
        ValueError: the features or labels do not fit each other, features are not finite, the
            gallery or the query is empty, a query shows no person, or no query can be judged.
    """
    tiles = distance.tiles(query_features, gallery_features, metric=metric)
    for role, features, labels in (
        ("query", query_features, query),
        ("gallery", gallery_features, gallery),
    ):
        if len(features) != len(labels.pids):
            raise ValueError(f"{len(features)} {role} features but {len(labels.pids)} {role} pids")
    return rank_distances(tiles, query=query, gallery=gallery, max_rank=max_rank, top_k=top_k)


def rank_distances(
    tiles: Iterable[Tile], *, query: Labels, gallery: Labels, max_rank: int = 50, top_k: int = 10
) -> Ranking:
    """Ranks the gallery by given distances, whatever they come from; as `rank` otherwise.

    Args:
        tiles: distances of all queries in order; (rows, G) each, smaller is nearer.
        query: as in `rank`.
        gallery: as in `rank`.
        max_rank: as in `rank`.
        top_k: as in `rank`.

    Raises:
        ValueError: as `rank`, or a tile has a wrong shape, is out of order, or holds NaN.
    """
    _check_labels(query, gallery)
    if max_rank < 10:
        raise ValueError(f"max_rank is {max_rank}; rank 10 is reported, so it must be at least 10")
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be at least 1")
    Q, G = len(query.pids), len(gallery.pids)
    first_rank = np.zeros(Q, np.int64)
    average_precision = np.full(Q, np.nan)
    inverse_penalty = np.full(Q, np.nan)
    top = np.full((Q, top_k), -1, np.int64)
    right = np.zeros((Q, top_k), np.bool_)

    done = 0
    for rows, distances in tiles:
        _check_tile(rows, distances, start=done, gallery=G)
        done = rows.stop
        for i, row in enumerate(distances, start=rows.start):
            order = _order(row, _left_out(query, i, gallery))
            matches = gallery.pids[order] == query.pids[i]
            nearest = order[:top_k]
            top[i, : len(nearest)] = nearest
            right[i, : len(nearest)] = matches[:top_k]
            ranks = np.flatnonzero(matches) + 1  # (P,), ascending
            if len(ranks):
                first_rank[i] = ranks[0]
                average_precision[i] = np.mean(np.arange(1, len(ranks) + 1) / ranks)
                inverse_penalty[i] = len(ranks) / ranks[-1]
    if done != Q:
        raise ValueError(f"distances were given for {done} of {Q} queries")

    judged = first_rank > 0
    if not judged.any():
        raise ValueError(_why_none(query, gallery))
    return Ranking(
        cmc=_cmc(first_rank[judged], max_rank),
        mAP=float(average_precision[judged].mean()),
        mINP=float(inverse_penalty[judged].mean()),
        first_rank=first_rank,
        average_precision=average_precision,
        top=top,
        right=right,
        num_query=Q,
        num_gallery=G,
        num_skipped=int(Q - judged.sum()),
        camera_rule=query.camids is not None,
    )


def _left_out(query: Labels, i: int, gallery: Labels) -> NDArray[np.bool_]:
    left_out: NDArray[np.bool_] = gallery.pids == JUNK
    if query.camids is not None and gallery.camids is not None:
        left_out |= (gallery.pids == query.pids[i]) & (gallery.camids == query.camids[i])
    return left_out


def _order(distances: NDArray[np.float32], left_out: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Gallery indices that are not left out, nearest first, tied ones in gallery order."""
    order = np.argsort(distances, kind="stable")
    return order[~left_out[order]]


def _cmc(first_rank: Ids, max_rank: int) -> NDArray[np.float64]:
    counts = np.bincount(np.minimum(first_rank, max_rank + 1), minlength=max_rank + 2)
    return np.cumsum(counts[1 : max_rank + 1]) / len(first_rank)


def _check_labels(query: Labels, gallery: Labels) -> None:
    for role, labels in (("query", query), ("gallery", gallery)):
        if len(labels.pids) == 0:
            raise ValueError(f"the {role} is empty: there is nothing to rank")
        if labels.camids is not None and len(labels.camids) != len(labels.pids):
            raise ValueError(f"{len(labels.pids)} {role} pids but {len(labels.camids)} camids")
    if (query.camids is None) != (gallery.camids is None):
        known, unknown = ("gallery", "query") if query.camids is None else ("query", "gallery")
        raise ValueError(
            f"the {known} has camids and the {unknown} has none: give both, or neither to rank "
            "without the camera rule"
        )
    for role, labels, lowest in (("query", query, 1), ("gallery", gallery, JUNK)):
        if labels.pids.min() < lowest:
            i = int(np.argmax(labels.pids < lowest))
            raise ValueError(
                f"{role} {i} has pid {labels.pids[i]}; people are numbered from 1, and only a "
                f"gallery may hold distractors (0) and junk ({JUNK})"
            )


def _check_tile(rows: slice, distances: NDArray[np.float32], *, start: int, gallery: int) -> None:
    if rows.start != start or distances.shape != (rows.stop - rows.start, gallery):
        raise ValueError(
            f"distances of shape {distances.shape} for queries {rows.start} to {rows.stop}; "
            f"expected those from query {start} on, {gallery} each"
        )
    nan = np.isnan(distances).any(axis=1)
    if nan.any():
        raise ValueError(f"the distances of query {rows.start + int(np.argmax(nan))} hold NaN")


def _why_none(query: Labels, gallery: Labels) -> str:
    absent = int(np.isin(query.pids, gallery.pids, invert=True).sum())
    one_camera = len(query.pids) - absent
    return (
        f"none of the {len(query.pids)} queries has a right answer left in the gallery: "
        f"{absent} show a person who is not in it, and {one_camera} one whom only the query's own "
        "camera saw; check the labels, or leave cameras out to rank without the camera rule"
    )
