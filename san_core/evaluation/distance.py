"""Distances between features, a few queries at a time, so that memory does not grow with the data.

Shapes: Q queries, G gallery images, D dimensions.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]

# One tile of distances has at most so many entries, 64 MiB; a gallery longer than that, one row.
_TILE_ENTRIES = 2**24


class Tile(NamedTuple):
    """Distances of some queries, `rows` of all, to the whole gallery: (rows, G) float32."""

    rows: slice
    distances: NDArray[np.float32]


def tiles(
    query: Features, gallery: Features, *, metric: str = "euclidean", entries: int = _TILE_ENTRIES
) -> Iterator[Tile]:
    """Distances of every query to the whole gallery, tile by tile in query order.

    Args:
        query: (Q, D) float32.
        gallery: (G, D) float32.
        metric: "euclidean", squared, |q|^2 + |g|^2 - 2 q.g: it orders as the distance does, and
            rounding may leave a distance of 0 slightly below it. "cosine": 1 - q.g / (|q| |g|).
        entries: at most so many distances at once, though at least one query's.

    Raises:
        ValueError: at once, not at the first tile: the metric is unknown, a shape or type is
            wrong, there are no features, or one is not finite or, for cosine, all zeros.
    """
    if metric not in METRICS:
        raise ValueError(f"no metric '{metric}'; there are {', '.join(METRICS)}")
    _check("query", query)
    _check("gallery", gallery)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query features have {query.shape[1]} dimensions and gallery features "
            f"{gallery.shape[1]}: they must come from one model"
        )
    if metric == "cosine":
        query, gallery = _directions("query", query), _directions("gallery", gallery)
    return _tiles(query, gallery, METRICS[metric], max(1, entries // len(gallery)))


def _tiles(query: Features, gallery: Features, between: "Metric", step: int) -> Iterator[Tile]:
    squared = _squared_norms(gallery)  # (G,)
    for start in range(0, len(query), step):
        rows = slice(start, min(start + step, len(query)))
        yield Tile(rows, between(query[rows], gallery, squared))


def _euclidean(query: Features, gallery: Features, squared: Features) -> Features:
    distances: Features = query @ gallery.T  # (rows, G)
    distances *= -2
    distances += squared
    distances += _squared_norms(query)[:, None]
    return distances


def _cosine(query: Features, gallery: Features, _squared: Features) -> Features:
    distances: Features = query @ gallery.T  # (rows, G), of unit vectors
    np.subtract(1, distances, out=distances)
    return distances


Metric = Callable[[Features, Features, Features], Features]
METRICS: dict[str, Metric] = {"euclidean": _euclidean, "cosine": _cosine}


def _squared_norms(features: Features) -> Features:
    squared: Features = np.einsum("nd,nd->n", features, features)
    return squared


def _directions(role: str, features: Features) -> Features:
    # float64: the squares of small float32 numbers would vanish.
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    if not norms.all():
        raise ValueError(
            f"{role} feature {int(np.argmin(norms))} is all zeros: it has no direction, "
            "so no cosine distance"
        )
    directions: Features = (features / norms[:, None]).astype(np.float32)
    return directions


def _check(role: str, features: Features) -> None:
    if features.ndim != 2 or features.dtype != np.float32:
        raise ValueError(
            f"{role} features are {features.dtype} of shape {features.shape}; "
            "expected float32 of shape (images, dimensions)"
        )
    if features.size == 0:
        raise ValueError(f"there are no {role} features: shape {features.shape}")
    # A row's sum is finite unless an entry is not, or the entries are too large to be squared.
    finite = np.isfinite(_squared_norms(features))
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(f"{role} feature {row} is not finite (NaN, infinite, or beyond 1e19)")
