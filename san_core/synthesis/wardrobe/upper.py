"""Upper garments, prints and carried things, painted on a canvas.

Heights on the torso: 0 crotch, 1 base of the neck; along the arm: 0 shoulder, 1 wrist.
"""

from dataclasses import dataclass

import numpy as np

from san_core.synthesis.person.body import Floats
from san_core.synthesis.person.identity import Colour, Identity
from san_core.synthesis.person.surface import Mask, Surface, landmarks
from san_core.synthesis.wardrobe.canvas import Canvas, Region, smoothstep
from san_core.synthesis.wardrobe.patterns import cloth_colours


@dataclass(frozen=True)
class UpperCut:
    """The parameters of an upper garment; pairs are ranges to draw from."""

    sleeve: tuple[float, float]  # along the arm; below 0 there is none
    thickness: float  # metres
    neckline: float  # radius in metres
    hang: float  # how far it spans the hollows of the body, 0 to 1
    folds: float  # how deep its folds are, 0 to 1
    hem: tuple[float, float] = (0.15, 0.28)  # torso height
    skirt: tuple[float, float] = (-0.08, 0.02)  # along the leg
    v_neck: float = 0.25  # share with a V-neck
    open_front: float = 0.0  # share worn open over a shirt
    buttoned: bool = False
    loose_sleeve: float = 0.0  # metres


UPPER_CUTS = {
    "tee": UpperCut((0.22, 0.42), 0.007, 0.075, 0.85, 0.6, loose_sleeve=0.012),
    "long": UpperCut((1.02, 1.02), 0.006, 0.070, 0.7, 0.6, loose_sleeve=0.004),
    "tank": UpperCut((-1, -1), 0.004, 0.110, 0.5, 0.4),
    "shirt": UpperCut(
        (0.4, 1.0), 0.010, 0.060, 0.95, 0.8, v_neck=1, buttoned=True, loose_sleeve=0.014
    ),
    "jacket": UpperCut(
        (1.03, 1.03),
        0.022,
        0.055,
        1,
        0.9,
        (0.11, 0.24),
        open_front=0.65,
        buttoned=True,
        loose_sleeve=0.006,
    ),
    "hoodie": UpperCut((1.02, 1.02), 0.020, 0.055, 1, 0.9, (0.10, 0.23), loose_sleeve=0.008),
    "coat": UpperCut(
        (1.03, 1.03),
        0.026,
        0.055,
        1,
        0.7,
        (-0.3, -0.3),
        (0.25, 0.55),
        1,
        open_front=0.65,
        buttoned=True,
        loose_sleeve=0.006,
    ),
    "dress": UpperCut((-0.4, 1.0), 0.006, 0.100, 0.6, 0.5, skirt=(0.25, 0.6), loose_sleeve=0.006),
}


def paint_upper(canvas: Canvas, identity: Identity) -> float:
    """Paint the upper garment; return how far down the leg it hangs."""
    cut = UPPER_CUTS[identity.upper]
    sleeve, hem, skirt = (float(canvas.rng.uniform(*r)) for r in (cut.sleeve, cut.hem, cut.skirt))
    neckline = cut.neckline * canvas.rng.uniform(0.85, 1.25)
    v_neck = bool(canvas.rng.random() < cut.v_neck)

    def covered(surface: Surface) -> Mask:
        torso = surface.torso & (surface.torso_height > hem)
        torso &= ~_neck_hole(surface, neckline, v_neck=v_neck)
        if identity.upper == "tank":
            torso &= ~((np.abs(surface.x) > 0.135) & (surface.z > 0.36))
        sleeves = surface.arm & (surface.along_arm < sleeve)
        return torso | sleeves | (surface.leg & (surface.along_leg < skirt))

    fabric = _fabric_colours(canvas, identity)
    where = canvas.dress_region(
        covered, fabric, thickness=cut.thickness, hang=cut.hang, folds=cut.folds
    )
    _loosen_fit(canvas, cut, covered)
    _paint_edges(canvas, where, hem=hem, sleeve=sleeve)
    if canvas.rng.random() < cut.open_front:
        _paint_open_front(canvas, identity, where)
    elif cut.buttoned:
        _paint_buttons(canvas, where)
    if identity.upper == "hoodie":
        _paint_hood(canvas, fabric)
    return skirt


