"""Augmentation of whole batches on the device, with one draw for every image.

Legend: B batch, H W rows and columns, T texels a side. Images enter as uint8 (B, H, W, 3) RGB and
leave as (B, 3, H, W) of torch's default type, ImageNet-normalised, in channels-last layout.
Everything but the normalisation works on bytes, which is several times faster on a CPU. Random
numbers are drawn on the CPU (see `draws`), so every device applies the same augmentation, up to the
rounding of enlarged images, and the host never waits for the device. A GPU works on whole batches.
A processor works image by image where that is faster, because an image fits its cache.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional

from san_core.data.batches import _pixels
from san_core.data.batches.cache import enlarged_size
from san_core.data.batches.draws import Draws
from san_core.recipe import FlipTextures, Recipe

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)
MEAN_COLOUR = (124, 116, 104)  # IMAGENET_MEAN as a pixel


class TextureTargets(NamedTuple):
    """Texture targets of an augmented batch."""

    textures: Tensor  # (B, 3, T, T) float32 in [-1, 1]
    keep: Tensor  # (B,) bool: the texture is that of the (possibly mirrored) image


class TextureMirror(NamedTuple):
    """The mirror of textures in CSR form: every mirrored texel is an average of texels."""

    texels: Tensor  # (n,) int32, the texels averaged, those of the first texel first
    weights: Tensor  # (n,) float32, the weight of each; the weights of a texel add up to 1
    starts: Tensor  # (T * T + 1,) int64, where in `texels` those of a texel begin
    is_permutation: bool  # whether every texel is one other as it is, so that nothing is averaged

    @classmethod
    def from_matrix(cls, matrix: csr_array, device: torch.device | str) -> "TextureMirror":
        """The matrix (T * T, T * T) of `synthesis.person.atlas.mirror_matrix`, on a device."""
        return cls(
            torch.from_numpy(matrix.indices.astype(np.int32)).to(device),
            torch.from_numpy(matrix.data.astype(np.float32)).to(device),
            torch.from_numpy(matrix.indptr.astype(np.int64)).to(device),
            bool((np.diff(matrix.indptr) == 1).all() and (matrix.data == 1).all()),
        )

    def whole(self, textures: Tensor) -> Tensor:
        """Mirrored textures, uint8 (B, T * T, 3): float32, or bytes if nothing is averaged."""
        if self.is_permutation:
            return textures.index_select(1, self.texels)
        table = textures.transpose(0, 1).flatten(1).float()  # (T * T, B * C)
        # A sum over "bags" of rows is the product with a sparse matrix; always in the same order.
        mirrored = functional.embedding_bag(
            self.texels,
            table,
            self.starts,
            mode="sum",
            per_sample_weights=self.weights,
            include_last_offset=True,
        )
        return mirrored.reshape(len(table), *textures.shape[::2]).transpose(0, 1)

    def fill(self, texture: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Write one mirrored texture, bytes (3 * T * T,), as -1 ... 1, on a processor."""
        texels = self.texels.numpy()
        if self.is_permutation:
            _pixels.move_texels(texture, texels, out)
        else:
            weights, starts = self.weights.numpy(), self.starts.numpy()
            _pixels.average_texels(texture, texels, weights, starts, out)


class BufferPool:
    """Memory that is reused for one batch after another.

    Fresh memory costs a page fault every 4 KiB, which takes longer than writing it. On GPUs torch
    keeps memory itself, and this does nothing. A tensor is valid until the next one of its name is
    asked for.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._pinned = pinned  # memory that a GPU copies from while the host goes on

    def buffer(
        self,
        name: str,
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """An uninitialised tensor of that type; None means torch's default type."""
        wanted = torch.empty(shape, device=device, dtype=dtype)  # not touched, so it costs nothing
        if wanted.device.type != "cpu":
            return wanted
        kept = self._buffers.get(name)
        fits = (
            kept is not None and kept.dtype == wanted.dtype and kept.shape[1:] == wanted.shape[1:]
        )
        if kept is None or not fits or len(kept) < len(wanted):
            self._buffers[name] = kept = wanted.pin_memory() if self._pinned else wanted
        return kept[: len(wanted)]

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
    if images.device.type != "cpu":
        return normalise_by_torch(images)
    factor, offset = _normalisation(images.shape[2], images.device)
    normal = (pool or BufferPool()).buffer("images", images.shape, dtype=torch.float32)
    _pixels.normalise_rows(
        images.contiguous().reshape(-1, len(factor)).numpy(),
        factor.numpy(),
        offset.numpy(),
        normal.reshape(-1, len(factor)).numpy(),
    )
    return normal.permute(0, 3, 1, 2).to(torch.get_default_dtype())


def normalise_by_torch(images: Tensor) -> Tensor:
    """The same, as GPUs and exported networks compute it."""
    factor, offset = _normalisation(images.shape[2], images.device)
    rows = torch.addcmul(offset, images.flatten(2).float(), factor)
    return rows.reshape(images.shape).permute(0, 3, 1, 2)


