"""The body: its asset, its normals, and how it is posed."""

import itertools

import numpy as np
import pytest

from san_core.synthesis.person.body import (
    current_body,
    joint_positions,
    pose_vertices,
    sample_shape,
    shoe_offsets,
    smooth_values,
    vertex_chart,
    vertex_normals,
)
from san_core.synthesis.person.pose import (
    POSE_SHARES,
    Stride,
    _pose_arm,
    _pose_leg,
    aligning_rotation,
    blend_rotations,
    rotation_about,
    sample_pose,
)


def rest_rotations():
    return np.tile(np.eye(3, dtype=np.float32), (len(current_body().bones), 1, 1))


def bare():
    return np.zeros(len(current_body().mean), np.float32)


def test_asset_arrays_belong_together():
    people = current_body()
    n_vertices, n_bones = len(people.mean), len(people.bones)
    assert people.components.shape == (people.shapes.shape[1], n_vertices, 3)
    assert people.joint_components.shape == (people.shapes.shape[1], n_bones, 3)
    assert people.faces.max() == n_vertices - 1
    assert people.uv_faces.max() == len(people.uv) - 1
    assert len(people.faces) == len(people.uv_faces) == len(people.face_chart)
    np.testing.assert_allclose(people.weights.sum(axis=1), 1, atol=1e-6)
    assert all(parent < bone for bone, parent in enumerate(people.parents))


def test_asset_arrays_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        current_body().mean[0] = 0


