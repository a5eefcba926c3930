"""Procedural places that people walk through, and crops of them.

A scene is a picture wider than a person: ground in perspective up to a horizon, a backdrop of
buildings, walls or trees above it, and things that stand about. Colours are muted, as streets and
halls are; every surface is uneven, for nothing flat is ever seen by a real camera.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from san_core.pixels import Pixels
from san_core.synthesis.body import Floats

ROWS, COLUMNS = 320, 512  # of a scene


class Scene(NamedTuple):
    """A place."""

    image: Pixels  # (ROWS, COLUMNS, 3) RGB
    horizon: int  # row


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
    horizon = int(ROWS * rng.uniform(0.18, 0.42))
    backdrop = BACKDROPS[rng.choice(len(BACKDROPS), p=[0.4, 0.2, 0.2, 0.2])]
    image = np.concatenate([backdrop(rng, horizon), _ground(rng, ROWS - horizon)])
    image[:horizon] = gaussian_filter(
        image[:horizon], (rng.uniform(0.6, 2), rng.uniform(0.6, 2), 0)
    )
    depth = ROWS - horizon
    for nearness in sorted(rng.random(rng.integers(3, 10)) ** 1.7):
        _place_object(rng, image, horizon, foot=horizon + 3 + 0.6 * depth * nearness)
    _light_pools(rng, image)
    image += rng.normal(0, 2.5, image.shape[:2])[..., None]
    return Scene(np.clip(image, 4, 250).astype(np.uint8), horizon)


def unevenness(rng: np.random.Generator, shape: tuple[int, int], *, coarsest: int = 64) -> Floats:
    """Fractal noise of mean 0 and deviation 1 over rows and columns."""
    rows, columns = shape
    grid, cell = np.zeros((2, 2), np.float32), coarsest
    while cell >= 2:
        finer = (rows // cell + 3, columns // cell + 3)
        detail = rng.standard_normal(finer, dtype=np.float32)
        grid = _enlarged(grid, finer) + detail * np.float32(cell**0.3)
        cell //= 2
    total = _enlarged(grid, shape)
    spread: Floats = (total - total.mean()) / (total.std() + np.float32(1e-6))
    return spread


def _enlarged(grid: Floats, shape: tuple[int, int]) -> Floats:
    image = Image.fromarray(grid).resize(shape[::-1], Image.Resampling.BICUBIC)
    return np.asarray(image)


def muted(rng: np.random.Generator, low: float = 55, high: float = 195) -> Floats:
    """A colour of stone, plaster, asphalt or metal: grey, a little warm or cool."""
    warmth, green = rng.normal(0, 0.06), rng.normal(0, 0.02)
    tint = np.array([1 + warmth, 1 + green, 1 - warmth])
    colour: Floats = np.clip(rng.uniform(low, high) * tint, 10, 240).astype(np.float32)
    return colour


def accent(rng: np.random.Generator) -> Floats:
    """A colour that catches the eye: cars, shutters, posters."""
    grey, hue = rng.uniform(50, 170), rng.uniform(0, 2 * np.pi)
    wheel = np.cos(hue - np.array([0, 2.1, 4.2])) * (1, 0.7, 1)  # few greens in a town
    colour: Floats = np.clip(grey * (1 + rng.uniform(0.1, 0.4) * wheel), 10, 225)
    return colour.astype(np.float32)


def foliage(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Leaves (rows, columns, 3): dull greens and browns with deep gaps."""
    green = np.array([92, 100, 66]) * rng.uniform(0.6, 1.2) + rng.normal(0, 8, 3)
    leaves = 1 + 0.3 * unevenness(rng, shape, coarsest=16)
    out: Floats = (np.clip(green, 15, 200) * np.clip(leaves, 0.3, 1.8)[..., None]).astype(
        np.float32
    )
    return out


def _surface(rng: np.random.Generator, colour: Floats, shape: tuple[int, int]) -> Floats:
    """A wall or floor (rows, columns, 3) of one material, stained and weathered."""
    stains = 1 + rng.uniform(0.02, 0.065) * unevenness(rng, shape)
    material: Floats = (colour * stains[..., None]).astype(np.float32)
    return material


