"""The losses of dense maps for a decoder that copies: where texels are, and what is visible.

Every pixel of the person knows the texel it shows (as DensePose annotates it, Guler et al. 2018),
so the query of that texel must attend to the pixel's cell, and the texel's place be the pixel's.
Legend: B batch, H W rows and columns of the picture, h w its cells, N = H * W, G queries a side,
T texels a side.
"""

import torch
from torch import Tensor
from torch.nn import functional

from san_core.data.batches.dense import MAP_SIDE, DenseTargets
from san_core.model.copying import Copied

COVERED = 0.5  # least share of a pixel that the person must cover for its texel to count
ATTENTION, PLACE, SEEN, PERSON = 0.3, 2.0, 1.0, 0.5  # weights of the four errors
_LEAST = 1e-6  # attention that is lower costs no more


def place_errors(copied: Copied, dense: DenseTargets) -> Tensor:
    """Each sample's error: attention, place, visibility and the person's mask, (B,).

    Attention is -log of the attention of a pixel's query to the pixel's cell. Place is the distance
    across and down, in halves of the picture's height. Both are means over the person's pixels. The
    others are cross entropies.
    """
    shown = (dense.covered >= COVERED).flatten(1)  # (B, N)
    texels = dense.texels.flatten(1)
    pixels = shown.sum(dim=1).clamp(min=1)

    def mean_of_shown(values: Tensor) -> Tensor:
        return (values * shown).sum(dim=1) / pixels

    side = round(copied.weights.shape[1] ** 0.5)
    queries = _coarser(texels, side)
    attention = mean_of_shown(_missed_attention(copied, dense, queries))
    place = mean_of_shown(_distances(copied.places, dense, texels))
    seen = _cross_entropy(copied.seen, _seen_queries(queries, shown, side))
    rows, columns = copied.person.shape[2:]
    covered = functional.adaptive_avg_pool2d(dense.covered[:, None], (rows, columns))
    person = _cross_entropy(copied.person, covered)
    return ATTENTION * attention + PLACE * place + SEEN * seen + PERSON * person


def _seen_queries(queries: Tensor, shown: Tensor, side: int) -> Tensor:
    """1 for queries that a pixel of the person asks for and 0 for others, (B, 1, G, G)."""
    last = side * side  # stands for no query
    asked = torch.where(shown, queries, last)
    ones = torch.ones_like(asked, dtype=torch.float32)
    seen = ones.new_zeros(len(queries), last + 1).scatter(1, asked, ones)
    return seen[:, :last].view(-1, 1, side, side)


def _coarser(texels: Tensor, side: int) -> Tensor:
    """Numbers of texels of a texture of 256 as those of one with fewer a side."""
    shrink = MAP_SIDE // side
    return (texels // (MAP_SIDE * shrink)) * side + texels % MAP_SIDE // shrink


def _missed_attention(copied: Copied, dense: DenseTargets, queries: Tensor) -> Tensor:
    """-log of the attention that each pixel's query pays to the pixel's cell, (B, N)."""
    height, width = dense.texels.shape[1:]
    rows, columns = copied.person.shape[2:]
    device = queries.device
    down = torch.arange(height, device=device) * rows // height
    across = torch.arange(width, device=device) * columns // width
    cells = (down[:, None] * columns + across).flatten()  # (N,)
    paid = copied.weights.flatten(1).gather(1, queries * (rows * columns) + cells)
    return -(paid + _LEAST).log()


def _distances(places: Tensor, dense: DenseTargets, texels: Tensor) -> Tensor:
    """How far from each pixel its texel's place is, (B, N), in halves of the picture's height."""
    height, width = dense.texels.shape[1:]
    device = texels.device
    rows = (torch.arange(height, device=device) + 0.5) * (2 / height) - 1
    columns = (torch.arange(width, device=device) + 0.5) * (2 / width) - 1
    found = places.flatten(2)  # (B, 2, T * T)
    at = _coarser(texels, places.shape[-1])[:, None].expand(-1, 2, -1)
    across, down = found.gather(2, at).unbind(1)  # (B, N)
    off_across = (across - columns.repeat(height)) * (width / height)
    return off_across.abs() + (down - rows.repeat_interleave(width)).abs()


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    every = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return every.mean(dim=(1, 2, 3))
