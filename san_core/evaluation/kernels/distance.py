"""Distances of every query to the whole gallery, for code that needs all of a query's at once.

They are computed a few queries at a time, so memory does not grow with the number of queries.
Ranking by features (`streaming`) does not use them.

Shapes: Q queries, G gallery images, D dimensions.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from san_core.evaluation.kernels.operands import SQUARED_DISTANCE_SCALES, Operands, make_operands
from san_core.evaluation.kernels.rows import Features, Rows, as_rows

# Given distances: floats of any width, or whole numbers.
Distances = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.float16] | NDArray[np.int64]

# The most entries of a tile of distances, 64 MiB; for a longer gallery, a tile is one row.
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
        metric: "euclidean", squared, |q|^2 + |g|^2 - 2 q.g: it has the same order as the distance,
            and rounding may make a distance of 0 slightly negative. "cosine": 1 - q.g / (|q| |g|).
        entries: the most distances at once, but at least one query's.
        threads: cores to use, by default all that BLAS does.

    Raises:
        ValueError: raised by the call, not at the first tile, as in `select_rows` and
            `validate_features`.
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


def distances_between(
    query: Rows, i: int, gallery: Rows, places: NDArray[np.int64], *, metric: str
) -> NDArray[np.float64]:
    """The distances of query `i` to the gallery images at some places, (len(places),), in float64.

    metric: as in `distance_tiles`; a feature of zeros has cosine 0 with every other.
    """
    asked = query.subset(np.array([i])).read_range(0, 1)[0].astype(np.float64)
    found = gallery.subset(places).read_range(0, len(places)).astype(np.float64)
    if metric == "euclidean":
        squared: NDArray[np.float64] = ((found - asked) ** 2).sum(axis=1)
        return squared
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(asked)
    cosine = np.divide(found @ asked, lengths, out=np.zeros(len(found)), where=lengths > 0)
    nearer: NDArray[np.float64] = np.maximum(1 - cosine, 0)  # rounding may make it negative
    return nearer


def matrix_tiles(
    matrix: Distances,
    *,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    entries: int = _TILE_ENTRIES,
) -> Iterator[Tile]:
    """Some rows and columns of a matrix of distances, in that order, tile by tile.

    Args:
        matrix: whole or a memory map; float32, float64, float16 or whole numbers.
        rows: (Q,) of the queries.
        columns: (G,) of the gallery.
        entries: the most distances at once, but at least one query's.

    Raises:
        ValueError: a distance does not fit into float32.
    """
    step = max(1, entries // max(1, matrix.shape[1]))
    is_whole = len(columns) == matrix.shape[1] and (np.diff(columns) == 1).all()
    for start in range(0, len(rows), step):
        taken = matrix[rows[start : start + step]]
        part = as_float32(taken if is_whole else taken[:, columns])
        yield Tile(slice(start, start + len(part)), part)


def as_float32(distances: object) -> NDArray[np.float32]:
    """Distances as float32, from an array or lists of lists of numbers.

    Distances that are equal in float32 are tied and rank in gallery order.

    Raises:
        ValueError: they are not numbers, rows have different lengths, or a number is too large for
            float32.
    """
    try:
        given = np.asarray(distances)
    except ValueError as error:  # rows of several lengths
        raise ValueError("distances have rows of several lengths") from error
    if given.ndim != 2 or given.dtype.kind not in "fiu":
        raise ValueError(
            f"distances are {given.dtype} of shape {given.shape}; expected numbers of shape"
            " (queries, gallery images)"
        )
    with np.errstate(over="ignore"):
        found = given.astype(np.float32)
    if (np.isinf(found) & np.isfinite(given)).any():
        raise ValueError("a distance is beyond 3.4e38, the largest of float32")
    return found