def _street(rng: np.random.Generator, rows: int) -> Floats:
    """Facades of several buildings under a strip of sky."""
    image = _surface(rng, muted(rng, 150, 225), (rows, COLUMNS))
    left = 0
    while left < COLUMNS:
        right = min(COLUMNS, left + int(rng.uniform(50, 150)))
        top = int(rows * max(0, rng.uniform(-0.6, 0.5)))
        if right - left > 4 and top < rows - 4:
            image[top:, left:right] = _facade(rng, rows - top, right - left)
        left = right + int(rng.uniform(0, 8))
    return image


def _facade(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """A house front: plaster or brick, windows, perhaps a shop below."""
    image = _surface(rng, muted(rng, 70, 200), (rows, columns))
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    if rng.random() < 0.35:  # courses of brick
        image *= np.where(y % 4 < 1, 0.88, 1)[..., None]
    step_x, step_y = rng.uniform(10, 28), rng.uniform(14, 34)
    wide, high = rng.uniform(0.35, 0.65), rng.uniform(0.4, 0.7)
    windows = (x / step_x % 1 < wide) & (y / step_y % 1 < high) & (y < rows - 10)
    glass = (
        muted(rng, 35, 120) * (1 + 0.25 * unevenness(rng, (rows, columns), coarsest=16))[..., None]
    )
    image[windows] = glass[windows]
    if rng.random() < 0.6:
        _shopfront(rng, image)
    return image


def _shopfront(rng: np.random.Generator, image: Floats) -> None:
    """A band at street level: door or shutter, window display, sign."""
    rows, columns = image.shape[:2]
    top = max(0, rows - int(rng.uniform(14, 40)))
    shape = (rows - top, columns)
    inside = accent(rng) if rng.random() < 0.3 else muted(rng, 40, 170)
    image[top:] = (
        _surface(rng, inside, shape) * (1 + 0.15 * unevenness(rng, shape, coarsest=8))[..., None]
    )
    bars = np.arange(columns) % rng.uniform(8, 30) < rng.uniform(1, 3)
    image[top:, bars] *= 0.6
    image[top : top + 3] = accent(rng) if rng.random() < 0.5 else muted(rng)


def _wall(rng: np.random.Generator, rows: int) -> Floats:
    """One long wall: plaster, concrete panels, fence or shutters."""
    image = _surface(rng, muted(rng, 80, 205), (rows, COLUMNS))
    x, y = np.arange(COLUMNS), np.arange(rows)
    if rng.random() < 0.7:
        image[:, x % rng.uniform(18, 70) < rng.uniform(1, 4)] *= rng.uniform(0.6, 0.9)
    if rng.random() < 0.4:
        image[y % rng.uniform(9, 40) < 1.5] *= 0.85
    if rng.random() < 0.6:
        image[rows - int(rows * rng.uniform(0.1, 0.4)) :] *= rng.uniform(0.6, 0.9)
    for _ in range(rng.integers(0, 4)):  # doors and posters
        left, width = int(rng.uniform(0, COLUMNS - 30)), int(rng.uniform(10, 30))
        top = int(rows * rng.uniform(0.1, 0.6))
        colour = accent(rng) if rng.random() < 0.4 else muted(rng, 40, 150)
        image[top:, left : left + width] = _surface(rng, colour, (rows - top, width))
    return image


def _park(rng: np.random.Generator, rows: int) -> Floats:
    """Sky, a line of trees and their trunks."""
    image = _surface(rng, muted(rng, 160, 230), (rows, COLUMNS))
    edge = rows * rng.uniform(0.05, 0.5) + 0.12 * rows * unevenness(rng, (1, COLUMNS))[0]
    below = np.arange(rows)[:, None] > edge
    image[below] = foliage(rng, (rows, COLUMNS))[below]
    for _ in range(rng.integers(2, 9)):
        x, half = int(rng.uniform(0, COLUMNS)), int(rng.uniform(1, 4))
        image[int(rows * rng.uniform(0.1, 0.5)) :, max(0, x - half) : x + half] = muted(rng, 35, 80)
    return image


def _hall(rng: np.random.Generator, rows: int) -> Floats:
    """Inside: pale walls, columns, dark openings and lamps."""
    image = _surface(rng, muted(rng, 120, 215), (rows, COLUMNS))
    for _ in range(rng.integers(2, 7)):
        left, width = int(rng.uniform(-10, COLUMNS)), int(rng.uniform(8, 50))
        sides = slice(max(0, left), max(0, left) + width)
        colour = muted(rng, 45, 190) if rng.random() < 0.8 else accent(rng)
        hung = image[int(rows * rng.uniform(0, 0.5)) :, sides]
        hung[:] = _surface(rng, colour, (hung.shape[0], hung.shape[1]))
    lamps = np.arange(COLUMNS) % rng.uniform(30, 80) < rng.uniform(6, 20)
    image[2 : int(rng.uniform(4, 8)), lamps] = 236
    return image


BACKDROPS: list[Callable[[np.random.Generator, int], Floats]] = [_street, _wall, _park, _hall]


def _ground(rng: np.random.Generator, rows: int) -> Floats:
    """Asphalt, slabs, tiles or lawn in perspective, (rows, COLUMNS, 3), the horizon at its top."""
    shape = (rows, COLUMNS)
    if rng.random() < 0.12:
        return np.float32(0.35) * foliage(rng, shape) + np.array([58, 64, 42], np.float32)
    image = _surface(rng, muted(rng, 70, 190), shape)
    image *= (1 + 0.025 * rng.standard_normal(shape, dtype=np.float32))[..., None]
    away = ROWS / (np.arange(rows, dtype=np.float32) + 6)[:, None]
    across = (np.arange(COLUMNS, dtype=np.float32) - COLUMNS * rng.uniform(0.1, 0.9)) * away * 0.012
    kind, slab = rng.integers(4), rng.uniform(0.35, 1.1)
    depth = away * rng.uniform(1, 2)
    if kind == 1:  # joints between slabs
        joints = (across / slab % 1 < 0.06) | (depth / slab % 1 < 0.06)
        image *= np.where(joints, 0.8, 1)[..., None]
    elif kind == 2:  # tiles of two shades
        odd = (np.floor(across / slab) + np.floor(depth / slab)) % 2 < 1
        image *= np.where(odd, rng.uniform(0.85, 0.95), 1)[..., None]
    elif kind == 3:  # a kerb or a painted line running away
        line = np.abs(across - rng.uniform(-1, 1)) < rng.uniform(0.03, 0.1)
        image[line] = image[line] * 0.4 + 0.6 * np.float32(215)
    image[:6] *= np.linspace(0.75, 1, 6, dtype=np.float32)[:, None, None]
    smooth: Floats = gaussian_filter(image, (0.5, 0.5, 0))
    return smooth


def _place_object(rng: np.random.Generator, image: Floats, horizon: int, *, foot: float) -> None:
    """Something that stands on the ground at row `foot`: nearer things are lower and larger."""
    size = 16 + (foot - horizon) * 0.9  # a person's height there
    x = rng.uniform(0, COLUMNS)
    kind = rng.choice(4, p=[0.3, 0.25, 0.2, 0.25])
    if kind == 0:
        _car(rng, image, x, foot, size)
    elif kind == 1:
        _box(rng, image, (x, foot), (rng.uniform(0.03, 0.07) * size, rng.uniform(1, 2.4) * size))
    elif kind == 2:
        _box(rng, image, (x, foot), (rng.uniform(0.2, 0.6) * size, rng.uniform(0.3, 0.7) * size))
    else:
        _passer_by(rng, image, x, foot, size)


def _window(
    image: Floats, x: float, foot: float, width: float, height: float
) -> tuple[slice, slice]:
    """The rows and columns of an image that a thing may touch."""
    top, bottom = int(max(0, foot - height)), int(min(image.shape[0], foot + 0.15 * height + 2))
    left, right = int(max(0, x - width)), int(min(image.shape[1], x + width + 1))
    return slice(top, max(top, bottom)), slice(left, max(left, right))


def _stamp(
    image: Floats,
    place: tuple[float, float],
    size: tuple[float, float],
    paint: Callable[[Floats, Floats], list[tuple[Floats, Floats]]],
) -> None:
    """Shade the ground under a thing and draw its parts.

    paint: takes u from -1 left to 1 right and v from 0 foot to 1 top; returns cover (0-1) and
    colour of every part, back to front.
    """
    (x, foot), (width, height) = place, size
    rows, columns = _window(image, x, foot, width, height)
    patch = image[rows, columns]
    if not patch.size:
        return
    y, across = np.mgrid[rows, columns].astype(np.float32)
    u, v = (across - x) / (0.5 * width), (foot - y) / height
    patch *= (1 - 0.35 * np.exp(-(u**2) - (v / 0.06) ** 2))[..., None]
    for cover, colour in paint(u, v):
        weight = np.asarray(cover, np.float32)[..., None]
        patch[:] = patch * (1 - weight) + colour * weight


def _soft(inside: Floats) -> Floats:
    """Cover from a signed distance: 1 well inside, 0 outside, soft at the edge."""
    cover: Floats = np.clip(0.5 + 6 * inside, 0, 1).astype(np.float32)
    return cover


def _fourth(values: Floats) -> Floats:
    """The fourth power; NumPy's ** takes ten times as long."""
    square = values * values
    fourth: Floats = square * square
    return fourth


def _box(
    rng: np.random.Generator, image: Floats, place: tuple[float, float], size: tuple[float, float]
) -> None:
    """A pole, bin, cabinet or bench."""
    colour = accent(rng) if rng.random() < 0.25 else muted(rng, 35, 150)
    bright = rng.uniform(-0.25, 0.25)

    def paint(u: Floats, v: Floats) -> list[tuple[Floats, Floats]]:
        cover = _soft(np.minimum(1 - np.abs(u), np.minimum(v, 1 - v) * 3))
        return [(cover, colour * (1 + bright * u)[..., None])]

    _stamp(image, place, (max(2.0, size[0]), size[1]), paint)


def _car(rng: np.random.Generator, image: Floats, x: float, foot: float, size: float) -> None:
    colour = accent(rng) if rng.random() < 0.35 else muted(rng, 40, 220)
    width, height = size * rng.uniform(1.4, 2.4), size * rng.uniform(0.75, 0.9)

    def paint(u: Floats, v: Floats) -> list[tuple[Floats, Floats]]:
        hull = _soft(1 - _fourth(u) - _fourth((v - 0.38) / 0.26))
        cabin = _soft(1 - _fourth(u / 0.62) - ((v - 0.72) / 0.26) ** 2)
        glass = _soft(1 - _fourth(u / 0.52) - ((v - 0.74) / 0.15) ** 2)
        wheels = _soft(1 - ((np.abs(u) - 0.6) / 0.17) ** 2 - ((v - 0.14) / 0.15) ** 2)
        sheen = (0.75 + 0.4 * v)[..., None]
        dark, pane = np.array([30, 30, 32], np.float32), np.array([62, 70, 78], np.float32)
        return [(cabin, colour * sheen), (hull, colour * sheen), (glass, pane), (wheels, dark)]

    _stamp(image, (x, foot), (width, height), paint)


def _passer_by(rng: np.random.Generator, image: Floats, x: float, foot: float, size: float) -> None:
    """A distant person: a blurred figure, not a model of one."""
    shirt = accent(rng) if rng.random() < 0.5 else muted(rng, 30, 220)
    trousers = muted(rng, 25, 110)
    skin = np.array([176, 134, 110], np.float32) * np.float32(rng.uniform(0.5, 1.15))
    stride = rng.uniform(0.1, 0.5)

    def paint(u: Floats, v: Floats) -> list[tuple[Floats, Floats]]:
        apart = stride * np.clip(1 - v / 0.5, 0, 1)
        leg = _soft(0.22 - np.abs(np.abs(u) - 0.2 - apart) - np.maximum(v - 0.5, 0) * 8)
        trunk = _soft(1 - _fourth(u / 0.62) - _fourth((v - 0.65) / 0.21))
        head = _soft(1 - (u / 0.33) ** 2 - ((v - 0.92) / 0.075) ** 2)
        return [(leg, trousers), (trunk, shirt), (head, skin)]

    _stamp(image, (x, foot), (0.28 * size, size), paint)


def _light_pools(rng: np.random.Generator, image: Floats) -> None:
    """Uneven light over the whole place: shade of trees and houses, lamps, windows."""
    pools = unevenness(rng, (ROWS, COLUMNS), coarsest=128)
    contrast = rng.uniform(0.02, 0.1)
    across = np.linspace(-1, 1, COLUMNS, dtype=np.float32) * rng.uniform(-0.12, 0.12)
    image *= (1 + contrast * pools + across)[..., None]
    if rng.random() < 0.3:  # the sharp edge of a shadow
        y, x = np.mgrid[:ROWS, :COLUMNS].astype(np.float32)
        slope = rng.uniform(-0.6, 0.6)
        edge = _soft((y - ROWS * rng.uniform(0.4, 0.9) - slope * (x - COLUMNS / 2)) / 60)
        image *= (1 - rng.uniform(0.15, 0.4) * edge)[..., None]
