import dataclasses

import pytest
import torch

from san_core.model.encoder import Encoder
from san_core.model.san import SAN
from san_core.recipe import Recipe, recipe_with_overrides
from san_core.recipes import get_recipe


def count_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def shapes(encoder, image_size, batch=2):
    with torch.inference_mode():
        output = encoder.eval()(torch.zeros(batch, 3, *image_size))
    return output.embedding.shape, [tuple(m.shape[1:]) for m in output.maps]


def test_resnet50_has_the_published_maps_and_parameters():
    encoder = Encoder(Recipe(arch="resnet50"))
    embedding, maps = shapes(encoder, (256, 128))
    assert embedding == (2, 512)
    assert maps == [(256, 64, 32), (512, 32, 16), (1024, 16, 8), (2048, 16, 8)]
    head = count_parameters(encoder.head)
    assert head == 2048 * 512 + 512 + 2 * 512  # 1.05 M: linear, bias, batch norm
    assert count_parameters(encoder) - head == 23_508_032  # 23.51 M, torchvision's less its fc


def test_resnet50_with_the_classes_of_cuhk03_has_the_published_size():
    with torch.device("meta"):
        model = SAN(get_recipe("cuhk03-baseline"), num_classes=767)
    classifier = 512 * 767 + 767
    assert count_parameters(model) == 23_508_032 + 2048 * 512 + 3 * 512 + classifier  # 24.95 M


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet10_quarter"])
def test_the_last_stride_is_one_for_basic_blocks_too(arch):
    small = Recipe(arch=arch, image_height=64, image_width=32, texture_size=64)
    for stride in (1, 2):
        encoder = Encoder(dataclasses.replace(small, last_stride=stride))
        maps = shapes(encoder, (64, 32))[1]
        rows = [64 // s for s in encoder.strides]
        assert [m[1] for m in maps] == rows
        assert rows[2] == stride * rows[3]
        assert [m[0] for m in maps] == list(encoder.channels)


def test_the_quarter_network_sees_small_images():
    encoder = Encoder(get_recipe("demo"))
    embedding, maps = shapes(encoder, (64, 32))
    assert embedding == (2, 128)
    assert maps == [(16, 32, 16), (32, 16, 8), (64, 8, 4), (128, 8, 4)]


def test_the_pooled_embedding_is_the_mean_of_the_last_map():
    encoder = Encoder(recipe_with_overrides(get_recipe("demo"), "embedding=pool")).eval()
    images = torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    output = encoder(images)
    assert output.embedding.shape == (3, 128)
    torch.testing.assert_close(output.embedding, output.maps[3].flatten(2).mean(dim=2))


def test_the_fc512_embedding_is_not_negative():
    images = torch.randn(4, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    embedding = Encoder(get_recipe("demo"))(images).embedding
    assert embedding.min() == 0
    assert embedding.max() > 0


def test_images_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="images of 60x32 do not divide by 8, the stride of resn"):
        Encoder(recipe_with_overrides(get_recipe("demo"), "image_height=60"))
