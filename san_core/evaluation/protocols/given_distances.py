"""Scores by a given matrix of distances.

Shapes: Q queries, G gallery images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation.kernels.distance import Distances, Tile, matrix_tiles
from san_core.evaluation.labels import Ids, Labels
from san_core.evaluation.protocol import Protocol
from san_core.evaluation.protocols.scoring import (
    DERIVED_PROTOCOLS,
    MULTI_QUERY,
    ProtocolScores,
    parse_protocol,
    score_gallery_shot,
)
from san_core.evaluation.ranking import (
    QueryResults,
    rank_distances,
    rank_each_query_by_distances,
)


@dataclass(frozen=True, eq=False)
class MeasuredImages:
    """Queries and a gallery, and the distances between them.

    `matrix` holds distances (smaller is nearer); it may cover more images and may be a memory map.
    `rows` (Q,) and `columns` (G,) select its rows and columns.
    """

    matrix: Distances
    rows: Ids
    columns: Ids
    query: Labels
    gallery: Labels

    def tiles(self, among: Ids | None = None) -> Iterator[Tile]:
        """The distances tile by tile; if `among` is given, only to those gallery images."""
        columns = self.columns if among is None else self.columns[among]
        return matrix_tiles(self.matrix, rows=self.rows, columns=columns)


class DistanceScorer:
    """Scores images by several protocols, as `scoring.Scorer` does from features."""

    def __init__(self, images: MeasuredImages, *, threads: int | None = None) -> None:
        self.images, self.threads = images, threads

    def score(
        self, name: str, *, reranked: bool = False, top_k: int = 0, with_roc: bool = False
    ) -> ProtocolScores:
        """The scores of a protocol; arguments as in `scoring.Scorer.score`.

        Raises:
            ValueError: the protocol, or re-ranking, needs features.
        """
        word, follow = parse_protocol(name, self.images.query)
        if word == MULTI_QUERY or reranked:
            what = (
                "re-ranking needs distances within the gallery"
                if reranked
                else (f"{MULTI_QUERY} takes means of features")
            )
            raise ValueError(f"{what}, and distances of queries to the gallery alone were given")
        same: dict[str, Any] = {
            "query": self.images.query,
            "gallery": self.images.gallery,
            "threads": self.threads,
        }
        if word in DERIVED_PROTOCOLS:
            shot = score_gallery_shot(word, self.images.tiles(), follow=follow, **same)
            return ProtocolScores(name, False, shot.scores(), shot.cmc, shot.ranking)
        ranking = rank_distances(
            self.images.tiles(), protocol=follow, top_k=top_k, with_roc=with_roc, **same
        )
        return ProtocolScores(name, False, ranking.scores(), ranking.cmc, ranking)

    def measure(self, i: int, places: Ids) -> NDArray[np.float64]:
        """The distances of query `i` to the gallery images at some places."""
        images = self.images
        row: NDArray[np.float64] = images.matrix[images.rows[i], images.columns[places]].astype(
            np.float64
        )
        return row

    def rank_among(self, there: Ids, protocol: Protocol) -> QueryResults:
        """The ranking of the gallery images at `there` for each query."""
        return rank_each_query_by_distances(
            self.images.tiles(there),
            query=self.images.query,
            gallery=self.images.gallery.take(there),
            protocol=protocol,
            threads=self.threads,
        )
