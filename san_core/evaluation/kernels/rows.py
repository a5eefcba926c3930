"""Features read in place: rows of a matrix, such as a memory-mapped file.

Shapes: N rows of the matrix, G those wanted, Q queries and G gallery images, D dimensions.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation.kernels.compiled import _features

Features = NDArray[np.float32]

METRICS = ("euclidean", "cosine")

# The largest |x|^2: with more, |q|^2 + |g|^2 + 2 |q| |g| might not fit into float32.
_LARGEST_SQUARE = 1e36
# The smallest |x|^2 that has a direction: 1 / |x| must fit into float32 too.
_SMALLEST_SQUARE = 1e-70


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a matrix, such as a memory-mapped file, read when they are needed.

    `matrix` is (N, D) float32; `index` (G,) int64 names the rows, or is None for all in order.

    Raises:
        ValueError: they have another type or shape, are not contiguous, or an index is not a row.
    """

    matrix: Features
    index: NDArray[np.int64] | None

    def __post_init__(self) -> None:
        # NOTE the compiled loops follow these addresses unchecked.
        _check_array("the features", self.matrix, np.float32, ndim=2)
        if self.index is not None:
            _check_array("the indices of features", self.index, np.int64, ndim=1)
            _check_index("the", self.index, self.matrix)

    def __len__(self) -> int:
        return len(self.matrix if self.index is None else self.index)

    def read_range(self, start: int, stop: int) -> Features:
        """The features at positions start to stop, (stop - start, D): a view if possible."""
        if self.index is None:
            return self.matrix[start:stop]
        return self.matrix[self.index[start:stop]]

    def subset(self, places: NDArray[np.int64] | NDArray[np.intp]) -> "Rows":
        """The rows at those positions, in that order; only row numbers are copied."""
        index = places if self.index is None else self.index[places]
        return Rows(self.matrix, np.ascontiguousarray(index))

    def squared_norms(self) -> NDArray[np.float64]:
        """|x|^2 of every row, (len(self),)."""
        squares = np.empty(len(self))
        _features.squared_norms(self.matrix, self.index, squares)
        return squares


def select_rows(
    matrix: Features, index: NDArray[np.int64] | None = None, *, role: str = "the"
) -> Rows:
    """The rows of a matrix named by `index`, as a view if they are consecutive.

    `role`, such as "query", names the matrix in errors.

    Raises:
        ValueError: the matrix is not float32 (N, D), or an index is not one of its rows.
    """
    if matrix.ndim != 2 or matrix.dtype != np.float32:
        raise ValueError(
            f"{role} features are {matrix.dtype} of shape {matrix.shape}; "
            "expected float32 of shape (images, dimensions)"
        )
    if index is None or len(index) == 0:
        return Rows(np.ascontiguousarray(matrix if index is None else matrix[:0]), None)
    _check_index(role, index, matrix)
    if (np.diff(index) == 1).all():
        return Rows(np.ascontiguousarray(matrix[index[0] : index[-1] + 1]), None)
    return Rows(np.ascontiguousarray(matrix), np.ascontiguousarray(index))


def _check_index(role: str, index: NDArray[np.int64], matrix: Features) -> None:
    outside = index[(index < 0) | (index >= len(matrix))]
    if len(outside):
        raise ValueError(f"{role} features have {len(matrix)} rows; there is no row {outside[0]}")


def _check_array(what: str, array: object, dtype: type[np.generic], *, ndim: int) -> None:
    wanted = f"expected a contiguous array of {np.dtype(dtype)} with {ndim} dimensions"
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{what} are {type(array).__name__}; {wanted}")
    if array.dtype != dtype or array.ndim != ndim or not array.flags.c_contiguous:
        raise ValueError(
            f"{what} are {array.dtype} of shape {array.shape}, strides {array.strides}; {wanted}"
        )


class FeatureError(ValueError):
    """A feature without distances to others; `place` is its image's position in `role`."""

    def __init__(self, role: str, place: int, what: str) -> None:
        super().__init__(f"{role} feature {place} is {what}")
        self.role, self.place = role, place


class SquaredNorms(NamedTuple):
    """|x|^2 of queries (Q,) and gallery (G,)."""

    query: NDArray[np.float64]
    gallery: NDArray[np.float64]


def validate_features(query: Rows, gallery: Rows, metric: str) -> SquaredNorms:
    """The squared norms of two checked sets of features.

    Raises:
        ValueError: the metric is unknown, there are no features, or their dimensions differ.
        FeatureError: one is not finite.
    """
    check_comparable(query, gallery, metric)
    squares = SquaredNorms(query.squared_norms(), gallery.squared_norms())
    for role, each in zip(("query", "gallery"), squares, strict=True):
        check_norms(role, each)
    return squares


def check_comparable(query: Rows, gallery: Rows, metric: str) -> None:
    """Check the shapes of two sets of features; no feature is read.

    Raises:
        ValueError: the metric is unknown, there are no features, or their dimensions differ.
    """
    if metric not in METRICS:
        raise ValueError(f"no metric '{metric}'; there are {', '.join(METRICS)}")
    for role, features in (("query", query), ("gallery", gallery)):
        if len(features) == 0 or features.matrix.shape[1] == 0:
            raise ValueError(f"there are no {role} features: shape {features.matrix.shape}")
    if query.matrix.shape[1] != gallery.matrix.shape[1]:
        raise ValueError(
            f"query features have {query.matrix.shape[1]} dimensions and gallery features "
            f"{gallery.matrix.shape[1]}: they must come from one model"
        )


def is_without_direction(squares: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which features, by their squared norms, are all zeros or nearly so."""
    return squares < _SMALLEST_SQUARE


def check_norms(role: str, squares: NDArray[np.float64]) -> None:
    """Check that features with these squared norms are finite.

    Raises:
        FeatureError: one is not, or is beyond 1e18.
    """
    finite = squares < _LARGEST_SQUARE
    if not finite.all():
        what = "not finite (NaN, infinite, or beyond 1e18)"
        raise FeatureError(role, int(np.argmin(finite)), what)


def as_rows(role: str, features: Features | Rows) -> Rows:
    """Features as `FeatureRows`; `role` names them in errors of `select_rows`."""
    return features if isinstance(features, Rows) else select_rows(features, role=role)
