"""One texture from several pictures of a person, each weighted by what it shows.

The sides that one picture hides are taken from others. Legend: T texels a side.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from san_core.images.pixels import Pixels
from san_core.inference.network import SeenTexture

_LEAST_SHARE = 8  # of 255: the weight of a hidden texel, which counts only if no picture shows it


def fuse_textures(views: Iterable[SeenTexture]) -> Pixels:
    """The mean texture (T, T, 3), each view's texels weighted by their squared visibility.

    Sums are of whole numbers, so the order of the views does not matter.

    Raises:
        ValueError: there is no view.
    """
    total: np.int64 | np.ndarray = np.int64(0)
    weight: np.int64 | np.ndarray = np.int64(0)
    for view in views:
        share = np.maximum(view.seen, _LEAST_SHARE).astype(np.int64)[..., None] ** 2
        total, weight = total + share * view.texture, weight + share
    if not isinstance(total, np.ndarray):
        raise ValueError("there is no texture to fuse")
    return ((2 * total + weight) // (2 * weight)).astype(np.uint8)


def views_that_see_most(seen: Sequence[float], most: int) -> list[int]:
    """The numbers of the `most` views with most visible texels, in order; ties: the first."""
    by_share = sorted(range(len(seen)), key=lambda number: -seen[number])
    return sorted(by_share[:most])
