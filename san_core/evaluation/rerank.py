"""Re-ranking by k-reciprocal neighbours, without an N x N matrix.

Zhong, Zheng, Cao and Li (CVPR 2017), "Re-ranking Person Re-identification with k-reciprocal
Encoding", section 3. Queries and gallery together are N images. The distance of two images is the
squared Euclidean distance (of unit vectors for the metric cosine), divided by the largest distance
of the first image. Two images are reciprocal neighbours if each is among the k1 nearest of the
other. The set of an image's reciprocal neighbours is extended by the half sets (of k1 / 2) of its
members, if more than two thirds of such a half set lie in it. Members have the weight exp(-d);
weights are normalised and averaged over the k2 nearest images. The result is (1 - lambda) times the
Jaccard distance of two rows of weights plus lambda times the distance.

Only the max(k1 + 1, k2) nearest and the farthest images of each image are stored. A tile of dot
products serves its rows and its columns, so each pair is multiplied once. Then the queries'
distances are computed again, tile by tile, combined, and passed to the ranking.

Shapes: Q queries, G gallery images, N both, D dimensions, K neighbours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from san_core.evaluation.kernels.compiled import _rerank
from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.kernels.operands import Operands, make_operands
from san_core.evaluation.kernels.rows import Features, Rows, as_rows
from san_core.evaluation.labels import Ids
from san_core.evaluation.protocol import Codes
from san_core.evaluation.ranking import usable_threads

# Images on a side of a tile of dot products, 4 MiB; float32 entries of a tile handed on, 8 MiB.
_TILE_SIDE = 1024
_TILE_ENTRIES = 2**21
# The distance between equal features that float32 rounding may cause: in the product, as a share of
# |.|^2 after centring; and in the features themselves, as a share of |x|^2.
_ROUNDING = 2.0**-18, 2.0**-45


@dataclass(frozen=True)
class RerankSettings:
    """The paper's parameters; its values for Market-1501 by default.

    Attributes:
        k1: the number of nearest images among which reciprocal neighbours are searched.
        k2: the number of nearest images over which weights are averaged, the image itself included.
        original_share: lambda, the weight of the original distance, 0 to 1.

    Raises:
        ValueError: one is out of its range.
    """

    k1: int = 20
    k2: int = 6
    original_share: float = 0.3

    def __post_init__(self) -> None:
        if self.k1 < 1 or self.k2 < 1:
            raise ValueError(f"k1 is {self.k1} and k2 is {self.k2}; both must be at least 1")
        if not 0 <= self.original_share <= 1:
            raise ValueError(f"lambda is {self.original_share}; it must be between 0 and 1")

    @property
    def neighbours(self) -> int:
        """How many nearest images are stored for each image, itself included."""
        return max(self.k1 + 1, self.k2)


class Neighbours(NamedTuple):
    """The K nearest images of each image, itself included, and its farthest.

    Attributes:
        indices: (N, K) int32, nearest first, tied ones in order; queries come before the gallery.
        farthest: (N,) float32, squared distance of the farthest image.
    """

    indices: Codes
    farthest: Features


class SparseMatrix(NamedTuple):
    """A sparse matrix: row i has the entries start[i] to start[i + 1], columns ascending."""

    start: Ids
    column: Codes
    value: Features


def rerank_features(
    query_features: Features | Rows,
    gallery_features: Features | Rows,
    *,
    metric: str = "euclidean",
    settings: RerankSettings | None = None,
    threads: int | None = None,
    entries: int = _TILE_ENTRIES,
) -> Iterator[Tile]:
    """Re-ranked distances of every query to the whole gallery, for `ranking.rank_distances`.

    Args:
        query_features: as in `encode_neighbours`.
        gallery_features: as in `encode_neighbours`.
        metric: as in `encode_neighbours`.
        settings: as in `encode_neighbours`.
        threads: as in `encode_neighbours`.
        entries: the most distances at once, but at least one query's.

    Raises:
        ValueError: raised by the call, not at the first tile, as in `encode_neighbours`.
    """
    encoded = encode_neighbours(
        query_features, gallery_features, metric=metric, settings=settings, threads=threads
    )
    return encoded.tiles(entries=entries)


def encode_neighbours(
    query_features: Features | Rows,
    gallery_features: Features | Rows,
    *,
    metric: str = "euclidean",
    settings: RerankSettings | None = None,
    threads: int | None = None,
) -> "RerankEncoding":
    """The neighbours and weights of all images, from which re-ranked distances follow quickly.

    Args:
        query_features: (Q, D) float32, or some rows of a matrix.
        gallery_features: (G, D) float32, or some rows of a matrix, such as a memory-mapped file.
        metric: "euclidean" or "cosine".
        settings: the paper's parameters.
        threads: cores to use, by default all this process may.

    Raises:
        ValueError: the features do not fit each other or are not finite, or all are the same.
    """
    settings = settings or RerankSettings()
    images = _all_images(query_features, gallery_features, metric)
    cores = usable_threads(threads)
    near = find_neighbours(images, min(settings.neighbours, len(images)), threads=cores)
    _check_not_identical(near, images)
    weights = _encode_weights(images, near, settings, threads=cores)
    return RerankEncoding(images, near.farthest, weights, settings.original_share, cores)


@dataclass(frozen=True, eq=False)
class RerankEncoding:
    """The results of the one pass over all pairs.

    Attributes:
        images: queries and gallery.
        farthest: (N,) float32, squared distance of each image's farthest.
        weights: (N, N).
        original_share: lambda.
        threads: cores to use.
    """

    images: "AllImages"
    farthest: Features
    weights: "SparseMatrix"
    original_share: float
    threads: int

    def tiles(self, *, entries: int = _TILE_ENTRIES) -> Iterator[Tile]:
        """Re-ranked distances, as in `rerank_features`; may be called repeatedly."""
        Q, n = len(self.images.operands.query), len(self.images)
        by_column = _rerank.transpose(*self.weights, Q)
        step = max(1, entries // (n - Q))
        for first in range(0, Q, step):
            distances = self._scaled_distances(first, min(first + step, Q))
            _rerank.jaccard(
                *self.weights,
                *by_column,
                first,
                distances,
                self.original_share,
                threads=self.threads,
            )
            yield Tile(slice(first, first + len(distances)), distances)

    def _scaled_distances(self, first: int, end: int) -> Features:
        """Distances (end - first, G) of queries first to end, each divided by its farthest."""
        Q, n = len(self.images.operands.query), len(self.images)
        asked = self.images.read_range(first, end)
        distances = np.empty((end - first, n - Q), np.float32)
        with threadpool_limits(self.threads, user_api="blas"):
            for start in range(Q, n, _TILE_SIDE):
                stop = min(start + _TILE_SIDE, n)
                part = asked @ self.images.read_range(start, stop).T
                part *= -2
                part += self.images.norms[start:stop]
                part += self.images.norms[first:end, None]
                part /= self.farthest[first:end, None]
                distances[:, start - Q : stop - Q] = part
        return distances


def rerank_distances(
    distances: Features, *, num_query: int, settings: RerankSettings | None = None
) -> Features:
    """Re-ranked distances (Q, G) from given ones of all images to all.

    Args:
        distances: (N, N) float32, queries before the gallery; squared in the published algorithm.
        num_query: Q, the first of the images.
        settings: the paper's parameters.

    Raises:
        ValueError: the matrix is not square or not float32, it has no query or no gallery, or a row
            is not finite or has no entry above 0.
    """
    settings = settings or RerankSettings()
    n = len(distances)
    if distances.shape != (n, n) or distances.dtype != np.float32:
        raise ValueError(
            f"distances are {distances.dtype} of shape {distances.shape}; expected float32, square"
        )
    if not 0 < num_query < n:
        raise ValueError(f"{num_query} of {n} images are queries; expected 1 to {n - 1}")
    scaled = _scale_rows(distances)
    near = _empty_search(n, min(settings.neighbours, n))
    _rerank.scan(
        scaled * np.float32(-0.5), np.zeros(n, np.float32), 0, 0, *near, both=False, threads=1
    )
    start, column = _reciprocal_sets(near.indices, settings.k1, threads=1)
    value = scaled[np.repeat(np.arange(n), np.diff(start)), column]
    weights = _weigh_and_average(
        SparseMatrix(start, column, value), near.indices, settings, threads=1
    )
    out = np.ascontiguousarray(scaled[:num_query, num_query:])
    _rerank.jaccard(
        *weights,
        *_rerank.transpose(*weights, num_query),
        0,
        out,
        settings.original_share,
        threads=1,
    )
    return out


def _scale_rows(distances: Features) -> Features:
    """Each row divided by its maximum; refuses distances that are not finite."""
    least, farthest = distances.min(axis=1), distances.max(axis=1)
    with np.errstate(all="ignore"):
        sound = np.isfinite(least / farthest) & np.isfinite(farthest) & (farthest > 0)
    if not sound.all():
        row = int(np.argmin(sound))
        raise ValueError(
            f"distances of image {row} go from {least[row]} to {farthest[row]}; expected finite "
            "distances with a largest above 0"
        )
    scaled: Features = distances / farthest[:, None]
    return scaled


def _check_not_identical(near: Neighbours, images: "AllImages") -> None:
    lengths = np.concatenate([each.squares for each in images.operands]) * images.scales**2
    apart = near.farthest > _ROUNDING[0] * images.norms + _ROUNDING[1] * lengths
    if not apart.all():
        raise ValueError(
            f"all images have the same feature as image {int(np.argmin(apart))}, as far as float32 "
            "tells: there is nothing to re-rank by"
        )


@dataclass(frozen=True, eq=False)
class AllImages:
    """Queries, then the gallery, as one list of N images.

    Attributes:
        operands: queries and gallery.
        scales: (N,) float64 by which features are multiplied: 1, or 1 / |x| for cosine.
        norms: (N,) float32, their |.|^2 after centring.
    """

    operands: Operands
    scales: NDArray[np.float64]
    norms: Features

    def __len__(self) -> int:
        return len(self.scales)

    def read_range(self, start: int, stop: int, buffer: Features | None = None) -> Features:
        """Images start to stop, all queries or all gallery images: (stop - start, D).

        They lie in the first entries of `buffer`, if it is given; `norms` of them are set.
        """
        Q = len(self.operands.query)
        if start < Q:
            taken = self.operands.query.read_range(start, stop, buffer)
        else:
            taken = self.operands.gallery.read_range(start - Q, stop - Q, buffer)
        self.norms[start:stop] = taken.squares
        return taken.features

    def blocks(self) -> list[tuple[int, int]]:
        """Starts and ends of blocks of queries or gallery images, in order."""
        Q, n = len(self.operands.query), len(self)
        starts = [*range(0, Q, _TILE_SIDE), *range(Q, n, _TILE_SIDE)]
        return list(zip(starts, [*starts[1:], n], strict=True))


def _all_images(query: Features | Rows, gallery: Features | Rows, metric: str) -> AllImages:
    of = make_operands(as_rows("query", query), as_rows("gallery", gallery), metric)
    scales = [np.ones(len(each)) if each.scales is None else each.scales for each in of]
    n = len(of.query) + len(of.gallery)
    return AllImages(of, np.concatenate(scales), np.empty(n, np.float32))


def find_neighbours(images: AllImages, k: int, *, threads: int) -> Neighbours:
    """The k nearest images of each, by distances in float32."""
    near = _empty_search(len(images), k)
    dim = len(images.operands.query.centre)
    asked_room, searched_room, room = (
        np.empty(_TILE_SIDE * n, np.float32) for n in (dim, dim, _TILE_SIDE)
    )
    blocks = images.blocks()
    with threadpool_limits(threads, user_api="blas"):
        for i, (first, end) in enumerate(blocks):
            asked = images.read_range(first, end, asked_room)
            for start, stop in blocks[i:]:
                searched = images.read_range(start, stop, searched_room)
                shape = (end - first, stop - start)
                dots = room[: shape[0] * shape[1]].reshape(shape)
                np.matmul(asked, searched.T, out=dots)
                both = start > first
                _rerank.scan(dots, images.norms, first, start, *near, both=both, threads=threads)
    return Neighbours(near.indices, near.farthest)


class _NeighbourSearch(NamedTuple):
    """Neighbours while they are found: `distances` (N, K) are the distances of `indices`."""

    distances: Features
    indices: Codes
    farthest: Features


def _empty_search(n: int, k: int) -> _NeighbourSearch:
    return _NeighbourSearch(
        np.full((n, k), np.inf, np.float32),
        np.full((n, k), -1, np.int32),
        np.full(n, -np.inf, np.float32),
    )


def _reciprocal_sets(who: Codes, k1: int, *, threads: int) -> tuple[Ids, Codes]:
    """`start` and `column` of the expanded sets of k-reciprocal neighbours."""
    half = min(round(k1 / 2) + 1, who.shape[1])
    reciprocal = _rerank.reciprocal(who, min(k1 + 1, who.shape[1]), threads=threads)
    return _rerank.expand(
        *reciprocal, *_rerank.reciprocal(who, half, threads=threads), threads=threads
    )


def _encode_weights(
    images: AllImages, near: Neighbours, settings: RerankSettings, *, threads: int
) -> SparseMatrix:
    start, column = _reciprocal_sets(near.indices, settings.k1, threads=threads)
    value = np.empty(len(column), np.float32)
    _rerank.pair_distances(
        images.operands.query.rows.matrix,
        _row_index(images.operands.query.rows),
        images.operands.gallery.rows.matrix,
        _row_index(images.operands.gallery.rows),
        images.scales,
        start,
        column,
        value,
        threads=threads,
    )
    value /= np.repeat(near.farthest, np.diff(start))
    return _weigh_and_average(
        SparseMatrix(start, column, value), near.indices, settings, threads=threads
    )


def _weigh_and_average(
    distances: SparseMatrix, who: Codes, settings: RerankSettings, *, threads: int
) -> SparseMatrix:
    _rerank.weigh(distances.start, distances.value)
    k2 = min(settings.k2, who.shape[1])
    return (
        distances
        if k2 == 1
        else SparseMatrix(*_rerank.average(who, k2, *distances, threads=threads))
    )


def _row_index(features: Rows) -> Ids:
    return np.arange(len(features)) if features.index is None else features.index
