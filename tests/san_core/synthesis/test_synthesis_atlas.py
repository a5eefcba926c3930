"""The atlas: every texel shows one point of the body, and mirrors to another."""

import numpy as np
import pytest

from san_core.synthesis.atlas import (
    SIZE,
    chart_rectangle,
    check_texture_size,
    mirror_index,
    texel_map,
)
from san_core.synthesis.body import body
from san_core.synthesis.surface import texels, vertices


def test_every_texel_lies_on_a_face():
    assert texel_map().face.shape == (SIZE * SIZE,)
    assert texel_map().face.min() >= 0


def test_hardly_any_face_is_flat_or_turned_over_in_the_atlas():
    people = body()
    a, b, c = np.moveaxis(people.uv[people.uv_faces], 1, 0)
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    wrong = min((area <= 0).sum(), (area >= 0).sum())
    assert wrong / len(area) < 0.005


def test_charts_tile_the_texture():
    owner = np.zeros((SIZE, SIZE), int)
    names = np.array(body().charts)[texel_map().chart].reshape(SIZE, SIZE)
    for name in body().charts:
        box = chart_rectangle(name)
        owner[box.top : box.bottom, box.left : box.right] += 1
        assert (names[box.top : box.bottom, box.left : box.right] == name).all()
    assert (owner == 1).all()


def test_texels_and_their_uv_coordinates_agree():
    people, mapped = body(), texel_map()
    uv = np.einsum("nc,nci->ni", mapped.barycentric, people.uv[people.uv_faces[mapped.face]])
    rows, columns = np.divmod(np.arange(SIZE * SIZE), SIZE)
    np.testing.assert_allclose(uv, np.stack([columns, rows], axis=1), atol=0.05)


@pytest.mark.parametrize("size", [256, 128, 64])
def test_mirroring_twice_hardly_moves_a_texel(size):
    mirrored = mirror_index(size)
    rows, columns = np.divmod(np.arange(size * size), size)
    twice_rows, twice_columns = np.divmod(mirrored[mirrored], size)
    moved = np.hypot(twice_rows - rows, twice_columns - columns)
    assert np.quantile(moved, 0.98) < 3
    assert (moved < 1.5).mean() > 0.97


def test_mirroring_swaps_left_and_right_charts_and_keeps_the_others():
    names = np.array(body().charts)[texel_map().chart]
    swap = {"L": "R", "R": "L"}
    expected = [name[:-1] + swap[name[-1]] if "." in name else name for name in names]
    assert (names[mirror_index(SIZE)] == expected).all()


def test_mirrored_texels_lie_at_the_mirrored_point():
    points = texel_map().points
    reflected = points[mirror_index(SIZE)] * [-1, 1, 1]
    distance = np.linalg.norm(points - reflected, axis=1)
    assert np.quantile(distance, 0.99) < 0.006
    assert distance.max() < 0.02


def test_a_smooth_texture_mirrors_alike_at_every_size():
    full = texels().z[mirror_index(256)].reshape(64, 4, 64, 4).mean(axis=(1, 3))
    small = texels().z.reshape(64, 4, 64, 4).mean(axis=(1, 3)).ravel()
    coarse = small[mirror_index(64)].reshape(64, 64)
    assert np.quantile(np.abs(coarse - full), 0.98) < 0.02


def test_mirror_index_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        mirror_index(64)[0] = 0


@pytest.mark.parametrize("size", [0, 100, 512])
def test_a_texture_size_that_does_not_divide_the_atlas_is_refused(size):
    with pytest.raises(ValueError, match=f"texture size {size} does not divide 256"):
        check_texture_size(size)
    with pytest.raises(ValueError, match=f"texture size {size} does not divide 256"):
        mirror_index(size)


@pytest.mark.parametrize("surface", [texels, vertices])
def test_body_coordinates_grow_along_torso_arms_and_legs(surface):
    points = surface()
    assert points.torso_height[points.torso].max() == pytest.approx(1, abs=0.15)
    outer = np.abs(points.x)[points.arm]
    assert np.corrcoef(points.along_arm[points.arm], outer)[0, 1] > 0.9
    assert np.corrcoef(points.along_leg[points.leg], -points.z[points.leg])[0, 1] > 0.95
    assert np.abs(points.around_leg).max() <= np.pi + 1e-6
