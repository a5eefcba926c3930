"""Colour histograms against colorsys, against hand-made flags, and through the ranking."""

import colorsys

import numpy as np
import pytest

from san_core.evaluation import histogram, ranking
from san_core.evaluation.ranking import Labels


def flag(*colours: tuple[int, int, int]) -> np.ndarray:
    """Horizontal bands of equal height."""
    image = np.empty((96, 48, 3), np.uint8)
    for band, colour in zip(np.array_split(np.arange(96), len(colours)), colours, strict=True):
        image[band] = colour
    return image


def test_hsv_is_that_of_the_standard_library():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 20, 3)).astype(np.uint8)
    image[0, :3] = [[0, 0, 0], [255, 255, 255], [80, 80, 80]]
    found = np.stack(histogram.rgb_to_hsv(image), axis=-1).reshape(-1, 3)
    expected = [colorsys.rgb_to_hsv(*(rgb / 255)) for rgb in image.reshape(-1, 3)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_colour_falls_into_a_bin():
    steps = np.array([0, 1, 2, 84, 85, 86, 127, 128, 169, 170, 171, 253, 254, 255], np.uint8)
    image = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 14, 3)
    hue, saturation, value = histogram.rgb_to_hsv(image)
    assert ((hue >= 0) & (hue < 1)).all()
    for channel in (saturation, value):
        assert ((channel >= 0) & (channel <= 1)).all()


def test_each_stripe_counts_its_own_colours():
    red, blue = (255, 0, 0), (0, 0, 255)
    (feature,) = histogram.histogram_features([flag(red, red, red, blue, blue, blue)])
    filled = np.flatnonzero(feature)
    # Saturation and value are 1, bin 3 of 4; red is hue 0 of 8 bins, blue hue 2/3: bin 5.
    red_bin, blue_bin = (0 * 4 + 3) * 4 + 3, (5 * 4 + 3) * 4 + 3
    assert filled.tolist() == [128 * i + (red_bin if i < 3 else blue_bin) for i in range(6)]
    np.testing.assert_allclose(feature[filled], np.sqrt(1 / 6), rtol=1e-6)


def test_the_squared_distance_is_two_less_twice_the_bhattacharyya_coefficient():
    red, blue = (255, 0, 0), (0, 0, 255)
    a, b = histogram.histogram_features([flag(red, red), flag(red, blue)])
    # Three of six stripes agree: BC = 3 * 1/6.
    assert np.square(a - b).sum() == pytest.approx(2 - 2 * 0.5, abs=1e-6)


def test_features_have_length_one_whatever_the_image_size():
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in [(128, 64), (31, 77)]]
    found = histogram.histogram_features(images)
    assert found.shape == (2, histogram.DIMENSIONS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)


def test_the_street_beside_the_person_does_not_count():
    person = flag((255, 0, 0))
    elsewhere = person.copy()
    elsewhere[:, :12] = elsewhere[:, 36:] = (0, 200, 90)
    a, b = histogram.histogram_features([person, elsewhere])
    np.testing.assert_array_equal(a, b)


def test_people_in_other_clothes_are_distinguished():
    rng = np.random.default_rng(2)
    clothes = [((200, 30, 30), (20, 20, 120)), ((30, 160, 60), (90, 90, 90)), ((240, 220, 40),) * 2]
    pids = np.repeat([1, 2, 3], 4)
    noise = rng.integers(-15, 15, (12, 96, 48, 3))
    images = [
        np.clip(flag(*clothes[pid - 1]) + n, 0, 255).astype(np.uint8)
        for pid, n in zip(pids, noise, strict=True)
    ]
    found = histogram.histogram_features(images)
    cameras = Labels(pids, np.tile(np.arange(4), 3))
    assert ranking.rank(found, found, query=cameras, gallery=cameras).mAP == 1


def test_no_images_give_no_features():
    assert histogram.histogram_features([]).shape == (0, histogram.DIMENSIONS)


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3))])
def test_what_is_no_rgb_image_is_refused(image):
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\), RGB"):
        histogram.histogram_features([image])
