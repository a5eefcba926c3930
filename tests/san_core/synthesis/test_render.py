"""Rendering: the rasteriser shows the texture at the position of the body."""

import numpy as np
import pytest

from san_core.synthesis.camera.light import Light, sample_light
from san_core.synthesis.camera.render import (
    View,
    dense_map,
    draw_mesh,
    empty_uv,
    frame_mesh,
    render_uv,
)
from san_core.synthesis.kernels import _raster
from san_core.synthesis.person.atlas import TEXTURE_SIZE, mirror_index, texel_map
from san_core.synthesis.person.body import current_body, pose_vertices
from san_core.synthesis.person.skirt import RINGS, SPOKES, clothed_mesh
from san_core.synthesis.person.surface import texel_surface

FRONT = View(azimuth=0.0, elevation=0.0, distance=6.0, fill=0.9)
# White light: it changes how bright a texel is seen, never its ratio of channels.
DAY = Light(direction=(0.0, -0.7, 0.714), lamp=(0.3, 0.3, 0.3), sky=(0.6, 0.6, 0.6), exposure=1.0)


def rest_mesh(skirt=0.0):
    people = current_body()
    still = np.tile(np.eye(3, dtype=np.float32), (len(people.bones), 1, 1))
    shape = np.zeros(people.shapes.shape[1], np.float32)
    bare = np.zeros(len(people.mean), np.float32)
    return clothed_mesh(pose_vertices(shape, still, thickness=bare, hang=bare), skirt)


def white(size):
    return np.full((*size, 3), 255, np.float32)


def test_a_triangle_covers_the_samples_inside_it():
    points = np.float32([[0, 0, 1], [0, 8, 1], [8, 0, 1]])
    texture = np.full((2, 2, 3), 100, np.uint8)
    rgba, nearest = np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8), np.float32)
    light, uv = np.full((3, 3), 0.5, np.float32), np.zeros((3, 2), np.float32)
    faces = np.int32([[0, 1, 2]])
    no_uv = np.zeros((0, 0, 2), np.float32)
    _raster.rasterise(points, light, uv, faces, faces, texture, rgba, nearest, no_uv)
    rows, columns = np.mgrid[:8, :8] + 0.5
    strictly = rows + columns < 8 - 1e-6
    assert (rgba[strictly] == [50, 50, 50, 255]).all()
    assert (rgba[rows + columns > 8 + 1e-6] == 0).all()


def test_a_triangle_turned_away_is_left_out_and_the_nearer_one_wins():
    near, far = [0.2, 0.2, 0.2], [0.9, 0.9, 0.9]
    corners = [[0, 0], [0, 8], [8, 0]]
    points = np.float32([[*c, 2] for c in corners] + [[*c, 1] for c in corners])
    light = np.float32([near] * 3 + [far] * 3)
    texture, uv = np.full((2, 2, 3), 100, np.uint8), np.zeros((6, 2), np.float32)
    no_uv = np.zeros((0, 0, 2), np.float32)

    def top_left(faces):
        faces = np.int32(faces)
        rgba, nearest = np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8), np.float32)
        _raster.rasterise(points, light, uv, faces, faces, texture, rgba, nearest, no_uv)
        return rgba[0, 0].tolist()

    assert top_left([[0, 1, 2], [3, 4, 5]]) == top_left([[3, 4, 5], [0, 1, 2]]) == [20, 20, 20, 255]
    assert top_left([[0, 2, 1]]) == [0, 0, 0, 0]


def test_compositing_averages_four_samples_over_the_shaded_background():
    rgba = np.zeros((2, 4, 4), np.uint8)
    rgba[0, 0] = [200, 100, 40, 255]  # one of the first pixel's four samples
    out, alpha = np.zeros((1, 2, 3), np.float32), np.zeros((1, 2), np.float32)
    shade = np.float32([[0.5, 1]])
    _raster.composite(rgba, np.full((1, 2, 3), 80, np.float32), shade, out, alpha)
    np.testing.assert_allclose(alpha, [[0.25, 0]], atol=1e-6)
    expected = [200 / 4 + 80 * 0.75 * 0.5, 100 / 4 + 80 * 0.75 * 0.5, 40 / 4 + 80 * 0.75 * 0.5]
    np.testing.assert_allclose(out[0], [expected, [80, 80, 80]], atol=1e-3)


