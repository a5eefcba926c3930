"""SA-Dec: regresses the person's full UV texture from the encoder's maps (paper, Figure 2).

Architecture of the official code (main.py, ConvResDecoder), with the number of up-blocks and the
channels following the encoder and the texture instead of being written out for ResNet-50.
Legend: B batch, C channels, T texels a side of the texture.
"""

import itertools
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from san_core.model.copying import Copied, Copying
from san_core.model.encoder import Encoder, Maps
from san_core.model.fixed_order import FixedOrderReflectionPad, FixedOrderUpsample
from san_core.model.sizes import HEAD_KERNEL, decoder_doublings
from san_core.recipe import Recipe

# Channels at the decoder's input and after each up-block, in units of the encoder's base width,
# which is 64 for every torchvision ResNet. A 64x64 texture of a 256x128 image takes the first two
# blocks: light, they cost a quarter of what the published four cost for 256x256.
_CHANNEL_PLANS: dict[str, tuple[float, ...]] = {
    "published": (8.0, 4.0, 1.0, 0.5, 0.25),  # 512-256-64-32-16
    "light": (4.0, 2.0, 1.0, 0.5, 0.25),  # 256-128-64-32-16
}


class DecoderOutput(NamedTuple):
    """The decoder's output for a batch."""

    texture: Tensor  # (B, 3, T, T), RGB, meant in [-1, 1] but not bounded (no tanh, as published)
    maps: tuple[Tensor, ...]  # f_d1 ... f_dn, (B, C_i, rows, columns), before any activation
    copied: Copied | None = None  # for recipes with texture_from="copy"


class Decoder(nn.Module):
    """1x1 reduction of f_e4, residual up-blocks doubling the map, a 7x7 head, a width stretch.

    Attributes:
        channels: of the decoder's input and of every up-block's output.

    Raises ValueError if the texture is not the height of f_e4 times a power of two, or the map
    before the head is too small for its reflection padding.
    """

    def __init__(self, recipe: Recipe, encoder: Encoder) -> None:
        super().__init__()
        n_blocks = decoder_doublings(recipe)
        base = 16 if recipe.arch == "resnet10_quarter" else 64
        widths = _CHANNEL_PLANS[recipe.decoder_plan]
        plan = [widths[min(i, len(widths) - 1)] for i in range(n_blocks + 1)]
        self.channels = tuple(max(1, round(c * base * recipe.decoder_width)) for c in plan)
        self.texture_size = recipe.texture_size
        self.reduce = _conv1x1_block(encoder.channels[3], self.channels[0])
        fixed, stride = recipe.deterministic, encoder.strides[3]
        size = (recipe.image_height // stride, recipe.image_width // stride)  # of f_e4
        self.blocks = nn.ModuleList()
        for before, after in itertools.pairwise(self.channels):
            self.blocks.append(_up_block(before, after, size, fixed_order=fixed))
            size = _doubled(size)
        self.skip_stages = _skip_stages(encoder, n_blocks) if recipe.skips else {}
        self.skips = nn.ModuleDict(
            {
                str(block): _conv1x1_block(encoder.channels[stage], self.channels[block])
                for block, stage in self.skip_stages.items()
            }
        )
        self.head = nn.Sequential(
            _reflection_pad(HEAD_KERNEL // 2, fixed_order=fixed),
            nn.Conv2d(self.channels[-1], 3, HEAD_KERNEL),
        )
        self.stretch = _stretching(size, recipe.decoded_size, fixed_order=fixed)
        if recipe.decoder_init == "xavier":
            self.apply(_draw_official_weights)
        copies = recipe.texture_from == "copy"
        self.copying = Copying(recipe, encoder, self.channels[-1]) if copies else None

    def forward(self, maps: Maps, images: Tensor | None = None) -> DecoderOutput:
        """Textures from the encoder maps f_e1 ... f_e4.

        images: (B, 3, H, W), the normalised images of the maps; needed to copy colours.
        """
        x = self.reduce(maps[3])
        decoded = []
        for i, block in enumerate(self.blocks):
            if i in self.skip_stages:
                x = x + self.skips[str(i)](maps[self.skip_stages[i]])
            x = block(x)  # rows and columns double
            decoded.append(x)
        own = self.stretch(self.head(x))  # before the stretch (B, 3, T, T * W / H)
        if self.copying is None:
            return DecoderOutput(own, tuple(decoded))
        assert images is not None, "a decoder that copies needs the pictures"
        copied = self.copying(images, maps, decoded[-1], own)
        return DecoderOutput(copied.texture, tuple(decoded), copied)


def _draw_official_weights(module: nn.Module) -> None:
    """First weights of a layer as the official code draws them (main.py:185)."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight, gain=0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class _ResidualBlock(nn.Module):
    """x + conv-BN-ReLU-conv-BN (x), then ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


def _up_block(
    inputs: int, outputs: int, size: tuple[int, int], *, fixed_order: bool
) -> nn.Sequential:
    """Residual block, bilinear doubling, 3x3 convolution; nothing after it, as published."""
    return nn.Sequential(
        _ResidualBlock(inputs),
        _doubling(size, fixed_order=fixed_order),
        _reflection_pad(1, fixed_order=fixed_order),
        nn.Conv2d(inputs, outputs, 3),
    )


def _doubled(size: tuple[int, int]) -> tuple[int, int]:
    return 2 * size[0], 2 * size[1]


def _doubling(before: tuple[int, int], *, fixed_order: bool) -> nn.Module:
    if fixed_order:
        return FixedOrderUpsample(before, _doubled(before), align_corners=False)
    return nn.Upsample(scale_factor=2, mode="bilinear")


def _stretching(before: tuple[int, int], side: int, *, fixed_order: bool) -> nn.Module:
    """The official stretch to a square; align_corners as there."""
    if fixed_order:
        return FixedOrderUpsample(before, (side, side), align_corners=True)
    return nn.Upsample(size=(side, side), mode="bilinear", align_corners=True)


def _reflection_pad(margin: int, *, fixed_order: bool) -> nn.Module:
    return FixedOrderReflectionPad(margin) if fixed_order else nn.ReflectionPad2d(margin)


def _conv1x1_block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _skip_stages(encoder: Encoder, n_blocks: int) -> dict[int, int]:
    """For an up-block, the deepest encoder stage before f_e4 whose map has its input's size."""
    found = {}
    for block in range(n_blocks):
        stages = [s for s in range(3) if encoder.strides[s] << block == encoder.strides[3]]
        if stages:
            found[block] = max(stages)
    return found
