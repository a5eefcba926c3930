"""The body that wears a texture, from the front and from behind."""

import numpy as np
import pytest

from san_core.synthesis.mannequin import STRIP_HEIGHT, strip_width, texture_strip, wear_texture
from san_core.synthesis.person.atlas import ATLAS_NAME


def texture(side, colour=(200, 20, 20)):
    return np.full((side, side, 3), colour, np.uint8)


def person(image):
    """The pixels of a picture that are neither ground nor shadow, which are grey."""
    spread = image.max(axis=2).astype(int) - image.min(axis=2)
    return image[spread > 40]


def test_a_body_wears_the_colours_of_its_texture_on_both_sides():
    front, back = wear_texture(texture(64), (128, 64))
    assert front.shape == back.shape == (128, 64, 3)
    for image in (front, back):
        seen = person(image)
        assert 1000 < len(seen) < 4000
        red, green = seen[:, 0].astype(int), seen[:, 1].astype(int)
        assert (red > green + 40).all()  # edges are mixed with the white ground
        assert np.mean(red > 4 * green) > 0.8
        assert (image[0] == 255).all()
    assert not np.array_equal(front, back)


def test_the_same_texture_gives_the_same_bytes_at_any_whole_multiple():
    small = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    one, two = wear_texture(small, (64, 32)), wear_texture(small, (64, 32))
    large = wear_texture(small.repeat(16, axis=0).repeat(16, axis=1), (64, 32))  # 512 texels
    for each in zip(one, two, large, strict=True):
        assert np.array_equal(each[0], each[1])
        assert np.array_equal(each[0], each[2])


@pytest.mark.parametrize("shape", [(100, 100), (64, 32)])
def test_a_texture_of_any_other_size_is_worn_too(shape):
    front, _ = wear_texture(np.full((*shape, 3), (200, 20, 20), np.uint8), (64, 32))
    assert len(person(front)) > 250


@pytest.mark.parametrize(("atlas", "bodies"), [(ATLAS_NAME, 2), ("another", 0), (None, 0)])
def test_a_strip_has_a_body_where_the_layout_is_known(atlas, bodies):
    strip = texture_strip(np.zeros((40, 20, 3), np.uint8), texture(64), atlas=atlas)
    assert strip.shape == (STRIP_HEIGHT, strip_width(atlas), 3)
    assert strip.shape[1] == 64 + 2 + 128 + bodies * (2 + 64)
    assert (strip[:, :64] == 0).all()
    assert (strip[:, 66:194] == (200, 20, 20)).all()
    assert bool(len(person(strip[:, 194:]))) == bool(bodies)