def test_normals_of_a_tetrahedron_point_outwards():
    corners = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = np.int32([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    normals = vertex_normals(corners, faces)
    # At the origin the three faces have normals -z, -y, -x and equal area.
    np.testing.assert_allclose(normals[0], np.full(3, -1 / np.sqrt(3)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)


def test_body_normals_point_outwards():
    people = current_body()
    normals = vertex_normals(people.mean, people.faces)
    back = people.faces[people.face_chart == people.charts.index("torso_back")]
    front = people.faces[people.face_chart == people.charts.index("torso_front")]
    assert normals[np.unique(back), 1].mean() > 0.4
    assert normals[np.unique(front), 1].mean() < -0.4


def test_rest_pose_without_clothes_is_the_shaped_body_but_for_the_shoes():
    people = current_body()
    shape = people.shapes[0]
    expected = people.mean + np.tensordot(shape, people.components, 1)
    vertices = pose_vertices(shape, rest_rotations(), thickness=bare(), hang=bare())
    feet = np.isin(vertex_chart(), [people.charts.index(f"foot.{side}") for side in "LR"])
    moved = np.linalg.norm(vertices - expected, axis=1) > 1e-4
    assert not (moved & ~feet).any()
    assert (moved & feet).any()


def test_one_rotation_of_all_bones_turns_the_body_rigidly():
    people, rotation = current_body(), rotation_about([1, 2, 3], 50).astype(np.float32)
    shape = np.zeros(people.shapes.shape[1], np.float32)
    still = pose_vertices(shape, rest_rotations(), thickness=bare(), hang=bare())
    turned = pose_vertices(
        shape, np.tile(rotation, (len(people.bones), 1, 1)), thickness=bare(), hang=bare()
    )
    root = people.joints[0]
    np.testing.assert_allclose(turned, (still - root) @ rotation.T + root, atol=1e-5)


def test_thickness_moves_vertices_along_their_normals():
    people = current_body()
    shape = np.zeros(people.shapes.shape[1], np.float32)
    thin = pose_vertices(shape, rest_rotations(), thickness=bare(), hang=bare())
    thick = pose_vertices(shape, rest_rotations(), thickness=bare() + np.float32(0.02), hang=bare())
    np.testing.assert_allclose(np.linalg.norm(thick - thin, axis=1), 0.02, atol=1e-5)


def test_hanging_cloth_spans_hollows_and_hardly_cuts_into_the_body():
    people = current_body()
    shape = people.shapes[0]
    tight = pose_vertices(shape, rest_rotations(), thickness=bare(), hang=bare())
    loose = pose_vertices(shape, rest_rotations(), thickness=bare(), hang=bare() + np.float32(1))
    half = pose_vertices(shape, rest_rotations(), thickness=bare(), hang=bare() + np.float32(0.5))
    np.testing.assert_allclose(half, 0.5 * (tight + loose), atol=1e-5)
    rest = (people.mean + np.tensordot(shape, people.components, 1)).astype(np.float32)
    outwards = ((loose - tight) * vertex_normals(rest, people.faces)).sum(axis=1)
    trunk = np.isin(vertex_chart(), [people.charts.index(f"torso_{s}") for s in ("front", "back")])
    assert outwards[trunk].max() > 0.01  # the small of the back, between the breasts
    assert outwards[trunk].min() > -0.015


def test_shoes_have_flat_soles_and_only_feet_wear_them():
    people, moved = current_body(), shoe_offsets()
    feet = np.isin(vertex_chart(), [people.charts.index(f"foot.{side}") for side in "LR"])
    assert not moved[~feet].any()
    height = (people.mean + moved)[feet, 2] - people.mean[:, 2].min()
    assert height.min() == pytest.approx(0, abs=1e-6)
    assert (height < 1e-4).mean() > 0.2


def test_smoothing_keeps_a_constant_and_spreads_a_spike():
    ones = np.ones(len(current_body().mean), np.float32)
    np.testing.assert_allclose(smooth_values(ones, rounds=3), ones, atol=1e-5)
    spike = bare()
    spike[100] = 1
    once = smooth_values(spike, rounds=1)
    assert once[100] == pytest.approx(0.5)
    assert (once > 0).sum() > 4


def test_sampled_shapes_follow_the_sex_asked_for():
    def height(female):
        rng = np.random.default_rng(0)
        joints = [joint_positions(sample_shape(rng, female=female)) for _ in range(60)]
        return np.mean(
            [
                j[current_body().bone("head"), 2] - j[current_body().bone("foot.L"), 2]
                for j in joints
            ]
        )

    assert height(False) - height(True) == pytest.approx(0.10, abs=0.05)


def test_poses_are_rotations_of_a_known_kind():
    rng = np.random.default_rng(1)
    joints = joint_positions(np.zeros(current_body().shapes.shape[1], np.float32))
    for _ in range(20):
        pose = sample_pose(rng, joints)
        assert pose.kind in POSE_SHARES
        product = pose.rotations @ pose.rotations.transpose(0, 2, 1)
        np.testing.assert_allclose(product, np.tile(np.eye(3), (20, 1, 1)), atol=1e-5)
        np.testing.assert_allclose(np.linalg.det(pose.rotations), 1, atol=1e-5)


def walking_limb(pose, side, names, *, phase):
    """Directions (2, 3) of the parts of a limb, from the names of their joints, at a phase."""
    rest = dict(zip(current_body().bones, joint_positions(NO_SHAPE).astype(float), strict=True))
    stride = Stride("walk", phase, 1.0, (False, False))
    turned = pose(np.random.default_rng(0), stride, rest, np.eye(3), side)
    joints = [f"{name}.{'LR'[side]}" for name in names]
    return np.stack([turned[a] @ (rest[b] - rest[a]) for a, b in itertools.pairwise(joints)])


NO_SHAPE = np.zeros(current_body().shapes.shape[1], np.float32)
LEG, ARM = ("upperleg01", "lowerleg01", "foot"), ("upperarm01", "lowerarm01", "wrist")


@pytest.mark.parametrize("side", [0, 1])
def test_at_a_heel_strike_its_leg_is_in_front_and_its_arm_behind(side):
    struck = np.pi * side  # 0 is the left heel's
    for pose, names, sign in ((_pose_leg, LEG, 1), (_pose_arm, ARM, -1)):
        now, later = (
            walking_limb(pose, side, names, phase=struck + t)[0, 1] for t in (0, np.pi)
        )  # y grows to the back
        assert sign * (later - now) > 0.1


@pytest.mark.parametrize("side", [0, 1])
def test_the_knee_bends_most_while_the_leg_swings_forwards(side):
    def bend(cycle):
        thigh, shin = walking_limb(_pose_leg, side, LEG, phase=2 * np.pi * cycle + np.pi * side)
        return np.arccos(thigh @ shin / np.linalg.norm(thigh) / np.linalg.norm(shin))

    bends = [bend(cycle) for cycle in np.arange(20) / 20]
    assert 0.65 <= np.argmax(bends) / 20 <= 0.8  # toe off is at 0.6
    assert max(bends) > np.deg2rad(45)


def test_align_turns_one_direction_into_the_other():
    a, b = np.array([0.3, -1, 0.2]), np.array([0.1, 0.4, -2])
    turned = aligning_rotation(a, b) @ (a / np.linalg.norm(a))
    np.testing.assert_allclose(turned, b / np.linalg.norm(b), atol=1e-7)


def test_turn_by_a_right_angle_and_half_way_between():
    # About z, x goes to y.
    np.testing.assert_allclose(rotation_about([0, 0, 2], 90) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(
        blend_rotations(np.eye(3), rotation_about([0, 0, 1], 60), 0.5),
        rotation_about([0, 0, 1], 30),
        atol=1e-12,
    )
