"""SA-Enc: a residual network that turns person images into ReID embeddings (paper, Figure 2).

Legend: B batch, D embedding, C channels, H W rows and columns of the image.
"""

from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from san_core.model.head import make_embedding_head, make_pooling
from san_core.model.ibn import insert_ibn
from san_core.model.sizes import check_image_size, encoder_strides
from san_core.recipe import Recipe

Maps = tuple[Tensor, Tensor, Tensor, Tensor]


class EncoderOutput(NamedTuple):
    """What the encoder makes of a batch."""

    embedding: Tensor  # (B, D), the ReID feature
    maps: Maps  # f_e1 ... f_e4, (B, C_i, H / stride_i, W / stride_i)
    pooled: Tensor  # (B, C_4), what the embedding is made of


class Encoder(nn.Module):
    """A ResNet without its classifier, and an embedding head.

    Submodules carry torchvision's names (conv1 ... layer4), so published weights fit by name.

    Attributes:
        arch: the architecture's name in recipes.
        image_size: rows and columns of the images that it is made for.
        channels: channels of f_e1 ... f_e4.
        strides: pixels of the image per cell of f_e1 ... f_e4.
        dim: length D of the embedding.

    Raises ValueError if the image size is no multiple of the last stride.
    """

    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    maxpool: nn.Module
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        check_image_size(recipe)
        self.arch = recipe.arch
        self.image_size = recipe.image_size
        if recipe.arch == "resnet10_quarter":
            trunk, self.channels = _resnet10_quarter(), (16, 32, 64, 128)
        else:
            trunk = torchvision.models.get_model(recipe.arch.removesuffix("_ibn_a"), weights=None)
            if recipe.arch.endswith("_ibn_a"):
                insert_ibn(trunk)
            wide = type(trunk.layer1[0]).expansion  # 1 of basic blocks, 4 of bottlenecks
            self.channels = (64 * wide, 128 * wide, 256 * wide, 512 * wide)
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(trunk, name))
        if recipe.last_stride == 1:
            _remove_last_stride(self.layer4)
        self.strides = encoder_strides(recipe)
        self.pooling = make_pooling(recipe)
        self.head, self.dim = make_embedding_head(recipe, self.channels[3])

    def forward(self, images: Tensor) -> EncoderOutput:
        """Embeddings and stage maps of normalised images (B, 3, H, W)."""
        maps = self.stage_maps(images)
        pooled = self.pooling(maps[3])
        return EncoderOutput(self.head(pooled), maps, pooled)

    def stage_maps(self, images: Tensor) -> Maps:
        """The stage maps alone, all that the decoder sees."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        f_e1 = self.layer1(x)
        f_e2 = self.layer2(f_e1)
        f_e3 = self.layer3(f_e2)
        return f_e1, f_e2, f_e3, self.layer4(f_e3)


def _remove_last_stride(stage: nn.Sequential) -> None:
    """Stride 1 for a stage's first block, wherever the block (Basic or Bottleneck) keeps it."""
    for module in stage[0].modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            module.stride = (1, 1)


def _resnet10_quarter() -> nn.Module:
    """One BasicBlock a stage at a quarter of ResNet-18's widths, for small images on a CPU.

    The stem is a 3x3 convolution of stride 2 without pooling, so 64x32 images still leave an
    8x4 map once the last stride is 1.
    """
    net = nn.Module()
    net.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
    net.bn1 = nn.BatchNorm2d(16)
    net.relu = nn.ReLU(inplace=True)
    net.maxpool = nn.Identity()
    net.layer1 = _stage(16, 16, stride=1)
    net.layer2 = _stage(16, 32, stride=2)
    net.layer3 = _stage(32, 64, stride=2)
    net.layer4 = _stage(64, 128, stride=2)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _stage(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    shortcut = None
    if inputs != outputs:
        conv = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))
    return nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut))


def to_channels_last(module: nn.Module) -> nn.Module:
    """The module with its convolutions in channels-last layout, the faster one on every device."""
    return module.to(memory_format=torch.channels_last)
