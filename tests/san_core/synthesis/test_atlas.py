"""The atlas: every texel shows one point of the body, and mirrors to another."""

import numpy as np
import pytest

from san_core.synthesis.camera.light import body_openness
from san_core.synthesis.difficulty import DIFFICULTIES
from san_core.synthesis.kernels import _raster
from san_core.synthesis.person.atlas import (
    TEXTURE_SIZE,
    chart_rectangle,
    check_texture_size,
    mirror_index,
    mirror_matrix,
    texel_map,
)
from san_core.synthesis.person.body import current_body
from san_core.synthesis.person.identity import sample_identity
from san_core.synthesis.person.surface import texel_surface, vertex_surface
from san_core.synthesis.wardrobe.painter import paint_outfit


@pytest.fixture(scope="module")
def painted():
    """Six people of 24, those dressed least alike left and right: (256 * 256, 6 * 3) colours."""
    people = [sample_identity(np.random.default_rng(i), DIFFICULTIES["easy"]) for i in range(24)]
    textures = [paint_outfit(looks).texture.reshape(-1, 3).astype(float) for looks in people]
    textures.sort(key=lambda texture: error(texture[mirror_index()], texture))
    return np.hstack(textures[-6:])


def averaged(columns, size):
    """Columns of 256 * 256 colours as columns of size * size."""
    k = TEXTURE_SIZE // size
    return columns.reshape(size, k, size, k, -1).mean(axis=(1, 3)).reshape(size * size, -1)


def error(found, expected):
    return np.square(found - expected).mean()


def test_faces_cover_every_texel():
    # Not by texel_map, which gives the texels of a layout with gaps to the nearest face.
    people, face = current_body(), np.full((TEXTURE_SIZE, TEXTURE_SIZE), -1, np.int32)
    _raster.bake(
        people.uv, people.uv_faces, face, np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 3), np.float32)
    )
    assert (face >= 0).all()
    assert (texel_map().face == face.ravel()).all()


def test_hardly_any_face_is_flat_or_turned_over_in_the_atlas():
    people = current_body()
    a, b, c = np.moveaxis(people.uv[people.uv_faces], 1, 0)
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    wrong = min((area <= 0).sum(), (area >= 0).sum())
    assert wrong / len(area) < 0.005


def test_charts_tile_the_texture():
    owner = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), int)
    names = np.array(current_body().charts)[texel_map().chart].reshape(TEXTURE_SIZE, TEXTURE_SIZE)
    for name in current_body().charts:
        box = chart_rectangle(name)
        owner[box.top : box.bottom, box.left : box.right] += 1
        assert (names[box.top : box.bottom, box.left : box.right] == name).all()
    assert (owner == 1).all()


def test_texels_and_their_uv_coordinates_agree():
    people, mapped = current_body(), texel_map()
    uv = np.einsum("nc,nci->ni", mapped.barycentric, people.uv[people.uv_faces[mapped.face]])
    rows, columns = np.divmod(np.arange(TEXTURE_SIZE * TEXTURE_SIZE), TEXTURE_SIZE)
    np.testing.assert_allclose(uv, np.stack([columns, rows], axis=1), atol=0.05)


@pytest.mark.parametrize("size", [256, 128, 64])
def test_mirroring_a_painted_texture_changes_it_and_mirroring_twice_restores_it(painted, size):
    plain, mirror = averaged(painted, size), mirror_matrix(size)
    once = mirror @ plain
    assert error(mirror @ once, plain) < 0.1 * error(once, plain)


@pytest.mark.parametrize("size", [128, 64, 32])
def test_a_small_painted_texture_mirrors_as_the_large_one_does(painted, size):
    plain, expected = averaged(painted, size), averaged(painted[mirror_index()], size)
    assert error(mirror_matrix(size) @ plain, expected) < 0.5 * error(plain, expected)


@pytest.mark.parametrize("size", [256, 128, 64, 32, 8])
def test_a_mirrored_texel_is_an_average(size):
    mirror = mirror_matrix(size)
    assert (mirror.sum(axis=1) == 1).all()
    assert mirror.data.min() > 0


def test_the_mirror_of_a_small_texture_by_hand():
    # 2x2 texels of 128 x 128 each: the shares of the texels' mirror images, counted one by one.
    quarter = [row // 128 * 2 + column // 128 for row in range(256) for column in range(256)]
    expected = np.zeros((4, 4))
    for texel, image in enumerate(mirror_index().tolist()):
        expected[quarter[texel], quarter[image]] += 1 / 128**2
    np.testing.assert_allclose(mirror_matrix(2).toarray(), expected, rtol=1e-6)


def test_the_mirror_of_a_whole_texture_is_the_index():
    mirror = mirror_matrix(TEXTURE_SIZE)
    assert (mirror.indices == mirror_index()).all()
    assert (mirror.indptr == np.arange(TEXTURE_SIZE * TEXTURE_SIZE + 1)).all()


def test_mirroring_swaps_left_and_right_charts_and_keeps_the_others():
    names = np.array(current_body().charts)[texel_map().chart]
    swap = {"L": "R", "R": "L"}
    expected = [name[:-1] + swap[name[-1]] if "." in name else name for name in names]
    assert (names[mirror_index()] == expected).all()


def test_mirrored_texels_lie_at_the_mirrored_point():
    points = texel_map().points
    reflected = points[mirror_index()] * [-1, 1, 1]
    distance = np.linalg.norm(points - reflected, axis=1)
    assert np.quantile(distance, 0.99) < 0.006
    assert distance.max() < 0.02


def test_mirror_index_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        mirror_index()[0] = 0


@pytest.mark.parametrize("size", [0, 100, 512])
def test_a_texture_size_that_does_not_divide_the_atlas_is_refused(size):
    message = f"texture size {size} does not divide 256: .* use a divisor of 256, such as 32, 64"
    with pytest.raises(ValueError, match=message):
        check_texture_size(size)
    with pytest.raises(ValueError, match=message):
        mirror_matrix(size)


@pytest.mark.parametrize("surface", [texel_surface, vertex_surface])
def test_body_coordinates_grow_along_torso_arms_and_legs(surface):
    points = surface()
    assert points.torso_height[points.torso].max() == pytest.approx(1, abs=0.15)
    outer = np.abs(points.x)[points.arm]
    assert np.corrcoef(points.along_arm[points.arm], outer)[0, 1] > 0.9
    assert np.corrcoef(points.along_leg[points.leg], -points.z[points.leg])[0, 1] > 0.95
    assert np.abs(points.around_leg).max() <= np.pi + 1e-6


@pytest.mark.parametrize("surface", [texel_surface, vertex_surface])
def test_angle_0_around_a_limb_is_outside(surface):
    points = surface()
    for angle, along, part, outwards in (
        (points.around_leg, points.along_leg, points.leg, np.abs(points.x)),
        (points.around_arm, points.along_arm, points.arm, points.z),  # arms are held aside
    ):
        middle = part & (np.abs(along - 0.5) < 0.1)
        outer, inner = (outwards[middle & (s * np.cos(angle) > 0.8)].mean() for s in (1, -1))
        assert outer > inner + 0.03


def test_the_sky_lights_the_inside_of_limbs_less():
    points, openness = vertex_surface(), body_openness()
    for angle, along, part in (
        (points.around_leg, points.along_leg, points.leg),
        (points.around_arm, points.along_arm, points.arm),
    ):
        upper = part & (along > 0) & (along < 0.3)
        outer, inner = (openness[upper & (s * np.cos(angle) > 0.8)].mean() for s in (1, -1))
        assert inner < outer - 0.05
