"""Colours and surfaces of places: muted, uneven and weathered, as in camera images.

Colours are RGB, 0-255.
"""

import numpy as np
from PIL import Image

from san_core.synthesis.person.body import Floats

TILE_SIZE = 256  # pixels on a side of a patch of noise that repeats
_LATTICE = 64


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], *, coarsest: int = 64
) -> Floats:
    """Fractal noise of mean 0 and deviation 1 over rows and columns."""
    rows, columns = shape
    grid, cell = np.zeros((2, 2), np.float32), coarsest
    while cell >= 2:
        finer = (rows // cell + 3, columns // cell + 3)
        detail = rng.standard_normal(finer, dtype=np.float32)
        grid = _resize_grid(grid, finer) + detail * np.float32(cell**0.3)
        cell //= 2
    total = _resize_grid(grid, shape)
    spread: Floats = (total - total.mean()) / (total.std() + np.float32(1e-6))
    return spread


def _resize_grid(grid: Floats, shape: tuple[int, int]) -> Floats:
    image = Image.fromarray(grid).resize(shape[::-1], Image.Resampling.BICUBIC)
    return np.asarray(image)


class TiledNoise:
    """Smooth noise on a plane, of mean 0 and deviation near 1, with a period of 64 cells."""

    def __init__(self, rng: np.random.Generator) -> None:
        lattice = np.pad(rng.standard_normal((_LATTICE, _LATTICE), dtype=np.float32), 4, "wrap")
        k = TILE_SIZE // _LATTICE
        self._tile = _resize_grid(lattice, (k * (_LATTICE + 8),) * 2)[
            4 * k : -4 * k, 4 * k : -4 * k
        ]
        self._tile = self._tile / self._tile.std()

    def values_at(self, u: Floats, v: Floats, cell: float) -> Floats:
        """Values at points of the plane; `cell` is the size of features."""
        scale = np.float32(TILE_SIZE / _LATTICE / cell)
        rows = (v * scale).astype(np.int32) & (TILE_SIZE - 1)
        columns = (u * scale).astype(np.int32) & (TILE_SIZE - 1)
        values: Floats = self._tile[rows, columns]
        return values


def muted_colour(rng: np.random.Generator, low: float = 55, high: float = 195) -> Floats:
    """A colour of stone, plaster, asphalt or metal: grey, a little warm or cool."""
    warmth, green = rng.normal(0.015, 0.05), rng.normal(0, 0.015)
    tint = np.array([1 + warmth, 1 + green, 1 - warmth])
    colour: Floats = np.clip(rng.uniform(low, high) * tint, 10, 240).astype(np.float32)
    return colour


def accent_colour(rng: np.random.Generator) -> Floats:
    """A vivid colour for shutters, posters and signs."""
    grey, hue = rng.uniform(50, 150), rng.uniform(0, 2 * np.pi)
    wheel = np.cos(hue - np.array([0, 2.1, 4.2])) * (1, 0.7, 1)  # few greens in a town
    colour: Floats = np.clip(grey * (1 + rng.uniform(0.1, 0.35) * wheel), 10, 225)
    return colour.astype(np.float32)


_PAINTS = ((205, 206, 206), (150, 153, 156), (92, 95, 99), (34, 35, 38), (44, 56, 82), (98, 34, 36))


def car_colour(rng: np.random.Generator) -> Floats:
    """A common colour of cars: white, silver, grey, black, dark blue or dark red."""
    paint = np.array(_PAINTS[rng.choice(len(_PAINTS), p=[0.26, 0.22, 0.2, 0.18, 0.08, 0.06])])
    return (paint * rng.uniform(0.85, 1.1)).astype(np.float32)


def foliage(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Leaves (rows, columns, 3): dull greens and browns, lit from above, with deep gaps."""
    green = np.array([82, 92, 62]) * rng.uniform(0.6, 1.15) + rng.normal(0, 6, 3)
    clumps = fractal_noise(rng, shape, coarsest=24)
    lit = np.roll(clumps, 2, axis=0) - clumps  # the upper sides of clumps
    leaves = 1 + 0.22 * clumps + 0.3 * lit + 0.07 * rng.standard_normal(shape, dtype=np.float32)
    out: Floats = (np.clip(green, 15, 200) * np.clip(leaves, 0.25, 1.9)[..., None]).astype(
        np.float32
    )
    return out


def material_patch(rng: np.random.Generator, colour: Floats, shape: tuple[int, int]) -> Floats:
    """A surface (rows, columns, 3) of one material, a little stained and grainy."""
    stains = 1 + rng.uniform(0.015, 0.04) * fractal_noise(rng, shape)
    stains += 0.012 * rng.standard_normal(shape, dtype=np.float32)
    material: Floats = (colour * stains[..., None]).astype(np.float32)
    return material


def soft_cover(inside: Floats) -> Floats:
    """Coverage from a signed distance: 1 well inside, 0 outside, with a soft edge."""
    cover: Floats = np.clip(0.5 + 6 * inside, 0, 1).astype(np.float32)
    return cover
