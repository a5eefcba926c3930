"""Hair and headwear, painted on a canvas. Lengths are metres on the mean person."""

from dataclasses import dataclass

import numpy as np

from san_core.synthesis.person.body import Floats
from san_core.synthesis.person.identity import Identity
from san_core.synthesis.person.surface import Mask, Surface, landmarks
from san_core.synthesis.wardrobe.canvas import Canvas, smoothstep


@dataclass(frozen=True)
class HairCut:
    """The parameters of a haircut. Lengths in metres."""

    thickness: float
    crown: float = 0.0  # added on top
    strand: float = 0.006  # width
    falls: float | None = None  # lowest end above the hips; None where no hair falls
    width: float = 0.12  # of what falls on the back, half
    tied: bool = False  # at the back of the head
    temples: bool = True  # falls beside the face too


HAIR_CUTS = {
    "short": HairCut(0.013, crown=0.014),
    "curly": HairCut(0.034, crown=0.02, strand=0.012),
    "medium": HairCut(0.022, crown=0.012, falls=0.5),
    "long": HairCut(0.022, crown=0.012, falls=0.28),
    "ponytail": HairCut(0.010, crown=0.008, falls=0.32, width=0.035, tied=True, temples=False),
    "bun": HairCut(0.010, crown=0.008, tied=True),
}
BUZZ_THICKNESS = 0.003
HEADWEAR = ("cap", "beanie", "hood")


def paint_hair(canvas: Canvas, identity: Identity) -> Mask | None:
    """Paint hair on the head, or headwear.

    Returns:
        The texels of hair that falls over the clothes; `paint_falling_hair` paints them again after
        the clothes. None if no hair falls.
    """
    line = _Hairline(canvas)
    if identity.hair in HEADWEAR:
        canvas.fill(line.scalp(canvas.texels), _strand_colours(canvas, identity, 0.006))
        _paint_headwear(canvas, identity, line)
        return None
    if identity.hair == "bald":
        return None
    if identity.hair == "buzz":
        canvas.blend(0.6 * line.scalp(canvas.texels).astype(np.float32), identity.hair_colour)
        canvas.thicken_region(line.scalp, BUZZ_THICKNESS)
        return None
    cut = HAIR_CUTS[identity.hair]
    canvas.dress_region(
        line.scalp, _strand_colours(canvas, identity, cut.strand), thickness=cut.thickness
    )
    top = landmarks().eyes + 0.05
    volume = cut.crown * canvas.rng.uniform(0.5, 1.3)
    canvas.add_slack(line.scalp, lambda surface: volume * smoothstep(top, top + 0.07, surface.z))
    if cut.tied:
        _tie_knot(canvas, high=bool(canvas.rng.random() < 0.5))
    return None if cut.falls is None else _lift_falling_hair(canvas, cut, cut.falls)


def paint_falling_hair(canvas: Canvas, identity: Identity, fallen: Mask) -> None:
    """Paint long hair over collars and straps."""
    canvas.fill(fallen, _strand_colours(canvas, identity, HAIR_CUTS[identity.hair].strand))


def _strand_colours(canvas: Canvas, identity: Identity, width: float) -> Floats:
    """Hair colour at every texel: fine vertical streaks, and a sheen around the crown."""
    head = canvas.texels.head | canvas.texels.torso_back
    height = canvas.texels.z[head] - (landmarks().eyes + 0.065)
    upright = (1.0, 1.0, 4.0) if width < 0.01 else (1.0, 1.0, 1.0)
    streaks = np.ones(len(head), np.float32)
    streaks[head] += 0.2 * canvas.noise(width, stretch=upright, where=head)
    streaks[head] += 0.1 * canvas.noise(0.03, where=head)
    streaks[head] += 0.3 * np.exp(-((height / 0.016) ** 2)) - 0.12
    return np.array(identity.hair_colour, np.float32) * streaks[:, None]


