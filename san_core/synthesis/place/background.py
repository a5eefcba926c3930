"""Procedural places that people walk through, and crops of them.

A scene is a picture wider than a person, as a camera some metres above the ground sees it: houses
along or across a street, a wall, a park or a hall, the ground before it, and things that stand
about. Colours are muted, as streets and halls are.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from san_core.images.pixels import Pixels
from san_core.synthesis.person.body import Floats
from san_core.synthesis.place.facade import Facade, sample_facade
from san_core.synthesis.place.ground import FOCAL, ground, plane
from san_core.synthesis.place.materials import accent, foliage, muted, soft, surface, unevenness
from san_core.synthesis.place.things import place_thing

ROWS, COLUMNS = 320, 512  # of a scene


class Scene(NamedTuple):
    """A place."""

    image: Pixels  # (ROWS, COLUMNS, 3) RGB
    horizon: int  # row


class Sight(NamedTuple):
    """From where a scene is seen."""

    horizon: int  # row
    height: float  # metres of the camera above the ground
    middle: float  # column straight ahead


class Built(NamedTuple):
    """A place without what stands about in it. Lengths in metres."""

    image: Floats  # (ROWS, COLUMNS, 3)
    end: float  # how far away the ground ends
    sides: tuple[float, float] = (np.inf, np.inf)  # how far left and right it goes
    indoors: bool = False


def crop(
    scene: Scene, rng: np.random.Generator, *, size: tuple[int, int], horizon: float
) -> Floats:
    """A piece of a scene, (H, W, 3) RGB 0-255, with its horizon as near as can be to a row."""
    rows, columns = size
    share = float(np.clip(horizon / rows, 0, 1))  # of the crop above the horizon
    limit = min(ROWS, COLUMNS * rows / columns)
    limit = min(
        limit, scene.horizon / max(share, 0.01), (ROWS - scene.horizon) / max(1 - share, 0.01)
    )
    height = int(max(0.3 * ROWS, limit * rng.uniform(0.6, 1)))
    width = max(1, min(COLUMNS, int(height * columns / rows)))
    top = int(np.clip(scene.horizon - height * horizon / rows, 0, ROWS - height))
    left = int(rng.integers(0, COLUMNS - width + 1))
    piece = Image.fromarray(scene.image).resize(
        (columns, rows), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
    )
    if rng.random() < 0.5:
        piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(piece, np.float32)


def sample_scene(rng: np.random.Generator) -> Scene:
    """A random street, wall, park or hall."""
    sight = Sight(
        horizon=int(ROWS * rng.uniform(0.18, 0.42)),
        height=rng.uniform(1.8, 4.5),
        middle=COLUMNS * rng.uniform(0.15, 0.85),
    )
    build = PLACES[rng.choice(len(PLACES), p=[0.26, 0.26, 0.16, 0.16, 0.16])]
    place = build(rng, sight)
    image = place.image
    for away in sorted(rng.uniform(4.5, min(40, place.end), rng.integers(2, 8)), reverse=True):
        foot, metre = sight.horizon + sight.height * FOCAL / away, FOCAL / away
        left = max(0.0, sight.middle - metre * (place.sides[0] - 1))
        right = min(float(COLUMNS), sight.middle + metre * (place.sides[1] - 1))
        if foot < ROWS + 40 and left < right:
            x = rng.uniform(left, right)
            place_thing(rng, image, (x, foot), metre, indoors=place.indoors)
    _light_pools(rng, image)
    sharp = rng.uniform(0.5, 1.3)  # cameras focus on people
    image = gaussian_filter(image, (sharp, sharp, 0))
    image += rng.normal(0, 2.0, image.shape[:2])[..., None]
    return Scene(np.clip(image, 4, 250).astype(np.uint8), sight.horizon)


def _sky(rng: np.random.Generator) -> Floats:
    """An overcast or hazy sky, brighter towards the horizon: (ROWS, COLUMNS, 3)."""
    tint = np.array((1, 1, 1), np.float32) + rng.uniform(0, 0.12) * np.array((-0.7, -0.1, 0.7))
    bright = rng.uniform(165, 235) + np.linspace(0, 25, ROWS, dtype=np.float32)[:, None]
    clouds = 1 + 0.02 * unevenness(rng, (ROWS, COLUMNS), coarsest=128)
    sky: Floats = (tint * np.clip(bright * clouds, 0, 248)[..., None]).astype(np.float32)
    return sky


def _across(rng: np.random.Generator, sight: Sight) -> Built:
    """Houses on the far side of a street, seen from the front."""
    image, away = _sky(rng), rng.uniform(9, 28)
    base = min(ROWS - 8, round(sight.horizon + sight.height * FOCAL / away))
    left = 0
    while left < COLUMNS:
        house = sample_facade(rng)
        right = min(COLUMNS, left + int(rng.uniform(6, 16) * FOCAL / away))
        _front(image[:base, left:right], house, away)
        left = right + (int(rng.uniform(0, 2) * FOCAL / away) if rng.random() < 0.25 else 0)
    return Built(_with_ground(rng, image, sight, base), away)


def _front(patch: Floats, house: Facade, away: float) -> None:
    """Draw a house, its foot at the lower edge of a patch of the image."""
    rows, columns = patch.shape[:2]
    step = away / FOCAL
    up = np.arange(rows, 0, -1, dtype=np.float32) * np.float32(step)
    top = int(np.count_nonzero(up > house.height))
    along = np.arange(columns, dtype=np.float32) * np.float32(step)
    u, v = np.meshgrid(along, up[top:])
    if u.size:
        patch[top:] = house.shade(u, v, step)


def _along(rng: np.random.Generator, sight: Sight) -> Built:
    """A street between two rows of houses, or with one on one side only."""
    image, end = _sky(rng), rng.uniform(35, 90)
    base = round(sight.horizon + sight.height * FOCAL / end)
    _front(image[:base], sample_facade(rng), end)
    image = _with_ground(rng, image, sight, base)
    wide = rng.uniform(2.5, 7, 2)
    if rng.random() < 0.3:
        wide[rng.integers(2)] = np.inf
    column = np.arange(COLUMNS, dtype=np.float32) - np.float32(sight.middle)
    for side, metres in zip((-1, 1), wide, strict=True):
        if np.isfinite(metres):
            away = metres * FOCAL / np.maximum(side * column, 1)
            _side(image, sample_facade(rng), sight, np.where(side * column > 1, away, np.inf), end)
    return Built(image, end, (float(wide[0]), float(wide[1])))


def _side(image: Floats, house: Facade, sight: Sight, away: Floats, end: float) -> None:
    """Draw a row of houses whose wall is `away` metres off in every column, up to `end`."""
    columns = np.flatnonzero(away < end)
    if not len(columns):
        return
    depth = away[columns][None]
    below = np.arange(ROWS, dtype=np.float32)[:, None] - np.float32(sight.horizon)
    v = (sight.height - below * depth / FOCAL).astype(np.float32)
    u = np.broadcast_to(depth, v.shape).astype(np.float32)
    seen = (v >= 0) & (v < house.height)
    patch = image[:, columns]
    patch[seen] = house.shade(u[seen], v[seen], (u / FOCAL)[seen]) * np.float32(0.9)
    image[:, columns] = patch


def _with_ground(rng: np.random.Generator, image: Floats, sight: Sight, base: int) -> Floats:
    """The image with ground from row `base` on."""
    base = int(np.clip(base, sight.horizon + 1, ROWS - 1))
    where = plane(
        base - sight.horizon,
        (ROWS - base, COLUMNS),
        height=sight.height,
        middle=sight.middle,
    )
    image[base:] = ground(rng, where)
    image[base : base + 5] *= np.linspace(0.7, 1, 5, dtype=np.float32)[: ROWS - base, None, None]
    return image


def _wall(rng: np.random.Generator, sight: Sight) -> Built:
    """One long wall: plaster, concrete panels, brick, fence or shutters."""
    away = rng.uniform(5, 14)
    base = int(min(ROWS - 30, sight.horizon + sight.height * FOCAL / away))
    image = surface(rng, muted(rng, 80, 205), (ROWS, COLUMNS))
    x, y = np.arange(COLUMNS), np.arange(ROWS)
    if rng.random() < 0.3:
        house = sample_facade(rng)._replace(window=(0.0, 0.0), shop=0.0, height=99.0)
        _front(image[:base], house._replace(ground_floor=0.0, brick=0.15), away)
    elif rng.random() < 0.7:
        image[:, x % rng.uniform(18, 70) < rng.uniform(1, 3)] *= rng.uniform(0.7, 0.92)
    if rng.random() < 0.3:
        image[y % rng.uniform(9, 40) < 1.5] *= 0.88
    if rng.random() < 0.5:
        image[base - int(FOCAL / away * rng.uniform(0.3, 1.2)) :] *= rng.uniform(0.65, 0.9)
    for _ in range(rng.integers(0, 4)):  # doors and posters
        left, width = int(rng.uniform(0, COLUMNS - 60)), int(rng.uniform(0.8, 1.3) * FOCAL / away)
        top = max(0, base - int(rng.uniform(1.9, 2.3) * FOCAL / away))
        bottom = base if rng.random() < 0.6 else top + int(0.9 * FOCAL / away)
        colour = accent(rng) if rng.random() < 0.3 else muted(rng, 40, 170)
        hung = image[top:bottom, left : left + width]
        hung[:] = surface(rng, colour, (hung.shape[0], hung.shape[1]))
        hung[:2] *= 0.7
        hung[:, :2] *= 0.7
    return Built(_with_ground(rng, image, sight, base), away)


def _park(rng: np.random.Generator, sight: Sight) -> Built:
    """Trees and shrubs behind a path or a lawn."""
    image, rows = _sky(rng), sight.horizon + int(rng.uniform(4, 30))
    for layer in range(2):  # trees, and shrubs before them
        leaves = foliage(rng, (ROWS, COLUMNS)) * np.float32(1.12 if layer else 0.8)
        edge = rows * (rng.uniform(0.0, 0.45) if layer == 0 else rng.uniform(0.55, 0.85))
        wave = 0.1 * rows * unevenness(rng, (1, COLUMNS), coarsest=96)[0]
        below = np.arange(ROWS)[:, None] > edge + wave
        image[below] = leaves[below]
        for _ in range(rng.integers(1, 7) if layer == 0 else 0):
            x, half = int(rng.uniform(6, COLUMNS - 6)), int(rng.uniform(1, 5))
            trunk = image[int(edge + 0.15 * rows) :, x - half : x + half]
            round_ = np.linspace(1.2, 0.6, trunk.shape[1], dtype=np.float32)[:, None]
            trunk[:] = surface(rng, muted(rng, 40, 80), (trunk.shape[0], trunk.shape[1])) * round_
    end = sight.height * FOCAL / (rows - sight.horizon)
    return Built(_with_ground(rng, image, sight, rows), end)


def _hall(rng: np.random.Generator, sight: Sight) -> Built:
    """Inside: pale walls, columns, glass, dark openings and lamps."""
    away = rng.uniform(8, 22)
    base = int(min(ROWS - 30, sight.horizon + sight.height * FOCAL / away))
    image = surface(rng, muted(rng, 130, 215), (ROWS, COLUMNS))
    image *= np.linspace(1.06, 0.9, ROWS, dtype=np.float32)[:, None, None]
    metre = FOCAL / away
    for _ in range(rng.integers(2, 7)):
        left, width = int(rng.uniform(-10, COLUMNS)), int(rng.uniform(0.5, 3.5) * metre)
        sides = slice(max(0, left), max(0, left) + width)
        colour = muted(rng, 45, 190) if rng.random() < 0.85 else accent(rng)
        hung = image[max(0, base - int(rng.uniform(2, 5) * metre)) : base, sides]
        hung[:] = surface(rng, colour, (hung.shape[0], hung.shape[1]))
        if rng.random() < 0.5:  # panes
            hung[:, np.arange(hung.shape[1]) % max(4, int(metre)) < 2] *= 0.6
    ceiling = max(0, base - int(rng.uniform(3, 5) * metre))
    image[:ceiling] = surface(rng, muted(rng, 110, 200), (ROWS, COLUMNS))[:ceiling]
    lamps = np.arange(COLUMNS) % rng.uniform(30, 80) < rng.uniform(6, 20)
    image[max(0, ceiling - 8) : max(0, ceiling - 4), lamps] = 244
    return Built(_with_ground(rng, image, sight, base), away, indoors=True)


PLACES: list[Callable[[np.random.Generator, Sight], Built]] = [
    _across,
    _along,
    _wall,
    _park,
    _hall,
]


def _light_pools(rng: np.random.Generator, image: Floats) -> None:
    """Uneven light over the whole place: shade of trees and houses, lamps, windows."""
    pools = unevenness(rng, (ROWS, COLUMNS), coarsest=256)
    contrast = rng.uniform(0.01, 0.05)
    across = np.linspace(-1, 1, COLUMNS, dtype=np.float32) * rng.uniform(-0.15, 0.15)
    image *= (1 + contrast * pools + across)[..., None]
    if rng.random() < 0.35:  # the edge of a house's shadow
        y, x = np.mgrid[:ROWS, :COLUMNS].astype(np.float32)
        slope = rng.uniform(-0.6, 0.6)
        edge = soft((y - ROWS * rng.uniform(0.4, 0.9) - slope * (x - COLUMNS / 2)) / 40)
        image *= (1 - rng.uniform(0.15, 0.4) * edge)[..., None]
