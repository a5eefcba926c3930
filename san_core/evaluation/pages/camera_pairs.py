"""How well each camera's queries are matched in each other camera.

Shapes: Q queries, G gallery images.
"""

from typing import NamedTuple

import numpy as np

from san_core.evaluation.kernels.rows import Rows
from san_core.evaluation.labels import Labels
from san_core.evaluation.protocol import Protocol
from san_core.evaluation.ranking import exact_mean, rank_each_query


class CameraPair(NamedTuple):
    """The queries of one camera, ranked in the gallery images of another; fractions are 0-1.

    `num_query` counts those that can be judged; cameras are 0-based.
    """

    query_camera: int
    gallery_camera: int
    num_query: int
    rank1: float
    mAP: float  # noqa: N815 - the field's own word


def score_camera_pairs(
    query_features: Rows,
    gallery_features: Rows,
    *,
    query: Labels,
    gallery: Labels,
    metric: str,
    protocol: Protocol,
    threads: int | None = None,
) -> list[CameraPair]:
    """The figures of every pair of cameras in which a query can be judged, in their order.

    The gallery is reduced to one camera at a time, so that together it is ranked once more.

    Args:
        query_features: (Q, D).
        gallery_features: (G, D).
        query: labels of the queries.
        gallery: labels of the gallery.
        metric: "euclidean" or "cosine".
        protocol: what is left out.
        threads: as in `ranking.rank`.

    Raises:
        ValueError: cameras are unknown, or `ranking.rank_each_query` finds fault.
    """
    if query.camids is None or gallery.camids is None:
        raise ValueError("cameras are unknown, so there are no pairs of them")
    found = []
    for camera in np.unique(gallery.camids):
        there = np.flatnonzero(gallery.camids == camera)
        results = rank_each_query(
            query_features,
            gallery_features.subset(there),
            query=query,
            gallery=gallery.take(there),
            metric=metric,
            protocol=protocol,
            threads=threads,
        )
        for asking in np.unique(query.camids):
            judged = (query.camids == asking) & (results.first_rank > 0)
            if judged.any():
                found.append(
                    CameraPair(
                        int(asking),
                        int(camera),
                        int(judged.sum()),
                        float((results.first_rank[judged] == 1).mean()),
                        exact_mean(results.average_precision[judged]),
                    )
                )
    return sorted(found)