def _neck_hole(surface: Surface, radius: float, *, v_neck: bool) -> Mask:
    depth = landmarks().neck + 0.02 - surface.z
    reach = np.maximum(depth, 0) * (0.55 if v_neck else 1)
    hole: Mask = surface.torso & (surface.y < 0) & (np.hypot(surface.x, reach) < radius)
    if v_neck:
        inside = np.abs(surface.x) < 1.1 * radius - 0.5 * depth
        hole |= surface.torso_front & inside & (depth < 2 * radius)
    return hole


def _fabric_colours(canvas: Canvas, identity: Identity) -> Floats:
    """The colours of the garment, for some with contrasting sleeves or stripes."""
    body, colours = canvas.texels, identity.upper_colours
    fabric = cloth_colours(canvas, identity.upper_pattern, colours)
    if identity.upper_pattern == "plain":
        return fabric
    if identity.upper in ("jacket", "hoodie", "long") and canvas.rng.random() < 0.4:
        fabric[body.arm] = colours[1]
    if canvas.rng.random() < 0.2:
        fabric[body.arm & (np.abs(body.around_arm) < 0.3)] = colours[2]
    return fabric


def _loosen_fit(canvas: Canvas, cut: UpperCut, region: Region) -> None:
    """Let sleeves, waist and skirts hang loose."""
    waist = 0.006 * canvas.rng.random()
    canvas.add_slack(lambda surface: region(surface) & surface.arm, lambda _: cut.loose_sleeve)
    canvas.add_slack(
        lambda surface: region(surface) & surface.torso & (surface.torso_height < 0.55),
        lambda _: waist,
    )
    canvas.add_slack(
        lambda surface: region(surface) & surface.leg,
        lambda surface: 0.02 * smoothstep(0, 0.6, surface.along_leg),
    )


def _paint_edges(canvas: Canvas, where: Mask, *, hem: float, sleeve: float) -> None:
    body = canvas.texels
    edge = body.torso & (np.abs(body.torso_height - hem) < 0.012)
    edge |= body.arm & (np.abs(body.along_arm - sleeve) < 0.018)
    canvas.shade(edge & where, 0.72)


def _paint_open_front(canvas: Canvas, identity: Identity, where: Mask) -> None:
    """Paint the shirt under an open jacket, and the edges of the jacket."""
    body, (first, second, third) = canvas.texels, identity.upper_colours
    pattern = "plain" if canvas.rng.random() < 0.7 else "horizontal stripes"
    shirt = cloth_colours(canvas, pattern, (third, second, first))
    gap = canvas.rng.uniform(0.02, 0.06) + 0.03 * smoothstep(0.5, 1, body.torso_height)
    aside = np.abs(body.x)
    canvas.fill(body.torso_front & (aside < gap) & (body.torso_height > 0.1), shirt)
    canvas.shade(where & body.torso_front & (np.abs(aside - gap) < 0.006), 0.6)


def _paint_buttons(canvas: Canvas, where: Mask) -> None:
    body = canvas.texels
    placket = where & body.torso_front & (np.abs(body.x) < 0.005)
    canvas.shade(placket, 0.7)
    canvas.shade(placket & ((body.z + 1) / 0.07 % 1 < 0.12), 2.0)
    canvas.shade(where & body.torso & (body.z > landmarks().neck - 0.035) & (body.y < 0), 0.86)


def _paint_hood(canvas: Canvas, fabric: Floats) -> None:
    """Paint a hood on the shoulders, and a pocket in front."""
    body, neck = canvas.texels, landmarks().neck

    def hood(surface: Surface) -> Mask:
        return surface.torso_back & (surface.z > neck - 0.1) & (np.abs(surface.x) < 0.1)

    where = hood(body) | (body.head & (body.z < neck + 0.055))
    canvas.fill(where, fabric * 0.85)
    canvas.thicken_region(hood, 0.05)
    pouch = body.torso_front & (body.torso_height > 0.22) & (body.torso_height < 0.42)
    canvas.shade(pouch & (np.abs(body.x) < 0.1), 0.9)


