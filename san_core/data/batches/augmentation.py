"""Augmentation of whole batches on the device, with one draw for every image.

Legend: B batch, H W rows and columns, T texels a side. Images enter as uint8 (B, H, W, 3) RGB and
leave as float32 (B, 3, H, W), ImageNet-normalised, in channels-last layout. Everything but the
normalisation works on bytes, which is several times faster on a CPU. Random numbers are drawn on
the CPU, so every device sees the same augmentation, up to the rounding of enlarged images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional

from san_core.recipe import Recipe

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)
MEAN_COLOUR = (124, 116, 104)  # IMAGENET_MEAN as a pixel

_ENLARGE = 1.125  # Random2DTranslation of the official code (transforms.py)
_ENLARGED_SHARE = 0.5
_ERASED_AREA = (0.02, 0.4)  # share of the image (Zhong et al. 2020, and the official code)
_ERASED_RATIO = (0.3, 1 / 0.3)  # height over width


class AugmentedBatch(NamedTuple):
    """An augmented batch."""

    images: Tensor  # (B, 3, H, W) float32
    flipped: Tensor  # (B,) bool, on the images' device


class TextureTargets(NamedTuple):
    """Texture targets of an augmented batch."""

    textures: Tensor  # (B, 3, T, T) float32 in [-1, 1]
    keep: Tensor  # (B,) bool: the texture is that of the (possibly mirrored) image


class TextureMirror(NamedTuple):
    """How textures look in the mirror: every texel an average of others, in CSR form."""

    texels: Tensor  # (n,) int64, the texels averaged, those of the first texel first
    byte_index: (
        Tensor  # (3 * n,) int64, where their three colours are in a texture laid out as a row
    )
    weights: Tensor  # (n,) float32, what each counts; a texel's add up to 1
    offsets: Tensor  # (T * T,) int64, where in `texels` those of a texel begin
    is_permutation: bool  # whether every texel is one other as it is, so that nothing is averaged

    @classmethod
    def from_matrix(cls, matrix: csr_array, device: torch.device | str) -> "TextureMirror":
        """The matrix (T * T, T * T) of `synthesis.person.atlas.mirror_matrix`, on a device."""
        texels = matrix.indices.astype(np.int64)
        return cls(
            torch.from_numpy(texels).to(device),
            torch.from_numpy(np.add.outer(3 * texels, np.arange(3)).ravel()).to(device),
            torch.from_numpy(matrix.data.astype(np.float32)).to(device),
            torch.from_numpy(matrix.indptr[:-1].astype(np.int64)).to(device),
            bool((np.diff(matrix.indptr) == 1).all() and (matrix.data == 1).all()),
        )

    def __call__(self, textures: Tensor) -> Tensor:
        """Mirrored textures, uint8 (B, T * T, 3): float32, or bytes if nothing is averaged."""
        if self.is_permutation and textures.is_cuda:
            return textures.index_select(1, self.texels)
        if self.is_permutation:  # byte by byte and row by row: several times as fast on a processor
            rows = [row.index_select(0, self.byte_index) for row in textures.flatten(1)]
            return torch.stack(rows).reshape(textures.shape)
        table = textures.transpose(0, 1).flatten(1).float()  # (T * T, B * C)
        # A sum over "bags" of rows is the product with a sparse matrix; always in the same order.
        mirrored = functional.embedding_bag(
            self.texels, table, self.offsets, mode="sum", per_sample_weights=self.weights
        )
        return mirrored.reshape(len(table), *textures.shape[::2]).transpose(0, 1)


class _ImageDraws(NamedTuple):
    """An image's uniform numbers in [0, 1), one for each purpose."""

    flip: float
    enlarge: float
    crop_row: float
    crop_column: float
    erase: float
    erase_area: float
    erase_ratio: float
    erase_row: float
    erase_column: float