def test_noise_meets_its_lattice_and_repeats():
    lattice = np.random.default_rng(0).standard_normal((4, 4, 4), dtype=np.float32)
    corners = np.float32([[1, 2, 3], [1 - 8, 2 + 4, 3 - 12], [0.5, 0, 0]])
    out = np.empty(3, np.float32)
    _raster.lattice_noise(lattice, corners, 1, 1, 1, out)
    midway = (lattice[0, 0, 0] + lattice[1, 0, 0]) / 2
    np.testing.assert_allclose(out, [lattice[1, 2, 3], lattice[1, 2, 3], midway], atol=1e-6)


def test_a_person_fills_the_crop_as_asked():
    alpha = draw_mesh(
        frame_mesh(rest_mesh(), FRONT, (128, 96)),
        np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 3), np.uint8),
        light=DAY,
        background=white((128, 96)),
    ).alpha
    rows = np.flatnonzero(alpha.any(axis=1))
    assert np.ptp(rows) + 1 == pytest.approx(0.9 * 128, abs=2)
    assert rows.mean() == pytest.approx(63.5, abs=1.5)


def test_the_horizon_rises_in_the_crop_as_the_camera_does():
    def horizon(elevation):
        view = View(azimuth=0.0, elevation=elevation, distance=6.0, fill=0.9)
        return frame_mesh(rest_mesh(), view, (128, 64)).horizon

    assert horizon(0.0) == pytest.approx(64, abs=6)
    assert horizon(0.1) < horizon(0.0) - 10


@pytest.mark.parametrize("elevation", [0.0, 0.1, 0.4])
def test_the_horizon_is_where_level_ground_ends(elevation):
    framed = frame_mesh(rest_mesh(), View(0.0, elevation, 6.0, 0.9), (128, 64))
    far = framed.tilt @ np.array([0, 1e6, 0])  # straight ahead of the person, and as high
    row = framed.axis[1] - framed.scale * far[2] / (far[1] + 6)
    assert framed.horizon == pytest.approx(row, abs=0.01)


@pytest.mark.parametrize(
    ("azimuth", "seen", "hidden"),
    [
        (0.0, "head_front", "head_back"),
        (0.5 * np.pi, "leg.R", "leg.L"),
        (np.pi, "head_back", "head_front"),
        (1.5 * np.pi, "leg.L", "leg.R"),
    ],
)
def test_azimuth_says_from_which_side_a_person_is_seen(azimuth, seen, hidden):
    uv = render_uv(frame_mesh(rest_mesh(), View(azimuth, 0.0, 6.0, 0.9), (128, 64)))
    column, row = np.rint(uv[uv[..., 0] >= 0]).astype(int).T
    charts = np.array(current_body().charts)[
        texel_map().chart.reshape(TEXTURE_SIZE, TEXTURE_SIZE)[row, column]
    ]
    assert (charts == seen).sum() > 10 * (charts == hidden).sum()


def test_the_drawn_colour_is_the_colour_of_the_texel_seen():
    colours = (
        np.random.default_rng(0).integers(60, 200, (len(current_body().charts), 3)).astype(np.uint8)
    )
    chart = texel_map().chart.reshape(TEXTURE_SIZE, TEXTURE_SIZE)
    size = (128, 64)
    for azimuth in (0.0, 1.0, 3.1):
        view = View(azimuth=azimuth, elevation=0.1, distance=6.0, fill=0.9)
        framed = frame_mesh(rest_mesh(), view, size)
        drawing = draw_mesh(framed, colours[chart], light=DAY, background=white(size))
        seen = render_uv(framed)
        blocks = seen.reshape(size[0], 2, size[1], 2, 2).swapaxes(1, 2).reshape(*size, 4, 2)
        column, row = np.rint(blocks).astype(int).transpose(3, 0, 1, 2)
        charts = chart[row, column]
        inside = (blocks.min(axis=(2, 3)) >= 0) & (np.ptp(charts, axis=2) == 0)
        # Away from the borders of charts a pixel has its chart's colour, darker or lighter.
        shown = drawing.image[inside] / drawing.image[inside].sum(axis=1, keepdims=True)
        truth = colours[charts[inside][:, 0]].astype(float)
        truth /= truth.sum(axis=1, keepdims=True)
        error = np.abs(shown - truth).max(axis=1)
        assert inside.sum() > 1000
        assert np.quantile(error, 0.97) < 0.015


