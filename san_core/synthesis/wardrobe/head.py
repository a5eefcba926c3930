"""Faces, painted on a canvas. Lengths are metres on the mean person."""

from typing import NamedTuple

import numpy as np

from san_core.synthesis.person.body import Floats
from san_core.synthesis.person.identity import Identity
from san_core.synthesis.person.surface import landmarks
from san_core.synthesis.wardrobe.canvas import Canvas, smoothstep

EYE_WHITE = (222, 220, 216)
IRISES = ((44, 30, 22), (58, 40, 28), (84, 62, 38), (70, 96, 120), (82, 100, 76))
IRIS_SHARES = (0.42, 0.25, 0.13, 0.12, 0.08)


class FaceFeatures(NamedTuple):
    """The individual features of a face. Lengths in metres, shares from 0 to 1."""

    apart: float  # from the middle to an eye
    eye: float  # half an eye's height
    iris: tuple[int, int, int]
    brow: float  # half a brow's height
    arch: float  # how much higher a brow is outside
    nose: float  # half the width of its wings
    mouth: float  # half its width
    lip: float  # half their height
    red: float  # how red the lips are
    age: float  # 0 smooth to 1 lined
    make_up: float


def _sample_features(canvas: Canvas, identity: Identity) -> FaceFeatures:
    rng = canvas.rng
    painted = identity.female and rng.random() < 0.45
    return FaceFeatures(
        apart=rng.uniform(0.029, 0.035),
        eye=rng.uniform(0.0038, 0.0056),
        iris=IRISES[rng.choice(len(IRISES), p=IRIS_SHARES)],
        brow=rng.uniform(0.0024, 0.004) if identity.female else rng.uniform(0.0036, 0.006),
        arch=rng.uniform(-0.15, 0.25),
        nose=rng.uniform(0.011, 0.017),
        mouth=rng.uniform(0.019, 0.026),
        lip=rng.uniform(0.0045, 0.009),
        red=rng.uniform(0.5, 1.0) if painted else rng.uniform(0.0, 0.35),
        age=float(rng.beta(1.2, 2)),
        make_up=rng.uniform(0.4, 0.9) if painted else 0.0,
    )


def paint_face(canvas: Canvas, identity: Identity) -> None:
    """Paint cheeks, eyes, brows, nose and mouth, and beards, glasses or masks."""
    skin, one = np.array(identity.skin, np.float32), _sample_features(canvas, identity)
    _paint_relief(canvas, skin, one)
    _paint_eyes(canvas, identity, skin, one)
    _paint_mouth(canvas, skin, one)
    if not identity.female and identity.face != "beard" and canvas.rng.random() < 0.35:
        _paint_beard(canvas, identity, 0.3)  # stubble
    if identity.face == "beard":
        _paint_beard(canvas, identity, canvas.rng.uniform(0.65, 0.95))
    elif identity.face == "glasses":
        _paint_glasses(canvas, one)
    elif identity.face == "mask":
        _paint_mask(canvas)


def _spot_weight(canvas: Canvas, x: float, z: float, width: float, height: float) -> Floats:
    """Soft spots on both sides of the face, 1 in the middle, 0 off the face."""
    face = canvas.texels
    square = ((np.abs(face.x) - x) / width) ** 2 + ((face.z - z) / height) ** 2
    spot: Floats = np.exp(-1.2 * square) * (face.head_front & (face.y < -0.08))
    return spot.astype(np.float32)


def _paint_relief(canvas: Canvas, skin: Floats, one: FaceFeatures) -> None:
    """Paint light on brow, nose and chin, shade under them, red cheeks, and wrinkles."""
    eyes = landmarks().eyes
    red, dark, light = skin + np.array((16, -9, -9), np.float32), skin * 0.55, skin * 1.1 + 6
    canvas.blend(0.4 * _spot_weight(canvas, 0.042, eyes - 0.042, 0.02, 0.018), red)
    canvas.blend(
        0.35 * _spot_weight(canvas, one.apart, eyes + 0.003, 0.019, 0.012), dark
    )  # sockets
    canvas.blend(
        0.45 * _spot_weight(canvas, 0.0, eyes - 0.02, 0.006, 0.022), light
    )  # the nose's ridge
    canvas.blend(
        0.3 * _spot_weight(canvas, one.nose, eyes - 0.028, 0.005, 0.022), dark
    )  # its sides
    canvas.blend(0.55 * _spot_weight(canvas, 0.0, eyes - 0.051, one.nose, 0.0045), dark)  # below it
    canvas.blend(
        0.6 * _spot_weight(canvas, 0.55 * one.nose, eyes - 0.049, 0.003, 0.0025), dark * 0.5
    )
    canvas.blend(0.3 * _spot_weight(canvas, 0.0, eyes - 0.086, 0.018, 0.005), dark)  # under the lip
    canvas.blend(0.35 * _spot_weight(canvas, 0.0, eyes - 0.1, 0.016, 0.008), light)  # the chin
    canvas.blend(
        0.25 * _spot_weight(canvas, 0.02, eyes + 0.045, 0.03, 0.014), light
    )  # the forehead
    lines = 0.4 * one.age
    canvas.blend(lines * _spot_weight(canvas, 0.033, eyes - 0.058, 0.0035, 0.016), dark)
    canvas.blend(lines * _spot_weight(canvas, one.apart, eyes - 0.014, 0.014, 0.0035), dark)
    for height in (0.036, 0.047):
        canvas.blend(0.7 * lines * _spot_weight(canvas, 0.0, eyes + height, 0.032, 0.0017), dark)


