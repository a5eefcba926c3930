"""Cameras of the world "street": loose boxes, strong light and distorted colours.

Every picture has its own camera. Boxes resemble those of detectors: too large, too small, shifted,
of another aspect ratio, or with the legs or the head cut off.
"""

import numpy as np
from PIL import Image

from san_core.images.pixels import Pixels, decode, encode_jpeg, resize
from san_core.synthesis.camera.camera import Sensor
from san_core.synthesis.camera.light import Light, sample_light
from san_core.synthesis.camera.render import View
from san_core.synthesis.person.body import Floats
from san_core.synthesis.place.materials import soft_cover

LIGHT_VARIETY = 1.4  # as sample_light counts
CUT_SHARE, SHIFTED_SHARE = 0.16, 0.16  # of boxes that cut a person, that miss the middle
SHADE_SHARE = 0.3  # of pictures with the edge of a shadow across
FEWEST_ROWS = 48  # that a camera has of a person
EXPOSURE = 0.12  # mean logarithm: cameras show people about as light as they are
GREY_SHARE = 0.03  # of pictures without colours
GREY_WEIGHTS = np.array([0.299, 0.587, 0.114])  # of R, G, B in brightness (ITU-R BT.601)


def sample_street_view(rng: np.random.Generator) -> View:
    """A random view from any side, with a box like those of detectors."""
    fill, shift = _sample_box(rng)
    return View(
        azimuth=rng.uniform(0, 2 * np.pi),
        elevation=float(np.clip(rng.normal(0.2, 0.2), -0.12, 0.75)),
        distance=rng.uniform(3, 12),
        fill=fill,
        shift=shift,
        # Boxes are narrower than the images made of them, in which people are wider then.
        stretch=float(np.exp(np.clip(rng.normal(0.1, 0.12), -0.2, 0.4))),
    )


def _sample_box(rng: np.random.Generator) -> tuple[float, tuple[float, float]]:
    """Fill and shift of a box that is loose, beside the person, or cuts the person."""
    kind = rng.random()
    if kind < CUT_SHARE:
        fill = rng.uniform(1.0, 1.6)
        legs_cut = rng.random() < 0.8
        down = 0.5 * (fill - 1) + rng.uniform(-0.03, 0.06) if legs_cut else -rng.uniform(0, 0.12)
        return fill, (rng.normal(0, 0.06), down)
    if kind < CUT_SHARE + SHIFTED_SHARE:
        return rng.uniform(0.6, 0.95), (rng.normal(0, 0.13), rng.normal(0, 0.07))
    return rng.uniform(0.8, 1.0), (rng.normal(0, 0.045), rng.normal(0, 0.025))


def sample_street_light(rng: np.random.Generator) -> Light:
    """Random light with more contrast or tint than in the world "studio"."""
    return sample_light(rng, variety=LIGHT_VARIETY)


def cast_shade(rng: np.random.Generator, image: Floats) -> None:
    """Sometimes darken one side of an image (H, W, 3), in place, like the shadow of a house."""
    if rng.random() >= SHADE_SHARE:
        return
    rows, columns = image.shape[:2]
    turn, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.65)
    across = (np.arange(columns, dtype=np.float32) / columns - 0.5) * np.float32(np.cos(turn))
    down = (np.arange(rows, dtype=np.float32) / rows - 0.5) * np.float32(np.sin(turn))
    edge = down[:, None] + across - np.float32(rng.uniform(-0.3, 0.3))
    shade = np.float32(depth) * soft_cover(edge / np.float32(rng.uniform(0.1, 0.8)))
    image *= (1 - shade)[..., None]


def photograph(rng: np.random.Generator, image: Floats) -> Pixels:
    """The picture that a street camera makes of an image (H, W, 3), RGB, 0-255; same size.

    The camera has a lower resolution, and its picture is enlarged. Noise and JPEG blocks arise at
    the lower resolution.
    """
    rows, columns = image.shape[:2]
    seen = np.clip(_tint(rng, image), 0, 255).astype(np.uint8)
    share = max(min(1.0, rng.uniform(0.28, 1.3)), min(1.0, FEWEST_ROWS / rows))
    small = resize(seen, (round(rows * share), round(columns * share)))
    sensor = Sensor(
        gains=(1.0, 1.0, 1.0),
        gamma=float(np.exp(np.clip(rng.normal(0, 0.18), -0.45, 0.45))),
        resolution=1.0,
        blur=abs(rng.normal(0, 0.003)),
        noise=float(rng.uniform(0.5, 3) * np.exp(rng.normal(0, 0.5))),
    )
    developed = sensor.develop(rng, small.astype(np.float32))
    coded = decode(encode_jpeg(developed, quality=int(rng.integers(35, 97))))
    enlarged = Image.fromarray(coded).resize((columns, rows), Image.Resampling.BICUBIC)
    return np.asarray(enlarged)


def _tint(rng: np.random.Generator, image: Floats) -> Floats:
    """Change white balance, exposure, saturation and haze, or remove all colour."""
    white = rng.normal(0, 0.08, 3)
    gains = np.exp(white - white.mean() + rng.normal(EXPOSURE, 0.2))
    is_grey = rng.random() < GREY_SHARE
    saturation = 0.0 if is_grey else rng.uniform(0.6, 1.25)
    haze = rng.uniform(0, 40) if rng.random() < 0.4 else 0.0
    mixing = saturation * np.eye(3) + (1 - saturation) * GREY_WEIGHTS
    mixing = (mixing * np.clip(gains, 0.45, 1.9)).astype(np.float32) * np.float32(1 - haze / 255)
    tinted: Floats = image @ mixing.T + np.float32(haze)
    return tinted