def test_a_mirrored_texture_draws_the_mirrored_person():
    # Each side of the body, each chart and each height has a colour of its own.
    surface = texel_surface()
    texture = np.stack([128 + 400 * surface.x, 128 + 110 * surface.z, 128 + 500 * surface.y], 1)
    texture = np.clip(texture, 0, 255).astype(np.uint8)
    mirrored = texture[mirror_index()]
    size = (128, 96)
    light = Light(direction=(0.0, 0.0, 1.0), lamp=(0.3,) * 3, sky=(0.6,) * 3, exposure=1.0)
    framed = frame_mesh(rest_mesh(), FRONT, size)

    def shown(flat):
        image = flat.reshape(TEXTURE_SIZE, TEXTURE_SIZE, 3)
        return draw_mesh(framed, image, light=light, background=white(size))

    plain, turned = shown(texture), shown(mirrored)
    both = (plain.alpha == 1) & (turned.alpha[:, ::-1] == 1)
    difference = np.abs(plain.image - turned.image[:, ::-1])[both].max(axis=1)
    assert np.abs(plain.image - turned.image)[both].max(axis=1).mean() > 20
    assert difference.mean() < 3
    assert np.quantile(difference, 0.95) < 10


@pytest.mark.parametrize("azimuth", [0.0, 1.5, 3.0])
def test_a_skirt_shows_cloth_of_the_legs_down_to_its_hem(azimuth):
    hem = 0.5
    cloth = (texel_surface().leg & (texel_surface().along_leg < hem)).reshape(
        TEXTURE_SIZE, TEXTURE_SIZE
    )
    texture = np.where(cloth[..., None], np.uint8([0, 200, 0]), np.uint8([200, 0, 0]))
    mesh = rest_mesh(skirt=hem)
    assert len(mesh.vertices) == len(current_body().mean) + RINGS * SPOKES
    view = View(azimuth=azimuth, elevation=0.0, distance=6.0, fill=0.9)
    framed = frame_mesh(mesh, view, (256, 128))
    drawing = draw_mesh(framed, texture, light=DAY, background=white((256, 128)))
    tube = framed.screen[len(current_body().mean) :].reshape(RINGS, SPOKES, 3)
    top, bottom = tube[1, :, 1].max() + 1, tube[-1, :, 1].min() - 2
    middle = int(tube[:, :, 0].mean())
    strip = drawing.image[int(top) : int(bottom), middle - 2 : middle + 3]
    assert strip.shape[0] > 20
    assert (strip[..., 1] > strip[..., 0]).all()


def test_a_skirt_hardly_narrows_downwards():
    rings = rest_mesh(skirt=0.6).vertices[len(current_body().mean) :].reshape(RINGS, SPOKES, 3)
    across = np.linalg.norm(rings[:, : SPOKES // 2, :2] - rings[:, SPOKES // 2 :, :2], axis=2)
    assert (across[1:] > 0.984 * across[:-1]).all()
    assert (np.diff(rings[:, :, 2], axis=0) < 0).all()


def test_a_skirt_shows_the_front_of_the_legs_in_front_on_both_sides():
    mesh, count = rest_mesh(skirt=0.5), len(current_body().mean)
    tube = (mesh.faces >= count).all(axis=1)
    corners, texels = mesh.vertices[mesh.faces[tube]], mesh.uv[mesh.uv_faces[tube]]
    column, row = np.rint(texels.reshape(-1, 2)).astype(int).T
    x, depth, _ = corners.reshape(-1, 3).T
    surface = texel_surface()
    worn_x, worn_depth = (v.reshape(TEXTURE_SIZE, -1)[row, column] for v in (surface.x, surface.y))
    for side in (1, -1):
        mine = x * side > 0.05
        assert (worn_x[mine] * side > 0).all()
        assert np.corrcoef(depth[mine], worn_depth[mine])[0, 1] > 0.8


def test_light_from_the_side_brightens_that_side():
    normals = np.float32([[1, 0, 0], [-1, 0, 0], [0, 0, 1]])
    light = Light(direction=(1.0, 0.0, 0.0), lamp=(0.5,) * 3, sky=(0.6,) * 3, exposure=1.0)
    right, left, up = light.shading(normals, np.ones(3, np.float32))
    # Facing the lamp: 0.72 sky * 0.6 + 0.5; away from it the sky's share alone.
    np.testing.assert_allclose(right, 0.72 * 0.6 + 0.5, atol=1e-6)
    np.testing.assert_allclose(left, 0.72 * 0.6, atol=1e-6)
    np.testing.assert_allclose(up, (0.72 + 0.28) * 0.6 + 0.5 * 0.15 / 1.15, atol=1e-6)


def test_light_of_no_variety_differs_only_in_direction():
    rng = np.random.default_rng(0)
    first, second = sample_light(rng, variety=0.0), sample_light(rng, variety=0.0)
    assert (first.lamp, first.sky, first.exposure) == (second.lamp, second.sky, second.exposure)
    assert first.direction != second.direction
    assert np.linalg.norm(first.direction) == pytest.approx(1)


@pytest.mark.parametrize("side", [1, -1])
def test_a_shadow_falls_away_from_the_lamp(side):
    light = Light((0.7 * side, 0.0, 0.714), lamp=(0.6,) * 3, sky=(0.3,) * 3, exposure=1.0)
    framed = frame_mesh(rest_mesh(), View(0.0, 0.5, 6.0, 0.6), (128, 128))
    texture = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 3), np.uint8)
    image, alpha = draw_mesh(framed, texture, light=light, background=white((128, 128)))
    ground = np.where(alpha == 0, 255 - image[..., 0], 0)
    left, right = ground[:, :56].sum(), ground[:, 72:].sum()
    assert (left > 5 * right) if side == 1 else (right > 5 * left)


