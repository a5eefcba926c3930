"""Perceptual colours: CIE L*a*b* and its hue, from sRGB under D65 (CIE 15:2004).

Lightness runs from 0 to 100; a and b, and so chroma, reach some 130 within sRGB; a difference of
2.3 is just seen. Hues are angles from +a (red) by +b (yellow), -a (green) and -b (blue).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65, 2 degrees
_TO_XYZ = np.array(  # IEC 61966-2-1
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_FROM_XYZ = np.linalg.inv(_TO_XYZ)
_EDGE, _SLOPE = (6 / 29) ** 3, (29 / 6) ** 2 / 3  # where the cube root turns into a line
_CHROMAS = np.linspace(0, 135, 91)


def rgb_to_lab(rgb: ArrayLike) -> Floats:
    """L, a, b (..., 3) of sRGB colours (..., 3), 0-255."""
    share = np.asarray(rgb, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _TO_XYZ.T / _WHITE
    root = np.where(ratio > _EDGE, np.cbrt(ratio), _SLOPE * ratio + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
    return lab.astype(np.float32)


def lab_to_rgb(lab: ArrayLike) -> Floats:
    """The sRGB (..., 3) of L, a, b (..., 3); outside 0-255 if sRGB has no such colour."""
    lightness, a, b = np.moveaxis(np.asarray(lab, np.float64), -1, 0)
    y = (lightness + 16) / 116
    root = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    ratio = np.where(root > 6 / 29, root**3, (root - 4 / 29) / _SLOPE)
    linear = ratio * _WHITE @ _FROM_XYZ.T
    curved = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, curved)
    levels: Floats = (255 * rgb).astype(np.float32)
    return levels


def most_chroma(lightness: float, hue: float) -> float:
    """The largest chroma, or up to 1.5 less, of sRGB at a lightness and a hue in radians."""
    lab = np.stack(
        [np.full_like(_CHROMAS, lightness), _CHROMAS * np.cos(hue), _CHROMAS * np.sin(hue)], axis=-1
    )
    rgb = lab_to_rgb(lab)
    outside = ((rgb < -0.5) | (rgb > 255.5)).any(axis=-1)
    return float(_CHROMAS[np.argmax(outside) - 1]) if outside.any() else float(_CHROMAS[-1])


def colour_of(lightness: float, hue: float, *, vividness: float) -> tuple[float, float, float]:
    """The sRGB colour, 0-255, of a lightness and a hue in radians.

    vividness: share of the largest chroma that sRGB has there, 0 grey to 1.
    """
    chroma = vividness * most_chroma(lightness, hue)
    red, green, blue = np.clip(
        lab_to_rgb([lightness, chroma * np.cos(hue), chroma * np.sin(hue)]), 0, 255
    )
    return float(red), float(green), float(blue)
