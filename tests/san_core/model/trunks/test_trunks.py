"""Every encoder of the recipes, by its table, its published counts and torchvision's own values."""

from typing import get_args

import pytest
import torch
import torchvision
from torchvision.ops import StochasticDepth

from san_core.model.decoder import Decoder
from san_core.model.encoder import Encoder
from san_core.model.san import build_network
from san_core.model.sizes import encoder_channels, encoder_strides
from san_core.model.weights import load_pretrained
from san_core.recipe import NO_IMAGENET, Arch, Recipe
from tests.benchmarks.groups import encoders

# B of 2 images of 256x128, on the meta device, where a network has shapes and no numbers
ARCHS = get_args(Arch)
# the smallest of each family beside the ResNets, and how often torchvision leaves out branches
SMALLEST = {"convnext_tiny": 0.1, "swin_t": 0.2, "swin_v2_t": 0.2}
EVERYDAY = ["resnet18", "resnext50_32x4d", "resnet18_ibn_a", *SMALLEST]
LARGER = [
    pytest.param(arch, marks=pytest.mark.slow)
    for arch in ARCHS
    if arch not in ("resnet10_quarter", *EVERYDAY)
]


def recipe_of(arch, **fields):
    plain = {"last_stride": 1 if arch.startswith(("res", "wide")) else 2, "embedding": "pool"}
    return Recipe(arch=arch, **{**plain, **fields})


@pytest.mark.parametrize("arch", [*EVERYDAY, *LARGER])
def test_maps_and_parameters_are_those_of_the_table_and_of_torchvision(arch):
    recipe = recipe_of(arch)
    with torch.device("meta"):
        encoder = Encoder(recipe)
        maps = encoder.stage_maps(torch.zeros(2, 3, 256, 128))
        texture = Decoder(recipe, encoder)(maps).texture
    table = zip(encoder_channels(recipe), encoder_strides(recipe), strict=True)
    assert [tuple(one.shape) for one in maps] == [(2, c, 256 // s, 128 // s) for c, s in table]
    assert texture.shape == (2, 3, 256, 256)
    published = torchvision.models.get_model_weights(arch.removesuffix("_ibn_a"))
    classifier = 1000 * (encoder.channels[3] + 1)
    found = sum(parameter.numel() for parameter in encoder.parameters())
    assert found + classifier == published.IMAGENET1K_V1.meta["num_params"]


def test_imagenet_weights_are_there_for_all_but_those_that_say_so():
    ours = {arch for arch in ARCHS if arch not in torchvision.models.list_models()}
    assert ours == set(NO_IMAGENET)


@pytest.mark.parametrize("arch", SMALLEST)
def test_published_weights_give_the_published_maps(arch, tmp_path):
    # a neck's weight is called as a Swin's classifier is
    fields = {"embedding": "bnneck", "w_rec": 0.0, "image_height": 64, "image_width": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        published = torchvision.models.get_model(arch, weights=None).eval()
        images = torch.randn(2, 3, 64, 32)
    torch.save(published.state_dict(), tmp_path / "published.pth")
    model = build_network(recipe_of(arch, **fields), num_classes=2, seed=0).eval()
    load_pretrained(model, str(tmp_path / "published.pth"))
    with torch.inference_mode():
        found = model.encoder.stage_maps(images)
        x, expected = images, []
        for i, layer in enumerate(published.features):
            x = layer(x)
            if i % 2:
                expected.append(x)
        if recipe_of(arch).family == "swin":
            expected[3] = published.norm(expected[3])
            expected = [one.permute(0, 3, 1, 2) for one in expected]
        else:
            expected[3] = published.classifier[0](expected[3])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("arch", "probability"), SMALLEST.items())
def test_branches_are_left_out_the_more_often_the_deeper_they_lie(arch, probability):
    with torch.device("meta"):
        kept, dropped = (Encoder(recipe_of(arch, drop_path=p)) for p in (0.0, probability))
        published = torchvision.models.get_model(arch, weights=None)
    found, expected = (
        [module.p for module in network.modules() if isinstance(module, StochasticDepth)]
        for network in (dropped, published)
    )
    assert found == pytest.approx(expected)
    assert not any(module.p for module in kept.modules() if isinstance(module, StochasticDepth))


@pytest.mark.parametrize("arch", SMALLEST)
def test_images_that_do_not_divide_are_refused(arch):
    message = f"images of 240x128 do not divide by 32, the stride of {arch}: choose image_height"
    with pytest.raises(ValueError, match=message):
        Encoder(recipe_of(arch, image_height=240))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("base", encoders.TEXTURES.values())
@pytest.mark.parametrize("arch", SMALLEST)
def test_two_epochs_stopped_and_resumed_end_with_the_same_bytes(arch, base):
    assert encoders.resumes_with_the_same_bytes(encoders.tiny_recipe_of(arch, base))


@pytest.mark.slow
@pytest.mark.parametrize("arch", SMALLEST)
def test_an_exported_encoder_embeds_as_the_network(arch, tmp_path):
    recipe = encoders.tiny_recipe_of(arch, "demo-baseline")
    assert encoders.onnx_error(recipe, tmp_path) < 1e-4  # of the deviation of embeddings