def test_a_warm_lamp_stands_against_a_cool_sky_or_the_reverse():
    rng = np.random.default_rng(0)
    lights = [sample_light(rng) for _ in range(8)]
    warmth = np.array([(one.lamp[0] - one.lamp[2], one.sky[0] - one.sky[2]) for one in lights])
    assert (warmth[:, 0] * warmth[:, 1] < 0).all()


def test_feet_darken_the_ground_they_stand_on():
    size = (128, 64)
    framed = frame_mesh(rest_mesh(), View(0.0, 0.3, 6.0, 0.8), size)
    texture = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 3), np.uint8)
    drawing = draw_mesh(framed, texture, light=DAY, background=white(size))
    ground = drawing.image[..., 0][drawing.alpha == 0]
    far = drawing.image[:10, :, 0][drawing.alpha[:10] == 0]
    assert ground.min() < 200
    assert far.min() > 250


def test_a_dense_map_shows_the_texel_of_one_sample_and_the_share_covered():
    uv = np.full((2, 6, 2), -1, np.float32)
    uv[1, 0] = (12.4, 200.6)  # one sample of the first pixel
    uv[:, 2:4] = [[(0, 7), (255, 7)], [(255, 7), (255, 7)]]  # a pixel across two charts
    dense = dense_map(uv, np.float32([[0.25, 1, 0]]))
    assert dense.tolist() == [[[12, 201, 64], [0, 7, 255], [0, 0, 0]]]


def test_a_dense_map_and_the_image_show_the_same_texels():
    size, colours = (128, 64), texel_surface()
    texture = np.stack([colours.x * 200 + 128, colours.z * 100 + 100, colours.y * 400 + 128], 1)
    texture = np.clip(texture, 0, 255).astype(np.uint8).reshape(TEXTURE_SIZE, TEXTURE_SIZE, 3)
    light = Light(direction=(0.0, 0.0, 1.0), lamp=(0.0,) * 3, sky=(1.0,) * 3, exposure=1.0)
    uv, framed = empty_uv(size), frame_mesh(rest_mesh(), FRONT, size)
    drawing = draw_mesh(framed, texture, light=light, background=white(size), uv=uv)
    dense = dense_map(uv, drawing.alpha)
    inside = dense[..., 2] == 255
    looked_up = texture[dense[..., 1], dense[..., 0]][inside].astype(float)
    shown = drawing.image[inside]
    ratio = shown.sum(axis=1) / looked_up.sum(axis=1)  # the light
    assert inside.sum() > 1000
    assert np.median(np.abs(shown - looked_up * ratio[:, None]).max(axis=1)) < 4
    assert (
        drawing.alpha == draw_mesh(framed, texture, light=light, background=white(size)).alpha
    ).all()
