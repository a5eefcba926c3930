"""Carried and pushed things in the world "street": bags, suitcases, umbrellas, bicycles.

They are not part of a person's texture: they occlude the person, or stand behind. Lengths are in
metres.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from san_core.synthesis.camera.render import FramedMesh
from san_core.synthesis.person.body import Floats
from san_core.synthesis.person.identity import Colour
from san_core.synthesis.person.surface import Mask, vertex_surface
from san_core.synthesis.place.materials import muted_colour
from san_core.synthesis.street.colours import any_colour

SAMPLES = 2  # on a side of every pixel
Point = tuple[float, float]  # metres to the right and down


class Thing(NamedTuple):
    """A drawing to be laid over a picture."""

    kind: str
    colour: Floats  # (H, W, 3) RGB, 0-255
    cover: Floats  # (H, W) share of each pixel
    in_front: bool  # of the person

    def lay_over(self, image: Floats) -> None:
        """Draw it over an image (H, W, 3), in place."""
        image += (self.colour - image) * self.cover[..., None]


class _Anchor(NamedTuple):
    """A point of the person in the image, in pixels, and the pixels per metre there."""

    x: float
    y: float
    metre: float


class _Sheet:
    """Draws in metres around an anchor; `narrow` is the foreshortening of a turned thing."""

    def __init__(self, framed: FramedMesh, ground: Colour, anchor: _Anchor, narrow: float) -> None:
        rows, columns = framed.size
        # Transparent, but of the thing's colour, which soft edges mix in.
        fill = (*_levels(ground), 0)
        self._image = Image.new("RGBA", (columns * SAMPLES, rows * SAMPLES), fill)
        self._pen = ImageDraw.Draw(self._image)
        self._metre = anchor.metre * SAMPLES
        self._aside = self._metre * narrow * framed.view.stretch
        self._anchor = (anchor.x * SAMPLES, anchor.y * SAMPLES)

    def polygon(self, points: Iterable[Point], colour: Colour) -> None:
        self._pen.polygon([self._at(*point) for point in points], fill=(*_levels(colour), 255))

    def line(self, points: Iterable[Point], width: float, colour: Colour) -> None:
        thick = max(1, round(width * self._metre))
        path = [self._at(*point) for point in points]
        self._pen.line(path, fill=(*_levels(colour), 255), width=thick, joint="curve")

    def ring(
        self, middle: tuple[float, float], radius: float, width: float, colour: Colour
    ) -> None:
        (x, y), thick = self._at(*middle), max(1, round(width * self._metre))
        aside, up = abs(radius * self._aside), radius * self._metre
        box = (x - aside, y - up, x + aside, y + up)
        self._pen.ellipse(box, outline=(*_levels(colour), 255), width=thick)

    def finish(self, rng: np.random.Generator, kind: str, *, in_front: bool) -> Thing:
        """The drawing with uneven light from above or from one side."""
        drawn = np.asarray(self._image.reduce(SAMPLES), np.float32)
        rows, columns = drawn.shape[:2]
        down = np.linspace(0.5, -0.5, rows, dtype=np.float32)[:, None]
        across = np.linspace(-0.5, 0.5, columns, dtype=np.float32)
        light = rng.uniform(0.6, 1.1) + rng.uniform(0, 0.4) * down + rng.uniform(-0.4, 0.4) * across
        colour = drawn[..., :3] * light.astype(np.float32)[..., None]
        return Thing(kind, colour, drawn[..., 3] / np.float32(255), in_front)

    def _at(self, right: float, down: float) -> Point:
        return self._anchor[0] + right * self._aside, self._anchor[1] + down * self._metre


def _levels(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (int(np.clip(level, 0, 255)) for level in colour)
    return red, green, blue


def sample_thing(rng: np.random.Generator, framed: FramedMesh) -> Thing:
    """A random thing that the framed person carries or pushes, drawn for this picture."""
    kind = str(rng.choice(list(_THINGS), p=[share for share, _ in _THINGS.values()]))
    return _THINGS[kind][1](rng, framed)


def _anchor(framed: FramedMesh, where: Mask) -> _Anchor:
    """The centre of some vertices (V,) of the body."""
    column, row, inverse = framed.screen[: len(where)][where].mean(axis=0)
    return _Anchor(float(column), float(row), float(framed.scale * inverse))


def _hand(framed: FramedMesh, side: int) -> _Anchor:
    body = vertex_surface()
    return _anchor(framed, body.hand & (side * body.x > 0))


def _ground(framed: FramedMesh, anchor: _Anchor) -> float:
    """Metres from an anchor down to the soles."""
    body = vertex_surface()
    feet = framed.screen[: len(body.foot)][body.foot, 1]
    return (float(feet.max()) - anchor.y) / anchor.metre


def _is_nearer(framed: FramedMesh, anchor: _Anchor) -> bool:
    """Whether an anchor is nearer to the camera than the middle of the person."""
    return anchor.metre > framed.scale * float(np.median(framed.screen[:, 2]))


def _choose_side(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _shaded(colour: Colour, factor: float) -> Colour:
    red, green, blue = colour
    return red * factor, green * factor, blue * factor


def _material(rng: np.random.Generator) -> Colour:
    """A colour for leather, cloth or plastic, of any hue or grey."""
    if rng.random() < 0.5:
        return any_colour(rng)
    red, green, blue = muted_colour(rng, 20, 235)
    return float(red), float(green), float(blue)


def _draw_bag(rng: np.random.Generator, framed: FramedMesh) -> Thing:
    """A handbag, a case or a shopping bag in one hand."""
    hand, colour = _hand(framed, _choose_side(rng)), _material(rng)
    half, top, tall = rng.uniform(0.11, 0.22), rng.uniform(0.06, 0.28), rng.uniform(0.18, 0.42)
    wider, below = half * rng.uniform(0.85, 1.2), top + tall
    sheet = _Sheet(framed, colour, hand, rng.uniform(0.4, 1))
    for aside in (-0.6, 0.6):
        sheet.line([(0, 0), (aside * half, top)], 0.015, _shaded(colour, 0.6))
    sheet.polygon([(-half, top), (half, top), (wider, below), (-wider, below)], colour)
    sheet.line([(-half, top), (half, top)], 0.02, _shaded(colour, 0.7))
    if rng.random() < 0.4:  # a print
        left, mark = 0.5 * half, (top + 0.3 * tall, top + 0.65 * tall)
        corners = [(-left, mark[0]), (left, mark[0]), (left, mark[1]), (-left, mark[1])]
        sheet.polygon(corners, _material(rng))
    return sheet.finish(rng, "bag", in_front=_is_nearer(framed, hand) or rng.random() < 0.2)


def _draw_shoulder_bag(rng: np.random.Generator, framed: FramedMesh) -> Thing:
    """A bag at the hip, on a strap over either shoulder."""
    body, side, colour = vertex_surface(), _choose_side(rng), _material(rng)
    hip = _anchor(
        framed, body.torso & (np.abs(body.torso_height - 0.2) < 0.1) & (side * body.x > 0.08)
    )
    from_side = side * (1 if rng.random() < 0.4 else -1)
    high = body.torso & (body.torso_height > 0.9) & (from_side * body.x > 0.06)
    shoulder = _anchor(framed, high)
    half, tall = rng.uniform(0.11, 0.2), rng.uniform(0.16, 0.3)
    narrow = rng.uniform(0.5, 1)
    sheet = _Sheet(framed, colour, hip, narrow)
    aside = (shoulder.x - hip.x) / (hip.metre * narrow * framed.view.stretch)
    up = (shoulder.y - hip.y) / hip.metre
    sheet.line([(aside, up), (0, -0.05)], rng.uniform(0.015, 0.045), _shaded(colour, 0.75))
    edge, below = 0.85 * half, tall - 0.05
    sheet.polygon([(-edge, -0.05), (edge, -0.05), (half, below), (-half, below)], colour)
    flap = -0.05 + tall * rng.uniform(0.3, 0.6)
    sheet.line([(-half, flap), (half, flap)], 0.012, _shaded(colour, 0.6))
    return sheet.finish(rng, "shoulder bag", in_front=_is_nearer(framed, hip) or rng.random() < 0.3)


def _draw_suitcase(rng: np.random.Generator, framed: FramedMesh) -> Thing:
    """A case on wheels beside the feet, with a handle."""
    hand, colour = _hand(framed, _choose_side(rng)), _material(rng)
    floor, half, tall = _ground(framed, hand), rng.uniform(0.15, 0.24), rng.uniform(0.45, 0.7)
    aside = rng.uniform(0.1, 0.35) * _choose_side(rng)
    sheet = _Sheet(framed, colour, hand, rng.uniform(0.6, 1))
    top = floor - tall
    sheet.line([(0, 0), (aside, top)], 0.025, (70, 70, 74))
    left, right = aside - half, aside + half
    sheet.polygon([(left, top), (right, top), (right, floor - 0.03), (left, floor - 0.03)], colour)
    for share in (0.33, 0.67):
        height = top + share * tall
        sheet.line([(left, height), (right, height)], 0.012, _shaded(colour, 0.7))
    return sheet.finish(rng, "suitcase", in_front=_is_nearer(framed, hand))


def _draw_umbrella(rng: np.random.Generator, framed: FramedMesh) -> Thing:
    """An open umbrella over the head, its shaft in one hand."""
    body, colour = vertex_surface(), _material(rng)
    head, hand = _anchor(framed, body.head), _hand(framed, _choose_side(rng))
    radius, tall = rng.uniform(0.4, 0.62), rng.uniform(0.16, 0.34)
    aside, edge = rng.uniform(-0.2, 0.2), -rng.uniform(0.02, 0.3)
    sheet = _Sheet(framed, colour, head, 1.0)
    grip = (
        (hand.x - head.x) / (head.metre * framed.view.stretch),
        (hand.y - head.y) / head.metre,
    )
    sheet.line([(aside, edge - tall), grip], 0.016, (60, 58, 56))
    gores = int(rng.integers(5, 9))
    for gore in range(gores):
        turns = np.linspace(np.pi * (gore / gores), np.pi * ((gore + 1) / gores), 5)
        rim = [(aside - radius * float(np.cos(t)), edge) for t in turns]
        middle = (rim[0][0] + rim[-1][0]) / 2
        rim[1:-1] = [(middle, edge - 0.03)]  # cloth hangs in bows from rib to rib
        arc = [
            (aside - radius * float(np.cos(t)), edge - tall * float(np.sin(t)) ** 0.8)
            for t in turns[::-1]
        ]
        shade = 0.75 + 0.35 * float(np.sin(np.pi * (gore + 0.5) / gores))
        sheet.polygon([*rim, *arc, (aside, edge - tall)], _shaded(colour, shade))
    return sheet.finish(rng, "umbrella", in_front=bool(rng.random() < 0.6))


def _draw_bicycle(rng: np.random.Generator, framed: FramedMesh) -> Thing:
    """A bicycle, pushed or standing, from the side or at an angle."""
    hand, colour = _hand(framed, _choose_side(rng)), _material(rng)
    floor, nose = _ground(framed, hand), _choose_side(rng)
    sheet = _Sheet(framed, colour, hand, nose * rng.uniform(0.3, 1))
    wheel, axle, pedal = 0.33, floor - 0.33, floor - 0.28
    front, rear = 0.15, -0.9  # the hand is on the bars
    for middle in (front, rear):
        sheet.ring((middle, axle), wheel, 0.04, (32, 32, 34))
    crank, seat, bars = (rear + 0.43, pedal), (rear + 0.27, floor - 0.82), (-0.06, floor - 0.88)
    sheet.line([(rear, axle), crank, bars, seat, crank], 0.035, colour)
    sheet.line([(rear, axle), seat], 0.025, colour)
    sheet.line([(front, axle), bars, (-0.1, floor - 1.0)], 0.035, colour)
    sheet.line([(seat[0] - 0.14, floor - 0.9), (seat[0] + 0.12, floor - 0.9)], 0.05, (30, 28, 28))
    sheet.line([seat, (seat[0], floor - 0.9)], 0.025, (60, 60, 62))
    sheet.line([(-0.16, floor - 1.02), (0.02, floor - 1.0)], 0.03, (40, 40, 42))
    return sheet.finish(rng, "bicycle", in_front=bool(rng.random() < 0.6))


_THINGS: dict[str, tuple[float, Callable[[np.random.Generator, FramedMesh], Thing]]] = {
    "bag": (0.36, _draw_bag),
    "shoulder bag": (0.26, _draw_shoulder_bag),
    "suitcase": (0.1, _draw_suitcase),
    "umbrella": (0.12, _draw_umbrella),
    "bicycle": (0.16, _draw_bicycle),
}