class BufferPool:
    """Memory that one batch after another is written into.

    Fresh memory costs a page fault every 4 KiB, which takes longer than writing it. On GPUs torch
    keeps memory itself, and this does nothing. A tensor is good until the next one of its name.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def buffer(
        self,
        name: str,
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """A tensor of that type, torch's default if it is None, with anything in it."""
        wanted = torch.empty(shape, device=device, dtype=dtype)  # not touched, so it costs nothing
        if wanted.device.type != "cpu":
            return wanted
        kept = self._buffers.get(name)
        if kept is None or (kept.shape, kept.dtype) != (wanted.shape, wanted.dtype):
            self._buffers[name] = kept = wanted
        return kept

    def gather_rows(self, name: str, array: NDArray[np.uint8], rows: NDArray[np.int64]) -> Tensor:
        """The rows of these numbers of an array, which may be a memory map."""
        if rows.min() < 0 or rows.max() >= len(array):
            raise IndexError(f"rows {rows.min()} ... {rows.max()} of an array of {len(array)}")
        picked = self.buffer(name, (len(rows), *array.shape[1:]), dtype=torch.uint8)
        # checked above, for NumPy's own mode "raise" copies twice
        np.take(array, rows, axis=0, out=picked.numpy(), mode="clip")
        return picked


def normalise_images(images: Tensor, *, pool: BufferPool | None = None) -> Tensor:
    """ImageNet-normalised float32 (B, 3, H, W) of RGB pixels uint8 (B, H, W, 3)."""
    batch, height, width = images.shape[:3]
    # A row of pixels is one long vector: broadcasting over three colours would be slow.
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).repeat(width)
    std = torch.tensor(IMAGENET_STD, device=images.device).repeat(width)
    rows = (
        (pool or BufferPool())
        .buffer("images", images.shape, images.device)
        .reshape(batch, height, -1)
    )
    rows.copy_(images.reshape(rows.shape))
    torch.addcmul(-mean / std, rows, 1 / (255 * std), out=rows)
    return rows.reshape(batch, height, width, 3).permute(0, 3, 1, 2)


def augment_images(
    images: Tensor,
    recipe: Recipe,
    *,
    generator: torch.Generator,
    skip: int = 0,
    pool: BufferPool | None = None,
) -> AugmentedBatch:
    """Crop, flip and random erasing of uint8 images (B, H, W, 3), as the recipe says.

    What a crop leaves open and what is erased takes the ImageNet mean colour. An image draws the
    same numbers whatever the recipe switches on or off.

    Args:
        images: uint8, on any device.
        recipe: its flip, crop, crop_pad and erasing.
        generator: a CPU generator.
        skip: images of the batch that come before these and are another process's.
        pool: where to put the views; fresh memory if there is none.
    """
    table = torch.rand(skip + len(images), len(_ImageDraws._fields), generator=generator)
    draws = [_ImageDraws(*row) for row in table[skip:].tolist()]
    mean = torch.tensor(MEAN_COLOUR, dtype=torch.uint8, device=images.device)
    views = _crop_images(images, draws, recipe, mean)
    for view, draw in zip(views, draws, strict=True):
        if draw.flip < recipe.flip:
            view.copy_(view.flip(1))
        if draw.erase < recipe.erasing:
            _erase(view, draw, mean)
    flipped = torch.tensor([draw.flip < recipe.flip for draw in draws], device=images.device)
    return AugmentedBatch(normalise_images(views, pool=pool), flipped)


def texture_targets(
    textures: Tensor,
    flipped: Tensor,
    *,
    mirror: TextureMirror | None,
    pool: BufferPool | None = None,
) -> TextureTargets:
    """Targets for a batch: a mirrored person has the mirrored texture.

    Args:
        textures: uint8 (B, T, T, 3).
        flipped: (B,) bool.
        mirror: of the textures' atlas and size; where it is unknown (None), flipped samples are
            marked as not to be kept.
        pool: where to put the targets; fresh memory if there is none.
    """
    targets = (pool or BufferPool()).buffer("textures", textures.shape, textures.device)
    texels = textures.flatten(1, 2)  # (B, T * T, 3)
    if mirror is None or not flipped.any():
        _to_unit_range(texels, targets)
    else:
        chosen = flipped.nonzero().flatten()  # picking by number copies whole rows, by mask texels
        mirrored = mirror(texels.index_select(0, chosen))
        if textures.is_cuda:
            _to_unit_range(texels.to(mirrored.dtype).index_copy(0, chosen, mirrored), targets)
        else:
            sources = list(texels)
            for i, source in zip(chosen.tolist(), mirrored, strict=True):
                sources[i] = source
            for source, target in zip(sources, targets, strict=True):  # stays in the cache
                _to_unit_range(source, target)
    keep = ~flipped if mirror is None else torch.ones_like(flipped)
    return TextureTargets(targets.permute(0, 3, 1, 2), keep)


