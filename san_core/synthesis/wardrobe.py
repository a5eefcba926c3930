"""Dresses a person: an identity becomes a texture and the thickness of its clothes."""

from typing import NamedTuple

import numpy as np

from san_core.pixels import Pixels
from san_core.synthesis.atlas import SIZE
from san_core.synthesis.body import Floats, smoothed
from san_core.synthesis.canvas import Canvas
from san_core.synthesis.head import paint_face, paint_falling_hair, paint_hair
from san_core.synthesis.identity import Identity
from san_core.synthesis.lower import paint_lower, paint_shoes
from san_core.synthesis.surface import Mask
from san_core.synthesis.upper import paint_carried, paint_logo, paint_upper

SHORTEST_SKIRT = 0.1  # along the leg; what hangs lower is drawn as a tube around both legs


class Outfit(NamedTuple):
    """What a dressed person needs to be drawn."""

    texture: Pixels  # (256, 256, 3) RGB, in the layout of the atlas
    thickness: Floats  # (V,) metres that clothes and hair stand off the skin
    skirt: float  # how far a skirt hangs along the legs, 0 hip to 1 ankle; 0 for none


def dress(identity: Identity) -> Outfit:
    """Paint a person from the skin outwards."""
    canvas = Canvas(np.random.default_rng(identity.details), identity.skin)
    _mottle(canvas)
    paint_face(canvas, identity)
    fallen = paint_hair(canvas, identity)
    bare = canvas.colour.copy()
    lower_hem = paint_lower(canvas, identity)
    paint_shoes(canvas, identity, lower_hem)
    upper_hem = paint_upper(canvas, identity)
    if identity.logo != "none":
        paint_logo(canvas, identity)
    _weave(canvas, (canvas.colour != bare).any(axis=1))
    paint_carried(canvas, identity)
    if fallen is not None:
        paint_falling_hair(canvas, identity, fallen)
    texture = np.clip(canvas.colour, 3, 252).astype(np.uint8).reshape(SIZE, SIZE, 3)
    hem = max(upper_hem, lower_hem if identity.lower == "skirt" else 0.0)
    skirt = hem if hem > SHORTEST_SKIRT else 0.0
    return Outfit(texture, smoothed(canvas.thickness, rounds=2), skirt)


def _mottle(canvas: Canvas) -> None:
    """Skin is not one colour, and hands are redder."""
    canvas.colour *= (1 + 0.03 * canvas.noise(0.03) + 0.02 * canvas.noise(0.01))[:, None]
    canvas.colour[canvas.texels.hand, 0] *= np.float32(1.03)


def _weave(canvas: Canvas, clothed: Mask) -> None:
    """Threads, wrinkles and the creases of elbows and knees, on cloth alone."""
    body = canvas.texels
    amplitude = canvas.rng.uniform(0.05, 0.1)
    wrinkles = 0.5 * canvas.noise(0.045, stretch=(1, 1, 1.8), where=clothed)
    wrinkles += 0.3 * canvas.noise(0.022, where=clothed)
    factor = 1 + amplitude * wrinkles + 0.03 * canvas.noise(0.006, where=clothed)
    elbow = np.exp(-(((body.along_arm[clothed] - 0.5) / 0.08) ** 2)) * body.arm[clothed]
    knee = np.exp(-(((body.along_leg[clothed] - 0.5) / 0.06) ** 2)) * body.leg[clothed]
    creases = np.abs(canvas.noise(0.012, stretch=(3, 3, 1), where=clothed))
    canvas.colour[clothed] *= (factor - 0.07 * (elbow + knee) * creases)[:, None]
