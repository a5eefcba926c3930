"""Cameras that are higher and further away than in any other world, in low or coloured light."""

import functools
from dataclasses import replace

import numpy as np

from san_core.synthesis.camera.camera import SCENES_PER_CAMERA, Camera, make_camera
from san_core.synthesis.camera.light import Light, sample_light
from san_core.synthesis.difficulty import Difficulty
from san_core.synthesis.elsewhere.places import PLACE_SHARES, PLACES
from san_core.synthesis.place.background import Scene, sample_scene

_FIRST_CAMERA = 100  # after those that any other set of the seed may have
_CAMERA_STREAM, _SCENE_STREAM = 201, 202
ELEVATIONS = (0.5, 0.75)  # radians; of others up to 0.42
DISTANCES = (11.0, 16.0)  # metres; of others up to 10
LAMP_HEIGHTS = (6.0, 16.0)  # degrees above the ground; of others from 20


@functools.lru_cache(maxsize=64)
def make_elsewhere_camera(seed: int, index: int, level: Difficulty) -> Camera:
    """Camera number `index`, from 0, of the set with this seed."""
    rng = np.random.default_rng([seed, _CAMERA_STREAM, index])
    return replace(
        make_camera(seed, _FIRST_CAMERA + index, level),
        elevation=rng.uniform(*ELEVATIONS),
        distance=rng.uniform(*DISTANCES),
        lights=tuple(_sample_low_light(rng) for _ in range(SCENES_PER_CAMERA)),
    )


def _sample_low_light(rng: np.random.Generator) -> Light:
    """A low sun or a lamp at eye level, strongly tinted against a dim sky."""
    light = sample_light(rng)
    height, around = np.deg2rad(rng.uniform(*LAMP_HEIGHTS)), rng.uniform(0, 2 * np.pi)
    tint, flat = rng.uniform(0.12, 0.3) * rng.choice([-1, 1]), np.cos(height)
    strength, sky = rng.uniform(0.55, 0.8), rng.uniform(0.4, 0.52)
    return replace(
        light,
        direction=(
            float(np.cos(around) * flat),
            float(np.sin(around) * flat),
            float(np.sin(height)),
        ),
        lamp=(strength * (1 + tint), strength, strength * (1 - tint)),
        sky=(sky * (1 - 0.4 * tint), sky, sky * (1 + 0.4 * tint)),
    )


@functools.lru_cache(maxsize=256)
def make_elsewhere_scene(seed: int, camera: int, number: int) -> Scene:
    """Scene `number` of a camera: at the sea, on a platform or at a market."""
    rng = np.random.default_rng([seed, _SCENE_STREAM, camera, number])
    return sample_scene(rng, PLACES, PLACE_SHARES)
