"""Procedural backgrounds: scenes, and crops of them.

A scene is a wide picture from a camera some metres above the ground: houses along or across a
street, a wall, a park or a hall, the ground before it, and objects. Colours are muted, as in real
streets and halls.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from san_core.images.pixels import Pixels
from san_core.synthesis.person.body import Floats
from san_core.synthesis.place.facade import Facade, sample_facade
from san_core.synthesis.place.ground import FOCAL_LENGTH, ground_plane, sample_ground
from san_core.synthesis.place.materials import (
    accent_colour,
    foliage,
    fractal_noise,
    material_patch,
    muted_colour,
    soft_cover,
)
from san_core.synthesis.place.things import draw_thing

SCENE_ROWS, SCENE_COLUMNS = 320, 512  # of a scene


class Scene(NamedTuple):
    """A place."""

    image: Pixels  # (ROWS, COLUMNS, 3) RGB
    horizon: int  # row


class Viewpoint(NamedTuple):
    """The position of the camera of a scene."""

    horizon: int  # row
    height: float  # metres of the camera above the ground
    middle: float  # column straight ahead


class Backdrop(NamedTuple):
    """A place without objects. Lengths in metres."""

    image: Floats  # (ROWS, COLUMNS, 3)
    end: float  # how far away the ground ends
    sides: tuple[float, float] = (np.inf, np.inf)  # how far left and right it goes
    indoors: bool = False


BackdropBuilder = Callable[[np.random.Generator, Viewpoint], Backdrop]


def crop_scene(
    scene: Scene, rng: np.random.Generator, *, size: tuple[int, int], horizon: float
) -> Floats:
    """A crop of a scene, (H, W, 3) RGB 0-255, with the horizon as near as possible to a row."""
    rows, columns = size
    share = float(np.clip(horizon / rows, 0, 1))  # of the crop above the horizon
    limit = min(SCENE_ROWS, SCENE_COLUMNS * rows / columns)
    limit = min(
        limit, scene.horizon / max(share, 0.01), (SCENE_ROWS - scene.horizon) / max(1 - share, 0.01)
    )
    height = int(max(0.3 * SCENE_ROWS, limit * rng.uniform(0.6, 1)))
    width = max(1, min(SCENE_COLUMNS, int(height * columns / rows)))
    top = int(np.clip(scene.horizon - height * horizon / rows, 0, SCENE_ROWS - height))
    left = int(rng.integers(0, SCENE_COLUMNS - width + 1))
    piece = Image.fromarray(scene.image).resize(
        (columns, rows), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
    )
    if rng.random() < 0.5:
        piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(piece, np.float32)


def sample_scene(
    rng: np.random.Generator,
    builders: Sequence[BackdropBuilder] | None = None,
    shares: Sequence[float] = (0.26, 0.26, 0.16, 0.16, 0.16),
) -> Scene:
    """A random street, wall, park or hall; or a place of `builders`, drawn by their shares."""
    sight = Viewpoint(
        horizon=int(SCENE_ROWS * rng.uniform(0.18, 0.42)),
        height=rng.uniform(1.8, 4.5),
        middle=SCENE_COLUMNS * rng.uniform(0.15, 0.85),
    )
    chosen = rng.choice(len(shares), p=shares)
    place = (builders or BACKDROP_BUILDERS)[chosen](rng, sight)
    image = place.image
    for away in sorted(rng.uniform(4.5, min(40, place.end), rng.integers(2, 8)), reverse=True):
        foot, metre = sight.horizon + sight.height * FOCAL_LENGTH / away, FOCAL_LENGTH / away
        left = max(0.0, sight.middle - metre * (place.sides[0] - 1))
        right = min(float(SCENE_COLUMNS), sight.middle + metre * (place.sides[1] - 1))
        if foot < SCENE_ROWS + 40 and left < right:
            x = rng.uniform(left, right)
            draw_thing(rng, image, (x, foot), metre, indoors=place.indoors)
    _apply_light_pools(rng, image)
    sharp = rng.uniform(0.5, 1.3)  # cameras focus on people
    image = gaussian_filter(image, (sharp, sharp, 0))
    image += rng.normal(0, 2.0, image.shape[:2])[..., None]
    return Scene(np.clip(image, 4, 250).astype(np.uint8), sight.horizon)


def sample_sky(rng: np.random.Generator) -> Floats:
    """An overcast or hazy sky, brighter towards the horizon: (ROWS, COLUMNS, 3)."""
    tint = np.array((1, 1, 1), np.float32) + rng.uniform(0, 0.12) * np.array((-0.7, -0.1, 0.7))
    bright = rng.uniform(165, 235) + np.linspace(0, 25, SCENE_ROWS, dtype=np.float32)[:, None]
    clouds = 1 + 0.02 * fractal_noise(rng, (SCENE_ROWS, SCENE_COLUMNS), coarsest=128)
    sky: Floats = (tint * np.clip(bright * clouds, 0, 248)[..., None]).astype(np.float32)
    return sky


def _street_across(rng: np.random.Generator, sight: Viewpoint) -> Backdrop:
    """The houses on the far side of a street, from the front."""
    image, away = sample_sky(rng), rng.uniform(9, 28)
    base = min(SCENE_ROWS - 8, round(sight.horizon + sight.height * FOCAL_LENGTH / away))
    left = 0
    while left < SCENE_COLUMNS:
        house = sample_facade(rng)
        right = min(SCENE_COLUMNS, left + int(rng.uniform(6, 16) * FOCAL_LENGTH / away))
        _draw_front(image[:base, left:right], house, away)
        left = right + (int(rng.uniform(0, 2) * FOCAL_LENGTH / away) if rng.random() < 0.25 else 0)
    return Backdrop(_draw_ground(rng, image, sight, base), away)


def _draw_front(patch: Floats, house: Facade, away: float) -> None:
    """Draw a house with its base at the lower edge of a patch of the image."""
    rows, columns = patch.shape[:2]
    step = away / FOCAL_LENGTH
    up = np.arange(rows, 0, -1, dtype=np.float32) * np.float32(step)
    top = int(np.count_nonzero(up > house.height))
    along = np.arange(columns, dtype=np.float32) * np.float32(step)
    u, v = np.meshgrid(along, up[top:])
    if u.size:
        patch[top:] = house.colours_at(u, v, step)


def _street_along(rng: np.random.Generator, sight: Viewpoint) -> Backdrop:
    """A street between two rows of houses, or beside one row."""
    image, end = sample_sky(rng), rng.uniform(35, 90)
    base = round(sight.horizon + sight.height * FOCAL_LENGTH / end)
    _draw_front(image[:base], sample_facade(rng), end)
    image = _draw_ground(rng, image, sight, base)
    wide = rng.uniform(2.5, 7, 2)
    if rng.random() < 0.3:
        wide[rng.integers(2)] = np.inf
    column = np.arange(SCENE_COLUMNS, dtype=np.float32) - np.float32(sight.middle)
    for side, metres in zip((-1, 1), wide, strict=True):
        if np.isfinite(metres):
            away = metres * FOCAL_LENGTH / np.maximum(side * column, 1)
            _draw_side(
                image, sample_facade(rng), sight, np.where(side * column > 1, away, np.inf), end
            )
    return Backdrop(image, end, (float(wide[0]), float(wide[1])))


def _draw_side(image: Floats, house: Facade, sight: Viewpoint, away: Floats, end: float) -> None:
    """Draw a row of houses up to `end`; away: the distance of the wall per column, in metres."""
    columns = np.flatnonzero(away < end)
    if not len(columns):
        return
    depth = away[columns][None]
    below = np.arange(SCENE_ROWS, dtype=np.float32)[:, None] - np.float32(sight.horizon)
    v = (sight.height - below * depth / FOCAL_LENGTH).astype(np.float32)
    u = np.broadcast_to(depth, v.shape).astype(np.float32)
    seen = (v >= 0) & (v < house.height)
    patch = image[:, columns]
    patch[seen] = house.colours_at(u[seen], v[seen], (u / FOCAL_LENGTH)[seen]) * np.float32(0.9)
    image[:, columns] = patch


def _draw_ground(rng: np.random.Generator, image: Floats, sight: Viewpoint, base: int) -> Floats:
    """The image with ground from row `base` down."""
    base = int(np.clip(base, sight.horizon + 1, SCENE_ROWS - 1))
    where = ground_plane(
        base - sight.horizon,
        (SCENE_ROWS - base, SCENE_COLUMNS),
        height=sight.height,
        middle=sight.middle,
    )
    image[base:] = sample_ground(rng, where)
    image[base : base + 5] *= np.linspace(0.7, 1, 5, dtype=np.float32)[
        : SCENE_ROWS - base, None, None
    ]
    return image


def _wall(rng: np.random.Generator, sight: Viewpoint) -> Backdrop:
    """One long wall: plaster, concrete panels, brick, fence or shutters."""
    away = rng.uniform(5, 14)
    base = int(min(SCENE_ROWS - 30, sight.horizon + sight.height * FOCAL_LENGTH / away))
    image = material_patch(rng, muted_colour(rng, 80, 205), (SCENE_ROWS, SCENE_COLUMNS))
    x, y = np.arange(SCENE_COLUMNS), np.arange(SCENE_ROWS)
    if rng.random() < 0.3:
        house = sample_facade(rng)._replace(window=(0.0, 0.0), shop=0.0, height=99.0)
        _draw_front(image[:base], house._replace(ground_floor=0.0, brick=0.15), away)
    elif rng.random() < 0.7:
        image[:, x % rng.uniform(18, 70) < rng.uniform(1, 3)] *= rng.uniform(0.7, 0.92)
    if rng.random() < 0.3:
        image[y % rng.uniform(9, 40) < 1.5] *= 0.88
    if rng.random() < 0.5:
        image[base - int(FOCAL_LENGTH / away * rng.uniform(0.3, 1.2)) :] *= rng.uniform(0.65, 0.9)
    for _ in range(rng.integers(0, 4)):  # doors and posters
        left, width = (
            int(rng.uniform(0, SCENE_COLUMNS - 60)),
            int(rng.uniform(0.8, 1.3) * FOCAL_LENGTH / away),
        )
        top = max(0, base - int(rng.uniform(1.9, 2.3) * FOCAL_LENGTH / away))
        bottom = base if rng.random() < 0.6 else top + int(0.9 * FOCAL_LENGTH / away)
        colour = accent_colour(rng) if rng.random() < 0.3 else muted_colour(rng, 40, 170)
        hung = image[top:bottom, left : left + width]
        hung[:] = material_patch(rng, colour, (hung.shape[0], hung.shape[1]))
        hung[:2] *= 0.7
        hung[:, :2] *= 0.7
    return Backdrop(_draw_ground(rng, image, sight, base), away)


def _park(rng: np.random.Generator, sight: Viewpoint) -> Backdrop:
    """Trees and shrubs behind a path or a lawn."""
    image, rows = sample_sky(rng), sight.horizon + int(rng.uniform(4, 30))
    for layer in range(2):  # trees, and shrubs before them
        leaves = foliage(rng, (SCENE_ROWS, SCENE_COLUMNS)) * np.float32(1.12 if layer else 0.8)
        edge = rows * (rng.uniform(0.0, 0.45) if layer == 0 else rng.uniform(0.55, 0.85))
        wave = 0.1 * rows * fractal_noise(rng, (1, SCENE_COLUMNS), coarsest=96)[0]
        below = np.arange(SCENE_ROWS)[:, None] > edge + wave
        image[below] = leaves[below]
        for _ in range(rng.integers(1, 7) if layer == 0 else 0):
            x, half = int(rng.uniform(6, SCENE_COLUMNS - 6)), int(rng.uniform(1, 5))
            trunk = image[int(edge + 0.15 * rows) :, x - half : x + half]
            round_ = np.linspace(1.2, 0.6, trunk.shape[1], dtype=np.float32)[:, None]
            trunk[:] = (
                material_patch(rng, muted_colour(rng, 40, 80), (trunk.shape[0], trunk.shape[1]))
                * round_
            )
    end = sight.height * FOCAL_LENGTH / (rows - sight.horizon)
    return Backdrop(_draw_ground(rng, image, sight, rows), end)


def _hall(rng: np.random.Generator, sight: Viewpoint) -> Backdrop:
    """Inside: pale walls, columns, glass, dark openings and lamps."""
    away = rng.uniform(8, 22)
    base = int(min(SCENE_ROWS - 30, sight.horizon + sight.height * FOCAL_LENGTH / away))
    image = material_patch(rng, muted_colour(rng, 130, 215), (SCENE_ROWS, SCENE_COLUMNS))
    image *= np.linspace(1.06, 0.9, SCENE_ROWS, dtype=np.float32)[:, None, None]
    metre = FOCAL_LENGTH / away
    for _ in range(rng.integers(2, 7)):
        left, width = int(rng.uniform(-10, SCENE_COLUMNS)), int(rng.uniform(0.5, 3.5) * metre)
        sides = slice(max(0, left), max(0, left) + width)
        colour = muted_colour(rng, 45, 190) if rng.random() < 0.85 else accent_colour(rng)
        hung = image[max(0, base - int(rng.uniform(2, 5) * metre)) : base, sides]
        hung[:] = material_patch(rng, colour, (hung.shape[0], hung.shape[1]))
        if rng.random() < 0.5:  # panes
            hung[:, np.arange(hung.shape[1]) % max(4, int(metre)) < 2] *= 0.6
    ceiling = max(0, base - int(rng.uniform(3, 5) * metre))
    image[:ceiling] = material_patch(rng, muted_colour(rng, 110, 200), (SCENE_ROWS, SCENE_COLUMNS))[
        :ceiling
    ]
    lamps = np.arange(SCENE_COLUMNS) % rng.uniform(30, 80) < rng.uniform(6, 20)
    image[max(0, ceiling - 8) : max(0, ceiling - 4), lamps] = 244
    return Backdrop(_draw_ground(rng, image, sight, base), away, indoors=True)


BACKDROP_BUILDERS: list[BackdropBuilder] = [
    _street_across,
    _street_along,
    _wall,
    _park,
    _hall,
]


def _apply_light_pools(rng: np.random.Generator, image: Floats) -> None:
    """Apply uneven light to the whole place: shade of trees and houses, lamps, windows."""
    pools = fractal_noise(rng, (SCENE_ROWS, SCENE_COLUMNS), coarsest=256)
    contrast = rng.uniform(0.01, 0.05)
    across = np.linspace(-1, 1, SCENE_COLUMNS, dtype=np.float32) * rng.uniform(-0.15, 0.15)
    image *= (1 + contrast * pools + across)[..., None]
    if rng.random() < 0.35:  # the edge of a house's shadow
        y, x = np.mgrid[:SCENE_ROWS, :SCENE_COLUMNS].astype(np.float32)
        slope = rng.uniform(-0.6, 0.6)
        edge = soft_cover(
            (y - SCENE_ROWS * rng.uniform(0.4, 0.9) - slope * (x - SCENE_COLUMNS / 2)) / 40
        )
        image *= (1 - rng.uniform(0.15, 0.4) * edge)[..., None]
