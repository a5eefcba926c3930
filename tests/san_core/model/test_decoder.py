import dataclasses
import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from san_core.model.decoder import Decoder
from san_core.model.encoder import Encoder
from san_core.model.san import SAN, build_network
from san_core.recipe import Recipe, recipe_with_overrides
from san_core.recipes import get_recipe

# The demo's small encoder with the published plan of the decoder.
PUBLISHED = recipe_with_overrides(get_recipe("demo"), "skips=true decoder_width=1")


def count_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def decode(settings, batch=1):
    encoder = Encoder(settings).eval()
    decoder = Decoder(settings, encoder).eval()
    with torch.inference_mode():
        return decoder, decoder(encoder(torch.zeros(batch, 3, *settings.image_size)).maps)


def map_shapes(output):
    return [tuple(m.shape[1:]) for m in output.maps]


def test_resnet50_has_the_published_decoder():
    decoder, output = decode(Recipe(arch="resnet50"))
    assert decoder.channels == (512, 256, 64, 32, 16)
    assert output.texture.shape == (1, 3, 256, 256)
    assert map_shapes(output) == [(256, 32, 16), (64, 64, 32), (32, 128, 64), (16, 256, 128)]
    assert decoder.skip_stages == {0: 2, 1: 1, 2: 0}  # f_e3, f_e2, f_e1
    assert count_parameters(decoder) == 9_071_075  # 9.07 M, measured on the official decoder


def up_block(inputs, outputs):
    """Two 3x3 convolutions with batch norm, and a 3x3 convolution with bias."""
    return 2 * (9 * inputs**2 + 2 * inputs) + 9 * inputs * outputs + outputs


def embedding(inputs, outputs):
    """A 1x1 convolution with bias, and batch norm."""
    return inputs * outputs + outputs + 2 * outputs


@pytest.mark.parametrize(
    ("plan", "size", "channels", "gmac"),
    [
        ("published", 256, (512, 256, 64, 32, 16), 3.10),
        ("published", 64, (512, 256, 64), 2.40),
        ("light", 64, (256, 128, 64), 0.76),
        ("light", 256, (256, 128, 64, 32, 16), 1.45),
    ],
)
def test_plans_have_their_channels_parameters_and_cost(plan, size, channels, gmac):
    settings = Recipe(arch="resnet50", decoder_plan=plan, texture_size=size)
    with torch.device("meta"):  # shapes without arithmetic
        encoder = Encoder(settings).eval()
        decoder = Decoder(settings, encoder).eval()
        maps = encoder(torch.zeros(1, 3, 256, 128)).maps
        with FlopCounterMode(display=False) as counter:
            decoder(maps)
    assert decoder.channels == channels
    skips = list(zip((1024, 512, 256), channels[:-1], strict=False))
    expected = embedding(2048, channels[0]) + sum(embedding(*pair) for pair in skips)
    expected += sum(up_block(*pair) for pair in itertools.pairwise(channels))
    expected += 49 * channels[-1] * 3 + 3
    assert count_parameters(decoder) == expected
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=0.005)


def test_without_skips_the_decoder_sees_the_last_map_alone():
    settings = recipe_with_overrides(PUBLISHED, "skips=false")
    encoder = Encoder(settings).eval()
    decoder = Decoder(settings, encoder).eval()
    maps = encoder(torch.zeros(2, 3, 64, 32)).maps
    others = tuple(torch.full_like(m, 7.0) for m in maps[:3])
    assert torch.equal(decoder(maps).texture, decoder((*others, maps[3])).texture)
    with_skips = Decoder(PUBLISHED, encoder).eval()
    assert not torch.equal(with_skips(maps).texture, with_skips((*others, maps[3])).texture)


def test_up_blocks_follow_the_texture():
    small = dataclasses.replace(Recipe(arch="resnet18"), texture_size=64, decoder_width=0.5)
    decoder, output = decode(small)
    assert decoder.channels == (256, 128, 32)
    assert map_shapes(output) == [(128, 32, 16), (32, 64, 32)]
    assert output.texture.shape == (1, 3, 64, 64)


