"""L*a*b*: published colours, round trips, and constant hues."""

import numpy as np
import pytest

from san_core.images.lab import colour_of, lab_to_rgb, most_chroma, rgb_to_lab


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),  # as brucelindbloom.com's calculator has them
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
    ],
)
def test_colours_have_the_published_values(rgb, lab):
    assert rgb_to_lab(rgb) == pytest.approx(lab, abs=0.02)


def test_every_colour_comes_back():
    colours = np.random.default_rng(0).uniform(0, 255, (500, 3))
    assert np.abs(lab_to_rgb(rgb_to_lab(colours)) - colours).max() < 0.05


def test_the_most_vivid_colour_is_one_that_there_is_and_hardly_a_more_vivid_one():
    for lightness, hue in ((30, 0.7), (60, 2.4), (85, 1.7), (45, 5.2)):
        chroma = most_chroma(lightness, hue)
        for reach, is_inside in ((chroma, True), (chroma + 2, False)):
            rgb = lab_to_rgb([lightness, reach * np.cos(hue), reach * np.sin(hue)])
            assert (rgb.min() > -1 and rgb.max() < 256) == is_inside


def test_a_colour_is_of_the_lightness_and_the_hue_asked_for():
    for hue in np.deg2rad(range(0, 360, 15)):
        lightness, a, b = rgb_to_lab(colour_of(60, hue, vividness=0.7))
        assert lightness == pytest.approx(60, abs=0.3)
        assert abs(np.angle(np.exp(1j * (np.arctan2(b, a) - hue)))) < 0.02
    assert rgb_to_lab(colour_of(60, 1.0, vividness=0))[1:] == pytest.approx((0, 0), abs=0.02)