def _to_unit_range(levels: Tensor, out: Tensor) -> None:
    """Bytes 0 ... 255, or averages of them, to -1 ... 1, in the shape of `out`."""
    torch.sub(levels.reshape(out.shape), 127.5, out=out).mul_(1 / 127.5)


def _crop_images(images: Tensor, draws: list[_ImageDraws], recipe: Recipe, mean: Tensor) -> Tensor:
    """A crop of every image, of the image's own size."""
    if recipe.crop == "translate":
        return _enlarge_and_crop(images, draws)
    if recipe.crop == "pad":
        return _pad_and_crop(images, draws, recipe.crop_pad, mean)
    return images.clone()


def _pad_and_crop(images: Tensor, draws: list[_ImageDraws], pad: int, mean: Tensor) -> Tensor:
    """Windows of images padded by `pad` pixels on every side."""
    height, width = images.shape[1:3]
    views = mean.expand_as(images).contiguous()
    for view, image, draw in zip(views, images, draws, strict=True):
        down = _uniform_integer(draw.crop_row, 2 * pad) - pad
        right = _uniform_integer(draw.crop_column, 2 * pad) - pad
        part = image[max(0, -down) : height - down, max(0, -right) : width - right]
        top, left = max(0, down), max(0, right)
        view[top : top + part.shape[0], left : left + part.shape[1]] = part
    return views


def _enlarge_and_crop(images: Tensor, draws: list[_ImageDraws]) -> Tensor:
    """Windows of images enlarged by 1.125, for half of them; the others as they are."""
    height, width = images.shape[1:3]
    chosen = [i for i, draw in enumerate(draws) if draw.enlarge < _ENLARGED_SHARE]
    views = images.clone()
    if not chosen:
        return views
    tall, wide = round(height * _ENLARGE), round(width * _ENLARGE)
    enlarged = _resize_batch(torch.stack([images[i] for i in chosen]), (tall, wide))
    for i, large in zip(chosen, enlarged, strict=True):
        top = _uniform_integer(draws[i].crop_row, tall - height)
        left = _uniform_integer(draws[i].crop_column, wide - width)
        views[i] = large[top : top + height, left : left + width]
    return views


def _resize_batch(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, uint8 in and out; CUDA has no such kernel for bytes and takes the long way."""
    channels_first = images.permute(0, 3, 1, 2)
    if images.is_cuda:
        channels_first = channels_first.float()
    large = functional.interpolate(channels_first, size=size, mode="bilinear")
    if images.is_cuda:
        large = large.round().to(torch.uint8)
    return large.permute(0, 2, 3, 1)


def _erase(view: Tensor, draw: _ImageDraws, mean: Tensor) -> None:
    """Fill one random box of a view (H, W, 3)."""
    height, width = view.shape[:2]
    area = _uniform_between(_ERASED_AREA, draw.erase_area) * height * width
    ratio = _uniform_between(_ERASED_RATIO, draw.erase_ratio)
    # A box that would not fit is cut to the image, where the official code draws again.
    rows = min(height, max(1, round((area * ratio) ** 0.5)))
    columns = min(width, max(1, round((area / ratio) ** 0.5)))
    top = _uniform_integer(draw.erase_row, height - rows)
    left = _uniform_integer(draw.erase_column, width - columns)
    view[top : top + rows, left : left + columns] = mean


def _uniform_integer(uniform: float, highest: int) -> int:
    """A whole number 0 ... highest from a uniform draw in [0, 1)."""
    return int(uniform * (highest + 1))


def _uniform_between(bounds: tuple[float, float], uniform: float) -> float:
    low, high = bounds
    return low + (high - low) * uniform
