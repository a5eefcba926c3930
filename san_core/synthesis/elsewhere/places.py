"""Places that no other world has: the shore, a tiled platform, and a market."""

import numpy as np

from san_core.synthesis.person.body import Floats
from san_core.synthesis.place.background import (
    SCENE_COLUMNS,
    SCENE_ROWS,
    Backdrop,
    BackdropBuilder,
    Viewpoint,
    sample_sky,
)
from san_core.synthesis.place.ground import FOCAL_LENGTH, GroundPlane, ground_plane
from san_core.synthesis.place.materials import TiledNoise, accent_colour, material_patch


def _shore(rng: np.random.Generator, sight: Viewpoint) -> Backdrop:
    """Sand before the sea."""
    image, away = sample_sky(rng), rng.uniform(9, 25)
    base = _foot_of(sight, away)
    water = _strayed(rng, (46, 112, 128))
    sea = image[sight.horizon : base]
    sea[:] = material_patch(rng, water, sea.shape[:2])
    crests = np.sin(np.linspace(0, 6, len(sea)) ** 2 + rng.uniform(0, 6)) > rng.uniform(0.6, 0.9)
    sea[crests] = 0.5 * sea[crests] + 110
    sand = _strayed(rng, (196, 176, 132))
    image[base:] = _even_ground(rng, sand, _ground_below(sight, base), cell=0.5)
    return Backdrop(image, away)


def _platform(rng: np.random.Generator, sight: Viewpoint) -> Backdrop:
    """An underground platform: tiles in one colour, a band in another, and a line at the edge."""
    away = rng.uniform(6, 12)
    base, metre = _foot_of(sight, away), FOCAL_LENGTH / away
    image = material_patch(rng, _vivid(rng), (SCENE_ROWS, SCENE_COLUMNS))
    image[np.arange(SCENE_ROWS) % max(3, int(0.3 * metre)) == 0] *= 0.7
    image[:, np.arange(SCENE_COLUMNS) % max(3, int(0.3 * metre)) == 0] *= 0.7
    top = max(0, base - int(rng.uniform(1.6, 2.4) * metre))
    image[top : top + int(0.5 * metre)] = _vivid(rng)
    image[: max(0, base - int(3.2 * metre))] *= 0.35
    where = _ground_below(sight, base)
    floor = _even_ground(rng, _strayed(rng, (90, 90, 92)), where, cell=0.2)
    floor[np.abs(where.away - away + 1.2) < 0.2] = (228, 196, 40)
    image[base:] = floor
    return Backdrop(image, away, indoors=True)


def _market(rng: np.random.Generator, sight: Viewpoint) -> Backdrop:
    """Stalls under striped awnings."""
    away = rng.uniform(6, 14)
    base, metre = _foot_of(sight, away), FOCAL_LENGTH / away
    image = sample_sky(rng)
    columns = np.arange(SCENE_COLUMNS)
    left = 0
    while left < SCENE_COLUMNS:
        right = min(SCENE_COLUMNS, left + int(rng.uniform(2.2, 4) * metre))
        stall = slice(left, right)
        cloth, counter = _vivid(rng), _vivid(rng) * np.float32(0.6)
        roof, eave = (max(0, base - int(rng.uniform(*h) * metre)) for h in ((2.9, 3.3), (2.1, 2.4)))
        awning = image[roof:eave, stall]
        striped = (columns[stall] - left) % max(2, int(0.5 * metre)) < max(1, int(0.25 * metre))
        awning[:] = np.where(striped[None, :, None], cloth, np.float32(226))
        image[eave:base, stall] = material_patch(
            rng, _strayed(rng, (52, 52, 54)), (base - eave, right - left)
        )
        table = max(0, base - int(0.95 * metre))
        image[table:base, stall] = material_patch(rng, counter, (base - table, right - left))
        goods = rng.integers(60, 235, (1, (right - left) // 6 + 1, 3)).repeat(6, axis=1)
        heap = max(0, table - int(0.2 * metre))
        image[heap:table, stall] = goods[:, : right - left]
        left = right
    stone = _strayed(rng, (140, 120, 104))
    image[base:] = _even_ground(rng, stone, _ground_below(sight, base), cell=0.3)
    return Backdrop(image, away)


PLACES: list[BackdropBuilder] = [_shore, _platform, _market]
PLACE_SHARES = [0.34, 0.33, 0.33]


def _vivid(rng: np.random.Generator) -> Floats:
    """A colour for tiles or cloth: an accent colour with twice the saturation."""
    colour = accent_colour(rng)
    strong: Floats = np.clip(2 * colour - colour.mean(), 10, 240).astype(np.float32)
    return strong


def _strayed(rng: np.random.Generator, colour: tuple[int, int, int]) -> Floats:
    """A colour near the one given: darker or brighter by up to a fifth, and tinted a little."""
    near = np.array(colour) * rng.uniform(0.8, 1.2) + rng.normal(0, 6, 3)
    strayed: Floats = np.clip(near, 10, 240).astype(np.float32)
    return strayed


def _foot_of(sight: Viewpoint, away: float) -> int:
    """The row of the ground at that distance."""
    foot = round(sight.horizon + sight.height * FOCAL_LENGTH / away)
    return int(np.clip(foot, sight.horizon + 2, SCENE_ROWS - 30))


def _ground_below(sight: Viewpoint, base: int) -> GroundPlane:
    shape = (SCENE_ROWS - base, SCENE_COLUMNS)
    return ground_plane(base - sight.horizon, shape, height=sight.height, middle=sight.middle)


def _even_ground(
    rng: np.random.Generator, colour: Floats, where: GroundPlane, *, cell: float
) -> Floats:
    """Ground (rows, columns, 3) of one colour, uneven in patches of about `cell` metres."""
    rough = 1 + 0.08 * TiledNoise(rng).values_at(where.across, where.away, cell)
    ground: Floats = (colour * rough[..., None]).astype(np.float32)
    return ground
