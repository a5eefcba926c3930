"""Residual networks: torchvision's, with IBN-a, and a small one of our own."""

import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from san_core.model.trunks.ibn import insert_ibn
from san_core.model.trunks.trunk import Trunk
from san_core.recipe import Recipe

_STAGES = (
    ("conv1", "bn1", "relu", "maxpool", "layer1"),
    ("layer2",),
    ("layer3",),
    ("layer4",),
)


def make_resnet(recipe: Recipe) -> Trunk:
    """The residual network of a recipe, with the stride that it wants of the last stage."""
    if recipe.arch == "resnet10_quarter":
        network = _resnet10_quarter()
    else:
        network = torchvision.models.get_model(recipe.arch.removesuffix("_ibn_a"), weights=None)
    if recipe.arch.endswith("_ibn_a"):
        insert_ibn(network)
    if recipe.last_stride == 1:
        _remove_last_stride(network.get_submodule("layer4.0"))
    modules = {name: network.get_submodule(name) for stage in _STAGES for name in stage}
    return Trunk(modules, _STAGES, classifier="fc")


def _remove_last_stride(block: nn.Module) -> None:
    """Stride 1 for a stage's first block, wherever the block (Basic or Bottleneck) keeps it."""
    for module in block.modules():
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
