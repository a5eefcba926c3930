import pytest
import torch
from torch import nn

from san_core.model.fixed_order import FixedOrderReflectionPad, FixedOrderUpsample
from san_core.model.san import build_network
from san_core.recipe import recipe_with_overrides
from san_core.recipes import get_recipe

MAPS = torch.randn(2, 3, 8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float32)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(16, 10), (16, 16)])
def test_it_enlarges_as_torch_does_with_the_same_gradient(size, align_corners):
    ours = FixedOrderUpsample((8, 5), size, align_corners=align_corners)
    torchs = nn.Upsample(size=size, mode="bilinear", align_corners=align_corners)
    compare(ours, torchs)


@pytest.mark.parametrize("margin", [1, 3])
def test_it_pads_as_torch_does_with_the_same_gradient(margin):
    compare(FixedOrderReflectionPad(margin), nn.ReflectionPad2d(margin))


def compare(ours, torchs):
    made, gradients = [], []
    for module in (ours, torchs):
        x = MAPS.clone().requires_grad_()
        made.append(module(x))
        (made[-1] ** 2).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*made, rtol=0, atol=1e-6)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


def test_a_deterministic_decoder_has_the_same_weights_and_textures_as_the_other():
    plain = get_recipe("demo")
    networks = [
        build_network(settings, num_classes=2, seed=0).eval()
        for settings in (plain, recipe_with_overrides(plain, "deterministic=true"))
    ]
    states = [network.state_dict() for network in networks]
    assert states[0].keys() == states[1].keys()
    images = torch.randn(2, 3, *plain.image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        textures = [network(images).texture for network in networks]
    torch.testing.assert_close(*textures, rtol=0, atol=1e-5)


def test_half_precision_does_not_round_the_shares_of_neighbours():
    ours = FixedOrderUpsample((8, 5), (16, 16), align_corners=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        enlarged = ours(MAPS.bfloat16())
    assert torch.equal(enlarged, ours(MAPS.bfloat16().float()))


def test_a_deterministic_decoder_has_no_layer_that_adds_up_as_threads_arrive():
    settings = recipe_with_overrides(get_recipe("demo"), "deterministic=true")
    decoder = build_network(settings, num_classes=2, seed=0).decoder
    assert not [m for m in decoder.modules() if isinstance(m, nn.Upsample | nn.ReflectionPad2d)]