def paint_logo(canvas: Canvas, identity: Identity) -> None:
    """Paint prints on chest and back."""
    colour = _readable_logo_colour(identity)
    body = canvas.texels
    if identity.logo == "small":
        _print_motif(canvas, body.torso_front, colour, centre=(0.075, 0.41), size=(0.022, 0.02))
    if identity.logo in ("front", "both"):
        _print_motif(canvas, body.torso_front, colour, centre=(0, 0.36), size=(0.085, 0.065))
    if identity.logo in ("back", "both"):
        _print_motif(canvas, body.torso_back, colour, centre=(0, 0.36), size=(0.11, 0.09))


def _readable_logo_colour(identity: Identity) -> Colour:
    """The third colour if it stands out from the garment, else black or white."""
    ground, _, ink = (np.asarray(colour) for colour in identity.upper_colours)
    if np.abs(ink - ground).sum() > 90:
        return identity.upper_colours[2]
    return (20, 20, 20) if ground.mean() > 128 else (240, 240, 240)


def _print_motif(
    canvas: Canvas,
    side: Mask,
    colour: Colour,
    *,
    centre: tuple[float, float],
    size: tuple[float, float],
) -> None:
    """One of five motifs: disc, bars like lettering, diamond, ring, or a symmetric emblem."""
    rng, body = canvas.rng, canvas.texels
    u, v = (body.x - centre[0]) / size[0], (body.z - centre[1]) / size[1]
    radius = u**2 + v**2
    motif = rng.integers(5)
    if motif == 0:
        inked = radius < 1
    elif motif == 1:
        inked = (np.abs(v) < 0.45) & ((u + 1) * rng.uniform(2.5, 5) % 1 < 0.72)
    elif motif == 2:
        inked = np.abs(u) + np.abs(v) < 1
    elif motif == 3:
        inked = (radius < 1) & (radius > 0.4)
    else:
        half = rng.random((6, 8)) < 0.5
        emblem = np.concatenate([half, half[:, ::-1]], axis=1)
        rows = np.clip(((v + 1) * 3).astype(int), 0, 5)
        inked = emblem[rows, np.clip(((u + 1) * 8).astype(int), 0, 15)]
    canvas.fill(side & (np.abs(u) < 1) & (np.abs(v) < 1) & inked, colour)


def paint_carried(canvas: Canvas, identity: Identity) -> None:
    """Paint a backpack, a strap across the chest, or a belt."""
    body, colour = canvas.texels, np.array(identity.carried_colour, np.float32)
    if identity.carried == "belt":
        canvas.fill(body.torso & (np.abs(body.torso_height - 0.31) < 0.022), colour)
    elif identity.carried == "shoulder strap":
        side = canvas.rng.choice([-1, 1])
        across = (0.8 * side * body.x + 0.62 * (body.z - 0.35)) / 1.01
        canvas.fill(body.torso & (np.abs(across) < 0.018) & (body.torso_height > 0.12), colour)
    elif identity.carried == "backpack":
        _paint_backpack(canvas, colour)


def _paint_backpack(canvas: Canvas, colour: Floats) -> None:
    body = canvas.texels

    def bag(surface: Surface) -> Mask:
        inside = (np.abs(surface.x) < 0.125) & (surface.z > 0.14) & (surface.z < 0.53)
        return surface.torso_back & inside

    where = canvas.dress_region(
        bag, colour * (1 + 0.04 * canvas.noise(0.01))[:, None], thickness=0.02
    )
    pocket = (body.z < 0.3) & (body.z > 0.17) & (np.abs(body.x) < 0.1)
    canvas.shade(where & pocket, 0.82)
    canvas.shade(where & (np.abs(body.z - 0.31) < 0.006), 0.5)
    straps = body.torso & (np.abs(np.abs(body.x) - 0.105) < 0.02)
    canvas.fill(straps & ((body.y < 0) | (body.z > 0.5)) & (body.z > 0.2), colour * 0.75)
    depth = canvas.rng.uniform(0.07, 0.14)
    canvas.protrude_region(bag, lambda surface: depth * _backpack_padding(surface))


def _backpack_padding(surface: Surface) -> Floats:
    """The relative depth of a backpack: 1 in the middle, 0 at its edges."""
    across = smoothstep(0.135, 0.09, np.abs(surface.x))
    upwards = np.minimum(smoothstep(0.13, 0.17, surface.z), smoothstep(0.54, 0.48, surface.z))
    padding: Floats = np.minimum(across, upwards)
    return padding
