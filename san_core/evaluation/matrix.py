"""CMC, mAP and mINP of a distance matrix, in one call.

from san_core.evaluation.matrix import rank

found = rank(distances, query_ids, gallery_ids, query_cameras, gallery_cameras)
print(found.scores())  # rank1, rank5, rank10, mAP, mINP
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from san_core.evaluation.kernels.distance import Tile, as_float32
from san_core.evaluation.labels import Ids, Labels
from san_core.evaluation.protocol import Protocol
from san_core.evaluation.ranking import Ranking, rank_distances

Numbers = Sequence[int] | Ids


def rank(
    distances: ArrayLike,
    query_ids: Numbers,
    gallery_ids: Numbers,
    query_cameras: Numbers | None = None,
    gallery_cameras: Numbers | None = None,
    *,
    protocol: Protocol | None = None,
    max_rank: int = 50,
    top_k: int = 10,
    with_roc: bool = False,
) -> Ranking:
    """Ranks a gallery by given distances and scores the ranking by the labels.

    Args:
        distances: (Q, G), smaller is nearer: float32, float64, float16, whole numbers, or lists of
            lists. They are ranked as float32: values equal in float32 are tied and rank in gallery
            order. NaN ranks last.
        query_ids: (Q,) whole numbers, people from 1.
        gallery_ids: (G,) likewise; 0 is a distractor and -1 is junk.
        query_cameras: (Q,) whole numbers from 0. Without these and `gallery_cameras`, cameras are
            ignored.
        gallery_cameras: (G,) likewise.
        protocol: as in `ranking.rank`.
        max_rank: as in `ranking.rank`.
        top_k: as in `ranking.rank`.
        with_roc: as in `ranking.rank`.

    Raises:
        ValueError: the shapes of distances, people and cameras do not match, or as in
            `ranking.rank`.
    """
    matrix = as_float32(distances)
    query = Labels(_numbers("query_ids", query_ids), _cameras("query_cameras", query_cameras))
    gallery = Labels(
        _numbers("gallery_ids", gallery_ids), _cameras("gallery_cameras", gallery_cameras)
    )
    if matrix.shape != (len(query.pids), len(gallery.pids)):
        raise ValueError(
            f"distances are of shape {matrix.shape}, but there are {len(query.pids)} query_ids and"
            f" {len(gallery.pids)} gallery_ids"
        )
    return rank_distances(
        [Tile(slice(0, len(matrix)), matrix)],
        query=query,
        gallery=gallery,
        protocol=protocol,
        max_rank=max_rank,
        top_k=top_k,
        with_roc=with_roc,
    )


def _cameras(name: str, given: Numbers | None) -> Ids | None:
    return None if given is None else _numbers(name, given)


def _numbers(name: str, given: Numbers) -> Ids:
    """Whole numbers (N,) as int64.

    Raises:
        ValueError: they are not whole numbers.
    """
    found = np.asarray(given)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ValueError(
            f"{name} are {found.dtype} of shape {found.shape}; expected a list of whole numbers"
        )
    return found.astype(np.int64)
