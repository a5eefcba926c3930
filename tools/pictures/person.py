"""One rendered person, drawn from any side in any texture of the atlas."""

import numpy as np

from san_core.images.pixels import Pixels
from san_core.synthesis.camera.camera import make_scene, sample_pit_sensor
from san_core.synthesis.camera.light import Light, sample_light
from san_core.synthesis.camera.posing import frame_person
from san_core.synthesis.camera.render import FramedMesh, View, draw_mesh
from san_core.synthesis.difficulty import DIFFICULTIES
from san_core.synthesis.person.body import sample_shape
from san_core.synthesis.person.identity import sample_identity
from san_core.synthesis.place.background import crop_scene
from san_core.synthesis.wardrobe.painter import paint_outfit
from tools.pictures.sheet import enlarge

SEED = 20_000  # of no set that a step makes by default
WALL_GREY = 236.0
WALL_LIGHT = Light((0.0, -0.5, 0.866), (0.35,) * 3, (0.75,) * 3, 1.05)


class RenderedPerson:
    """Somebody with a body, clothes and a pose, all drawn from a number."""

    def __init__(self, number: int) -> None:
        self._rng = [SEED, number]
        looks = sample_identity(np.random.default_rng(self._rng), DIFFICULTIES["easy"])
        self._outfit = paint_outfit(looks)
        self._shape = sample_shape(np.random.default_rng([*self._rng, 1]), female=looks.female)

    @property
    def texture(self) -> Pixels:
        """The true texture (256, 256, 3)."""
        return self._outfit.texture

    def photograph(self, azimuth: float, size: tuple[int, int]) -> Pixels:
        """The person in a place, filmed by a camera: (H, W, 3), as a data set has pictures."""
        rng = np.random.default_rng([*self._rng, 2])
        light = sample_light(rng)
        framed = self._frame(azimuth, size)
        scene = make_scene(SEED, -1, self._rng[1])
        place = crop_scene(scene, rng, size=size, horizon=framed.horizon)
        drawn = draw_mesh(framed, self.texture, light=light, background=place)
        return sample_pit_sensor(rng).develop(rng, drawn.image)

    def render(self, texture: Pixels, azimuth: float, size: tuple[int, int]) -> Pixels:
        """The person in a texture (T, T, 3), before a plain wall: (H, W, 3)."""
        wall = np.full((*size, 3), WALL_GREY, np.float32)
        texels = enlarge(texture, self.texture.shape[:2])
        framed = self._frame(azimuth, size)
        drawn = draw_mesh(framed, texels, light=WALL_LIGHT, background=wall)
        return np.clip(np.rint(drawn.image), 0, 255).astype(np.uint8)

    def _frame(self, azimuth: float, size: tuple[int, int]) -> FramedMesh:
        """The mesh in its one pose, seen from `azimuth` degrees; 0 is the front."""
        view = View(azimuth=np.deg2rad(azimuth), elevation=0.1, distance=6, fill=0.93)
        rng = np.random.default_rng([*self._rng, 3])
        return frame_person(rng, self._outfit, shape=self._shape, view=view, size=size).framed
