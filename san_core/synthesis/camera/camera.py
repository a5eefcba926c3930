"""Cameras: view, colour rendering and sharpness.

A surveillance camera has a constant sensor, height and walking direction. It has several
backgrounds and changing light, so that the background does not identify the camera.
"""

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from san_core.images.pixels import Pixels
from san_core.synthesis.camera.light import Light, sample_light
from san_core.synthesis.camera.render import View
from san_core.synthesis.difficulty import Difficulty
from san_core.synthesis.kernels import _raster
from san_core.synthesis.person.body import Floats
from san_core.synthesis.place.background import Scene, sample_scene
from san_core.synthesis.place.photographs import Photographs

SCENES_PER_CAMERA = 8  # places that a camera looks at
_CAMERA_STREAM, _SCENE_STREAM = (
    101,
    102,
)  # streams of random numbers, apart from those of identities


@dataclass(frozen=True)
class Sensor:
    """The sensor of a camera: colour, blur and noise."""

    gains: tuple[float, float, float]  # RGB
    gamma: float
    resolution: float  # share of the image's rows that is resolved, 0 to 1
    blur: float  # standard deviation, share of the image's height
    noise: float  # standard deviation, of 255

    def develop(self, rng: np.random.Generator, image: Floats) -> Pixels:
        """Apply the sensor to an image (H, W, 3), RGB, 0-255; return the picture (H, W, 3)."""
        rows, columns = image.shape[:2]
        exposed = np.empty(image.shape, np.uint8)
        _raster.expose(np.ascontiguousarray(image, np.float32), *self.gains, exposed)
        picture = Image.fromarray(exposed)
        if self.blur * rows > 0.2:
            picture = picture.filter(ImageFilter.GaussianBlur(self.blur * rows))
        if self.resolution < 0.95:
            coarse = (
                max(8, round(columns * self.resolution)),
                max(16, round(rows * self.resolution)),
            )
            picture = picture.resize(coarse, Image.Resampling.BOX)
            picture = picture.resize((columns, rows), Image.Resampling.BICUBIC)
        curve = np.rint(255 * (np.arange(256) / 255) ** self.gamma).astype(np.uint8)
        developed: Pixels = np.empty(image.shape, np.uint8)
        start, grain = int(rng.integers(NOISE_VALUES)), _sensor_noise()
        _raster.develop(np.asarray(picture), grain, start, self.noise, curve, developed)
        return developed


NOISE_VALUES = 1 << 20


@functools.cache
def _sensor_noise() -> Floats:
    """Normal noise of deviation 1, drawn once; every picture uses another crop of it."""
    return np.random.default_rng(NOISE_VALUES).standard_normal(NOISE_VALUES, dtype=np.float32)


@dataclass(frozen=True)
class Camera:
    """A surveillance camera. Angles in radians."""

    sensor: Sensor
    quality: int  # of its JPEGs
    azimuth: float  # from which side most people are seen
    spread: float  # how far people's headings stray
    elevation: float
    distance: float  # metres
    lights: tuple[Light, ...]  # one a scene
    occlusion: float  # share of shots with something in the way

    def sample_view(self, rng: np.random.Generator) -> View:
        """A random view: most people approach, some walk away, and the box is a loose detection."""
        going = np.pi if rng.random() < 0.35 else 0
        return View(
            azimuth=self.azimuth + going + rng.normal(0, self.spread),
            elevation=self.elevation + rng.normal(0, 0.05),
            distance=self.distance * rng.uniform(0.8, 1.25),
            fill=rng.uniform(0.88, 0.99),
            shift=(rng.normal(0, 0.04), rng.normal(0, 0.02)),
        )


@functools.lru_cache(maxsize=64)
def make_camera(seed: int, index: int, level: Difficulty) -> Camera:
    """Camera number `index`, from 0, of the set with this seed."""
    rng = np.random.default_rng([seed, _CAMERA_STREAM, index])
    white, brightness = rng.normal(0, level.camera_colour, 3), rng.normal(0, level.camera_colour)
    gains = np.clip(np.exp(white - white.mean() + brightness), 0.6, 1.5)
    sensor = Sensor(
        gains=(float(gains[0]), float(gains[1]), float(gains[2])),
        gamma=float(np.exp(np.clip(rng.normal(0, level.camera_gamma), -0.5, 0.5))),
        resolution=rng.uniform(level.low_resolution, 1),
        blur=level.blur * rng.uniform(0.3, 1.5),
        noise=rng.uniform(1, 5),
    )
    return Camera(
        sensor=sensor,
        quality=int(rng.integers(55, 93)),
        azimuth=rng.uniform(0, 2 * np.pi),
        spread=rng.uniform(0.35, 0.9),
        elevation=rng.uniform(0.02, 0.42),
        distance=rng.uniform(4, 10),
        lights=tuple(sample_light(rng, variety=level.light) for _ in range(SCENES_PER_CAMERA)),
        occlusion=level.occlusion * rng.uniform(0.3, 1.7),
    )


@functools.lru_cache(maxsize=256)
def make_scene(seed: int, place: int, number: int, photographs: Photographs | None = None) -> Scene:
    """Scene `number` of a place: the index of a camera, or -1 for pictures without a camera.

    It is one of the photographs if there are any, else a painted scene.
    """
    rng = np.random.default_rng([seed, _SCENE_STREAM, place + 1, number])
    return photographs.random_scene(rng) if photographs else sample_scene(rng)


PIT_SCENES = 160  # painted places that textured people are pictured in


def sample_pit_view(rng: np.random.Generator) -> View:
    """A random view from any side, at eye level or a little above."""
    return View(
        azimuth=rng.uniform(0, 2 * np.pi),
        elevation=float(np.clip(rng.normal(0.14, 0.16), -0.15, 0.6)),
        distance=rng.uniform(3.5, 9),
        fill=rng.uniform(0.84, 0.97),
        shift=(rng.normal(0, 0.02), rng.normal(0, 0.01)),
    )


def sample_pit_sensor(rng: np.random.Generator) -> Sensor:
    """A random good camera: true colours, a little blur and noise."""
    return Sensor(
        gains=(1.0, 1.0, 1.0),
        gamma=1.0,
        resolution=1.0,
        blur=abs(rng.normal(0, 0.0014)),
        noise=rng.uniform(0.5, 4),
    )
