"""Dresses a person: turns an identity into a texture and the thickness of its clothes."""

from typing import NamedTuple

import numpy as np

from san_core.images.pixels import Pixels
from san_core.synthesis.person.atlas import TEXTURE_SIZE
from san_core.synthesis.person.body import Floats, smooth_values
from san_core.synthesis.person.identity import Identity
from san_core.synthesis.wardrobe.canvas import Canvas, smoothstep
from san_core.synthesis.wardrobe.hair import paint_falling_hair, paint_hair
from san_core.synthesis.wardrobe.head import paint_face
from san_core.synthesis.wardrobe.lower import paint_lower, paint_shoes
from san_core.synthesis.wardrobe.upper import paint_carried, paint_logo, paint_upper

SHORTEST_SKIRT = 0.1  # along the leg; what hangs lower is drawn as a tube around both legs


class Outfit(NamedTuple):
    """The texture and shape of a dressed person, for rendering."""

    texture: Pixels  # (256, 256, 3) RGB, in the layout of the atlas
    thickness: Floats  # (V,) metres that clothes and hair stand off the skin
    hang: Floats  # (V,) how far clothes span the hollows of the body, 0 to 1
    skirt: float  # how far a skirt hangs along the legs, 0 hip to 1 ankle; 0 for none


def paint_outfit(identity: Identity) -> Outfit:
    """Paint a person from the skin outwards."""
    canvas = Canvas(np.random.default_rng(identity.details), identity.skin)
    _mottle_skin(canvas)
    paint_face(canvas, identity)
    fallen = paint_hair(canvas, identity)
    lower_hem = paint_lower(canvas, identity)
    paint_shoes(canvas, identity, lower_hem)
    upper_hem = paint_upper(canvas, identity)
    if identity.logo != "none":
        paint_logo(canvas, identity)
    _shade_weave(canvas)
    _shade_folds(canvas)
    paint_carried(canvas, identity)
    if fallen is not None:
        paint_falling_hair(canvas, identity, fallen)
    texture = np.clip(canvas.colour, 3, 252).astype(np.uint8).reshape(TEXTURE_SIZE, TEXTURE_SIZE, 3)
    hem = max(upper_hem, lower_hem if identity.lower == "skirt" else 0.0)
    skirt = hem if hem > SHORTEST_SKIRT else 0.0
    thickness = smooth_values(canvas.thickness, rounds=2) + canvas.jut
    return Outfit(texture, thickness, smooth_values(canvas.hang, rounds=3), skirt)


def _mottle_skin(canvas: Canvas) -> None:
    """Vary the colour of skin, and make hands redder."""
    canvas.colour *= (1 + 0.03 * canvas.noise(0.03) + 0.02 * canvas.noise(0.01))[:, None]
    canvas.colour[canvas.texels.hand, 0] *= np.float32(1.03)


def _shade_weave(canvas: Canvas) -> None:
    """Shade threads and wear, on cloth alone."""
    clothed = canvas.folds > 0
    worn = 0.03 * canvas.noise(0.006, where=clothed) + 0.025 * canvas.noise(0.05, where=clothed)
    canvas.colour[clothed] *= (1 + worn)[:, None]


def _shade_folds(canvas: Canvas) -> None:
    """Shade folds, lit from above: cloth sags on the trunk and gathers where limbs bend.

    The upper side of a fold is light and its lower side dark, so the shade is the slope of a rough
    surface. Its wrinkles run around the limbs and diagonally over the trunk.
    """
    body = canvas.texels
    clothed = np.flatnonzero(canvas.folds > 0)
    points = body.points[clothed].copy()
    trunk = (body.torso | body.hand)[clothed]
    slant = canvas.rng.uniform(0.3, 0.8) * np.abs(points[:, 0])
    points[:, 2] += np.where(trunk, slant, np.float32(0.4) * points[:, 1])
    rough, depth = np.zeros(len(clothed), np.float32), _gather_depth(canvas)[clothed]
    for cell, share in ((0.05, 0.6), (0.022, 0.4)):
        above = points + np.array([0, 0, 0.3 * cell], np.float32)
        stretch = (3.0, 3.0, 1.0)
        slope = canvas.noise_at(above, cell, stretch=stretch)
        slope -= canvas.noise_at(points, cell, stretch=stretch)
        rough += np.float32(share) * slope
    # Cloth lies flat in most places: small slopes are none.
    crease = np.sign(rough) * np.maximum(np.abs(rough) - 0.1, 0)
    factor = np.clip(1 + 1.1 * canvas.folds[clothed] * depth * crease, 0.55, 1.4)
    canvas.colour[clothed] *= factor[:, None]


def _gather_depth(canvas: Canvas) -> Floats:
    """The depth of gathered cloth at every texel: elbows, knees, ankles, wrists, waist, armpits."""
    body = canvas.texels
    gathered = np.full(len(body.x), 0.35, np.float32)
    for along, limb, places in (
        (body.along_arm, body.arm, ((0.0, 0.1, 0.7), (0.48, 0.14, 1.0), (0.95, 0.1, 0.7))),
        (body.along_leg, body.leg, ((0.0, 0.1, 0.7), (0.5, 0.09, 0.9), (0.97, 0.12, 1.2))),
    ):
        for centre, width, depth in places:
            gathered += limb * depth * np.exp(-(((along - centre) / width) ** 2))
    height = body.torso_height
    gathered += body.torso * 0.7 * np.exp(-(((height - 0.3) / 0.14) ** 2))
    beside = smoothstep(0.06, 0.15, np.abs(body.x))
    gathered += body.torso * 0.6 * beside * np.exp(-(((height - 0.78) / 0.12) ** 2))
    return gathered
