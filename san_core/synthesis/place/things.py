"""Objects of a place: cars, poles, bins, and people other than the subject."""

from collections.abc import Callable

import numpy as np

from san_core.synthesis.person.body import Floats
from san_core.synthesis.place.materials import accent_colour, car_colour, muted_colour, soft_cover

Parts = list[tuple[Floats, Floats]]  # cover (0-1) and colour of every part, back to front


def draw_thing(
    rng: np.random.Generator,
    image: Floats,
    place: tuple[float, float],
    metre: float,
    *,
    indoors: bool,
) -> None:
    """Draw a random object at column and row `place`, where a metre is `metre` pixels."""
    x, foot = place
    kind = rng.choice(4, p=[0, 0.35, 0.3, 0.35] if indoors else [0.3, 0.25, 0.15, 0.3])
    if kind == 0:
        draw_car(rng, image, x, foot, metre)
    elif kind == 1:
        _draw_box(
            rng, image, (x, foot), (rng.uniform(0.07, 0.14) * metre, rng.uniform(2, 4.5) * metre)
        )
    elif kind == 2:
        _draw_box(
            rng, image, (x, foot), (rng.uniform(0.4, 0.9) * metre, rng.uniform(0.7, 1.2) * metre)
        )
    else:
        draw_person(rng, image, x, foot, metre * rng.uniform(1.55, 1.9))


def _patch_slices(
    image: Floats, x: float, foot: float, width: float, height: float
) -> tuple[slice, slice]:
    """The rows and columns of an image that an object may cover."""
    top, bottom = int(max(0, foot - height)), int(min(image.shape[0], foot + 0.15 * height + 2))
    left, right = int(max(0, x - width)), int(min(image.shape[1], x + width + 1))
    return slice(top, max(top, bottom)), slice(left, max(left, right))


def _draw_parts(
    image: Floats,
    place: tuple[float, float],
    size: tuple[float, float],
    paint: Callable[[Floats, Floats], Parts],
    *,
    shadow: bool = True,
) -> None:
    """Draw the parts of an object and, if wanted, its shadow on the ground.

    paint: called with u from -1, left, to 1, right, and v from 0, base, to 1, top.
    """
    (x, foot), (width, height) = place, size
    rows, columns = _patch_slices(image, x, foot, width, height)
    patch = image[rows, columns]
    if not patch.size:
        return
    y, across = np.mgrid[rows, columns].astype(np.float32)
    u, v = (across - x) / (0.5 * width), (foot - y) / height
    if shadow:
        patch *= (1 - 0.45 * np.exp(-(u**2) - (v / 0.06) ** 2))[..., None]
    for cover, colour in paint(u, v):
        weight = np.asarray(cover, np.float32)[..., None]
        patch[:] = patch * (1 - weight) + colour * weight


def _draw_box(
    rng: np.random.Generator, image: Floats, place: tuple[float, float], size: tuple[float, float]
) -> None:
    """A pole, bin, cabinet or bollard."""
    colour = accent_colour(rng) if rng.random() < 0.15 else muted_colour(rng, 35, 140)
    bright, lid = rng.uniform(-0.3, 0.3), rng.uniform(0.8, 0.95)

    def paint(u: Floats, v: Floats) -> Parts:
        cover = soft_cover(np.minimum((1 - np.abs(u)) * 2, np.minimum(v, 1 - v) * 12))
        shade = (1 + bright * u) * (0.85 + 0.2 * v) * np.where(v > lid, 0.8, 1)
        return [(cover, colour * shade[..., None])]

    _draw_parts(image, place, (max(2.0, size[0]), size[1]), paint)


def draw_car(
    rng: np.random.Generator,
    image: Floats,
    x: float,
    foot: float,
    metre: float,
    *,
    shadow: bool = True,
) -> None:
    """A parked car from the side, or from one end."""
    colour, height = car_colour(rng), metre * rng.uniform(1.4, 1.75)
    from_side = rng.random() < 0.6
    width = metre * (rng.uniform(4.0, 4.7) if from_side else rng.uniform(1.75, 1.9))
    nose = rng.choice([-1, 1])
    paint = _car_side_painter(colour, nose) if from_side else _car_end_painter(colour, red=nose > 0)
    _draw_parts(image, (x, foot), (width, height), paint, shadow=shadow)