def _paint_eyes(canvas: Canvas, identity: Identity, skin: Floats, one: FaceFeatures) -> None:
    eyes = landmarks().eyes
    if one.make_up:
        shadow = np.array((70, 52, 66), np.float32)
        canvas.blend(
            0.5 * one.make_up * _spot_weight(canvas, one.apart, eyes + 0.006, 0.014, 0.006), shadow
        )
    canvas.blend(0.9 * _spot_weight(canvas, one.apart, eyes, 0.0115, one.eye), EYE_WHITE)
    iris = np.minimum(1, 1.5 * _spot_weight(canvas, one.apart, eyes, 0.0052, 1.15 * one.eye))
    canvas.blend(iris, one.iris)
    lid = 0.75 * _spot_weight(canvas, one.apart, eyes + one.eye, 0.014, 0.0022)
    canvas.blend(lid, skin * (0.25 if one.make_up else 0.4))
    face = canvas.texels
    outside = np.abs(face.x) - one.apart
    height = eyes + 0.017 + one.arch * np.clip(outside, -0.01, 0.012)
    away = (outside / 0.0175) ** 2 + ((face.z - height) / one.brow) ** 2
    brows = np.exp(-1.2 * away) * (face.head_front & (face.y < -0.08))
    colour = np.array(identity.hair_colour, np.float32) * np.float32(0.75)
    canvas.blend(np.minimum(1, 1.15 * brows).astype(np.float32), colour)


def _paint_mouth(canvas: Canvas, skin: Floats, one: FaceFeatures) -> None:
    middle = landmarks().eyes - 0.071
    natural, rouge = skin * (0.8, 0.55, 0.53), np.array((165, 38, 52), np.float32)
    lips = natural * (1 - 0.7 * one.red) + rouge * (0.7 * one.red)
    canvas.blend(0.85 * _spot_weight(canvas, 0, middle, one.mouth, one.lip), lips)
    canvas.blend(0.7 * _spot_weight(canvas, 0, middle, one.mouth, 0.0018), skin * 0.3)


def _paint_beard(canvas: Canvas, identity: Identity, density: float) -> None:
    face, eyes = canvas.texels, landmarks().eyes
    full = canvas.rng.random() < 0.65
    jaw = face.head_front & (face.y < -0.03) & (face.z > eyes - 0.112)
    reach = 1.0 if full else np.abs(face.x) < 0.034  # or round the mouth alone
    grown = smoothstep(0, 0.02, eyes - 0.056 - face.z) * jaw * reach
    grown *= np.clip(0.75 + 0.3 * canvas.noise(0.004), 0, 1)
    mouth = np.minimum(1, 1.3 * _spot_weight(canvas, 0, eyes - 0.072, 0.016, 0.006))
    canvas.blend((density * grown * (1 - mouth)).astype(np.float32), identity.hair_colour)


def _paint_glasses(canvas: Canvas, one: FaceFeatures) -> None:
    face, eyes = canvas.texels, landmarks().eyes
    front = face.head_front & (face.y < -0.02)
    power = canvas.rng.choice([2, 4])  # round or square
    across, up = (np.abs(face.x) - one.apart) / 0.0205, (face.z - eyes) / 0.016
    radius = (np.abs(across) ** power + np.abs(up) ** power) ** (1 / power)
    bridge = (np.abs(face.z - eyes - 0.004) < 0.003) & (np.abs(face.x) < 0.075)
    rims = ((30, 30, 30), (30, 30, 30), (96, 60, 36), (150, 150, 152), (120, 30, 34))
    if canvas.rng.random() < 0.35:  # sunglasses
        canvas.fill(front & (radius < 1), (26, 26, 30))
    rim = rims[canvas.rng.integers(len(rims))]
    canvas.fill(front & ((np.abs(radius - 1) < 0.2) | (bridge & (radius > 1))), rim)


def _paint_mask(canvas: Canvas) -> None:
    face, eyes = canvas.texels, landmarks().eyes
    covered = face.head_front & (face.y < -0.055)
    covered &= (face.z < eyes - 0.028) & (face.z > eyes - 0.115)
    colours = [(34, 34, 38), (232, 232, 230), (136, 180, 216)]
    canvas.fill(covered, colours[canvas.rng.integers(len(colours))])
    pleats = covered & ((face.z * 70) % 1 < 0.2) & (np.abs(face.x) < 0.05)
    canvas.shade(pleats, 0.86)
