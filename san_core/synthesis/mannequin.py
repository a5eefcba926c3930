"""Renders a texture on a body, from the front and from behind, for visual inspection.

The body is the mean person, standing, evenly lit, before a white background. Pictures differ in the
texture alone.
"""

import functools

import numpy as np

from san_core.images.pixels import Pixels, area_average, resize
from san_core.images.sheet import GAP, beside
from san_core.synthesis.camera.light import Light
from san_core.synthesis.camera.render import FramedMesh, View, draw_mesh, frame_mesh
from san_core.synthesis.person.atlas import ATLAS_NAME, TEXTURE_SIZE
from san_core.synthesis.person.body import current_body, joint_positions, pose_vertices
from san_core.synthesis.person.pose import sample_pose
from san_core.synthesis.person.skirt import clothed_mesh

_SIDES = (0.0, np.pi)  # the azimuths of the views: front and back
_STANDING = 0  # the seed of a pose in which the body stands, arms at its sides
_LIGHT = Light((0.0, -0.6, 0.8), (0.3, 0.3, 0.3), (0.8, 0.8, 0.8), 1.1)


STRIP_HEIGHT = 128  # rows of a strip


def strip_width(atlas: object) -> int:
    """The width in pixels of a strip with a texture of that atlas."""
    bodies = len(_SIDES) if atlas == ATLAS_NAME else 0
    return STRIP_HEIGHT * 3 // 2 + GAP + bodies * (STRIP_HEIGHT // 2 + GAP)


def texture_strip(picture: Pixels, texture: Pixels, *, atlas: object) -> Pixels:
    """A picture of a person, the texture and, if it has the package's atlas, a body wearing it.

    Returns:
        (STRIP_HEIGHT, strip_width(atlas), 3) RGB; the body is seen from the front and from behind.
    """
    tall, square = (STRIP_HEIGHT, STRIP_HEIGHT // 2), (STRIP_HEIGHT, STRIP_HEIGHT)
    worn = wear_texture(texture, tall) if atlas == ATLAS_NAME else []
    return beside([resize(picture, tall), resize(texture, square), *worn])


def wear_texture(texture: Pixels, size: tuple[int, int]) -> list[Pixels]:
    """Pictures (H, W, 3) of a body with a texture (T, T, 3), from the front and from behind.

    Args:
        texture: RGB, in the package's atlas.
        size: rows and columns of a picture.
    """
    large = _as_worn(texture)
    ground = np.full((*size, 3), 255, np.float32)
    drawn = (draw_mesh(each, large, light=_LIGHT, background=ground) for each in _bodies(size))
    return [np.clip(np.rint(each.image), 0, 255).astype(np.uint8) for each in drawn]


def _as_worn(texture: Pixels) -> Pixels:
    """The texture at the size of the body's UVs; texels are repeated if that is a multiple."""
    rows, columns = texture.shape[:2]
    if rows == columns and TEXTURE_SIZE % rows == 0:
        times = TEXTURE_SIZE // rows
        return np.ascontiguousarray(texture.repeat(times, axis=0).repeat(times, axis=1))
    if rows == columns and rows % TEXTURE_SIZE == 0:
        return area_average(texture, TEXTURE_SIZE)
    return resize(texture, (TEXTURE_SIZE, TEXTURE_SIZE))


@functools.lru_cache(maxsize=4)
def _bodies(size: tuple[int, int]) -> list[FramedMesh]:
    """The body in the camera's frame, once for each of `_SIDES`."""
    people = current_body()
    shape = np.zeros(len(people.components), np.float32)
    bare = np.zeros(len(people.mean), np.float32)
    pose = sample_pose(np.random.default_rng(_STANDING), joint_positions(shape))
    vertices = pose_vertices(shape, pose.rotations, thickness=bare, hang=bare)
    mesh = clothed_mesh(vertices, 0)
    views = [View(azimuth=azimuth, elevation=0.05, distance=6, fill=0.96) for azimuth in _SIDES]
    return [frame_mesh(mesh, view, size) for view in views]
