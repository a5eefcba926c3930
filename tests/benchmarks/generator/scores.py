"""How near textures come to the true ones: colours, levels, detail, agreement.

Legend: N pictures, T texels a side; textures are uint8 (N, T, T, 3).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from san_core.evaluation.labels import Labels
from san_core.images.lab import rgb_to_lab
from san_core.images.pixels import Pixels, area_average
from san_core.synthesis.person.surface import Surface, landmarks, texel_surface
from tests.benchmarks.generator.oracle import ATLAS_SIDE
from tests.benchmarks.groups.synthesis import mean_average_precision

COLOUR_SIDE, DETAIL_SIDE, FEATURE_SIDE = 64, 128, 16  # texels a side
HUE_REACH, LEAST_CHROMA = np.deg2rad(30), 12
LEAST_TEXELS = 8  # of a part of the body: fewer tell no colour
DETAIL_SIGMA = 2.0  # texels: what is smoother than that is no detail
Values = NDArray[np.float32]
REGIONS: dict[str, Callable[[Surface], NDArray[np.bool_]]] = {
    "torso": lambda s: s.torso & (s.torso_height > 0.4) & (s.torso_height < 0.8),
    "legs": lambda s: s.leg & (s.along_leg > 0.1) & (s.along_leg < 0.8),
    "face": lambda s: (
        s.head_front
        & (np.abs(s.x) < 0.05)
        & (np.abs(s.z - landmarks().eyes + 0.035) < 0.03)
        & (s.y < 0)
    ),
    "hands": lambda s: s.hand,
}
SKIN = ("face", "hands")


def at_side(textures: Pixels, side: int) -> Pixels:
    """Textures of another size: averaged where they are larger, enlarged where smaller."""
    if textures.shape[1] >= side:
        return np.stack([area_average(texture, side) for texture in textures])
    return np.stack(
        [
            np.asarray(Image.fromarray(texture).resize((side, side), Image.Resampling.BILINEAR))
            for texture in textures
        ]
    )


def region_colours(textures: Pixels, region: str, where: NDArray[np.bool_]) -> Values:
    """The mean L, a, b (N, 3) of the texels `where` (N, T, T) of a part of the body.

    NaN for a picture that has fewer than LEAST_TEXELS there. `region` is a key of REGIONS.
    """
    side = textures.shape[1]
    k = ATLAS_SIDE // side
    inside = REGIONS[region](texel_surface()).reshape(side, k, side, k).all(axis=(1, 3))
    chosen = where[:, inside]  # (N, texels of the region)
    count = chosen.sum(axis=1)[:, None]
    total = np.where(chosen[..., None], rgb_to_lab(textures[:, inside]), 0).sum(axis=1)
    colours: Values = np.where(count < LEAST_TEXELS, np.nan, total / np.maximum(count, 1))
    return colours


def hue_is_right(made: Values, true: Values) -> NDArray[np.bool_]:
    """Which colours (N, 3) in L, a, b are within 30 degrees of the true hue, and not grey."""
    hue, wanted = (np.arctan2(lab[:, 2], lab[:, 1]) for lab in (made, true))
    off = np.abs(np.angle(np.exp(1j * (hue - wanted))))
    right: NDArray[np.bool_] = (off < HUE_REACH) & (np.hypot(made[:, 1], made[:, 2]) > LEAST_CHROMA)
    return right


def psnr_where(made: Pixels, true: Pixels, where: NDArray[np.bool_] | None = None) -> float:
    """PSNR in dB over the texels `where` (N, T, T), errors pooled."""
    squares = np.square(made.astype(np.float32) - true).mean(axis=3)
    error = (squares if where is None else squares[where]).mean(dtype=np.float64)
    return float(10 * np.log10(255**2 / error))


def mean_gradient(textures: Pixels) -> float:
    """Mean absolute difference of neighbouring texels, of 255."""
    levels = textures.astype(np.float32)
    down, across = (np.abs(np.diff(levels, axis=axis)).mean() for axis in (1, 2))
    return float(down + across) / 2


def detail_correlation(made: NDArray[Any], true: NDArray[Any], where: NDArray[np.bool_]) -> float:
    """Correlation of what is finer than DETAIL_SIGMA with that of the true texture, over `where`.

    Pictures are weighed alike. Edges of charts are detail too, which everybody's texture has; they
    are gone from textures less their mean.
    """
    found = []
    for ours, theirs, seen in zip(made, true, where, strict=True):
        first, second = (_detail(texture)[seen].ravel() for texture in (ours, theirs))
        found.append(np.corrcoef(first, second)[0, 1] if first.std() and second.std() else 0.0)
    return float(np.mean(found))


def _detail(texture: NDArray[Any]) -> Values:
    levels = texture.astype(np.float32)
    detail: Values = levels - gaussian_filter(levels, (DETAIL_SIGMA, DETAIL_SIGMA, 0))
    return detail


def view_distance_share(textures: Pixels, person: NDArray[np.intp]) -> float:
    """Distance of textures of one person's views over that of different people's: 0 best, 1 none.

    Mean absolute difference over 16x16 texels in L, a, b.
    """
    rows = rgb_to_lab(at_side(textures, FEATURE_SIDE)).reshape(len(textures), -1)
    same = person[:, None] == person
    away = np.stack([np.abs(rows - row).mean(axis=1) for row in rows])
    np.fill_diagonal(same, False)
    others = person[:, None] != person
    return float(away[same].mean() / away[others].mean())


def texture_map(textures: Pixels, labels: Labels) -> float:
    """mAP of the texture alone as feature: 16x16 texels in L, a, b less their mean, by cosine."""
    rows = rgb_to_lab(at_side(textures, FEATURE_SIDE)).reshape(len(textures), -1)
    return mean_average_precision((rows - rows.mean(axis=0)).astype(np.float32), labels)
