"""Occluders between camera and person: posts, hedges, walls, cars, railings, other people."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from san_core.synthesis.person.body import Floats
from san_core.synthesis.place.facade import sample_facade
from san_core.synthesis.place.materials import accent_colour, foliage, material_patch, muted_colour
from san_core.synthesis.place.things import draw_car, draw_person

IMAGE_METRES = 1.9  # metres that the image is high where the person stands, roughly


def draw_occluder(rng: np.random.Generator, image: Floats) -> Floats:
    """Draw an occluder over an image (H, W, 3), in place; return its coverage (H, W).

    The camera focuses on the person, and the occluder is nearer, so it is a little out of focus.
    """
    drawn = image.copy()
    OCCLUDERS[rng.integers(len(OCCLUDERS))](rng, drawn)
    radius = image.shape[0] * rng.uniform(0.001, 0.006)
    hidden = (drawn != image).any(axis=2)
    cover: Floats = _blur(hidden * np.float32(255), radius) / np.float32(255)
    soft = _blur(drawn, radius)
    image += (soft - image) * cover[..., None]
    return cover


def _blur(values: Floats, radius: float) -> Floats:
    """An image (H, W, 3), or one channel (H, W), 0-255, blurred."""
    picture = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.BoxBlur(radius)), np.float32)


def _wall_material(rng: np.random.Generator, image: Floats) -> Floats:
    """Brick, concrete slabs, planks or one painted surface, (H, W, 3)."""
    rows, columns = image.shape[:2]
    kind = rng.integers(4)
    step = IMAGE_METRES / rows
    if kind == 0:
        house = sample_facade(rng)._replace(
            window=(0.0, 0.0), shop=0.0, ground_floor=0.0, height=9.0, brick=0.18
        )
        u, v = np.meshgrid(np.arange(columns) * step, (rows - np.arange(rows)) * step + 0.5)
        return house.colours_at(u.astype(np.float32), v.astype(np.float32), step)
    colour = accent_colour(rng) if rng.random() < 0.2 else muted_colour(rng, 40, 190)
    material = material_patch(rng, colour, (rows, columns))
    seams = int(rng.uniform(0.1, 0.5) / step)
    if kind == 1:
        material[np.arange(rows) % seams < max(1, rows // 90)] *= 0.75
    elif kind == 2:
        material[:, np.arange(columns) % max(3, seams // 2) < max(1, rows // 128)] *= 0.65
    return material


def _draw_post(rng: np.random.Generator, image: Floats) -> None:
    """A round lamp post or column, darker at its edges."""
    columns = image.shape[1]
    across = np.arange(columns) - columns * rng.uniform(0.15, 0.85)
    round_ = across / (columns * rng.uniform(0.03, 0.09))
    inside = np.abs(round_) < 1
    shading = (0.55 + 0.45 * np.sqrt(np.clip(1 - round_**2, 0, 1)))[:, None]
    image[:, inside] = (_wall_material(rng, image) * shading)[:, inside]


def _draw_hedge(rng: np.random.Generator, image: Floats) -> None:
    """Leaves up to the knees or the waist, with an uneven edge."""
    rows, columns = image.shape[:2]
    leaves = foliage(rng, (rows, columns))
    ragged = leaves[rows // 2, :, 1] - leaves[rows // 2, :, 1].mean()
    edge = rows * rng.uniform(0.6, 0.85) - rows * 0.0012 * ragged
    hidden = np.arange(rows)[:, None] > edge
    image[hidden] = leaves[hidden]


def _draw_parapet(rng: np.random.Generator, image: Floats) -> None:
    """A low wall, table or counter with a lighter upper edge."""
    rows, columns = image.shape[:2]
    slope = rng.uniform(-0.15, 0.15) * (np.arange(columns) - columns / 2)
    depth = np.arange(rows)[:, None] - (rows * rng.uniform(0.6, 0.85) + slope)
    material = _wall_material(rng, image) * np.where(depth < 0.03 * rows, 1.2, 0.85)[..., None]
    image[depth > 0] = np.clip(material, 0, 255)[depth > 0]


def _draw_parked_car(rng: np.random.Generator, image: Floats) -> None:
    """A car's roof and windows, its wheels below the image."""
    rows, columns = image.shape[:2]
    metre = rows / IMAGE_METRES * rng.uniform(0.95, 1.15)
    x, foot = columns * rng.uniform(-0.3, 1.3), rows * rng.uniform(1.38, 1.55)
    draw_car(rng, image, x, foot, metre, shadow=False)


def _draw_passer_by(rng: np.random.Generator, image: Floats) -> None:
    """A passer-by nearer the camera, cut by the edge of the image."""
    rows, columns = image.shape[:2]
    size = rows * rng.uniform(1.1, 1.5)
    x = columns * (rng.uniform(-0.1, 0.2) if rng.random() < 0.5 else rng.uniform(0.8, 1.1))
    draw_person(rng, image, x, rows * rng.uniform(1.15, 1.5), size, shadow=False)


def _draw_railing(rng: np.random.Generator, image: Floats) -> None:
    """A handrail on thin bars, as high as the hips."""
    rows, columns = image.shape[:2]
    top, thick = int(rows * rng.uniform(0.58, 0.75)), max(2, rows // 60)
    bars = np.arange(columns) % int(max(6, columns * rng.uniform(0.1, 0.3))) < max(1, rows // 110)
    material = material_patch(rng, muted_colour(rng, 40, 200), (rows, columns))
    image[top:, bars] = material[top:, bars] * 0.8
    image[top : top + thick] = material[top : top + thick]


def _draw_doorway(rng: np.random.Generator, image: Floats) -> None:
    """The edge of a wall at one side."""
    columns = image.shape[1]
    wide = int(columns * rng.uniform(0.12, 0.35))
    side = slice(0, wide) if rng.random() < 0.5 else slice(columns - wide, columns)
    image[:, side] = _wall_material(rng, image)[:, side] * 0.9


OCCLUDERS: list[Callable[[np.random.Generator, Floats], None]] = [
    _draw_post,
    _draw_hedge,
    _draw_parapet,
    _draw_parked_car,
    _draw_passer_by,
    _draw_railing,
    _draw_doorway,
]
