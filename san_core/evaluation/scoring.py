"""One set of features under several protocols, with and without re-ranking.

Beside those of `protocol.PROTOCOLS` there are `multi-query` and `single-gallery-shot`, which leave
out of the gallery what `protocol.usual` does.

Shapes: Q queries, G gallery images, M images that multi-query pools.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from san_core.data.records import JUNK
from san_core.evaluation import distance, single_shot
from san_core.evaluation.distance import Tile
from san_core.evaluation.labels import Labels
from san_core.evaluation.multi_query import pool
from san_core.evaluation.protocol import PROTOCOLS, Protocol, usual
from san_core.evaluation.ranking import Ranking, rank, rank_distances
from san_core.evaluation.rerank import rerank
from san_core.evaluation.rows import Rows, rows

MULTI_QUERY = "multi-query"
SINGLE_SHOT = "single-gallery-shot"
NAMES = (*PROTOCOLS, MULTI_QUERY, SINGLE_SHOT)
AUTO = "auto"


@dataclass(frozen=True, eq=False)
class Embedded:
    """Images that were embedded: queries (Q,), a gallery (G,) and those multi-query pools (M,)."""

    query_features: Rows
    gallery_features: Rows
    pooled_features: Rows
    query: Labels
    gallery: Labels
    pooled: Labels
    metric: str


class Scored(NamedTuple):
    """The figures of one protocol as fractions; `ranking` holds the counts, and all else but CMC.

    `scores` has `mAP` or, for single-gallery-shot, `mAP_of_draw` and `mAP_of_gallery`.
    """

    protocol: str
    reranked: bool
    scores: dict[str, float]
    ranking: Ranking


def protocols(text: str, query: Labels) -> list[str]:
    """The protocols that a text names, separated by blanks or commas, in their order.

    "auto" is `market1501` where cameras are known, `camera-free` elsewhere.

    Raises:
        ValueError: there is none, an unknown one, or one twice.
    """
    words = text.replace(",", " ").split()
    names = [usual(query).name if word == AUTO else word for word in words]
    if unknown := [name for name in names if name not in NAMES]:
        raise ValueError(f"no protocol '{unknown[0]}'; there are {', '.join((AUTO, *NAMES))}")
    if not names:
        raise ValueError(f"no protocol is named; there are {', '.join((AUTO, *NAMES))}")
    if len(set(names)) < len(names):
        raise ValueError(f"protocol {max(names, key=names.count)} is named twice")
    return names


def headline(names: Sequence[str], query: Labels) -> str:
    """The protocol whose ranked galleries are shown: the first that ranks images one by one."""
    return next((name for name in names if name in PROTOCOLS), usual(query).name)


def score(
    images: Embedded,
    name: str,
    *,
    reranked: bool = False,
    top_k: int = 0,
    with_roc: bool = False,
    threads: int | None = None,
) -> Scored:
    """The figures of a protocol.

    Args:
        images: what was embedded.
        name: one of `NAMES`.
        reranked: whether by re-ranked distances; junk, which no protocol ranks, is then left out
            of the gallery before.
        top_k: as in `ranking.rank`; the indices are those of the gallery that is ranked.
        with_roc: as in `ranking.rank`.
        threads: as in `ranking.rank`.

    Raises:
        ValueError: the protocol cannot be followed with these images.
    """
    if name == MULTI_QUERY:
        images = _pooled(images)
    if reranked:
        images = _without_junk(images)
    follow = PROTOCOLS.get(name) or usual(images.query)
    if name == SINGLE_SHOT:
        shot = single_shot.exact(
            _distances(images, reranked=reranked, threads=threads),
            query=images.query,
            gallery=images.gallery,
            protocol=follow,
            threads=threads,
        )
        return Scored(name, reranked, shot.scores(), shot.ranking)
    ranking = _rank(
        images, follow, reranked=reranked, top_k=top_k, with_roc=with_roc, threads=threads
    )
    return Scored(name, reranked, ranking.scores(), ranking)


def _rank(
    images: Embedded,
    protocol: Protocol,
    *,
    reranked: bool,
    top_k: int,
    with_roc: bool,
    threads: int | None,
) -> Ranking:
    if reranked:
        return rank_distances(
            _distances(images, reranked=True, threads=threads),
            query=images.query,
            gallery=images.gallery,
            protocol=protocol,
            top_k=top_k,
            with_roc=with_roc,
            threads=threads,
        )
    return rank(
        images.query_features,
        images.gallery_features,
        query=images.query,
        gallery=images.gallery,
        metric=images.metric,
        protocol=protocol,
        top_k=top_k,
        with_roc=with_roc,
        threads=threads,
    )


def _distances(images: Embedded, *, reranked: bool, threads: int | None) -> Iterator[Tile]:
    features = images.query_features, images.gallery_features
    if reranked:
        return rerank(*features, metric=images.metric, threads=threads)
    return distance.tiles(*features, metric=images.metric)


def _pooled(images: Embedded) -> Embedded:
    features, labels = pool(images.pooled_features, images.pooled, metric=images.metric)
    return replace(images, query_features=rows(features), query=labels)


def _without_junk(images: Embedded) -> Embedded:
    left = np.flatnonzero(images.gallery.pids != JUNK)
    return replace(
        images,
        gallery_features=images.gallery_features.some(left),
        gallery=images.gallery.take(left),
    )
