"""Features prepared for matrix products: of unit length for cosine, and centred.

The rounding error of a product in float32 grows with the lengths of the vectors, not with their
distance. If features share a large common part, as after a ReLU, that error would hide their
differences. So the common part is subtracted first. Distances do not change when all points move:

    |q - g|^2 = |a - b|^2    and    1 - cos(q, g) = |a - b|^2 / 2,

with a = q - c and b = g - c, of unit vectors q / |q| and g / |g| for cosine. Any c gives the same
ranks, because products only bound the distance (`streaming`). c is the mean of some rows of the
gallery. If features have little in common, c is 0 and nothing is copied.

Shapes: Q queries, G gallery images, N images of either, D dimensions.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation.kernels.compiled import _features
from san_core.evaluation.kernels.rows import (
    Features,
    Rows,
    SquaredNorms,
    is_without_direction,
    validate_features,
)

Doubles = NDArray[np.float64]

# Gallery images whose mean is subtracted: it is within a 16th of their spread of the mean of all.
_SAMPLE = 256
# The least share of |x|^2 of a mean that is subtracted: below it, bounds up to twice as wide cost
# less than the copy.
_LEAST_SHARE = 0.5
# A squared distance as a multiple of the distance that the metric states.
SQUARED_DISTANCE_SCALES = {"euclidean": 1, "cosine": 2}


class FeatureBlock(NamedTuple):
    """Some prepared images: features (n, D) float32, and their |.|^2, (n,)."""

    features: Features
    squares: Doubles


@dataclass(frozen=True, eq=False)
class Operand:
    """Queries or gallery images, read and centred a range at a time.

    Attributes:
        rows: the features as they are.
        squares: (N,) |x|^2 of those.
        scales: (N,) by which they are multiplied, 1 / |x|; None for 1.
        centre: (D,) subtracted after scaling.
    """

    rows: Rows
    squares: Doubles
    scales: Doubles | None
    centre: Doubles

    def __len__(self) -> int:
        return len(self.rows)

    def read_range(self, start: int, stop: int, buffer: Features | None = None) -> FeatureBlock:
        """Images start to stop: a view if nothing is to be done, else in `buffer`.

        Without `buffer`, in a new array.
        """
        if self.scales is None and self.rows.index is None and not self.centre.any():
            return FeatureBlock(self.rows.read_range(start, stop), self.squares[start:stop])
        shape = (min(stop, len(self)) - start, len(self.centre))
        buffer = np.empty(shape, np.float32) if buffer is None else buffer
        features = buffer.reshape(-1)[: shape[0] * shape[1]].reshape(shape)
        squares = np.empty(shape[0])
        _features.centred(
            self.rows.matrix, self.rows.index, start, self.scales, self.centre, features, squares
        )
        return FeatureBlock(features, squares)


class Operands(NamedTuple):
    """Queries and the gallery, centred alike."""

    query: Operand
    gallery: Operand


def make_operands(query: Rows, gallery: Rows, metric: str) -> Operands:
    """The operands of features that are compared by a metric.

    A feature of zeros has no direction: its cosine with every other one counts as 0.

    Raises:
        ValueError: as in `rows.validate_features`.
    """
    squares = validate_features(query, gallery, metric)
    if metric == "cosine" and any(is_without_direction(each).any() for each in squares):
        query, gallery = _with_directions(query, gallery, squares)
        squares = validate_features(query, gallery, metric)
    scales = [None if metric == "euclidean" else 1 / np.sqrt(each) for each in squares]
    centre = _centre(gallery, scales[1])
    return Operands(
        Operand(query, squares.query, scales[0], centre),
        Operand(gallery, squares.gallery, scales[1], centre),
    )


def _with_directions(query: Rows, gallery: Rows, squares: SquaredNorms) -> tuple[Rows, Rows]:
    """Both sides with two more dimensions, for query and for gallery features of zeros.

    So the cosine of each of these with everything on the other side is 0, and all tie.
    """
    sides = []
    for axis, (rows, each) in enumerate(zip((query, gallery), squares, strict=True)):
        dim = rows.matrix.shape[1]
        wider = np.zeros((len(rows), dim + 2), np.float32)
        wider[:, :dim] = rows.read_range(0, len(rows))
        nowhere = is_without_direction(each)
        wider[nowhere] = np.eye(1, dim + 2, dim + axis)
        sides.append(Rows(wider, None))
    return sides[0], sides[1]


def _centre(rows: Rows, scales: Doubles | None) -> Doubles:
    """The mean of some evenly spaced, scaled rows; 0 if subtracting it is not worth the copy."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(np.int64)
    features = rows.subset(places).read_range(0, len(places)).astype(np.float64)
    if scales is not None:
        features *= scales[places, None]
    mean: Doubles = features.mean(axis=0)
    share = (mean**2).sum() / max((features**2).sum(axis=1).mean(), 1e-300)
    return mean if share >= _LEAST_SHARE else np.zeros_like(mean)
