"""Things between the camera and the person: posts, hedges, walls, cars' bonnets, doorways."""

from collections.abc import Callable

import numpy as np

from san_core.synthesis.background import accent, foliage, muted, unevenness
from san_core.synthesis.body import Floats


def occlude(rng: np.random.Generator, image: Floats) -> None:
    """Draw one thing in front of what an image (H, W, 3) shows, in place."""
    OCCLUDERS[rng.integers(len(OCCLUDERS))](rng, image)


def _material(rng: np.random.Generator, image: Floats) -> Floats:
    colour = accent(rng) if rng.random() < 0.3 else muted(rng, 40, 190)
    worn = 1 + 0.07 * unevenness(rng, (image.shape[0], image.shape[1]), coarsest=32)
    material: Floats = (colour * worn[..., None]).astype(np.float32)
    return material


def _post(rng: np.random.Generator, image: Floats) -> None:
    """A lamp post or column, round, so darker at its edges."""
    columns = image.shape[1]
    across = np.arange(columns) - columns * rng.uniform(0.15, 0.85)
    round_ = across / (columns * rng.uniform(0.03, 0.09))
    inside = np.abs(round_) < 1
    shading = (0.55 + 0.45 * np.sqrt(np.clip(1 - round_**2, 0, 1)))[:, None]
    image[:, inside] = (_material(rng, image) * shading)[:, inside]


def _hedge(rng: np.random.Generator, image: Floats) -> None:
    """Leaves up to the knees or the waist, with an uneven edge."""
    rows, columns = image.shape[:2]
    edge = rows * (rng.uniform(0.6, 0.85) + 0.03 * unevenness(rng, (1, columns), coarsest=32)[0])
    hidden = np.arange(rows)[:, None] > edge
    image[hidden] = foliage(rng, (rows, columns))[hidden]


def _parapet(rng: np.random.Generator, image: Floats) -> None:
    """A low wall, table or counter with a lighter upper edge."""
    rows, columns = image.shape[:2]
    slope = rng.uniform(-0.15, 0.15) * (np.arange(columns) - columns / 2)
    depth = np.arange(rows)[:, None] - (rows * rng.uniform(0.6, 0.85) + slope)
    material = _material(rng, image) * np.where(depth < 0.02 * rows, 1.2, 0.85)[..., None]
    image[depth > 0] = np.clip(material, 0, 255)[depth > 0]


def _bonnet(rng: np.random.Generator, image: Floats) -> None:
    """The rounded front of a car at one side, its glass above."""
    rows, columns = image.shape[:2]
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    middle = columns * (rng.uniform(-0.1, 0.25) if rng.random() < 0.5 else rng.uniform(0.75, 1.1))
    wide, top = columns * rng.uniform(0.35, 0.7), rows * rng.uniform(0.62, 0.85)
    height = rows - top
    hull = ((x - middle) / wide) ** 4 + ((y - rows) / height) ** 4 < 1
    sheen = 0.7 + 0.45 * np.clip((rows - y) / height, 0, 1)
    image[hull] = np.clip(_material(rng, image) * sheen[..., None], 0, 255)[hull]


def _doorway(rng: np.random.Generator, image: Floats) -> None:
    """The edge of a wall at one side."""
    columns = image.shape[1]
    wide = int(columns * rng.uniform(0.12, 0.35))
    side = slice(0, wide) if rng.random() < 0.5 else slice(columns - wide, columns)
    image[:, side] = _material(rng, image)[:, side] * 0.9


OCCLUDERS: list[Callable[[np.random.Generator, Floats], None]] = [
    _post,
    _hedge,
    _parapet,
    _bonnet,
    _doorway,
]
