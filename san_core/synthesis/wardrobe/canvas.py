"""The canvas on which a texture and the thickness of clothes are painted."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from san_core.synthesis.kernels import _raster
from san_core.synthesis.person import surface
from san_core.synthesis.person.body import Floats, current_body
from san_core.synthesis.person.surface import Mask, Surface

LATTICE_SIZE = 24  # cells on a side of the noise lattice, which repeats
Region = Callable[[Surface], Mask]


class Canvas:
    """Colours of all N texels and shape at all V vertices, painted in layers.

    Attributes:
        colour: (N, 3) RGB, 0-255.
        folds: (N,) depth of the folds of cloth at each texel, 0 to 1; 0 off cloth.
        thickness: (V,) distance from the skin in metres, smoothed in the end.
        jut: (V,) metres added after smoothing, for sharp edges.
        hang: (V,) degree to which cloth spans the hollows of the skin, 0 to 1.

    A region is a function of a surface. The same function selects the texels that a garment colours
    and the vertices that it lifts off the skin.
    """

    def __init__(self, rng: np.random.Generator, base_colour: ArrayLike) -> None:
        self.rng = rng
        self.texels = surface.texel_surface()
        self.colour = np.empty((len(self.texels.points), 3), np.float32)
        self.colour[:] = base_colour
        self.thickness = np.zeros(len(current_body().mean), np.float32)
        self.jut = np.zeros_like(self.thickness)
        self.hang = np.zeros_like(self.thickness)
        self.folds = np.zeros(len(self.texels.points), np.float32)
        self._lattice = rng.standard_normal((LATTICE_SIZE,) * 3, dtype=np.float32)

    def noise(
        self,
        cell: float,
        *,
        stretch: tuple[float, float, float] = (1, 1, 1),
        where: Mask | None = None,
    ) -> Floats:
        """Smooth random values of mean 0 and deviation near 0.6 at the texels, without seams.

        Args:
            cell: size of the features in metres.
            stretch: factors on this size along x, y and z.
            where: compute only these texels.
        """
        points = self.texels.points if where is None else self.texels.points[where]
        return self.noise_at(points, cell, stretch=stretch)

    def noise_at(
        self, points: Floats, cell: float, *, stretch: tuple[float, float, float] = (1, 1, 1)
    ) -> Floats:
        """As `noise`, at any points (n, 3)."""
        out = np.empty(len(points), np.float32)
        sx, sy, sz = (1 / (cell * factor) for factor in stretch)
        # An offset that is no multiple of the cell keeps layers of one canvas apart.
        _raster.lattice_noise(self._lattice, points, sx, sy, sz, out)
        return out

    def fill(self, where: Mask, colour: ArrayLike) -> None:
        """Paint texels in one colour, or one colour per texel (N, 3)."""
        value = np.asarray(colour, np.float32)
        self.colour[where] = value[where] if value.ndim == 2 else value

    def shade(self, where: Mask, factor: ArrayLike) -> None:
        """Multiply the brightness of texels by one factor, or one factor per texel (N,)."""
        value = np.asarray(factor, np.float32)
        self.colour[where] *= value[where][:, None] if value.ndim else value

    def blend(self, weight: Floats, colour: ArrayLike) -> None:
        """Mix a colour in by a weight per texel, 0 to 1."""
        touched = np.flatnonzero(weight > 0.004)
        share = weight[touched, None]
        mixed = self.colour[touched] * (1 - share) + np.asarray(colour, np.float32) * share
        self.colour[touched] = mixed

    def dress_region(
        self,
        region: Region,
        colour: ArrayLike,
        *,
        thickness: float,
        hang: float = 0.0,
        folds: float = 0.0,
    ) -> Mask:
        """Dress a region: paint it, lift it at least `thickness` metres; returns its texels."""
        where = region(self.texels)
        self.fill(where, colour)
        self.folds[where] = folds
        self.thicken_region(region, thickness)
        inside = region(surface.vertex_surface())
        self.hang[inside] = np.maximum(self.hang[inside], np.float32(hang))
        return where

    def thicken_region(self, region: Region, thickness: float) -> None:
        """Raise a region to at least `thickness` metres off the skin."""
        lifted = region(surface.vertex_surface())
        self.thickness[lifted] = np.maximum(self.thickness[lifted], np.float32(thickness))

    def add_slack(self, region: Region, slack: Callable[[Surface], ArrayLike]) -> None:
        """Add slack in metres, (V,) or one value, to a region."""
        points = surface.vertex_surface()
        where = region(points)
        extra = np.broadcast_to(np.asarray(slack(points), np.float32), where.shape)
        self.thickness[where] += extra[where]

    def protrude_region(self, region: Region, metres: Callable[[Surface], ArrayLike]) -> None:
        """Make a region protrude by metres, (V,) or one value, with a sharp edge."""
        points = surface.vertex_surface()
        where = region(points)
        out = np.broadcast_to(np.asarray(metres(points), np.float32), where.shape)
        self.jut[where] = np.maximum(self.jut[where], out[where])


def smoothstep(low: float, high: float, values: ArrayLike) -> Floats:
    """0 below `low`, 1 above `high`, and a smooth ramp between; decreasing if high < low."""
    span = np.clip((np.asarray(values, np.float32) - low) / (high - low), 0, 1)
    ramp: Floats = (span * span * (3 - 2 * span)).astype(np.float32)
    return ramp
