import pytest
import torch
from torch.nn import functional

from san_core.model.copying import _attention, _TexelMeans
from san_core.model.fixed_order import sample_in_fixed_order
from san_core.model.san import build_network
from san_core.recipe import recipe_with_overrides
from san_core.recipes import get_recipe

COPYING = recipe_with_overrides(
    get_recipe("pit-small"), "image_height=64 image_width=32 texture_from=copy"
)


def network(words=""):
    settings = recipe_with_overrides(COPYING, words)
    return build_network(settings, num_classes=0, seed=0).eval(), settings


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_texture_has_its_texels_and_what_it_regresses_a_texel_a_query():
    model, _ = network("texture_size=128")
    made = model(noise(2, 3, 64, 32))
    assert made.texture.shape == (2, 3, 128, 128)
    assert made.copied.texture is made.texture
    assert made.copied.regressed.shape == made.copied.attended.shape == (2, 3, 16, 16)
    assert made.copied.places.shape == (2, 2, 128, 128)
    assert made.copied.seen.shape == (2, 1, 16, 16)
    assert made.copied.person.shape == (2, 1, 16, 8)  # f_e2, of a cell of 4x4 pixels


def test_attention_sums_to_one_and_is_low_on_background():
    queries, keys = noise(1, 4, 2, 2), noise(1, 4, 2, 3)
    person = torch.tensor([[20.0, -20, 20], [20, 20, 20]])[None, None]
    paid = _attention(queries, keys, person)
    assert paid.shape == (1, 4, 6)
    torch.testing.assert_close(paid.sum(dim=2), torch.ones(1, 4))
    assert paid[..., 1].max() < 1e-7
    # the others by softmax of the products, divided by the root of the length
    products = torch.einsum("dq,dc->qc", queries[0].flatten(1), keys[0].flatten(1)) / 2
    products[:, 1] = -torch.inf
    torch.testing.assert_close(paid[0], products.softmax(dim=1))


@pytest.mark.parametrize("times", [1, 2, 4, 8])
def test_texels_begin_as_bilinear_enlarging(times):
    values = noise(2, 3, 8, 8)
    enlarged = _TexelMeans(8, 8 * times)(values)
    expected = functional.interpolate(values, scale_factor=times, mode="bilinear")
    torch.testing.assert_close(enlarged, expected)


def test_a_texel_takes_the_share_it_has_of_each_query_around_it():
    enlarge = _TexelMeans(4, 8)
    with torch.no_grad():
        enlarge.shares.zero_()
        enlarge.shares[5, 1, 2] = 3.0  # query (1, 1), its texel (0, 1), from the query (0, 2)
    made = enlarge(torch.arange(16.0).view(1, 1, 4, 4))[0, 0]
    assert made[2, 3] == 3 * 2
    assert made.abs().sum() == 6


def test_sampling_in_fixed_order_finds_what_torch_finds():
    picture, places = noise(2, 3, 12, 7), 1.3 * noise(2, 2, 5, 5)
    twin = places.clone()
    for tensor in (places, twin):
        tensor.requires_grad_()
    found = sample_in_fixed_order(picture, places)
    expected = functional.grid_sample(
        picture, twin.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(places.grad, twin.grad)


def test_a_deterministic_network_paints_what_others_paint():
    images = noise(1, 3, 64, 32)
    made, twin = (network(words)[0](images).texture for words in ("", "deterministic=true"))
    torch.testing.assert_close(made, twin, atol=1e-4, rtol=1e-4)


def test_half_precision_paints_nearly_the_same():
    model, _ = network()
    images = noise(2, 3, 64, 32)
    with torch.no_grad():
        whole = model(images).texture
        with torch.autocast("cpu", torch.bfloat16):
            half = model(images)
    assert half.texture.dtype == half.copied.places.dtype == torch.float32
    assert (half.texture - whole).abs().mean() < 0.02 * whole.std()


def test_texels_that_are_seen_have_the_colour_of_the_picture_at_their_place():
    model, _ = network()
    copying = model.decoder.copying
    red = torch.tensor([200.0, 30, 40]) / 127.5 - 1
    with torch.no_grad():
        copying.tell_query[3].bias[2] = 30.0  # all is seen
    images = ((red + 1) / 2 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    made = model(images[None, :, None, None].expand(2, -1, 64, 32)).texture
    torch.testing.assert_close(made, red[None, :, None, None].expand_as(made), atol=1e-4, rtol=0)


def test_every_weight_of_a_copying_decoder_is_taught():
    model, _ = network()
    model.train()
    with torch.no_grad():
        for layer in (model.decoder.copying.tell_query[3], model.decoder.copying.tell_light):
            layer.weight.add_(0.01)  # zeros hide what comes before
    model(noise(4, 3, 64, 32)).texture.square().mean().backward()
    idle = [n for n, p in model.decoder.named_parameters() if p.grad is None or not p.grad.any()]
    # a convolution before batch normalisation needs no offset
    assert [name for name in idle if not name.endswith("bias")] == []
