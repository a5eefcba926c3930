"""One set of features under several protocols, with and without re-ranking.

In addition to `protocol.PROTOCOLS` there are derived protocols. They change the queries or the
gallery, and leave out of the gallery what one of those does: `protocol.default_protocol`, or the
one named after a colon, such as "sampled-gallery-shot:sysu-mm01":

- `multi-query`: a query is the mean of a person's images by one camera;
- `single-gallery-shot`: the gallery has one image of each person; the expectation over all draws;
- `sampled-gallery-shot`: the same by `DRAWS` draws from a seed, as in older papers; one image of
  each person and camera if the protocol draws that way.

Shapes: Q queries, G gallery images, M images that multi-query pools.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.data.records import JUNK
from san_core.evaluation.kernels import distance
from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.kernels.rows import Rows, select_rows
from san_core.evaluation.labels import Ids, Labels
from san_core.evaluation.protocol import PROTOCOLS, Protocol, default_protocol
from san_core.evaluation.protocols import single_shot
from san_core.evaluation.protocols.multi_query import pool_queries
from san_core.evaluation.ranking import (
    QueryResults,
    Ranking,
    rank,
    rank_distances,
    rank_each_query,
)
from san_core.evaluation.rerank import RerankEncoding, encode_neighbours

MULTI_QUERY = "multi-query"
SINGLE_SHOT = "single-gallery-shot"
SAMPLED_SHOT = "sampled-gallery-shot"
DERIVED_PROTOCOLS = (MULTI_QUERY, SINGLE_SHOT, SAMPLED_SHOT)
PROTOCOL_NAMES = (*PROTOCOLS, *DERIVED_PROTOCOLS)
AUTO = "auto"
# Draws of `sampled-gallery-shot`, and their seed.
DRAWS, DRAW_SEED = 10, 0


@dataclass(frozen=True, eq=False)
class EmbeddedImages:
    """Embedded images: queries (Q,), a gallery (G,) and the images that multi-query pools (M,)."""

    query_features: Rows
    gallery_features: Rows
    pooled_features: Rows
    query: Labels
    gallery: Labels
    pooled: Labels
    metric: str


class ParsedProtocol(NamedTuple):
    """The parsed name of a protocol: its first word, and the protocol for the gallery."""

    word: str
    follow: Protocol


class ProtocolScores(NamedTuple):
    """The scores of one protocol as fractions; `ranking` holds the counts and everything else.

    `protocol` is the name that was asked for, `ranking.protocol` the protocol for the gallery.
    `scores` has `mAP` or, for a gallery shot, `mAP_of_draw` and `mAP_of_gallery`; `cmc` is the
    curve, (K,) float64.
    """

    protocol: str
    reranked: bool
    scores: dict[str, float]
    cmc: NDArray[np.float64]
    ranking: Ranking


def parse_protocols(text: str, query: Labels, *, own: str = "") -> list[str]:
    """The protocols that a text names, separated by blanks or commas, in their order.

    "auto" is `own`, the protocol of the data set. If that is empty, it is `market1501` with known
    cameras and `camera-free` without.

    Raises:
        ValueError: no protocol is named, one is unknown, or one is named twice.
    """
    words = text.replace(",", " ").split()
    names = [(own or default_protocol(query).name) if word == AUTO else word for word in words]
    for name in names:
        parse_protocol(name, query)
    if not names:
        raise ValueError(f"no protocol is named; there are {', '.join((AUTO, *PROTOCOL_NAMES))}")
    if len(set(names)) < len(names):
        raise ValueError(f"protocol {max(names, key=names.count)} is given twice")
    return names


def parse_protocol(name: str, query: Labels) -> ParsedProtocol:
    """The parsed name.

    Raises:
        ValueError: there is no such protocol, or its expectation over draws is not available.
    """
    word, colon, follow = name.partition(":")
    if word not in PROTOCOL_NAMES:
        raise ValueError(f"no protocol '{word}'; there are {', '.join((AUTO, *PROTOCOL_NAMES))}")
    if not colon:
        return ParsedProtocol(word, PROTOCOLS.get(word) or default_protocol(query))
    if word in PROTOCOLS or follow not in PROTOCOLS:
        raise ValueError(
            f"no protocol '{name}'; one of {', '.join(DERIVED_PROTOCOLS)} may be followed by a "
            f"colon and one of {', '.join(PROTOCOLS)}"
        )
    if word == SINGLE_SHOT:
        single_shot.check_has_expectation(PROTOCOLS[follow])
    return ParsedProtocol(word, PROTOCOLS[follow])


def ranked_gallery_protocol(name: str, query: Labels) -> str:
    """The protocol for the gallery of `name`, which ranks single images and can be shown."""
    return parse_protocol(name, query).follow.name


class Scorer:
    """Scores images by several protocols; shared intermediate results are computed once.

    images: the embedded images. threads: as in `ranking.rank`.
    """

    def __init__(self, images: EmbeddedImages, *, threads: int | None = None) -> None:
        self.images, self.threads = images, threads

    def score(
        self, name: str, *, reranked: bool = False, top_k: int = 0, with_roc: bool = False
    ) -> ProtocolScores:
        """The scores of a protocol.

        Args:
            name: one of `PROTOCOL_NAMES`, as in `parse_protocols`.
            reranked: whether to use re-ranked distances; junk, which no protocol ranks, is then
                removed from the gallery first.
            top_k: as in `ranking.rank`; indices refer to the ranked gallery. Must be 0 for a
                gallery shot.
            with_roc: as in `ranking.rank`; not for a gallery shot.

        Raises:
            ValueError: the protocol does not apply to these images.
        """
        word, follow = parse_protocol(name, self.images.query)
        if word == MULTI_QUERY:
            scored = self._pooled_scorer.score(
                follow.name, reranked=reranked, top_k=top_k, with_roc=with_roc
            )
            return scored._replace(protocol=name)
        images = self._images_without_junk if reranked else self.images
        if word in (SINGLE_SHOT, SAMPLED_SHOT):
            shot = score_gallery_shot(
                word,
                self._distance_tiles(reranked=reranked),
                query=images.query,
                gallery=images.gallery,
                follow=follow,
                threads=self.threads,
            )
            return ProtocolScores(name, reranked, shot.scores(), shot.cmc, shot.ranking)
        ranking = self._rank(images, follow, reranked=reranked, top_k=top_k, with_roc=with_roc)
        return ProtocolScores(name, reranked, ranking.scores(), ranking.cmc, ranking)

    def measure(self, i: int, places: Ids) -> NDArray[np.float64]:
        """The distances of query `i` to the gallery images at some places."""
        images = self.images
        return distance.distances_between(
            images.query_features, i, images.gallery_features, places, metric=images.metric
        )

    def rank_among(self, there: Ids, protocol: Protocol) -> QueryResults:
        """The ranking of the gallery images at `there` for each query."""
        images = self.images
        return rank_each_query(
            images.query_features,
            images.gallery_features.subset(there),
            query=images.query,
            gallery=images.gallery.take(there),
            metric=images.metric,
            protocol=protocol,
            threads=self.threads,
        )

    @cached_property
    def _pooled_scorer(self) -> "Scorer":
        images = self.images
        features, query = pool_queries(
            images.pooled_features, images.pooled, query=images.query, metric=images.metric
        )
        pooled = replace(images, query_features=select_rows(features), query=query)
        return Scorer(pooled, threads=self.threads)

    @cached_property
    def _images_without_junk(self) -> EmbeddedImages:
        images = self.images
        left = np.flatnonzero(images.gallery.pids != JUNK)
        return replace(
            images,
            gallery_features=images.gallery_features.subset(left),
            gallery=images.gallery.take(left),
        )

    @cached_property
    def _rerank_encoding(self) -> RerankEncoding:
        images = self._images_without_junk
        return encode_neighbours(
            images.query_features,
            images.gallery_features,
            metric=images.metric,
            threads=self.threads,
        )

    def _distance_tiles(self, *, reranked: bool) -> Iterator[Tile]:
        if reranked:
            return self._rerank_encoding.tiles()
        images = self.images
        return distance.distance_tiles(
            images.query_features,
            images.gallery_features,
            metric=images.metric,
            threads=self.threads,
        )

    def _rank(
        self,
        images: EmbeddedImages,
        follow: Protocol,
        *,
        reranked: bool,
        top_k: int,
        with_roc: bool,
    ) -> Ranking:
        if reranked:
            return rank_distances(
                self._distance_tiles(reranked=True),
                query=images.query,
                gallery=images.gallery,
                protocol=follow,
                top_k=top_k,
                with_roc=with_roc,
                threads=self.threads,
            )
        return rank(
            images.query_features,
            images.gallery_features,
            query=images.query,
            gallery=images.gallery,
            metric=images.metric,
            protocol=follow,
            top_k=top_k,
            with_roc=with_roc,
            threads=self.threads,
        )


def score_gallery_shot(
    word: str,
    tiles: Iterable[Tile],
    *,
    query: Labels,
    gallery: Labels,
    follow: Protocol,
    threads: int | None,
) -> single_shot.SingleShot:
    """The figures of a gallery shot, exact or sampled as `word` says; arguments as in `ranking`."""
    if word == SAMPLED_SHOT:
        return single_shot.sampled_single_shot(
            tiles,
            query=query,
            gallery=gallery,
            protocol=follow,
            draws=DRAWS,
            seed=DRAW_SEED,
            threads=threads,
        )
    return single_shot.expected_single_shot(
        tiles, query=query, gallery=gallery, protocol=follow, threads=threads
    )
