"""The nearest images of a gallery for each query: a search, without labels and without scores.

Exact, as ranking is: the order is that of distances in float64, and tied ones are in gallery order.
For a few queries the gallery is read once, which takes as long as the reading; many queries are
ranked as in `ranking`. Memory does not grow with the gallery, which may be a memory map.

Shapes: Q queries, G gallery images, D dimensions, K nearest.
"""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation.kernels.compiled import _features
from san_core.evaluation.kernels.rows import (
    FeatureError,
    Features,
    Rows,
    as_rows,
    check_comparable,
    check_norms,
)
from san_core.evaluation.labels import Labels
from san_core.evaluation.protocol import PROTOCOLS
from san_core.evaluation.ranking import rank_each_query, usable_threads

# With more queries, a matrix product is faster than a pass over the gallery.
_FEW_QUERIES = 16
# Gallery images that a thread compares before it checks whether it must stop.
_STEP = 4096


class Nearest(NamedTuple):
    """The nearest images of each query, nearest first.

    `places` (Q, K) int64 are those in the gallery, `distances` (Q, K) float64 the squared
    Euclidean distance, or 1 - cosine.
    """

    places: NDArray[np.int64]
    distances: NDArray[np.float64]


def nearest(
    query_features: Features | Rows,
    gallery_features: Features | Rows,
    *,
    count: int,
    metric: str = "euclidean",
    threads: int | None = None,
) -> Nearest:
    """The `count` nearest images of a gallery for each query, or all of a smaller gallery.

    Args:
        query_features: (Q, D) float32, or some rows of a matrix.
        gallery_features: (G, D) float32, or some rows of a matrix, such as a memory-mapped file.
        count: K, from 1.
        metric: "euclidean" or "cosine"; a feature of zeros has cosine 0 with every other.
        threads: cores to use, by default all this process may; the result is the same.

    Raises:
        ValueError: the metric is unknown, there are no features, their dimensions differ, one is
            not finite, or `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"the number of nearest images is {count}; it must be at least 1")
    query, gallery = as_rows("query", query_features), as_rows("gallery", gallery_features)
    check_comparable(query, gallery, metric)
    count, threads = min(count, len(gallery)), usable_threads(threads)
    if len(query) <= _FEW_QUERIES:
        return _by_one_pass(query, gallery, count, metric, threads)
    labels = [Labels(np.full(len(r), pid), None) for r, pid in ((query, 1), (gallery, 0))]
    ranked = rank_each_query(
        query,
        gallery,
        query=labels[0],
        gallery=labels[1],
        metric=metric,
        protocol=PROTOCOLS["camera-free"],
        top_k=count,
        threads=threads,
    )
    found = [
        _by_one_pass(query.subset(np.array([i])), gallery.subset(top), count, metric, 1)
        for i, top in enumerate(ranked.top)
    ]
    return Nearest(ranked.top, np.concatenate([each.distances for each in found]))


def _by_one_pass(query: Rows, gallery: Rows, count: int, metric: str, threads: int) -> Nearest:
    """As `nearest`: each thread reads one range of the gallery once."""
    asked, squares = query.read_range(0, len(query)), query.squared_norms()
    check_norms("query", squares)
    bounds = np.linspace(0, len(gallery), min(threads, len(gallery)) + 1).astype(int).tolist()
    stop = Event()

    def work(start: int, end: int) -> Nearest:
        part = Nearest(
            np.full((len(asked), count), -1, np.int64), np.full((len(asked), count), np.inf)
        )
        for first in range(start, end, _STEP):
            if stop.is_set():
                break
            last, by_direction = min(first + _STEP, end), metric == "cosine"
            broken = _features.nearest(
                *(asked, squares, gallery.matrix, gallery.index, first, last),
                *(by_direction, part.distances, part.places),
            )
            if broken >= 0:
                raise FeatureError("gallery", broken, "not finite (NaN, infinite, or beyond 1e18)")
        return part

    with ThreadPoolExecutor(len(bounds) - 1) as pool:
        try:
            parts = list(pool.map(work, bounds[:-1], bounds[1:]))
        finally:
            stop.set()  # the pool waits for its threads: after Ctrl-C, for a step of each
    return _merge(parts, count, shift=metric == "cosine")


def _merge(parts: list[Nearest], count: int, *, shift: bool) -> Nearest:
    """The nearest over all ranges, which are in gallery order."""
    places, distances = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
    first = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return Nearest(
        np.take_along_axis(places, first, 1), np.take_along_axis(distances, first, 1) + shift
    )
