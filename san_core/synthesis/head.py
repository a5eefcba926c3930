"""Faces, hair and headwear, painted on a canvas. Lengths are metres on the mean person."""

import numpy as np

from san_core.synthesis.body import Floats
from san_core.synthesis.canvas import Canvas, smoothstep
from san_core.synthesis.identity import Identity
from san_core.synthesis.surface import Mask, Surface, landmarks

WHITE, DARK = (225, 225, 225), (40, 30, 26)


def paint_face(canvas: Canvas, identity: Identity) -> None:
    """Cheeks, eyes, brows, nose and mouth, and what grows on or covers them."""
    eyes, skin = landmarks().eyes, np.array(identity.skin, np.float32)
    canvas.blend(
        0.35 * _spot(canvas, 0.04, eyes - 0.045, 0.02, 0.018), skin + np.array((18, -8, -8))
    )
    canvas.blend(0.35 * _spot(canvas, 0.032, eyes + 0.002, 0.016, 0.010), skin * 0.4)
    canvas.blend(0.9 * _spot(canvas, 0.032, eyes, 0.011, 0.0045), WHITE)
    canvas.blend(np.minimum(1, 1.4 * _spot(canvas, 0.032, eyes, 0.0055, 0.0055)), DARK)
    brows = np.minimum(1, 1.2 * _spot(canvas, 0.033, eyes + 0.017, 0.017, 0.0045))
    canvas.blend(brows, np.array(identity.hair_colour, np.float32) * 0.8)
    canvas.blend(0.18 * _spot(canvas, 0, eyes - 0.043, 0.014, 0.006), skin * 0.3)
    canvas.blend(0.75 * _spot(canvas, 0, eyes - 0.072, 0.022, 0.007), skin * (0.78, 0.48, 0.48))
    if identity.face == "beard":
        _paint_beard(canvas, identity)
    elif identity.face == "glasses":
        _paint_glasses(canvas)
    elif identity.face == "mask":
        _paint_mask(canvas)


def _spot(canvas: Canvas, x: float, z: float, width: float, height: float) -> Floats:
    """Soft spots on both sides of the face, 1 in the middle, 0 off the face."""
    face = canvas.texels
    square = ((np.abs(face.x) - x) / width) ** 2 + ((face.z - z) / height) ** 2
    spot: Floats = np.exp(-1.2 * square) * (face.head_front & (face.y < -0.08))
    return spot.astype(np.float32)


def _paint_beard(canvas: Canvas, identity: Identity) -> None:
    face, eyes = canvas.texels, landmarks().eyes
    jaw = face.head_front & (face.y < -0.03) & (face.z > eyes - 0.112)
    density = smoothstep(0, 0.02, eyes - 0.058 - face.z) * jaw
    density *= np.clip(0.75 + 0.3 * canvas.noise(0.004), 0, 1)
    mouth = np.minimum(1, 1.3 * _spot(canvas, 0, eyes - 0.072, 0.016, 0.006))
    canvas.blend(0.85 * density * (1 - mouth), identity.hair_colour)


def _paint_glasses(canvas: Canvas) -> None:
    face, eyes = canvas.texels, landmarks().eyes
    front = face.head_front & (face.y < -0.02)
    radius = np.hypot((np.abs(face.x) - 0.033) / 0.021, (face.z - eyes) / 0.016)
    bridge = (np.abs(face.z - eyes - 0.004) < 0.003) & (np.abs(face.x) < 0.075)
    if canvas.rng.random() < 0.35:  # sunglasses
        canvas.fill(front & (radius < 1), (26, 26, 30))
    canvas.fill(front & ((np.abs(radius - 1) < 0.22) | bridge), (30, 30, 30))


def _paint_mask(canvas: Canvas) -> None:
    face, eyes = canvas.texels, landmarks().eyes
    covered = face.head_front & (face.y < -0.055)
    covered &= (face.z < eyes - 0.028) & (face.z > eyes - 0.115)
    colours = [(34, 34, 38), (232, 232, 230), (136, 180, 216)]
    canvas.fill(covered, colours[canvas.rng.integers(len(colours))])


HAIR_THICKNESS = {"short": 0.014, "buzz": 0.003, "medium": 0.022, "long": 0.024}


