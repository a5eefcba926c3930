"""IBN-a: instance and batch normalisation side by side (Pan et al. 2018, section 3.2).

Half of the channels forget contrast and colour cast of their image, which helps ReID across
cameras; the other half keep what tells people apart. Names are those of the published weights.
Legend: B batch, C channels, H W rows and columns.
"""

from typing import Any

import torch
from torch import Tensor, nn


class InstanceBatchNorm(nn.Module):
    """Instance normalisation of the first half of the channels, batch normalisation of the rest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.instance_channels = channels // 2
        self.IN = nn.InstanceNorm2d(self.instance_channels, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.instance_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        first, rest = maps[:, : self.instance_channels], maps[:, self.instance_channels :]
        return torch.cat([self.IN(first), self.BN(rest)], dim=1)


def insert_ibn(trunk: nn.Module) -> None:
    """Put it after the first convolution of every block of a ResNet's first three stages."""
    blocks: list[Any] = [b for i in (1, 2, 3) for b in trunk.get_submodule(f"layer{i}").children()]
    for block in blocks:
        block.bn1 = InstanceBatchNorm(block.bn1.num_features)
