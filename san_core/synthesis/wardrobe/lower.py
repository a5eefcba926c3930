"""Lower garments and shoes, painted on a canvas. Lengths along the leg: 0 hip, 1 ankle."""

from dataclasses import dataclass

import numpy as np

from san_core.synthesis.person.body import Floats
from san_core.synthesis.person.identity import Identity
from san_core.synthesis.person.surface import Mask, Surface, landmarks
from san_core.synthesis.wardrobe.canvas import Canvas, smoothstep
from san_core.synthesis.wardrobe.patterns import cloth_colours


@dataclass(frozen=True)
class LowerCut:
    """The parameters of a lower garment."""

    hem: tuple[float, float]  # along the leg, drawn between these
    thickness: float  # metres
    hang: float  # how far it spans the hollows of the body, 0 to 1
    folds: float  # how deep its folds are, 0 to 1
    flare: float = 0.0  # metres added at the hem
    waist: float = 0.30  # torso height of the waistband


LOWER_CUTS = {
    "trousers": LowerCut((1.02, 1.02), 0.011, 0.9, 0.7, flare=0.018),
    "jeans": LowerCut((1.0, 1.0), 0.009, 0.7, 0.9, flare=0.010),
    "track": LowerCut((1.0, 1.0), 0.016, 1.0, 0.9, flare=0.014),
    "leggings": LowerCut((1.0, 1.0), 0.003, 0.1, 0.15, waist=0.34),
    "shorts": LowerCut((0.3, 0.52), 0.015, 0.9, 0.7, flare=0.022),
    "skirt": LowerCut((0.3, 0.6), 0.014, 0.7, 0.6, flare=0.018),
}


def paint_lower(canvas: Canvas, identity: Identity) -> float:
    """Paint trousers, shorts or a skirt; return the position of the hem along the leg."""
    cut = LOWER_CUTS[identity.lower]
    hem = float(canvas.rng.uniform(*cut.hem))

    def covered(surface: Surface) -> Mask:
        hips = surface.torso & (surface.torso_height < cut.waist)
        return hips | (surface.leg & (surface.along_leg < hem))

    where = canvas.dress_region(
        covered,
        _fabric_colours(canvas, identity),
        thickness=cut.thickness,
        hang=cut.hang,
        folds=cut.folds,
    )
    flare = cut.flare * canvas.rng.uniform(0.4, 1.4)
    canvas.add_slack(
        lambda surface: covered(surface) & surface.leg,
        lambda surface: flare * smoothstep(0.55 * hem, hem, surface.along_leg),
    )
    body = canvas.texels
    canvas.shade(body.leg & (np.abs(body.along_leg - hem) < 0.012), 0.7)
    canvas.shade(where & body.torso & (np.abs(body.x) < 0.004) & (body.y < 0), 0.75)
    return hem


def _fabric_colours(canvas: Canvas, identity: Identity) -> Floats:
    body, (main, contrast) = canvas.texels, identity.lower_colours
    if identity.lower == "skirt" and canvas.rng.random() < 0.4:
        pattern = str(canvas.rng.choice(["plaid", "dots", "vertical stripes"]))
        return cloth_colours(canvas, pattern, (main, contrast, contrast))
    fabric = cloth_colours(canvas, "plain", (main, main, main))
    if identity.lower == "jeans":
        worn = np.exp(-(((body.along_leg - 0.25) / 0.2) ** 2)) * (body.y < 0)
        fabric *= (1 + canvas.rng.uniform(0, 0.35) * worn)[:, None]
    if identity.lower == "track":
        fabric[body.leg & (np.abs(body.around_leg) < 0.28)] = contrast
    return fabric


SHAFT_HEIGHTS = {"sneaker": 0.02, "low": -0.013, "boot": 0.14}  # metres above the ankle's edge


def paint_shoes(canvas: Canvas, identity: Identity, hem: float) -> None:
    """Paint socks, shoes, soles and laces; `hem` is the end of the lower garment on the leg."""
    body, colour = canvas.texels, np.array(identity.shoe_colour, np.float32)
    if canvas.rng.random() < 0.5 and identity.shoes != "boot":
        above = body.leg & (body.along_leg > 0.93) & (body.along_leg > hem)
        socks = [(34, 34, 38), (232, 232, 228), (128, 130, 132)]
        canvas.fill(body.foot | above, socks[canvas.rng.integers(len(socks))])
    height = 0.075 + SHAFT_HEIGHTS[identity.shoes]

    def shoe(surface: Surface) -> Mask:
        low = surface.z < landmarks().floor + height
        return low & (surface.foot | (surface.leg & (identity.shoes != "low")))

    where = shoe(body)
    if identity.shoes != "boot":
        where &= ~(body.leg & (body.along_leg < hem))
    canvas.fill(where, colour)
    canvas.thicken_region(shoe, 0.010)
    _paint_sole(canvas, identity, where)
    if identity.shoes == "sneaker":
        _paint_laces(canvas, dark=bool(colour.mean() > 150))


def _paint_sole(canvas: Canvas, identity: Identity, shoe: Mask) -> None:
    sole = shoe & (canvas.texels.z < landmarks().floor + 0.014)
    if identity.shoes == "sneaker" and canvas.rng.random() < 0.7:
        canvas.fill(sole, (226, 226, 222))
    else:
        canvas.shade(sole, 0.6)


def _paint_laces(canvas: Canvas, *, dark: bool) -> None:
    body = canvas.texels
    middle = np.abs(np.abs(body.x) - 0.205) < 0.018
    instep = body.foot & middle & (body.y < -0.045) & (body.y > -0.13)
    bars = (body.y * 45) % 1 < 0.4
    canvas.fill(
        instep & bars & (body.z > landmarks().floor + 0.03), (60,) * 3 if dark else (235,) * 3
    )
