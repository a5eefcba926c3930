"""Body coordinates of surface points, such as positions along and around limbs.

Clothes are painted in these coordinates on the mean person at rest, in shoes. A pattern therefore
continues across the seams of the atlas. One description of a garment gives its colour (on texels)
and its thickness (on vertices).
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from san_core.synthesis.person.atlas import texel_map
from san_core.synthesis.person.body import Floats, current_body, shoe_offsets, vertex_chart

Mask = NDArray[np.bool_]

CROTCH = -0.045  # height of the crotch on the mean person, metres


@dataclass(frozen=True, eq=False)
class Surface:
    """N points of the mean person at rest, in shoes, with the body part of each."""

    points: Floats  # (N, 3)
    x: Floats  # metres to the person's left
    y: Floats  # metres to the back
    z: Floats  # metres up
    head: Mask
    head_front: Mask
    torso: Mask
    torso_front: Mask
    torso_back: Mask
    arm: Mask
    hand: Mask
    leg: Mask
    foot: Mask
    torso_height: Floats  # 0 at the crotch, 1 at the base of the neck
    along_arm: Floats  # 0 at the shoulder, 1 at the wrist
    around_arm: Floats  # radians, 0 outside
    along_leg: Floats  # 0 at the hip, 1 at the ankle
    around_leg: Floats  # radians, 0 outside


@dataclass(frozen=True)
class Landmarks:
    """Heights of the mean person at rest, in metres."""

    eyes: float
    neck: float
    floor: float


@functools.cache
def landmarks() -> Landmarks:
    """The reference heights for faces, collars and shoes."""
    people = current_body()
    return Landmarks(
        eyes=float(people.joint("head")[2]) + 0.032,
        neck=float(people.joint("neck01")[2]),
        floor=float(people.mean[:, 2].min()),
    )


@functools.cache
def texel_surface() -> Surface:
    """The surface points of the 256 * 256 texels, row by row."""
    mapped, people = texel_map(), current_body()
    shod = np.einsum("nc,nci->ni", mapped.barycentric, shoe_offsets()[people.faces[mapped.face]])
    return _surface_at(mapped.points + shod, mapped.chart)


@functools.cache
def vertex_surface() -> Surface:
    """The surface points of the body's vertices."""
    return _surface_at(current_body().mean + shoe_offsets(), vertex_chart())


def _surface_at(points: Floats, chart: NDArray[np.intp]) -> Surface:
    names = np.array(current_body().charts)[chart]
    x, y, z = (np.ascontiguousarray(points[:, axis]) for axis in range(3))
    along_arm, around_arm = _limb_coordinates(points, ["upperarm01", "lowerarm01", "wrist"])
    along_leg, around_leg = _limb_coordinates(points, ["upperleg01", "lowerleg01", "foot"])
    return Surface(
        points=points,
        x=x,
        y=y,
        z=z,
        head=np.char.startswith(names, "head"),
        head_front=names == "head_front",
        torso=np.char.startswith(names, "torso"),
        torso_front=names == "torso_front",
        torso_back=names == "torso_back",
        arm=np.char.startswith(names, "arm"),
        hand=np.char.startswith(names, "hand"),
        leg=np.char.startswith(names, "leg"),
        foot=np.char.startswith(names, "foot"),
        torso_height=(z - np.float32(CROTCH)) / np.float32(landmarks().neck - CROTCH),
        along_arm=along_arm,
        around_arm=around_arm,
        along_leg=along_leg,
        around_leg=around_leg,
    )


def _limb_coordinates(points: Floats, bones: list[str]) -> tuple[Floats, Floats]:
    """The position along, and the angle around, the limb on the side of each point."""
    along, around = np.zeros(len(points), np.float32), np.zeros(len(points), np.float32)
    for side, sign in (("L", 1), ("R", -1)):
        chain = np.stack([current_body().joint(f"{bone}.{side}") for bone in bones])
        axis = chain[-1] - chain[0]
        length = np.linalg.norm(axis)
        axis = axis / length
        mine = points[:, 0] * sign > 0
        distance = (points[mine] - chain[0]) @ axis
        stations = (chain - chain[0]) @ axis
        centre = np.stack([np.interp(distance, stations, chain[:, k]) for k in range(3)], axis=1)
        outwards = np.array([sign, 0, 0]) - axis * (sign * axis[0])
        outwards /= np.linalg.norm(outwards)
        sideways = np.cross(axis, outwards) * sign
        offset = points[mine] - centre
        along[mine] = distance / length
        around[mine] = np.arctan2(offset @ sideways, offset @ outwards)
    return along, around