def _car_side_painter(colour: Floats, nose: int) -> Callable[[Floats, Floats], Parts]:
    dark, pane = np.array([24, 24, 26], np.float32), np.array([52, 59, 66], np.float32)

    def paint(u: Floats, v: Floats) -> Parts:
        ahead = u * nose
        roof = np.interp(
            ahead, [-0.98, -0.72, -0.42, 0.18, 0.52, 0.96], [0.5, 0.6, 0.97, 1, 0.6, 0.46]
        )
        body = soft_cover(np.minimum(np.minimum(roof - v, v - 0.14) * 4, (0.99 - np.abs(u)) * 6))
        glass = np.minimum(np.minimum(roof - 0.07 - v, v - 0.6) * 6, 0.48 - np.abs(ahead + 0.1))
        pillar = np.abs(np.abs(ahead + 0.12) - 0.02) < 0.02
        wheels = np.hypot((np.abs(u) - 0.62) / 0.15, (v - 0.2) / 0.21)
        sheen = (0.62 + 0.35 * v + 0.25 * np.exp(-(((v - 0.56) / 0.05) ** 2)))[..., None]
        sill = np.where(v < 0.24, 0.5, 1)[..., None]
        hub = np.array([120, 122, 124], np.float32)
        return [
            (body, colour * sheen * sill),
            (soft_cover(glass) * ~pillar, pane * (0.7 + 0.7 * v)[..., None]),
            (soft_cover(1 - wheels), dark),
            (soft_cover(0.5 - wheels), hub),
        ]

    return paint


def _car_end_painter(colour: Floats, *, red: bool) -> Callable[[Floats, Floats], Parts]:
    dark, pane = np.array([24, 24, 26], np.float32), np.array([50, 57, 64], np.float32)
    lamp = np.array([150, 28, 26] if red else [225, 225, 215], np.float32)

    def paint(u: Floats, v: Floats) -> Parts:
        half = np.interp(v, [0.1, 0.2, 0.55, 0.95, 1], [0.85, 0.97, 0.97, 0.7, 0.6])
        body = soft_cover(np.minimum((half - np.abs(u)) * 4, np.minimum(v - 0.14, 0.99 - v) * 6))
        glass = soft_cover(
            np.minimum((half - 0.14 - np.abs(u)) * 4, np.minimum(v - 0.6, 0.93 - v) * 6)
        )
        lamps = soft_cover(
            np.minimum((0.15 - np.abs(np.abs(u) - 0.74)) * 4, 0.07 - np.abs(v - 0.5))
        )
        tread = np.minimum((0.22 - v) * 4, (v + 0.02) * 8)
        wheels = soft_cover(np.minimum((0.16 - np.abs(np.abs(u) - 0.76)) * 4, tread))
        plate = soft_cover(np.minimum(0.22 - np.abs(u), (0.05 - np.abs(v - 0.34)) * 4))
        sheen = (0.6 + 0.45 * v)[..., None]
        pale = np.array([190, 190, 185], np.float32)
        return [
            (wheels, dark),
            (body, colour * sheen),
            (glass, pane * (0.7 + 0.7 * v)[..., None]),
            (lamps, lamp),
            (plate, pale),
        ]

    return paint


def draw_person(
    rng: np.random.Generator,
    image: Floats,
    x: float,
    foot: float,
    size: float,
    *,
    shadow: bool = True,
) -> None:
    """A distant person: a blurred figure, not a model of one."""
    shirt = accent_colour(rng) if rng.random() < 0.3 else muted_colour(rng, 25, 190)
    trousers, hair = muted_colour(rng, 22, 100), muted_colour(rng, 18, 60)
    skin = np.array([176, 134, 110], np.float32) * np.float32(rng.uniform(0.5, 1.15))
    stride, lean = rng.uniform(0.05, 0.4), rng.uniform(-0.1, 0.1)

    def paint(u: Floats, v: Floats) -> Parts:
        u = u - lean * v
        apart = stride * np.clip(1 - v / 0.5, 0, 1)
        leg = 0.2 - np.abs(np.abs(u) - 0.17 - apart) - np.maximum(v - 0.5, 0) * 8
        leg = soft_cover(np.minimum(leg, (v + 0.01) * 8))
        half = np.interp(v, [0.4, 0.46, 0.62, 0.78, 0.83, 0.86], [0.4, 0.42, 0.4, 0.52, 0.45, 0.1])
        trunk = soft_cover(np.minimum((half - np.abs(u)) * 3, (v - 0.43) * 8))
        arms = soft_cover(
            np.minimum((0.09 - np.abs(np.abs(u) - 0.52)) * 4, np.minimum(v - 0.42, 0.8 - v))
        )
        head = np.hypot(u / 0.24, (v - 0.925) / 0.066)
        shade = (0.8 + 0.3 * v)[..., None]
        cap = soft_cover(1.02 - head) * (v > 0.93)
        return [
            (leg, trousers * (0.7 + 0.6 * v)[..., None]),
            (arms, 0.85 * shirt * shade),
            (trunk, shirt * shade * (1 - 0.25 * u)[..., None]),
            (soft_cover(1 - head), skin),
            (cap, hair),
        ]

    _draw_parts(image, (x, foot), (0.3 * size, size), paint, shadow=shadow)
