"""Which view of every image a batch shows: drawn on the host, from one table of random numbers.

An image draws the same numbers whichever augmentations the recipe enables. All draws are whole
numbers and go to the device in one small tensor.
Legend: B batch, H W rows and columns.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from san_core.data.batches.cache import enlarged_size
from san_core.recipe import Recipe
from san_core.seeds import derive_seed

_ENLARGED_SHARE = 0.5
_ERASED_AREA = (0.02, 0.4)  # share of the image (Zhong et al. 2020, and the official code)
_ERASED_RATIO = (0.3, 1 / 0.3)  # height over width
_ATTEMPTS = 100  # boxes that are drawn for an image until one fits, with erasing as released

# The columns of the table of uniform numbers in [0, 1): one for each purpose
_COLUMNS = 9
_FLIP, _ENLARGED, _CROP_ROW, _CROP_COLUMN, _ERASE, _AREA, _RATIO, _ROW, _COLUMN = range(_COLUMNS)

_Table = NDArray[np.float64]


class Draws(NamedTuple):
    """The augmentation of each of B images, int64, on one device."""

    flipped: Tensor  # the images that are mirrored, by number
    enlarged: Tensor  # the images that are enlarged before they are cropped, by number
    corners: Tensor  # (B, 2), the first row and column of the view in what it is cut from
    boxes: Tensor  # (B, 4), what is erased: top, left, bottom, right; empty where nothing is
    # (B, 3), factors of saturation, brightness and contrast in thousandths; saturation 0 is grey
    colours: Tensor

    def packed(self) -> Tensor:
        """All of it as one vector."""
        return torch.cat([part.flatten() for part in self])

    def unpacked(self, vector: Tensor) -> "Draws":
        """The draws of a vector from `packed`, which may be on another device by now."""
        parts = torch.split(vector, [part.numel() for part in self])
        return Draws(*(part.view(mine.shape) for part, mine in zip(parts, self, strict=True)))


def draw_views(
    count: int,
    size: tuple[int, int],
    recipe: Recipe,
    *,
    generator: torch.Generator,
    skip: int = 0,
) -> Draws:
    """The draws for `count` images of `size` = (H, W), on the host.

    Args:
        count: B.
        size: rows and columns of every image.
        recipe: its flip, crop, crop_pad, erasing and its style, jitter and greyscale.
        generator: a CPU generator.
        skip: earlier images of the batch, which belong to other processes.
    """
    table = torch.rand(skip + count, _COLUMNS, generator=generator)[skip:].double().numpy()
    colours = _own_table("colours", (count, 4), generator=generator, skip=skip)
    if recipe.erasing_style == "released":
        drawn = _own_table("erasing", (count, 2 * _ATTEMPTS), generator=generator, skip=skip)
        boxes = _redrawn_boxes(table, drawn, size)
    else:
        boxes = _boxes(table, size)
    enlarged = (table[:, _ENLARGED] < _ENLARGED_SHARE) & recipe.crop.startswith("translate")
    return Draws(
        _numbers_of(table[:, _FLIP] < recipe.flip),
        _numbers_of(enlarged),
        torch.from_numpy(_corners(table, size, recipe, enlarged)),
        torch.from_numpy(boxes * (table[:, _ERASE] < recipe.erasing)[:, None]),
        torch.from_numpy(_colours(colours, recipe)),
    )


def _own_table(
    purpose: str, shape: tuple[int, int], *, generator: torch.Generator, skip: int
) -> _Table:
    """Uniform numbers from a separate generator: no other draw depends on them."""
    own = torch.Generator().manual_seed(derive_seed(generator.initial_seed(), purpose))
    count, columns = shape
    return torch.rand(skip + count, columns, generator=own)[skip:].double().numpy()


def _numbers_of(chosen: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.flatnonzero(chosen))


def _corners(
    table: _Table, size: tuple[int, int], recipe: Recipe, enlarged: NDArray[np.bool_]
) -> NDArray[np.int64]:
    uniform = table[:, [_CROP_ROW, _CROP_COLUMN]]
    if recipe.crop == "pad":
        return _whole(uniform, np.full(2, 2 * recipe.crop_pad))
    spare = np.subtract(enlarged_size(size), size)
    if recipe.crop == "translate_stored":  # rounded as officially: the ends are half as likely
        return np.rint(uniform * spare).astype(np.int64) * enlarged[:, None]
    return _whole(uniform, spare) * enlarged[:, None]


def _boxes(table: _Table, size: tuple[int, int]) -> NDArray[np.int64]:
    """A box for every image; one that would not fit is cut, where the official code draws again."""
    sides = _sides(table[:, _AREA], table[:, _RATIO], size)
    return _placed(table, sides.clip(1, size), size)


def _redrawn_boxes(table: _Table, drawn: _Table, size: tuple[int, int]) -> NDArray[np.int64]:
    """The first box of `drawn` (B, 2 * attempts) that fits each image; an empty one if none does.

    As officially (transforms.py:10), one as tall or as wide as the image does not fit.
    """
    sides = _sides(drawn[:, ::2], drawn[:, 1::2], size)  # (B, attempts, 2)
    fits: NDArray[np.bool_] = np.all(sides < size, axis=-1)  # (B, attempts)
    chosen = sides[np.arange(len(sides)), fits.argmax(axis=1)]  # (B, 2)
    boxes = _placed(table, chosen.clip(1, size), size)
    return np.where(fits.any(axis=1, keepdims=True), boxes, 0)


def _sides(area: _Table, ratio: _Table, size: tuple[int, int]) -> NDArray[np.int64]:
    """Rows and columns (..., 2) of boxes, from two uniform draws (...)."""
    pixels = _between(_ERASED_AREA, area) * size[0] * size[1]
    tall = _between(_ERASED_RATIO, ratio)
    sides = np.sqrt(np.stack([pixels * tall, pixels / tall], axis=-1))
    return np.rint(sides).astype(np.int64)


def _placed(table: _Table, sides: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.int64]:
    """Boxes (B, 4) of these sides (B, 2), anywhere in the image."""
    first = _whole(table[:, [_ROW, _COLUMN]], np.array(size) - sides)
    return np.concatenate([first, first + sides], axis=1)


def _colours(table: _Table, recipe: Recipe) -> NDArray[np.int64]:
    factors = _between((1 - recipe.jitter, 1 + recipe.jitter), table[:, :3])  # (B, 3)
    factors[table[:, 3] < recipe.greyscale, 0] = 0
    return np.rint(1000 * factors).astype(np.int64)


def _whole(uniform: _Table, highest: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers 0 ... highest from uniform draws in [0, 1)."""
    return (uniform * (highest + 1)).astype(np.int64)


def _between(bounds: tuple[float, float], uniform: _Table) -> _Table:
    return bounds[0] + (bounds[1] - bounds[0]) * uniform
