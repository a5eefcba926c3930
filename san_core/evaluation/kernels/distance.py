"""Distances of every query to the whole gallery, for whatever needs all of a query's at once.

They are made a few queries at a time, so that memory does not grow with the number of queries.
Ranking by features (`streaming`) does without them.

Shapes: Q queries, G gallery images, D dimensions.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from san_core.evaluation.kernels.operands import SQUARED_DISTANCE_SCALES, Operands, make_operands
from san_core.evaluation.kernels.rows import Features, Rows, as_rows

# One tile of distances has at most so many entries, 64 MiB; a gallery longer than that, one row.
_TILE_ENTRIES = 2**24
# Gallery images multiplied at once.
_GALLERY_BLOCK = 4096


class Tile(NamedTuple):
    """Distances of some queries, `rows` of all, to the whole gallery: (rows, G) float32."""

    rows: slice
    distances: NDArray[np.float32]


def distance_tiles(
    query: Features | Rows,
    gallery: Features | Rows,
    *,
    metric: str = "euclidean",
    entries: int = _TILE_ENTRIES,
    threads: int | None = None,
) -> Iterator[Tile]:
    """Distances of every query to the whole gallery, tile by tile in query order.

    Args:
        query: (Q, D) float32, or some rows of a matrix.
        gallery: (G, D) float32, or some rows of a matrix, such as a memory-mapped file.
        metric: "euclidean", squared, |q|^2 + |g|^2 - 2 q.g: it orders as the distance does, and
            rounding may leave a distance of 0 slightly below it. "cosine": 1 - q.g / (|q| |g|).
        entries: at most so many distances at once, though at least one query's.
        threads: cores to use, by default all that BLAS does.

    Raises:
        ValueError: at once, not at the first tile: as of `select_rows` and `validate_features`.
    """
    of = make_operands(as_rows("query", query), as_rows("gallery", gallery), metric)
    step = max(1, entries // len(of.gallery))
    return _iterate_tiles(of, SQUARED_DISTANCE_SCALES[metric], step=step, threads=threads)


def _iterate_tiles(of: Operands, scale: int, *, step: int, threads: int | None) -> Iterator[Tile]:
    for start in range(0, len(of.query), step):
        with threadpool_limits(threads, user_api="blas"):
            distances = _distances(of, scale, start, start + step)
        yield Tile(slice(start, start + len(distances)), distances)


def _distances(of: Operands, scale: int, start: int, stop: int) -> NDArray[np.float32]:
    """Of queries start to stop: (stop - start, G)."""
    asked = of.query.read_range(start, stop)
    distances = np.empty((len(asked.features), len(of.gallery)), np.float32)
    for first in range(0, len(of.gallery), _GALLERY_BLOCK):
        searched = of.gallery.read_range(first, first + _GALLERY_BLOCK)
        part = distances[:, first : first + _GALLERY_BLOCK]
        np.matmul(asked.features, searched.features.T, out=part)
        part *= -2 / scale
        part += (searched.squares / scale).astype(np.float32)
        part += (asked.squares / scale).astype(np.float32)[:, None]
    return distances
