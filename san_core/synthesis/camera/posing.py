"""Poses and dresses a person of a shape, and places the person before a camera."""

from typing import NamedTuple

import numpy as np

from san_core.synthesis.camera.render import FramedMesh, View, frame_mesh
from san_core.synthesis.person.body import Floats, joint_positions, pose_vertices
from san_core.synthesis.person.pose import sample_pose
from san_core.synthesis.person.skirt import clothed_mesh
from san_core.synthesis.wardrobe.painter import Outfit


class PosedPerson(NamedTuple):
    """The mesh in the camera's frame, and the name of the pose."""

    framed: FramedMesh
    pose: str


def frame_person(
    rng: np.random.Generator, outfit: Outfit, *, shape: Floats, view: View, size: tuple[int, int]
) -> PosedPerson:
    """Pose and dress a person of a shape, for an image of `size` = (rows, columns)."""
    pose = sample_pose(rng, joint_positions(shape))
    vertices = pose_vertices(shape, pose.rotations, thickness=outfit.thickness, hang=outfit.hang)
    return PosedPerson(frame_mesh(clothed_mesh(vertices, outfit.skirt), view, size), pose.kind)
