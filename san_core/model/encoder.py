"""SA-Enc: the network that turns person images into ReID embeddings (paper, Figure 2).

Legend: B batch, D embedding, C channels, H W rows and columns of the image.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from san_core.model.head import make_embedding_head, make_pooling
from san_core.model.sizes import check_image_size, encoder_channels, encoder_strides
from san_core.model.trunks.convnext import make_convnext
from san_core.model.trunks.resnet import make_resnet
from san_core.model.trunks.swin import make_swin
from san_core.recipe import Recipe

Maps = tuple[Tensor, Tensor, Tensor, Tensor]

_FAMILIES = {"resnet": make_resnet, "convnext": make_convnext, "swin": make_swin}


class EncoderOutput(NamedTuple):
    """The encoder's output for a batch."""

    embedding: Tensor  # (B, D), the ReID feature
    maps: Maps  # f_e1 ... f_e4, (B, C_i, H / stride_i, W / stride_i)
    pooled: Tensor  # (B, C_4), the pooled f_e4 that the embedding is made from


class Encoder(nn.Module):
    """A trunk, which is a published network without its classifier, and an embedding head.

    The trunk's modules carry torchvision's names (conv1 ... layer4 of a ResNet, features.0 ... of
    others), so published weights fit by name.

    Attributes:
        arch: the architecture's name in recipes.
        image_size: rows and columns of its input images.
        channels: channels of f_e1 ... f_e4.
        strides: pixels of the image per cell of f_e1 ... f_e4.
        dim: length D of the embedding.
        left_out: the published network's classifier, by its name there.

    Raises ValueError if the image size is no multiple of the last stride.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        check_image_size(recipe)
        self.arch = recipe.arch
        self.image_size = recipe.image_size
        self.channels, self.strides = encoder_channels(recipe), encoder_strides(recipe)
        trunk = _FAMILIES[recipe.family](recipe)
        for name, module in trunk.modules.items():
            self.add_module(name, module)
        self._stages, self._rows_first = trunk.stages, trunk.rows_first
        self.left_out = trunk.classifier
        self.pooling = make_pooling(recipe)
        self.head, self.dim = make_embedding_head(recipe, self.channels[3])

    def forward(self, images: Tensor) -> EncoderOutput:
        """Embeddings and stage maps of normalised images (B, 3, H, W)."""
        maps = self.stage_maps(images)
        pooled = self.pooling(maps[3])
        return EncoderOutput(self.head(pooled), maps, pooled)

    def stage_maps(self, images: Tensor) -> Maps:
        """Only the stage maps, the input of the decoder."""
        x, maps = images, []
        for names in self._stages:
            for name in names:
                x = self.get_submodule(name)(x)
            maps.append(x.permute(0, 3, 1, 2) if self._rows_first else x)
        f_e1, f_e2, f_e3, f_e4 = maps
        return f_e1, f_e2, f_e3, f_e4


def to_channels_last(module: nn.Module) -> nn.Module:
    """The module with its convolutions in channels-last layout, the faster one on every device."""
    return module.to(memory_format=torch.channels_last)
