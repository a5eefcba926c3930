"""Counting by features: tiles of dot products, each thrown away once counted.

Memory above the features does not grow with the number of pairs: a tile for each thread, and some
numbers per gallery image. Threads take blocks of queries, each with a tile of its own, and BLAS
runs on one thread in each: nothing waits for anything.

Shapes: Q queries, G gallery images, D dimensions.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from san_core.evaluation.distance import Features, Rows, checked

# Float32 entries that all tiles may have together: 8 MiB, less 8 bytes a gallery image (which are
# held beside them), but never less than 1 MiB each.
_TILE_ENTRIES = 2**21
_LEAST_ENTRIES = 2**18
_MOST_QUERIES = 1024
# Float64 numbers kept per right answer and query of a block, beside two int32: 16 bytes.
_BLOCK_BYTES = 2**22


class Shape(NamedTuple):
    """How many queries and how many gallery images make a tile."""

    queries: int
    gallery: int


def tile_shape(num_query: int, num_gallery: int, *, widest: int, threads: int) -> Shape:
    """The shape of tiles that keeps memory small and the matrix product quick.

    widest: the most right answers a query may have.
    """
    entries = max(_LEAST_ENTRIES, (_TILE_ENTRIES - 2 * num_gallery) // threads)
    most = min(_MOST_QUERIES, max(1, _BLOCK_BYTES // (16 * max(1, widest))), entries // 256)
    blocks = -(-num_query // most)
    blocks = -(-blocks // threads) * threads  # every thread has as many
    queries = -(-num_query // blocks)
    return Shape(queries, min(num_gallery, max(256, entries // queries)))


class Operands(NamedTuple):
    """Checked features, and what the loops want to know of them.

    Attributes:
        query: (Q, D).
        gallery: (G, D).
        query_squares: (Q,) |q|^2.
        gallery_norms: (G,) float32, |g|^2 for euclidean, 1 / |g| for cosine.
        metric: "euclidean" or "cosine".
    """

    query: Rows
    gallery: Rows
    query_squares: NDArray[np.float64]
    gallery_norms: Features
    metric: str


def operands(query: Rows, gallery: Rows, metric: str) -> Operands:
    """The operands of features.

    Raises:
        ValueError: `distance.checked` finds fault with them.
    """
    squares = checked(query, gallery, metric)
    norms = squares.gallery if metric == "euclidean" else 1 / np.sqrt(squares.gallery)
    return Operands(query, gallery, squares.query, norms.astype(np.float32), metric)


def count(of: Operands, start: Callable[..., Any], *, shape: Shape, threads: int) -> None:
    """Count every query against the whole gallery.

    Args:
        of: the features.
        start: makes the `_ranking.Counter` of queries first to first + size, for thread `worker`.
        shape: of the tiles.
        threads: how many to use.
    """

    def work(worker: int) -> None:
        tile = np.empty(shape.queries * shape.gallery, np.float32)
        for first in range(worker * shape.queries, len(of.query), threads * shape.queries):
            size = min(shape.queries, len(of.query) - first)
            _count_block(of, start(first=first, size=size, worker=worker), tile, first, size, shape)

    with threadpool_limits(1, user_api="blas"):
        if threads == 1:
            work(0)
            return
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(work, worker) for worker in range(threads)]:
                done.result()


def _count_block(
    of: Operands, counter: Any, tile: Features, first: int, size: int, shape: Shape
) -> None:
    query = of.query.take(first, first + size)  # (size, D)
    squares = of.query_squares[first : first + size]
    counter.open(query, squares, of.gallery.matrix, of.gallery.index, of.metric)
    if of.metric == "cosine":
        query = (query / np.sqrt(squares)[:, None]).astype(np.float32)
    for start in range(0, len(of.gallery), shape.gallery):
        gallery = of.gallery.take(start, start + shape.gallery)  # (n, D)
        dots = tile[: size * len(gallery)].reshape(size, len(gallery))
        np.matmul(query, gallery.T, out=dots)
        norms = of.gallery_norms[start : start + len(gallery)]
        longest = float(norms.max())
        if of.metric == "euclidean":
            longest = longest**0.5
        counter.count(dots, of.gallery_norms, start, longest)
    counter.finish()
