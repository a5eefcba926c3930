"""Places: the ground in perspective, house fronts, and objects."""

import numpy as np
import pytest

from san_core.synthesis.place import background
from san_core.synthesis.place.background import (
    BACKDROP_BUILDERS,
    SCENE_COLUMNS,
    SCENE_ROWS,
    Viewpoint,
    sample_scene,
)
from san_core.synthesis.place.facade import sample_facade
from san_core.synthesis.place.ground import FOCAL_LENGTH, ground_plane, sample_ground
from san_core.synthesis.place.materials import TiledNoise, car_colour, material_patch, muted_colour
from san_core.synthesis.place.things import draw_car, draw_person

SIGHT = Viewpoint(horizon=100, height=3.0, middle=200.0)


def test_the_ground_recedes_as_a_pinhole_camera_sees_it():
    where = ground_plane(10, (40, 300), height=3.0, middle=200.0)
    # 10 rows below the horizon: 3 m * 400 / 10 = 120 m; 100 columns aside: 100 * 120 / 400 = 30 m.
    assert where.away[0, 0] == pytest.approx(120)
    assert where.across[0, 100] == pytest.approx(-30)
    assert where.across[0, 200] == 0
    # 30 rows below it: 40 m away; the next row is 40 / 30 m nearer.
    assert where.away[20, 7] == pytest.approx(40)
    assert where.step[20, 7] == pytest.approx(40 / 30)


def test_grounds_are_neither_black_nor_white_and_nowhere_flat():
    where = ground_plane(5, (200, 300), height=3.0, middle=200.0)
    for seed in range(12):
        image = sample_ground(np.random.default_rng(seed), where)
        assert image.shape == (200, 300, 3)
        assert 30 < image.mean() < 220
        assert image.reshape(4, 50, 6, 50, 3).std(axis=(1, 3)).min() > 0.5


def test_a_house_has_windows_that_are_darker_than_its_wall():
    house = sample_facade(np.random.default_rng(3))._replace(
        wall=np.float32([200, 180, 160]),
        glass=np.float32([50, 50, 50]),
        frame=np.float32([90, 90, 90]),
        height=10.0,
        ground_floor=3.0,
        storey=3.0,
        bay=2.0,
        window=(0.5, 0.5),
        brick=0.0,
    )
    # The first bay's window is around u = 1 m, v = 3 + 0.52 * 3 = 4.56 m; u = 0.05 m is beside it.
    u, v = np.float32([0.8, 0.05]), np.float32([4.56, 4.56])
    window, wall = house.colours_at(u, v, 0.01)
    assert window.max() < 80
    np.testing.assert_allclose(wall, house.wall, rtol=0.3)


def test_noise_repeats_after_64_cells_and_keeps_its_deviation():
    noise, points = (
        TiledNoise(np.random.default_rng(0)),
        np.random.default_rng(1).random((2, 5000)) * 50,
    )
    u, v = points.astype(np.float32)
    values = noise.values_at(u, v, 0.25)
    assert values.mean() == pytest.approx(0, abs=0.15)
    assert values.std() == pytest.approx(1, abs=0.1)
    whole = np.floor(u), np.floor(v)
    np.testing.assert_array_equal(
        noise.values_at(*whole, 0.25), noise.values_at(whole[0] + 16, whole[1] - 32, 0.25)
    )


@pytest.mark.parametrize("place", BACKDROP_BUILDERS)
def test_every_place_fills_the_picture_and_ends_behind_the_camera_s_feet(place):
    for seed in range(4):
        built = place(np.random.default_rng(seed), SIGHT)
        assert built.image.shape == (SCENE_ROWS, SCENE_COLUMNS, 3)
        assert np.isfinite(built.image).all()
        assert 30 < built.image.mean() < 235
        assert built.end > 4
        assert min(built.sides) > 0


def test_things_stand_on_the_ground_before_what_ends_it(monkeypatch):
    seen = []

    def note(rng, image, place, metre, *, indoors):
        seen.append((place, metre))

    monkeypatch.setattr(background, "draw_thing", note)
    for seed in range(12):
        sample_scene(np.random.default_rng(seed))
    assert len(seen) > 20
    for (column, row), metre in seen:
        assert 0 <= column <= SCENE_COLUMNS
        assert 0 < row < SCENE_ROWS + 40
        assert FOCAL_LENGTH / 40 <= metre <= FOCAL_LENGTH / 4.5


@pytest.mark.parametrize("draw", [draw_car, draw_person])
def test_things_are_drawn_where_they_stand_and_shade_the_ground_if_asked(draw):
    for shadow in (False, True):
        image = np.full((100, 160, 3), 300, np.float32)  # brighter than any paint
        draw(np.random.default_rng(1), image, 80, 80, 30, shadow=shadow)
        touched = np.argwhere((image != 300).any(axis=2))
        assert len(touched) > 100
        assert (image[:30] == 300).all()
        below = (image[82:] != 300).any()
        assert below == shadow


def test_paints_and_materials_stay_within_what_a_screen_shows():
    rng = np.random.default_rng(0)
    for _ in range(50):
        paint = car_colour(rng)
        assert 0 < paint.min() <= paint.max() < 256
        colour = muted_colour(rng)
        assert np.ptp(colour) < 0.5 * colour.mean()  # never gaudy
    wall = material_patch(rng, np.float32([100, 110, 120]), (60, 80))
    np.testing.assert_allclose(wall.mean(axis=(0, 1)), [100, 110, 120], rtol=0.02)
    assert wall.std(axis=(0, 1)).min() > 1


def test_a_sky_is_hazy_or_blue_and_never_yellow():
    skies = [background.sample_sky(np.random.default_rng(seed)) for seed in range(5)]
    tints = [sky[..., 2].mean() / sky[..., 0].mean() for sky in skies]
    assert min(tints) >= 1
    assert max(tints) > 1.05
