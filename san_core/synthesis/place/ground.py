"""The ground in perspective: asphalt, slabs, bricks, tiles or grass, with kerbs and lines.

A pinhole camera of FOCAL_LENGTH pixels, `height` metres above the ground, looks along it: `below`
rows under the horizon the ground is height * FOCAL_LENGTH / below metres away.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.synthesis.person.body import Floats
from san_core.synthesis.place.materials import TiledNoise, muted_colour

FOCAL_LENGTH = 400.0  # pixels


class GroundPlane(NamedTuple):
    """The position on the ground of every pixel, in metres: (rows, columns) each."""

    across: Floats
    away: Floats
    step: Floats  # how much further away the next row is: what is finer cannot be seen


def ground_plane(
    first: float, shape: tuple[int, int], *, height: float, middle: float
) -> GroundPlane:
    """The ground from `first` rows below the horizon; `middle` is the column straight ahead."""
    rows, columns = shape
    below = (np.arange(rows, dtype=np.float32) + np.float32(max(first, 1)))[:, None]
    away = height * FOCAL_LENGTH / below
    across = (np.arange(columns, dtype=np.float32) - middle) * away / FOCAL_LENGTH
    spread = np.broadcast_to(away, shape)
    return GroundPlane(across.astype(np.float32), spread, np.broadcast_to(away / below, shape))


def sample_ground(rng: np.random.Generator, where: GroundPlane) -> Floats:
    """A random ground (rows, columns, 3): one material, or a pavement before a road."""
    noise = TiledNoise(rng)
    image = _ground_material(rng, where, noise, int(rng.integers(5)))
    layout = rng.random()
    if layout < 0.35:  # a road further away than the pavement that people walk on
        near, far = sorted(rng.uniform(4, 16, 2))
        road = (where.away > near) & (where.away < max(far, near + 4))
        image[road] = _ground_material(rng, where, noise, 0)[road]
        edge = np.abs(where.away - near) < 0.12
        image[edge] = muted_colour(rng, 130, 190)
        line = np.abs(where.away - near - 2.2) < 0.07
        dashes = line & (where.across % 4 < 2.2)
        image[dashes] = 0.35 * image[dashes] + 0.65 * np.float32(212)
    elif layout < 0.6:  # a verge or a road along one side
        side = rng.uniform(-2.5, 2.5)
        beyond = (where.across > side) if rng.random() < 0.5 else (where.across < side)
        image[beyond] = _ground_material(rng, where, noise, int(rng.choice([0, 4])))[beyond]
        image[np.abs(where.across - side) < 0.09] = muted_colour(rng, 110, 190)
    elif layout < 0.7:  # a crossing
        bars = (where.across % 1.1 < 0.5) & (np.abs(where.away - rng.uniform(3, 9)) < 1.4)
        image[bars] = 0.4 * image[bars] + 0.6 * np.float32(210)
    return image


def _ground_material(
    rng: np.random.Generator, where: GroundPlane, noise: TiledNoise, kind: int
) -> Floats:
    """0 asphalt, 1 slabs, 2 bricks, 3 tiles, 4 grass."""
    u, v = where.across, where.away
    stains = 0.035 * noise.values_at(u, v, 2.3) + 0.03 * noise.values_at(u + 7, v + 3, 0.8)
    fine = _visibility(0.12, where.step) * noise.values_at(u, v, 0.12)
    grain = 0.02 * rng.standard_normal(u.shape, dtype=np.float32)
    if kind == 4:
        colour = np.array([88, 96, 66]) * rng.uniform(0.7, 1.1) + rng.normal(0, 5, 3)
        tufts = 1 + 1.3 * stains + 0.12 * fine + 3 * grain
        lawn: Floats = (colour * tufts[..., None]).astype(np.float32)
        return lawn
    low, high = ((62, 125), (105, 190), (85, 150), (110, 195))[kind]
    factor = 1 + stains + (0.045 if kind == 0 else 0.02) * fine + grain
    factor = factor + _joint_brightness(rng, where, kind)
    image: Floats = (muted_colour(rng, low, high) * factor[..., None]).astype(np.float32)
    return image


def _joint_brightness(rng: np.random.Generator, where: GroundPlane, kind: int) -> Floats:
    """The brightness that slabs, bricks and tiles add; joints fade where pixels are too large."""
    if kind == 0:
        return np.zeros_like(where.across)
    long = (0, rng.uniform(0.4, 1.1), 0.21, rng.uniform(0.3, 0.6))[kind]
    short = long * (0.5 if kind == 2 else rng.choice([1.0, 1.0, 0.6]))
    width = 0.012 if kind == 3 else 0.022
    row = np.floor(where.away / short)
    offset = 0.5 * (row % 2) if kind == 2 or rng.random() < 0.4 else 0 * row
    u, v = where.across / long + offset, where.away / short
    joints = _line_coverage(v % 1 * short, width, where.step)
    joints = np.maximum(joints, _line_coverage(u % 1 * long, width, where.away / FOCAL_LENGTH))
    shade = rng.random((8, 8)).astype(np.float32) - np.float32(0.5)
    cells = shade[row.astype(np.int32) & 7, np.floor(u).astype(np.int32) & 7]
    uneven = 0.12 if kind == 2 else 0.05
    if kind == 3 and rng.random() < 0.4:  # two shades
        cells = (row + np.floor(u)) % 2 - np.float32(0.5)
    added: Floats = _visibility(long, where.step) * uneven * cells - 0.28 * joints
    return added


def _line_coverage(distance: NDArray[Any], width: float, step: Floats) -> Floats:
    """The share of a pixel of `step` metres that a line from distance 0 covers."""
    cover: Floats = (distance < np.maximum(step, width)) * np.minimum(1, width / step)
    return cover


def _visibility(size: float, step: Floats) -> Floats:
    """The contrast of features of a size: 1 if they are visible, 0 if pixels are larger."""
    seen: Floats = np.clip(1.5 - step / size, 0, 1)
    return seen
