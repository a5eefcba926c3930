"""Light on a person: sky light, one lamp or sun, and ambient occlusion."""

import functools
from dataclasses import dataclass

import numpy as np

from san_core.synthesis.person.body import Floats, current_body, smooth_values
from san_core.synthesis.person.surface import landmarks, vertex_surface
from san_core.synthesis.wardrobe.canvas import smoothstep

EDGE_SOFTNESS = 0.15  # how far round the edge of the lit side light still reaches


@dataclass(frozen=True)
class Light:
    """Light in the camera's frame: x to the right, y away from the camera, z up."""

    direction: tuple[float, float, float]  # unit vector towards the lamp
    lamp: tuple[float, float, float]  # RGB strength
    sky: tuple[float, float, float]  # RGB strength
    exposure: float

    def shading(self, normals: Floats, openness: Floats) -> Floats:
        """Factors (V, 3) for the colour of a surface with unit normals (V, 3).

        openness: (V,) share of the sky that a point sees.
        """
        x, y, z = self.direction
        facing = normals[:, 0] * x + normals[:, 1] * y + normals[:, 2] * z
        lamp = np.clip((facing + EDGE_SOFTNESS) / (1 + EDGE_SOFTNESS), 0, 1)
        sky = (0.72 + 0.28 * normals[:, 2]) * openness
        lit = sky[:, None] * np.array(self.sky) + lamp[:, None] * np.array(self.lamp)
        factors: Floats = (lit * self.exposure).astype(np.float32)
        return factors


def sample_light(rng: np.random.Generator, *, variety: float = 1.0) -> Light:
    """Random light from above, outdoors or indoors: a warm lamp and a cool sky, or the reverse.

    variety: how much strength and tint vary around ordinary daylight, 0 to 1.
    """
    height, around = np.deg2rad(rng.uniform(20, 75)), rng.uniform(0, 2 * np.pi)
    tint = rng.normal(0, 0.04) * variety
    strength = 0.42 + rng.uniform(-0.27, 0.27) * variety
    sky = 0.65 + rng.uniform(-0.1, 0.1) * variety
    exposure = 1.1 + rng.uniform(-0.15, 0.15) * variety
    flat = np.cos(height)
    return Light(
        direction=(
            float(np.cos(around) * flat),
            float(np.sin(around) * flat),
            float(np.sin(height)),
        ),
        lamp=(strength * (1 + tint), strength, strength * (1 - tint)),
        sky=(sky * (1 - 0.7 * tint), sky, sky * (1 + 0.7 * tint)),
        exposure=float(exposure),
    )


@functools.cache
def body_openness() -> Floats:
    """The share of the sky (V,) that each vertex of a body sees; less between limbs."""
    skin = vertex_surface()
    inner_leg = smoothstep(0.6, -0.9, np.cos(skin.around_leg)) * smoothstep(
        0.5, -0.1, skin.along_leg
    )
    inner_arm = smoothstep(0.3, -1, np.cos(skin.around_arm)) * smoothstep(0.6, 0, skin.along_arm)
    chin = skin.head & (skin.z < landmarks().neck + 0.07) & (current_body().mean[:, 1] < 0)
    openness = 1 - 0.28 * skin.leg * inner_leg - 0.2 * skin.arm * inner_arm - 0.25 * chin
    return smooth_values(openness.astype(np.float32), rounds=4)
