"""Counting by features: tiles of dot products, each discarded once counted.

Memory beside the features does not grow with the number of pairs: it is a tile for each thread, and
some numbers per gallery image. Each thread takes blocks of queries with its own tile, and BLAS uses
one thread in each, so threads never wait for each other.

Shapes: Q queries, G gallery images, D dimensions.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from san_core.evaluation.kernels.operands import Operands
from san_core.evaluation.kernels.rows import Features

# Float32 entries that all threads may have together, of queries, gallery images and their products:
# 12 MiB, less 8 bytes a gallery image (which are held beside them), but 2 MiB each in any case.
_ENTRIES = 3 * 2**20
_LEAST_ENTRIES = 2**19
_MOST_QUERIES = 1024
# Float64 numbers kept per right answer and query of a block, beside two int32: 16 bytes.
_BLOCK_BYTES = 2**22


class TileShape(NamedTuple):
    """The numbers of queries and of gallery images in a tile."""

    queries: int
    gallery: int


def choose_tile_shape(
    num_query: int, num_gallery: int, *, dim: int, widest: int, threads: int
) -> TileShape:
    """A tile shape that keeps memory small and the matrix product fast.

    dim: D. widest: the most right answers a query may have.
    """
    entries = max(_LEAST_ENTRIES, (_ENTRIES - 2 * num_gallery) // threads)
    most = min(_MOST_QUERIES, _BLOCK_BYTES // (16 * max(1, widest)), entries // 4 // max(dim, 256))
    blocks = -(-num_query // max(1, most))
    blocks = -(-blocks // threads) * threads  # every thread has as many
    queries = -(-num_query // blocks)
    left = (entries - queries * dim) // (queries + dim)
    return TileShape(queries, min(num_gallery, max(1, left)))


def count_by_features(
    operands: Operands,
    metric: str,
    make_counter: Callable[..., Any],
    *,
    shape: TileShape,
    threads: int,
) -> None:
    """Count every query against the whole gallery.

    Args:
        operands: the features.
        metric: by which they were made operands.
        make_counter: makes the `_ranking.Counter` of queries first to first + size, for thread
            `worker`.
        shape: of the tiles.
        threads: how many to use.
    """
    stop = Event()

    def work(worker: int) -> None:
        room = _TileBuffers.allocate(shape, dim=len(operands.query.centre))
        for first in range(worker * shape.queries, len(operands.query), threads * shape.queries):
            size = min(shape.queries, len(operands.query) - first)
            counter = make_counter(first=first, size=size, worker=worker)
            steps = _count_block(
                operands, metric, counter, room, first=first, size=size, step=shape.gallery
            )
            for _ in steps:
                if stop.is_set():
                    return

    with threadpool_limits(1, user_api="blas"):
        if threads == 1:
            work(0)
            return
        with ThreadPoolExecutor(threads) as pool:
            counting = [pool.submit(work, worker) for worker in range(threads)]
            try:
                wait(counting, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()  # the pool waits for its threads: after Ctrl-C, for a tile of each
        for done in counting:
            done.result()


class _TileBuffers(NamedTuple):
    """The buffers of a thread, reused for every tile: both sides, and their products."""

    queries: Features
    gallery: Features
    products: Features

    @classmethod
    def allocate(cls, shape: TileShape, *, dim: int) -> "_TileBuffers":
        sizes = shape.queries * dim, shape.gallery * dim, shape.queries * shape.gallery
        return cls(*(np.empty(size, np.float32) for size in sizes))


def _count_block(
    operands: Operands,
    metric: str,
    counter: Any,
    buffers: _TileBuffers,
    *,
    first: int,
    size: int,
    step: int,
) -> Iterator[None]:
    """Count some queries, one tile of gallery images at a time."""
    query = operands.query.read_range(first, first + size, buffers.queries)  # (size, D)
    counter.open(operands.query, operands.gallery, query.squares, metric)
    doubled = buffers.queries[: query.features.size].reshape(query.features.shape)
    np.multiply(query.features, -2, out=doubled)
    for start in range(0, len(operands.gallery), step):
        gallery = operands.gallery.read_range(start, start + step, buffers.gallery)  # (n, D)
        n = len(gallery.features)
        products = buffers.products[: size * n].reshape(size, n)
        np.matmul(doubled, gallery.features.T, out=products)
        counter.count(products, gallery.squares.astype(np.float32), start)
        yield
    counter.finish()
