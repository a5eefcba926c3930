import numpy as np
import torch

from san_core.data.batches.dense import dense_targets
from san_core.data.batches.draws import Draws
from san_core.recipe import recipe_with_overrides
from san_core.recipes import get_recipe

RECIPE = recipe_with_overrides(get_recipe("pit-small"), "texture_from=copy w_dense=1")
MIRROR = torch.from_numpy(np.random.default_rng(0).permutation(256 * 256))


def maps(count=2, height=4, width=3):
    told = np.random.default_rng(1).integers(0, 256, (count, height, width, 3))
    return torch.from_numpy(told.astype(np.uint8))


def drawn(count=2, flipped=(), boxes=None):
    empty = torch.zeros(0, dtype=torch.int64)
    nothing = torch.zeros(count, 4, dtype=torch.int64)
    return Draws(
        torch.tensor(flipped, dtype=torch.int64),
        empty,
        torch.zeros(count, 2, dtype=torch.int64),
        nothing if boxes is None else torch.tensor(boxes),
        torch.full((count, 3), 1000),
    )


def test_a_pixel_shows_the_texel_of_its_red_column_and_green_row():
    told = maps()
    targets = dense_targets(told, drawn(), RECIPE, texel_mirror=MIRROR)
    assert targets.texels[1, 2, 1] == int(told[1, 2, 1, 1]) * 256 + int(told[1, 2, 1, 0])
    torch.testing.assert_close(targets.covered, told[..., 2] / 255)
    assert targets.keep.all()


def test_a_mirrored_image_shows_the_mirrored_texels_from_the_other_side():
    told = maps()
    straight = dense_targets(told, drawn(), RECIPE, texel_mirror=MIRROR)
    targets = dense_targets(told, drawn(flipped=[1]), RECIPE, texel_mirror=MIRROR)
    assert torch.equal(targets.texels[0], straight.texels[0])
    assert targets.texels[1, 3, 0] == MIRROR[straight.texels[1, 3, 2]]
    assert torch.equal(targets.covered[1], straight.covered[1].flip(1))
    assert targets.keep.all()


def test_mirrored_images_are_left_out_where_the_mirror_is_not_known():
    targets = dense_targets(maps(), drawn(flipped=[1]), RECIPE, texel_mirror=None)
    assert targets.keep.tolist() == [True, False]


def test_erased_boxes_show_no_person():
    told = maps()
    boxes = [[0, 0, 0, 0], [1, 0, 3, 2]]  # rows 1 and 2, columns 0 and 1
    targets = dense_targets(told, drawn(boxes=boxes), RECIPE, texel_mirror=MIRROR)
    expected = told[..., 2] / 255
    expected[1, 1:3, :2] = 0
    torch.testing.assert_close(targets.covered, expected)
