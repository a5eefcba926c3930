"""AutoAugment's ImageNet policy for some images of a batch, with random numbers from `draws`.

A policy is torchvision's (Cubuk et al. 2019, table 9): 25 pairs of operations, each with its own
probability and strength. They work on the host, before a batch is copied to its device.
Legend: B batch, H W rows and columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from san_core.data.batches.augmentation import MEAN_COLOUR
from san_core.recipe import Recipe
from san_core.seeds import derive_seed


class PolicyDraw(NamedTuple):
    """The draws of the images that a policy changes."""

    row: int  # of the batch
    numbers: Tensor  # (5,), uniform in [0, 1): which pair, whether each is done, its direction


def draw_policies(
    count: int, recipe: Recipe, *, generator: torch.Generator, skip: int = 0
) -> list[PolicyDraw]:
    """The images of a batch of `count` that are changed; as `draw_views`, whose draws it leaves."""
    if not recipe.autoaugment:
        return []
    own = torch.Generator().manual_seed(derive_seed(generator.initial_seed(), "autoaugment"))
    table = torch.rand(skip + count, 6, generator=own)[skip:]
    return [
        PolicyDraw(row, numbers[1:])
        for row, numbers in enumerate(table)
        if numbers[0] < recipe.autoaugment
    ]


def apply_policies(images: Tensor, drawn: Sequence[PolicyDraw]) -> None:
    """Change those images that were drawn, in place: uint8 (B, H, W, 3) RGB.

    Pixels that rotations and shears leave empty take the ImageNet mean colour.
    """
    for row, numbers in drawn:
        changed = _DrawnPolicy(numbers)(images[row].permute(2, 0, 1))
        images[row] = changed.permute(1, 2, 0)


class _DrawnPolicy(transforms.AutoAugment):  # type: ignore[misc]  # torchvision has no types
    """One of torchvision's policies, chosen by numbers that are given."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__(interpolation=InterpolationMode.BILINEAR, fill=list(MEAN_COLOUR))
        self._numbers = numbers

    def get_params(self, transform_num: int) -> tuple[int, Tensor, Tensor]:
        """Which pair, and for each of the two a number for its probability, and its direction."""
        chosen = int(self._numbers[0] * transform_num)
        return chosen, self._numbers[1:3], (self._numbers[3:5] < 0.5).long()
