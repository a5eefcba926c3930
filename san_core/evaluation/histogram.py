"""The fixed baseline that every trained model is compared with: colour histograms, not learnt.

Only the middle half of an image's columns counts, because the person is there. It is cut into 6
horizontal stripes of equal height, roughly head, chest, waist, thighs, knees and feet. Each stripe
counts its pixels in 8 x 4 x 4 equal bins of hue, saturation and value (Gray and Tao 2008 made
stripes of colour the usual hand-made descriptor). The shares of all bins sum to 1 over the image
and their square roots are the feature. Features therefore have length 1, and their squared
Euclidean distance is 2 - 2 BC, with BC the Bhattacharyya coefficient of the shares (the Hellinger
distance). They are ranked like learnt features.

Shapes: H rows, W columns, N images.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.images import pixels
from san_core.images.pixels import Pixels

STRIPES = 6
BINS = (8, 4, 4)  # hue, saturation, value
DIMENSIONS = STRIPES * BINS[0] * BINS[1] * BINS[2]
# (rows, columns) at which colours are counted: small enough to be quick, 16 rows a stripe.
SIZE = (96, 48)
_MIDDLE_COLUMNS = slice(SIZE[1] // 4, SIZE[1] - SIZE[1] // 4)


class Hsv(NamedTuple):
    """Hue in [0, 1), saturation and value in [0, 1], each (H, W) float32."""

    hue: NDArray[np.float32]
    saturation: NDArray[np.float32]
    value: NDArray[np.float32]


def histogram_features(images: Iterable[Pixels]) -> NDArray[np.float32]:
    """The features of images, each uint8 (H, W, 3) RGB of any size: (N, 768) float32, length 1.

    Raises:
        ValueError: an image has another shape or type.
    """
    rows = [_histogram_feature(image) for image in images]
    return np.stack(rows) if rows else np.empty((0, DIMENSIONS), np.float32)


def _histogram_feature(image: Pixels) -> NDArray[np.float32]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"an image is {image.dtype} of shape {image.shape}; expected uint8 (H, W, 3), RGB"
        )
    colours = rgb_to_hsv(pixels.resize(image, SIZE)[:, _MIDDLE_COLUMNS])
    stripe = np.arange(SIZE[0])[:, None] * STRIPES // SIZE[0]  # (H, 1)
    cell = stripe
    for channel, bins in zip(colours, BINS, strict=True):
        # Saturation and value reach 1, which belongs to the last bin.
        cell = cell * bins + np.minimum((channel * bins).astype(np.intp), bins - 1)
    counts = np.bincount(cell.ravel(), minlength=DIMENSIONS)
    feature: NDArray[np.float32] = np.sqrt(counts / counts.sum()).astype(np.float32)
    return feature


def rgb_to_hsv(image: Pixels) -> Hsv:
    """Hue, saturation and value of an RGB image (H, W, 3), by Smith's hexcone (1978).

    With M and m the largest and smallest of R, G, B in [0, 1] and C = M - m: value is M,
    saturation C / M, and hue one sixth of (G - B) / C, 2 + (B - R) / C or 4 + (R - G) / C as the
    largest is R, G or B (the first of them if tied), taken modulo 1. Grey has hue and saturation 0.
    """
    rgb = image.astype(np.float32) / 255
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value = rgb.max(axis=-1)
    chroma = value - rgb.min(axis=-1)
    # Where the divisor is 0 so is the dividend, and 0 is the answer wanted.
    divisor = np.where(chroma > 0, chroma, np.float32(1))
    sixths = np.select(
        [value == red, value == green],
        [(green - blue) / divisor, 2 + (blue - red) / divisor],
        4 + (red - green) / divisor,
    )
    hue = np.mod(sixths / 6, 1).astype(np.float32)
    # A negative hue below float32's resolution comes out of the modulo as 1, which is 0.
    hue[hue >= 1] = 0
    saturation = chroma / np.where(value > 0, value, np.float32(1))
    return Hsv(hue, saturation, value)
