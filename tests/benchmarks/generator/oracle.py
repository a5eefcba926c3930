"""The ceiling of copying: who knows which texel every pixel shows, and nothing else.

Every texel that the picture shows gets the mean of the pixels that show it, lit as they are; all
others get the mean of other people's textures.
Legend: N pictures, T texels a side.
"""

import numpy as np
from numpy.typing import NDArray

from san_core.images.pixels import Pixels, area_average

SEEN_SHARE = 127  # of 255: a pixel that the person covers less tells nothing
ATLAS_SIDE = 256  # texels a side that dense maps count in


def texels_shown(dense: Pixels, size: int) -> NDArray[np.bool_]:
    """The texels (size, size) that a picture's dense map (H, W, 3) speaks of."""
    shown = np.zeros(size * size, bool)
    shown[_cells(dense, size)[1]] = True
    return shown.reshape(size, size)


def copy_seen(image: Pixels, dense: Pixels, fill: Pixels, size: int) -> Pixels:
    """The texture (size, size, 3) of one picture (H, W, 3) by its dense map.

    fill: (256, 256, 3), what stands where nothing is seen.
    """
    pixels, cells = _cells(dense, size)
    count = np.bincount(cells, minlength=size * size)
    texture = area_average(fill, size).reshape(-1, 3).astype(np.float32)
    for channel in range(3):
        levels = image[..., channel].ravel()[pixels]
        total = np.bincount(cells, levels, size * size)
        texture[count > 0, channel] = (total / np.maximum(count, 1))[count > 0]
    made: Pixels = np.rint(texture).astype(np.uint8).reshape(size, size, 3)
    return made


def _cells(dense: Pixels, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of the pixels on the person, and of the texel that each shows."""
    flat = dense.reshape(-1, 3).astype(np.intp)
    pixels = np.flatnonzero(flat[:, 2] > SEEN_SHARE)
    column, row = flat[pixels, 0] * size // ATLAS_SIDE, flat[pixels, 1] * size // ATLAS_SIDE
    return pixels, row * size + column
