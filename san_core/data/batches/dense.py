"""Dense maps of PIT for an augmented batch: the texel that every pixel shows.

Legend: B batch, H W rows and columns, N = H * W pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from san_core.data.batches.draws import Draws
from san_core.recipe import Recipe

MAP_SIDE = 256  # texels a side of the texture that dense maps refer to


class DenseTargets(NamedTuple):
    """Dense maps of an augmented batch, on its device."""

    texels: Tensor  # (B, H, W) int64, row * 256 + column; undefined where there is no person
    covered: Tensor  # (B, H, W) float32, share of the pixel that the person covers; 0 if erased
    keep: Tensor  # (B,) bool: the texels are those of the (possibly mirrored) image


def dense_targets(
    dense: Tensor, draws: Draws, recipe: Recipe, *, texel_mirror: Tensor | None
) -> DenseTargets:
    """The targets of dense maps (B, H, W, 3) uint8, in images that are not cropped.

    draws: the augmentation of the images: a mirrored image shows mirrored texels, and an erased
        part shows no person.
    texel_mirror: (256 * 256,), from `atlas.mirror_index`. If it is None (unknown), mirrored samples
        are marked as not to be kept.
    """
    texels = dense[..., 1].long() * MAP_SIDE + dense[..., 0]
    covered = dense[..., 2].float() / 255
    keep = torch.ones(len(dense), dtype=torch.bool, device=dense.device)
    if recipe.flip and len(draws.flipped):
        mirrored = texels.index_select(0, draws.flipped).flip(2)
        if texel_mirror is None:
            keep.index_fill_(0, draws.flipped, False)
        else:
            mirrored = texel_mirror[mirrored]
        texels.index_copy_(0, draws.flipped, mirrored)
        covered.index_copy_(0, draws.flipped, covered.index_select(0, draws.flipped).flip(2))
    if recipe.erasing:
        covered = covered.masked_fill(_erased(draws.boxes, dense.shape[1:3]), 0)
    return DenseTargets(texels, covered, keep)


def _erased(boxes: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """(B, H, W) bool: the pixels in the boxes (B, 4) of top, left, bottom and right."""
    rows, columns = (torch.arange(n, device=boxes.device) for n in size)
    top, left, bottom, right = boxes[..., None].unbind(1)
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return in_rows[:, :, None] & in_columns[:, None, :]