def _normalisation(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The factor and the offset of a row of pixels, (3 * W,) each.

    A row of pixels is one long vector: broadcasting over three colours would be slow.
    """
    mean, std = (_row_of_colours(c, width, device) for c in (IMAGENET_MEAN, IMAGENET_STD))
    return 1 / (255 * std), -mean / std


def augment_images(
    images: Tensor,
    draws: Draws,
    recipe: Recipe,
    *,
    large: Tensor | None = None,
    pool: BufferPool | None = None,
) -> Tensor:
    """The drawn views, normalised: float32 (B, 3, H, W).

    Pixels outside the image and erased pixels take the ImageNet mean colour.

    Args:
        images: uint8 (B, H, W, 3), on any device.
        draws: of `draw_views` for images of that size and this recipe, on the same device.
        recipe: its crop, crop_pad and whether it flips, changes colours and erases at all.
        large: uint8 (enlarged, H', W', 3), the images that are enlarged, in the order of
            `draws.enlarged`; without it they are enlarged from `images`.
        pool: where to put the views; fresh memory if there is none.
    """
    views = _crop_images(images, draws, recipe, large)
    by_image = images.device.type == "cpu"
    if recipe.flip:
        (_flip_by_image if by_image else _flip_whole)(views, draws.flipped)
    if recipe.jitter or recipe.greyscale:
        views = _change_colours(views, draws.colours)
    erase = _erase_by_image if by_image else _erase_whole
    if recipe.erasing and recipe.erasing_style == "mean":
        views = erase(views, draws.boxes, MEAN_COLOUR)
    normal = normalise_images(views, pool=pool)
    if recipe.erasing and recipe.erasing_style == "released":
        normal = erase(normal.permute(0, 2, 3, 1), draws.boxes, IMAGENET_MEAN).permute(0, 3, 1, 2)
    return normal


def texture_targets(
    textures: Tensor,
    flipped: Tensor,
    *,
    mirror: TextureMirror | None,
    flip_textures: FlipTextures = "mirror",
    pool: BufferPool | None = None,
) -> TextureTargets:
    """Targets for a batch: a mirrored person has the mirrored texture.

    Args:
        textures: uint8 (B, T, T, 3).
        flipped: the samples whose images are mirrored, by number, int64 on the same device.
        mirror: the mirror of the textures' atlas and size. If it is None (unknown), flipped samples
            are marked as not to be kept.
        flip_textures: "keep" takes the textures of flipped samples as they are, "omit" marks them.
        pool: where to put the targets; fresh memory if there is none.
    """
    targets = (pool or BufferPool()).buffer(
        "textures", textures.shape, textures.device, torch.float32
    )
    keep = torch.ones(len(textures), dtype=torch.bool, device=textures.device)
    if flip_textures != "mirror":
        mirror = None
    if mirror is None and flip_textures != "keep":
        keep.index_fill_(0, flipped, False)
    fill = _fill_by_image if textures.device.type == "cpu" else _fill_whole
    fill(targets, textures, flipped, mirror)
    return TextureTargets(targets.permute(0, 3, 1, 2).to(torch.get_default_dtype()), keep)


def _fill_by_image(
    targets: Tensor, textures: Tensor, flipped: Tensor, mirror: TextureMirror | None
) -> None:
    mirrored = frozenset(() if mirror is None else flipped.tolist())
    sources, outs = textures.contiguous().flatten(1).numpy(), targets.flatten(1).numpy()
    for i, (source, out) in enumerate(zip(sources, outs, strict=True)):
        if mirror is not None and i in mirrored:
            mirror.fill(source, out)
        else:
            _pixels.scale_texture(source, out)


def _fill_whole(
    targets: Tensor, textures: Tensor, flipped: Tensor, mirror: TextureMirror | None
) -> None:
    texels = textures.flatten(1, 2)  # (B, T * T, 3)
    if mirror is not None and len(flipped):
        mirrored = mirror.whole(texels.index_select(0, flipped))
        texels = texels.to(mirrored.dtype).index_copy(0, flipped, mirrored)
    torch.sub(texels.reshape(targets.shape), 127.5, out=targets).mul_(1 / 127.5)


def _crop_images(images: Tensor, draws: Draws, recipe: Recipe, large: Tensor | None) -> Tensor:
    """A crop of every image, of the image's own size; never the images themselves."""
    if recipe.crop == "pad":
        return _pad_and_crop(images, draws.corners, recipe.crop_pad)
    if not len(draws.enlarged):
        return images.clone()
    if large is None:
        size = enlarged_size((images.shape[1], images.shape[2]))
        large = _resize_batch(images.index_select(0, draws.enlarged), size)
    corners = draws.corners.index_select(0, draws.enlarged)
    crop = _crop_by_image if images.device.type == "cpu" else _crop_whole
    return crop(images, large, draws.enlarged, corners)


def _pad_and_crop(images: Tensor, corners: Tensor, pad: int) -> Tensor:
    """Windows of images with `pad` pixels of the mean colour on every side."""
    batch, height, width = images.shape[:3]
    tall, wide = height + 2 * pad, width + 2 * pad
    row = _row_of_colours(MEAN_COLOUR, wide, images.device, torch.uint8)
    padded = row.repeat(batch, tall, 1).view(batch, tall, wide, 3)
    padded[:, pad : pad + height, pad : pad + width] = images
    # the draw moves the image, so the window goes the other way
    top, left = (2 * pad - corners).unbind(1)  # (B,) each
    first = ((torch.arange(batch, device=images.device) * tall + top) * wide + left) * 3
    return _windows(padded, first, torch.full_like(first, wide * 3), images.shape)


def _crop_by_image(images: Tensor, large: Tensor, chosen: Tensor, corners: Tensor) -> Tensor:
    """The images, with the chosen ones replaced by windows of their enlarged versions."""
    height, width = images.shape[1:3]
    views = images.clone()
    for i, one, (top, left) in zip(chosen.tolist(), large, corners.tolist(), strict=True):
        views[i] = one[top : top + height, left : left + width]
    return views


def _crop_whole(images: Tensor, large: Tensor, chosen: Tensor, corners: Tensor) -> Tensor:
    batch, height, width = images.shape[:3]
    tall, wide = large.shape[1:3]
    number = torch.arange(batch, device=images.device)
    top, left = corners.unbind(1)
    place = images.numel() + ((number[: len(large)] * tall + top) * wide + left) * 3
    first = (number * height * width * 3).index_copy(0, chosen, place)
    steps = torch.full_like(first, width * 3).index_fill(0, chosen, wide * 3)
    return _windows(torch.cat([images.flatten(), large.flatten()]), first, steps, images.shape)


def _windows(source: Tensor, first: Tensor, steps: Tensor, shape: torch.Size) -> Tensor:
    """Windows of bytes: (B, H, W, 3) of that shape.

    first: (B,), where a window's first row begins in the source; steps: (B,), bytes from one of
    its rows to the next.
    """
    _, height, width, _ = shape
    rows = torch.arange(height, device=source.device)
    begins = first[:, None] + rows * steps[:, None]  # (B, H)
    length = width * 3
    # every run of so many bytes, overlapping: picking one is one copy of a whole row
    runs = source.flatten().as_strided((source.numel() - length + 1, length), (1, 1))
    return runs.index_select(0, begins.flatten()).reshape(shape)


def _resize_batch(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, uint8 in and out; only processors have such a kernel for bytes."""
    channels_first = images.permute(0, 3, 1, 2)
    if images.device.type != "cpu":
        channels_first = channels_first.float()
    large = functional.interpolate(channels_first, size=size, mode="bilinear")
    if images.device.type != "cpu":
        large = large.round().to(torch.uint8)
    return large.permute(0, 2, 3, 1)


def _flip_by_image(views: Tensor, flipped: Tensor) -> None:
    for i in flipped.tolist():
        views[i] = views[i].flip(1)


def _flip_whole(views: Tensor, flipped: Tensor) -> None:
    views.index_copy_(0, flipped, views.index_select(0, flipped).flip(2))


def _change_colours(views: Tensor, colours: Tensor) -> Tensor:
    """Saturation, brightness and contrast, in this order, by factors in thousandths (B, 3)."""
    factors = (colours.float() / 1000)[:, :, None, None, None]  # (B, 3, 1, 1, 1)
    saturation, brightness, contrast = factors.unbind(1)
    pixels = views.float()  # (B, H, W, 3)
    grey = _grey(pixels)
    pixels = brightness * (grey + saturation * (pixels - grey))
    mean = _grey(pixels).mean(dim=(1, 2), keepdim=True)
    changed: Tensor = mean + contrast * (pixels - mean)
    return changed.round().clamp(0, 255).to(torch.uint8)


def _grey(pixels: Tensor) -> Tensor:
    """Luma of RGB (ITU-R BT.601), (B, H, W, 1)."""
    red, green, blue = (pixels[..., c : c + 1] for c in range(3))
    grey: Tensor = 0.299 * red + 0.587 * green + 0.114 * blue
    return grey


def _erase_by_image(views: Tensor, boxes: Tensor, colour: Sequence[float]) -> Tensor:
    filling = torch.tensor(colour, dtype=views.dtype)
    for view, (top, left, bottom, right) in zip(views, boxes.tolist(), strict=True):
        view[top:bottom, left:right] = filling
    return views


def _erase_whole(views: Tensor, boxes: Tensor, colour: Sequence[float]) -> Tensor:
    height, width = views.shape[1:3]
    rows = torch.arange(height, device=views.device)
    columns = torch.arange(width, device=views.device)
    top, left, bottom, right = boxes[..., None].unbind(1)  # (B, 1) each
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    erased = (in_rows[:, :, None] & in_columns[:, None, :])[..., None]  # (B, H, W, 1)
    filling = _row_of_colours(colour, 1, views.device, views.dtype)
    return torch.where(erased, filling, views)


def _row_of_colours(
    colour: Sequence[float],
    width: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """A row of pixels of one colour, (3 * W,); filled in place, as a copy would be waited for."""
    columns = [torch.full((width,), value, device=device, dtype=dtype) for value in colour]
    return torch.stack(columns, dim=1).flatten()