def paint_hair(canvas: Canvas, identity: Identity) -> Mask | None:
    """Hair on the head, or what covers it.

    Returns:
        The texels of hair that falls over the clothes, to be painted again after them by
        `paint_falling_hair`; None where no hair falls.
    """
    strands = _strands(canvas, identity)
    if identity.hair in ("cap", "beanie", "hood"):
        canvas.fill(_hairline(canvas.texels), strands)
        _paint_headwear(canvas, identity)
        return None
    if identity.hair == "bald":
        return None
    if identity.hair == "buzz":
        canvas.blend(0.6 * _hairline(canvas.texels).astype(np.float32), identity.hair_colour)
        canvas.lift(_hairline, HAIR_THICKNESS["buzz"])
        return None
    canvas.wear(_hairline, strands, thickness=HAIR_THICKNESS[identity.hair])
    if identity.hair == "short":
        return None
    return _fall(canvas, identity)


def paint_falling_hair(canvas: Canvas, identity: Identity, fallen: Mask) -> None:
    """Long hair over collars and straps."""
    canvas.fill(fallen, _strands(canvas, identity))


def _strands(canvas: Canvas, identity: Identity) -> Floats:
    """Hair colour at every texel: fine upright streaks."""
    head = canvas.texels.head | canvas.texels.torso_back
    streaks = np.ones(len(head), np.float32)
    streaks[head] += 0.22 * canvas.noise(0.006, stretch=(1, 1, 4), where=head)
    streaks[head] += 0.1 * canvas.noise(0.03, where=head)
    return np.array(identity.hair_colour, np.float32) * streaks[:, None]


def _hairline(surface: Surface) -> Mask:
    """The scalp: above the forehead in front, above the ears at the sides, to the nape behind."""
    eyes = landmarks().eyes
    front = eyes + 0.062 + 0.02 * np.cos(30 * surface.x)
    side = np.interp(
        surface.y, [-0.06, -0.03, 0, 0.06], [eyes + 0.05, eyes, eyes - 0.055, eyes - 0.075]
    )
    scalp: Mask = surface.head & (surface.z > np.where(surface.y < -0.06, front, side))
    return scalp


def _fall(canvas: Canvas, identity: Identity) -> Mask:
    """Lift the hair that falls to the neck or the back and return its texels."""
    end = landmarks().neck if identity.hair == "medium" else canvas.rng.uniform(0.28, 0.46)

    def fall(surface: Surface) -> Mask:
        width = 0.12 - 0.06 * smoothstep(0.1, 0, surface.z - end)
        behind = surface.head & (surface.y > -0.035)
        back = surface.torso_back & (np.abs(surface.x) < width)
        cheek = surface.head_front & (np.abs(surface.x) > 0.055) & (surface.y > -0.075)
        cheek &= surface.z < landmarks().eyes + 0.05
        falling: Mask = (surface.z > end) & (behind | back | cheek)
        return falling

    canvas.lift(fall, HAIR_THICKNESS["medium"])
    return fall(canvas.texels)


def _paint_headwear(canvas: Canvas, identity: Identity) -> None:
    eyes, colour = landmarks().eyes, np.array(identity.headwear_colour, np.float32)
    weave = colour * (1 + 0.05 * canvas.noise(0.01))[:, None]

    def hat(surface: Surface) -> Mask:
        rim = np.where(surface.y < -0.05, eyes + 0.045, eyes + 0.012)
        above: Mask = surface.head & (surface.z > rim)
        return above

    def hood(surface: Surface) -> Mask:
        return _hairline(surface) | (surface.head & (surface.y > -0.05))

    canvas.wear(hood if identity.hair == "hood" else hat, weave, thickness=0.02)
    if identity.hair == "cap":
        face = canvas.texels
        peak = face.head_front & (np.abs(face.z - eyes - 0.05) < 0.012) & (face.y < -0.07)
        canvas.fill(peak, colour * 0.6)
        canvas.lift(_peak, 0.045)


def _peak(surface: Surface) -> Mask:
    """Where the peak of a cap stands off the forehead."""
    band: Mask = surface.head_front & (np.abs(surface.z - landmarks().eyes - 0.052) < 0.01)
    return band & (surface.y < -0.09)
