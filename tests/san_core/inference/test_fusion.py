import numpy as np
import pytest

from san_core.inference.fusion import fuse_textures, views_that_see_most
from san_core.inference.network import SeenTexture


def view(colour, seen, side=2):
    return SeenTexture(
        np.full((side, side, 3), colour, np.uint8), np.full((side, side), seen, np.uint8)
    )


def test_a_texel_is_the_mean_weighted_by_the_square_of_what_is_seen():
    expected = round((200 * 240**2 + 50 * 80**2) / (240**2 + 80**2))
    assert (fuse_textures([view(200, 240), view(50, 80)]) == expected).all()


def test_what_one_picture_hides_comes_from_another():
    front, back = view(200, 255), view(20, 0)
    front.seen[1], back.seen[1] = 0, 255
    fused = fuse_textures([front, back])
    assert (fused[0] == 200).all()
    assert (fused[1] == 20).all()


def test_what_all_hide_is_the_mean():
    assert (fuse_textures([view(100, 0), view(50, 3)]) == 75).all()


def test_the_order_of_views_is_no_matter():
    rng = np.random.default_rng(0)
    views = [
        SeenTexture(
            rng.integers(0, 256, (8, 8, 3), np.uint8), rng.integers(0, 256, (8, 8), np.uint8)
        )
        for _ in range(5)
    ]
    assert np.array_equal(fuse_textures(views), fuse_textures(views[::-1]))


def test_one_view_stays_as_it_is():
    only = view(77, 3)
    assert np.array_equal(fuse_textures([only]), only.texture)
    with pytest.raises(ValueError, match="there is no texture to fuse"):
        fuse_textures([])


def test_the_views_that_see_most_keep_their_order():
    assert views_that_see_most([0.5, 0.1, 0.9, 0.5, 0.2], 3) == [0, 2, 3]
