"""Scores by pair of cameras: the queries of one in the gallery images of another.

Shapes: Q queries, G gallery images.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from san_core.evaluation.labels import Ids, Labels
from san_core.evaluation.ranking import QueryResults, exact_mean


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
    rank_among: Callable[[Ids], QueryResults], *, query: Labels, gallery: Labels
) -> list[CameraPair]:
    """The scores of every pair of cameras with a scorable query, in order.

    The gallery is ranked one camera at a time, which in total is one more ranking.

    Args:
        rank_among: ranks the gallery images at some positions for each query, such as
            `Scorer.rank_among` with a protocol.
        query: labels of the queries.
        gallery: labels of the gallery.

    Raises:
        ValueError: cameras are unknown, or as in `rank_among`.
    """
    if query.camids is None or gallery.camids is None:
        raise ValueError("cameras are unknown, so there are no pairs of them")
    found = []
    for camera in np.unique(gallery.camids):
        results = rank_among(np.flatnonzero(gallery.camids == camera))
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