@pytest.mark.parametrize("n_blocks", [1, 2, 3, 4, 5])
def test_a_doubled_texture_takes_one_more_up_block(n_blocks):
    decoder, output = decode(recipe_with_overrides(PUBLISHED, f"texture_size={8 << n_blocks}"))
    assert len(decoder.blocks) == len(output.maps) == n_blocks
    assert output.texture.shape[-1] == 8 << n_blocks


def test_more_up_blocks_than_published_keep_the_last_width():
    decoder, output = decode(recipe_with_overrides(PUBLISHED, "texture_size=256"))
    assert decoder.channels == (128, 64, 16, 8, 4, 4)
    assert output.texture.shape == (1, 3, 256, 256)


def test_skips_match_maps_of_their_size_when_the_last_stride_is_two():
    decoder, _ = decode(recipe_with_overrides(PUBLISHED, "last_stride=2"))
    assert decoder.skip_stages == {1: 2, 2: 1}  # f_e3 and f_e2 into the second and third block


def test_the_width_is_stretched_and_the_height_is_not():
    settings = get_recipe("demo")
    encoder = Encoder(settings).eval()
    decoder = Decoder(settings, encoder).eval()
    seen = []

    def keep(module, inputs, output):
        seen.append(output)

    decoder.head.register_forward_hook(keep)
    texture = decoder(encoder(torch.zeros(1, 3, 64, 32)).maps).texture
    assert seen[0].shape == (1, 3, 32, 16)
    # align_corners: first and last columns are kept as they are
    torch.testing.assert_close(texture[..., 0], seen[0][..., 0])
    torch.testing.assert_close(texture[..., -1], seen[0][..., -1])


@pytest.mark.parametrize("size", [24, 8, 4])
def test_unreachable_textures_are_refused(size):
    message = f"texture_size {size} cannot be reached from the 8 rows .* for instance 16, 32, 64"
    with pytest.raises(ValueError, match=message):
        decode(recipe_with_overrides(get_recipe("demo"), f"texture_size={size}"))


def test_maps_too_small_for_the_head_are_refused():
    tiny = recipe_with_overrides(get_recipe("demo"), "image_height=16 image_width=8 texture_size=4")
    message = "last map has 4x2 rows and columns, too few for its 7x7 head: .* at least 4"
    with pytest.raises(ValueError, match=message):
        decode(tiny)
    _, output = decode(recipe_with_overrides(tiny, "image_width=16"))
    assert output.texture.shape == (1, 3, 4, 4)


def test_the_recipe_decides_which_parts_exist():
    san = SAN(get_recipe("demo"), num_classes=5)
    baseline = SAN(get_recipe("demo-baseline"), num_classes=5)
    generator = SAN(get_recipe("demo-pg"), num_classes=0)
    images = torch.zeros(2, 3, 64, 32)
    assert san(images).logits.shape == (2, 5)
    assert san(images).texture.shape == (2, 3, 32, 32)
    assert baseline(images).texture is None
    assert baseline(images).maps == ()
    assert generator(images).logits is None
    assert len(generator(images).maps) == 2


def test_one_seed_gives_san_and_its_baseline_the_same_encoder_and_classifier():
    san = build_network(get_recipe("demo"), num_classes=5, seed=3).state_dict()
    baseline = build_network(get_recipe("demo-baseline"), num_classes=5, seed=3).state_dict()
    assert all(torch.equal(san[name], value) for name, value in baseline.items())
    other = build_network(get_recipe("demo"), num_classes=5, seed=4).state_dict()
    assert not torch.equal(san["encoder.conv1.weight"], other["encoder.conv1.weight"])


def test_building_leaves_the_global_generators_alone(monkeypatch):
    reseeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeded.append)
    before = torch.get_rng_state()
    build_network(get_recipe("demo"), num_classes=5, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert reseeded == []


def test_a_reid_network_needs_identities():
    with pytest.raises(ValueError, match="1 training identities: a ReID recipe needs at least 2"):
        SAN(get_recipe("demo"), num_classes=1)


def test_a_generator_has_no_classifier():
    with pytest.raises(ValueError, match="no classifier, but num_classes is 4: must be 0"):
        SAN(get_recipe("demo-pg"), num_classes=4)
