"""From the encoder's last map to ReID features: pooling, embedding and classifier.

Legend: B batch, C channels of f_e4, H W its rows and columns, D embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from san_core.recipe import Recipe


class MeanPooling(nn.Module):
    """The mean over rows and columns."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C)."""
        return maps.mean(dim=(2, 3))


class GemPooling(nn.Module):
    """Generalised mean over rows and columns, its exponent learned from 3.

    1 is the mean, infinity the maximum (Radenovic et al. 2018, eq. 3). Values below 1e-6 count as
    that, so that the root has a gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(3.0))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C), in float32 where maps are in half precision."""
        with torch.autocast(maps.device.type, enabled=False):
            whole = maps.to(torch.promote_types(maps.dtype, torch.float32))
            powers = whole.clamp(min=1e-6).pow(self.exponent)
            return powers.mean(dim=(2, 3)).pow(1 / self.exponent)


class CosineClassifier(nn.Module):
    """Cosines between features and one learned direction per identity; the loss scales them."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) to float32 (B, identities), in -1 ... 1."""
        with torch.autocast(embedding.device.type, enabled=False):
            directions = functional.normalize(self.weight.float())
            return functional.linear(functional.normalize(embedding.float()), directions)


def make_pooling(recipe: Recipe) -> nn.Module:
    """The recipe's pooling, (B, C, H, W) to (B, C)."""
    return GemPooling() if recipe.pooling == "gem" else MeanPooling()


def make_embedding_head(recipe: Recipe, channels: int) -> tuple[nn.Module, int]:
    """The module from pooled maps (B, C) to embeddings (B, D), and D."""
    if recipe.embedding == "pool":
        return nn.Identity(), channels
    if recipe.embedding == "bnneck":
        norm = nn.BatchNorm1d(channels)
        norm.bias.requires_grad_(False)  # stays 0, as published
        return norm, channels
    linear = nn.Linear(channels, recipe.embedding_dim)
    nn.init.normal_(linear.weight, std=0.01)  # as the official code initialises its fc layers
    nn.init.zeros_(linear.bias)
    norm = nn.BatchNorm1d(recipe.embedding_dim)
    return nn.Sequential(linear, norm, nn.ReLU()), recipe.embedding_dim


def make_classifier(recipe: Recipe, dim: int, num_classes: int) -> nn.Module:
    """The module from embeddings (B, D) to logits, or to cosines, (B, identities)."""
    if recipe.classifier != "linear":
        return CosineClassifier(dim, num_classes)
    # after a neck without offset the classifier has none either (Luo et al. 2019, section 3.5)
    linear = nn.Linear(dim, num_classes, bias=recipe.embedding != "bnneck")
    nn.init.normal_(linear.weight, std=0.01)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear
