"""The interface of an encoder family: a network without its classifier, in four stages."""

from typing import NamedTuple

from torch import nn
from torchvision.ops import StochasticDepth


class Trunk(NamedTuple):
    """The modules that make f_e1 ... f_e4 of images."""

    modules: dict[str, nn.Module]  # by the names that they have in published weights
    stages: tuple[tuple[str, ...], ...]  # for each map, the modules that make it of the one before
    classifier: str  # the published module that is left out
    rows_first: bool = False  # the modules give (B, H, W, C) instead of (B, C, H, W)


def set_drop_path(network: nn.Module, probability: float) -> None:
    """Probability of dropping the last block's branch; linearly less for earlier blocks."""
    depths = [module for module in network.modules() if isinstance(module, StochasticDepth)]
    for i, module in enumerate(depths):
        module.p = probability * i / (len(depths) - 1)
