"""Who knows which texel every pixel shows, and nothing else.

Every texel that the picture shows gets the mean of the pixels that show it, lit as they are; all
others get the mean of other people's textures. Where texels are smaller than pixels, the mean
stands between copied texels and breaks up their detail. `spread` copies into these gaps as well.
Legend: N pictures, T texels a side.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from san_core.images.pixels import Pixels, area_average, resize

SEEN_SHARE = 127  # of 255: a pixel that the person covers less tells nothing
ATLAS_SIDE = 256  # texels a side that dense maps count in
SPREAD_REACH = 4  # texels


def texels_shown(dense: Pixels, size: int) -> NDArray[np.bool_]:
    """The texels (size, size) that a picture's dense map (H, W, 3) speaks of."""
    shown = np.zeros(size * size, bool)
    shown[_cells(dense, size)[1]] = True
    return shown.reshape(size, size)


def at_input_size(image: Pixels, dense: Pixels, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """A picture as a network of this input size (rows, columns) sees it, and its dense map.

    Of the dense map the nearest pixels are taken: means of texels would be other texels.
    """
    rows, columns = size
    nearest = Image.fromarray(dense).resize((columns, rows), Image.Resampling.NEAREST)
    return resize(image, size), np.asarray(nearest)


def copy_seen(
    image: Pixels, dense: Pixels, fill: Pixels, size: int, *, spread: float = 0
) -> Pixels:
    """The texture (size, size, 3) of one picture (H, W, 3) by its dense map.

    Args:
        image: the picture.
        dense: its dense map, of the same size.
        fill: (256, 256, 3), what stands where nothing is seen.
        size: texels a side.
        spread: sigma, in texels, of the Gaussian by which pixels count for the texels around the
            one that they show. 0: for that one alone.
    """
    pixels, cells = _cells(dense, size)
    levels = image.reshape(-1, 3)[pixels].T  # (3, pixels on the person)
    sums = [np.bincount(cells, each, size * size) for each in (np.ones(len(cells)), *levels)]
    around = gaussian_filter(
        np.reshape(sums, (4, size, size)),
        (0, spread, spread),
        mode="constant",
        radius=(0, SPREAD_REACH, SPREAD_REACH),
    )
    count, *totals = around.reshape(4, -1)
    copied = count > 0
    texture = area_average(fill, size).reshape(-1, 3).astype(np.float32)
    for channel, total in enumerate(totals):
        texture[copied, channel] = total[copied] / count[copied]
    made: Pixels = np.rint(texture).astype(np.uint8).reshape(size, size, 3)
    return made


def _cells(dense: Pixels, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of the pixels on the person, and of the texel that each shows."""
    flat = dense.reshape(-1, 3).astype(np.intp)
    pixels = np.flatnonzero(flat[:, 2] > SEEN_SHARE)
    column, row = flat[pixels, 0] * size // ATLAS_SIDE, flat[pixels, 1] * size // ATLAS_SIDE
    return pixels, row * size + column
