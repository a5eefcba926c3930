"""Cameras, places and occluders."""

import numpy as np
import pytest

from san_core.synthesis.camera.camera import (
    SCENES_PER_CAMERA,
    Sensor,
    make_camera,
    make_scene,
    sample_pit_sensor,
)
from san_core.synthesis.difficulty import DIFFICULTIES
from san_core.synthesis.place.background import (
    SCENE_COLUMNS,
    SCENE_ROWS,
    Scene,
    crop_scene,
    sample_scene,
)
from san_core.synthesis.place.materials import fractal_noise
from san_core.synthesis.place.occluder import OCCLUDERS, draw_occluder

NORMAL = DIFFICULTIES["normal"]
PERFECT = Sensor(gains=(1.0, 1.0, 1.0), gamma=1.0, resolution=1.0, blur=0.0, noise=0.0)


def gradient():
    ramp = np.linspace(0, 255, 64, dtype=np.float32)
    return np.repeat(np.tile(ramp[:, None, None], (1, 32, 1)), 3, axis=2)


def test_a_perfect_sensor_keeps_the_image():
    shown = PERFECT.develop(np.random.default_rng(0), gradient())
    np.testing.assert_array_equal(shown, gradient().astype(np.uint8))


def test_gains_and_gamma_change_colours_as_written():
    sensor = Sensor(gains=(0.5, 1.0, 1.0), gamma=2.0, resolution=1.0, blur=0.0, noise=0.0)
    shown = sensor.develop(np.random.default_rng(0), np.full((32, 16, 3), 200, np.float32))
    # 255 * (100 / 255)^2 = 39.2 and 255 * (200 / 255)^2 = 156.9
    assert (shown == [39, 157, 157]).all()


def test_low_resolution_and_blur_lose_fine_detail():
    checks = (np.indices((64, 32)).sum(axis=0) % 2 * 255.0).astype(np.float32)
    image = np.repeat(checks[..., None], 3, axis=2)
    for sensor in (
        Sensor((1.0, 1.0, 1.0), 1.0, resolution=0.5, blur=0.0, noise=0.0),
        Sensor((1.0, 1.0, 1.0), 1.0, resolution=1.0, blur=0.03, noise=0.0),
    ):
        assert sensor.develop(np.random.default_rng(0), image).std() < 0.3 * image.std()


def test_noise_has_the_deviation_asked_for():
    sensor = Sensor((1.0, 1.0, 1.0), 1.0, resolution=1.0, blur=0.0, noise=4.0)
    grey = np.full((128, 64, 3), 128, np.float32)
    assert sensor.develop(np.random.default_rng(0), grey).std() == pytest.approx(4, rel=0.05)


def test_photographs_keep_their_colours():
    sensor = sample_pit_sensor(np.random.default_rng(0))
    assert (sensor.gains, sensor.gamma) == ((1.0, 1.0, 1.0), 1.0)


def test_cameras_differ_and_stay_themselves():
    first, second = make_camera(1, 0, NORMAL), make_camera(1, 1, NORMAL)
    assert first != second
    make_camera.cache_clear()
    assert make_camera(1, 0, NORMAL) == first
    assert len(first.lights) == SCENES_PER_CAMERA


@pytest.mark.parametrize("index", range(3))
def test_a_camera_sees_people_from_its_own_side_height_and_distance(index):
    one, rng = make_camera(3, index, NORMAL), np.random.default_rng(0)
    views = [one.sample_view(rng) for _ in range(400)]
    assert np.mean([v.elevation for v in views]) == pytest.approx(one.elevation, abs=0.01)
    assert np.mean([v.distance for v in views]) == pytest.approx(1.025 * one.distance, rel=0.02)
    # Going or coming: a half turn, which doubling the angle leaves out. Of normal angles of
    # deviation s the mean of exp(2i a) is exp(-2 s^2).
    along = np.mean([np.exp(2j * (v.azimuth - one.azimuth)) for v in views])
    assert along == pytest.approx(np.exp(-2 * one.spread**2), abs=0.12)
    coming = np.mean([np.cos(v.azimuth - one.azimuth) > 0 for v in views])
    assert 0.5 < coming < 0.8


