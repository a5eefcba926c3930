"""Poses of people on camera: walking at any phase of the stride, standing, carrying, phoning.

A pose is the orientation of each bone in the body's frame (x left, y back, z up). Limbs are set by
their direction, not by chains of joint angles. Angles are in degrees where their names say so.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from san_core.synthesis.person.body import Floats, current_body

Rotation = NDArray[np.float64]  # (3, 3)

POSE_SHARES = {  # share of each
    "walk": 0.52,
    "stand": 0.18,
    "phone": 0.08,
    "carry": 0.08,
    "pocket": 0.06,
    "run": 0.04,
    "reach": 0.04,
}
X, Y, Z = np.eye(3)


class Pose(NamedTuple):
    """A pose and its name."""

    rotations: Floats  # (B, 3, 3)
    kind: str


class Stride(NamedTuple):
    """The phase of the gait cycle, and the size of steps (1 is an ordinary walk)."""

    kind: str
    phase: float  # radians; 0 is the left heel's strike
    size: float
    busy: tuple[bool, bool]  # which arms, left and right, phone, carry or reach


def sample_pose(rng: np.random.Generator, joints: Floats) -> Pose:
    """A random pose of a person with these joints (B, 3) at rest."""
    stride = _sample_stride(rng)
    bones = _pose_trunk(rng, stride)
    rest = {
        name: joints[index].astype(np.float64) for index, name in enumerate(current_body().bones)
    }
    for side in (0, 1):
        bones |= _pose_leg(rng, stride, rest, bones["root"], side)
        bones |= _pose_arm(rng, stride, rest, bones["spine01"], side)
    rotations = np.stack([bones[name] for name in current_body().bones]).astype(np.float32)
    return Pose(rotations, stride.kind)


def _sample_stride(rng: np.random.Generator) -> Stride:
    kind = str(rng.choice(list(POSE_SHARES), p=list(POSE_SHARES.values())))
    if kind == "walk":
        size = rng.uniform(0.6, 1.15)
    elif kind == "run":
        size = 1.7
    elif kind == "stand":
        size = rng.uniform(0, 0.15)
    else:
        size = 0.0 if rng.random() < 0.5 else rng.uniform(0.4, 1)
    left, both = rng.random() < 0.5, rng.random() < 0.25
    busy = (bool(left or both), bool(not left or both))
    return Stride(kind, rng.uniform(0, 2 * np.pi), size, busy)


def _pose_trunk(rng: np.random.Generator, stride: Stride) -> dict[str, Rotation]:
    """Pelvis, spine, neck and head; shoulders rotate against the hips."""
    swing = stride.size * np.cos(stride.phase)
    roll = rng.normal(0, 1.5) + 2 * stride.size * np.sin(stride.phase)
    root = rotation_about(Z, -6 * swing) @ rotation_about(Y, roll)
    lean = rng.normal(9 if stride.kind == "run" else 3, 3)
    chest = (
        rotation_about(Z, 7 * swing + rng.normal(0, 4))
        @ rotation_about(X, lean)
        @ rotation_about(Y, rng.normal(0, 2))
    )
    bones = {"root": root}
    for name, share in (("spine04", 0.35), ("spine02", 0.7), ("spine01", 1.0)):
        bones[name] = blend_rotations(root, chest, share)
    nod = rng.normal(24 if stride.kind == "phone" else 4, 7)
    look = (
        rotation_about(Z, rng.normal(0, 22))
        @ rotation_about(X, nod)
        @ rotation_about(Y, rng.normal(0, 4))
    )
    bones["head"] = chest @ look
    bones["neck01"] = blend_rotations(chest, bones["head"], 0.5)
    return bones


def _pose_leg(
    rng: np.random.Generator, stride: Stride, rest: dict[str, Rotation], root: Rotation, side: int
) -> dict[str, Rotation]:
    """Thigh, shin and foot. Knee and ankle roughly follow published curves of normal gait."""
    name, sign = "LR"[side], 1 - 2 * side
    phase = stride.phase + np.pi * side
    cycle = (phase / (2 * np.pi)) % 1  # 0 heel strike, 0.6 toe off
    hip = stride.size * (22 * np.cos(phase) + 5) + rng.normal(0, 2)
    knee = 4 + abs(rng.normal(0, 2))
    knee += stride.size * (
        14 * _gaussian_bump(cycle, 0.12, 0.07) + 58 * _gaussian_bump(cycle, 0.73, 0.11)
    )
    if stride.kind == "stand" and rng.random() < 0.35:  # weight on the other leg
        knee, hip = knee + rng.uniform(5, 20), hip + rng.uniform(4, 14)
    still = stride.size < 0.3
    spread, outwards = rng.uniform(1, 6) * (1 if still else 0.5), sign * rng.normal(7, 4)
    thigh_rest = rest[f"lowerleg01.{name}"] - rest[f"upperleg01.{name}"]
    shin_rest = rest[f"foot.{name}"] - rest[f"lowerleg01.{name}"]
    thigh = aligning_rotation(thigh_rest, root @ _limb_direction(hip, spread, sign))
    shin = aligning_rotation(shin_rest, root @ _limb_direction(hip - knee, 0.7 * spread, sign))
    shin = shin @ rotation_about(shin_rest, -outwards)
    heel_up = _gaussian_bump(cycle, 0.6, 0.09)
    toe_up = _gaussian_bump(cycle, 0, 0.08) + _gaussian_bump(cycle, 1, 0.08)
    pitch = rotation_about(X, stride.size * (28 * heel_up - 12 * toe_up))
    level = rotation_about(Z, outwards)
    return {
        f"upperleg01.{name}": thigh @ rotation_about(thigh_rest, -0.6 * outwards),
        f"lowerleg01.{name}": shin,
        f"foot.{name}": level if still else blend_rotations(shin @ pitch, pitch @ level, 0.25),
    }


class ArmPose(NamedTuple):
    """The angles of an arm, in degrees."""

    forwards: float  # of the upper arm
    aside: float  # of the upper arm
    elbow: float
    inwards: float  # of the forearm


def _pose_arm(
    rng: np.random.Generator, stride: Stride, rest: dict[str, Rotation], chest: Rotation, side: int
) -> dict[str, Rotation]:
    """Collarbone, upper arm, forearm and hand."""
    name, sign = "LR"[side], 1 - 2 * side
    hold = _sample_arm_pose(rng, stride, side)
    upper = chest @ _limb_direction(hold.forwards, hold.aside, sign)
    forearm = _limb_direction(hold.forwards + hold.elbow, 0.3 * hold.aside, sign)
    forearm = chest @ rotation_about(Z, -sign * hold.inwards) @ forearm
    upper_rest = rest[f"lowerarm01.{name}"] - rest[f"upperarm01.{name}"]
    forearm_rest = rest[f"wrist.{name}"] - rest[f"lowerarm01.{name}"]
    lower = aligning_rotation(forearm_rest, forearm)
    return {
        f"clavicle.{name}": chest @ rotation_about(Y, sign * rng.uniform(0, 8)),
        f"upperarm01.{name}": aligning_rotation(upper_rest, upper),
        f"lowerarm01.{name}": lower,
        f"wrist.{name}": lower @ rotation_about(X, rng.normal(0, 8)),
    }


def _sample_arm_pose(rng: np.random.Generator, stride: Stride, side: int) -> ArmPose:
    busy = stride.busy[side]
    if stride.kind == "phone" and busy:
        return ArmPose(*rng.uniform([15, 5, 85, 10], [40, 15, 120, 35]))
    if stride.kind == "carry" and busy:
        return ArmPose(*rng.uniform([5, 5, 70, -5], [25, 15, 95, 18]))
    if stride.kind == "pocket":
        return ArmPose(*rng.uniform([-20, 14, 25, 20], [0, 24, 45, 40]))
    if stride.kind == "reach" and busy:
        return ArmPose(*rng.uniform([35, 5, 0, -4], [120, 15, 50, 9]))
    back = np.cos(stride.phase + np.pi * side)  # an arm swings against its leg
    bend = rng.uniform(6, 20) + stride.size * rng.uniform(0, 16) * (1 - back)
    return ArmPose(
        forwards=-20 * stride.size * back * rng.uniform(0.6, 1.3) + rng.normal(2, 5),
        aside=rng.uniform(5, 15),
        elbow=bend + (65 if stride.kind == "run" else 0),
        inwards=rng.uniform(-4, 9),
    )


def _gaussian_bump(cycle: float, centre: float, width: float) -> float:
    return float(np.exp(-(((cycle - centre) / width) ** 2)))


def _limb_direction(forwards: float, aside: float, sign: int) -> NDArray[np.float64]:
    """The direction of a limb; the angles, in degrees, are 0 if it hangs."""
    f, a = np.deg2rad(forwards), np.deg2rad(aside)
    return np.array([sign * np.sin(a), -np.sin(f) * np.cos(a), -np.cos(f) * np.cos(a)])


def rotation_about(axis: ArrayLike, degrees: float) -> Rotation:
    """The rotation about an axis (3,), by Rodrigues' formula."""
    unit = np.asarray(axis, np.float64)
    cross = _cross_matrix(unit / np.sqrt(unit @ unit))
    angle = np.deg2rad(degrees)
    rotation: Rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    return rotation


def aligning_rotation(rest: ArrayLike, target: ArrayLike) -> Rotation:
    """The smallest rotation from one direction (3,) to another, which must not be opposite."""
    a, b = np.asarray(rest, np.float64), np.asarray(target, np.float64)
    a, b = a / np.sqrt(a @ a), b / np.sqrt(b @ b)
    cross = _cross_matrix(_cross_matrix(a) @ b)  # np.cross takes ten times as long
    rotation: Rotation = np.eye(3) + cross + cross @ cross / (1 + a @ b + 1e-9)
    return rotation


def blend_rotations(first: Rotation, second: Rotation, share: float) -> Rotation:
    """The rotation nearest to the weighted mean of two similar rotations."""
    u, _, vt = np.linalg.svd(first * (1 - share) + second * share)
    rotation: Rotation = u @ vt
    return rotation


def _cross_matrix(v: NDArray[np.float64]) -> Rotation:
    matrix: Rotation = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return matrix
