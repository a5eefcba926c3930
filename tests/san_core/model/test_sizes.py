"""Sizes that fit a network agree with the network itself."""

import pytest
import torch

from san_core.model.decoder import Decoder
from san_core.model.encoder import Encoder
from san_core.model.sizes import check_sizes, encoder_strides
from san_core.recipe import Recipe, recipe_with_overrides
from san_core.recipes import RECIPES, get_recipe


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("arch", ["resnet10_quarter", "resnet18", "resnet50"])
def test_strides_are_those_of_the_maps(arch, stride):
    recipe = Recipe(arch=arch, last_stride=stride, image_height=128, image_width=64)
    with torch.device("meta"):
        maps = Encoder(recipe).stage_maps(torch.zeros(1, 3, 128, 64))
    assert encoder_strides(recipe) == tuple(128 // one.shape[2] for one in maps)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fits(name):
    check_sizes(get_recipe(name))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("image_height=60", "images of 60x32 do not divide by 8, the stride of resnet10_quarter"),
        (
            "texture_from=copy copy_queries=4",
            "copy_queries 4 cannot be reached from the 8 rows of f_e4",
        ),
        ("texture_size=24", "texture_size 24 cannot be reached from the 8 rows of f_e4"),
        ("image_height=16 image_width=8 texture_size=4", "last map has 4x2 rows and columns"),
    ],
)
def test_what_does_not_fit_is_refused_before_and_by_the_network(overrides, message):
    recipe = recipe_with_overrides(get_recipe("demo"), overrides)
    with pytest.raises(ValueError, match=message):
        check_sizes(recipe)
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        Decoder(recipe, Encoder(recipe))


def test_without_a_decoder_any_texture_fits():
    check_sizes(recipe_with_overrides(get_recipe("demo-baseline"), "texture_size=24"))