def test_cameras_resolve_less_where_it_is_harder():
    for level in DIFFICULTIES.values():
        resolved = [make_camera(2, index, level).sensor.resolution for index in range(9)]
        assert level.low_resolution < min(resolved) < max(resolved) < 1
        assert np.ptp(resolved) > 0.4 * (1 - level.low_resolution)


def test_a_cameras_places_differ_from_each_other_and_from_other_cameras():
    images = [make_scene(1, place, number).image for place in (-1, 0, 1) for number in (0, 1)]
    for i, image in enumerate(images):
        assert all(np.abs(image.astype(int) - other).mean() > 8 for other in images[:i])


def test_harder_cameras_disagree_more_about_colour():
    def disagreement(level):
        return np.std([make_camera(2, index, level).sensor.gains for index in range(9)])

    easy, normal, hard = (disagreement(level) for level in DIFFICULTIES.values())
    assert easy < normal < hard


def test_a_scene_is_uneven_everywhere_and_neither_black_nor_white():
    for seed in range(4):
        place = sample_scene(np.random.default_rng(seed))
        assert place.image.shape == (SCENE_ROWS, SCENE_COLUMNS, 3)
        assert 0 < place.horizon < SCENE_ROWS
        assert 40 < place.image.mean() < 215
        tiles = place.image.reshape(8, SCENE_ROWS // 8, 8, SCENE_COLUMNS // 8, 3).astype(float)
        assert tiles.std(axis=(1, 3)).min() > 1


def test_a_crop_puts_the_horizon_where_it_is_asked_for():
    image = np.zeros((SCENE_ROWS, SCENE_COLUMNS, 3), np.uint8)
    image[100:] = 200
    rng = np.random.default_rng(0)
    for wanted in (20, 30):
        piece = crop_scene(Scene(image, 100), rng, size=(128, 64), horizon=wanted)
        assert piece.shape == (128, 64, 3)
        assert np.flatnonzero(piece[:, 0, 0] > 100)[0] == pytest.approx(wanted, abs=2)


def test_a_crop_with_the_horizon_far_above_shows_ground_alone():
    image = np.zeros((SCENE_ROWS, SCENE_COLUMNS, 3), np.uint8)
    image[60:] = 200
    piece = crop_scene(Scene(image, 60), np.random.default_rng(0), size=(128, 64), horizon=-500)
    assert (piece == 200).all()


def test_unevenness_has_mean_0_and_deviation_1():
    noise = fractal_noise(np.random.default_rng(0), (90, 70))
    assert noise.mean() == pytest.approx(0, abs=1e-4)
    assert noise.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("occluder", OCCLUDERS)
def test_occluders_hide_a_part_and_leave_a_part(occluder):
    for seed in range(5):
        image = np.full((128, 64, 3), -1, np.float32)
        occluder(np.random.default_rng(seed), image)
        hidden = (image != -1).all(axis=-1).mean()
        assert 0.01 < hidden < 0.75
        assert image.max() <= 255


def test_occlusion_leaves_what_it_does_not_hide_as_it_is():
    for seed in range(12):
        before = np.random.default_rng(99).uniform(0, 255, (128, 64, 3)).astype(np.float32)
        after = before.copy()
        draw_occluder(np.random.default_rng(seed), after)
        untouched = (after == before).all(axis=2).mean()
        assert 0.1 < untouched < 0.99


def test_grain_differs_from_picture_to_picture():
    sensor = Sensor((1.0, 1.0, 1.0), 1.0, resolution=1.0, blur=0.0, noise=4.0)
    grey, rng = np.full((64, 32, 3), 128, np.float32), np.random.default_rng(0)
    first, second = sensor.develop(rng, grey), sensor.develop(rng, grey)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1