class _Hairline:
    """The hairline: its height on the forehead, and a fringe or a parting."""

    def __init__(self, canvas: Canvas) -> None:
        rng = canvas.rng
        self.height = rng.uniform(0.036, 0.07)
        self.wave = rng.uniform(0.004, 0.022)
        self.parting = rng.uniform(-0.035, 0.035) if rng.random() < 0.5 else 0.0
        self.sides = rng.uniform(-0.02, 0.01)

    def scalp(self, surface: Surface) -> Mask:
        """Above the forehead in front, above the ears at the sides, to the nape behind."""
        eyes = landmarks().eyes
        front = eyes + self.height + self.wave * np.cos(30 * (surface.x - self.parting))
        side = np.interp(
            surface.y,
            [-0.06, -0.03, 0, 0.06],
            [eyes + 0.045, eyes + self.sides, eyes - 0.055, eyes - 0.075],
        )
        above: Mask = surface.head & (surface.z > np.where(surface.y < -0.06, front, side))
        return above


def _tie_knot(canvas: Canvas, *, high: bool) -> None:
    """Add a knot of hair at the back of the head."""
    middle = landmarks().eyes + (0.045 if high else -0.01)
    size, half = canvas.rng.uniform(0.026, 0.042), np.float32(0.036)

    def knot(surface: Surface) -> Mask:
        return surface.head & (surface.y > 0)

    def bulge(surface: Surface) -> Floats:
        away = (surface.x / half) ** 2 + ((surface.z - middle) / half) ** 2
        round_: Floats = (size * np.sqrt(np.clip(1 - away, 0, 1))).astype(np.float32)
        return round_

    canvas.protrude_region(knot, bulge)


def _lift_falling_hair(canvas: Canvas, cut: HairCut, lowest: float) -> Mask:
    """Lift the hair that falls to the neck or the back and return its texels."""
    neck = landmarks().neck
    end = neck if lowest > 0.45 else canvas.rng.uniform(lowest, lowest + 0.18)

    def fall(surface: Surface) -> Mask:
        width = cut.width * (1 - 0.5 * smoothstep(0.1, 0, surface.z - end))
        behind = surface.head & (surface.y > -0.035)
        if cut.tied:
            behind &= (np.abs(surface.x) < cut.width) & (surface.y > 0)
        back = surface.torso_back & (np.abs(surface.x) < width)
        falling: Mask = (surface.z > end) & (behind | back)
        if cut.temples:
            cheek = surface.head_front & (np.abs(surface.x) > 0.055) & (surface.y > -0.075)
            falling |= cheek & (surface.z > end) & (surface.z < landmarks().eyes + 0.05)
        return falling

    canvas.thicken_region(fall, cut.thickness)
    return fall(canvas.texels)


def _paint_headwear(canvas: Canvas, identity: Identity, line: _Hairline) -> None:
    eyes, colour = landmarks().eyes, np.array(identity.headwear_colour, np.float32)
    weave = colour * (1 + 0.05 * canvas.noise(0.01))[:, None]

    def hat(surface: Surface) -> Mask:
        rim = np.where(surface.y < -0.05, eyes + 0.045, eyes + 0.012)
        above: Mask = surface.head & (surface.z > rim)
        return above

    def hood(surface: Surface) -> Mask:
        return line.scalp(surface) | (surface.head & (surface.y > -0.05))

    region, thickness = (hood, 0.03) if identity.hair == "hood" else (hat, 0.018)
    canvas.dress_region(region, weave, thickness=thickness, folds=0.3)
    head = canvas.texels
    if identity.hair == "beanie":
        ribs = hat(head) & (np.arctan2(head.x, -head.y) * 14 % 1 < 0.3)
        canvas.shade(ribs, 0.88)
        canvas.shade(hat(head) & (np.abs(head.z - eyes - 0.085) < 0.003), 0.7)  # the turn-up
        canvas.add_slack(
            hat, lambda surface: 0.02 * smoothstep(eyes + 0.08, eyes + 0.13, surface.z)
        )
    if identity.hair == "cap":
        peak = head.head_front & (np.abs(head.z - eyes - 0.05) < 0.014) & (head.y < -0.06)
        canvas.fill(peak, colour * 0.75)
        canvas.protrude_region(_cap_peak, _cap_peak_length)


def _cap_peak(surface: Surface) -> Mask:
    """The region of a cap's peak on the forehead."""
    band: Mask = surface.head_front & (np.abs(surface.z - landmarks().eyes - 0.05) < 0.012)
    return band & (surface.y < -0.06)


def _cap_peak_length(surface: Surface) -> Floats:
    """The length of a cap's peak in metres, longest in front."""
    return 0.065 * smoothstep(0.075, 0.02, np.abs(surface.x))
