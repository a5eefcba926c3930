"""Image files decoded once into a memory-mapped uint8 array, so that an epoch decodes nothing.

Decoding and resizing a file is many times slower than reading its row, and training reads every row
once an epoch. Memory use does not grow with the number of images.
"""

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.disk import new_array
from san_core.images import pixels
from san_core.images.pixels import Pixels

ENLARGE = 1.125  # Random2DTranslation of the official code (transforms.py)


def enlarged_size(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of an image that is enlarged before it is cropped."""
    return round(size[0] * ENLARGE), round(size[1] * ENLARGE)


class EncodedImage(NamedTuple):
    """An encoded image, read when needed, and its name in error messages."""

    name: str
    read: Callable[[], bytes]


# Applies a function to every item and gives the results in order, as `map` does.
Mapper = Callable[[Callable[[EncodedImage], Pixels], Iterable[EncodedImage]], Iterable[Pixels]]


def cache_images(
    path: Path,
    files: Iterable[EncodedImage],
    *,
    count: int,
    size: tuple[int, int],
    mapper: Mapper = map,
) -> Pixels:
    """Images resized to `size` = (rows, columns): a read-only memory map (count, H, W, 3), RGB.

    Args:
        path: the .npy file to write; an existing one is replaced once the new one is whole.
        files: exactly `count` JPEG or PNG files, in the order of the rows.
        count: the number of rows.
        size: rows and columns of every image.
        mapper: reads and decodes several at once, in threads for instance. It must give the results
            in order, and should hold but a few of them.

    Raises:
        ValueError: a file is not an image (the line names the first such file), or there are not
            `count` files.
    """

    def prepare(file: EncodedImage) -> Pixels:
        return pixels.resize(pixels.decode(file.read(), name=file.name), size)

    return _write_cache(path, files, partial(mapper, prepare), shape=(count, *size, 3))


def cache_textures(
    path: Path,
    files: Iterable[EncodedImage],
    *,
    count: int,
    size: int,
    mapper: Mapper = map,
) -> Pixels:
    """Textures area-averaged to `size` x `size`: a read-only memory map (count, T, T, 3), RGB.

    As `cache_images`; a texture that is not square or whose side is not a multiple of `size` raises
    ValueError.
    """

    def prepare(file: EncodedImage) -> Pixels:
        texture = pixels.decode(file.read(), name=file.name)
        try:
            return pixels.area_average(texture, size)
        except ValueError as error:
            raise ValueError(f"texture {file.name}: {error}") from error

    return _write_cache(path, files, partial(mapper, prepare), shape=(count, size, size, 3))


def cache_dense(
    path: Path,
    files: Iterable[EncodedImage],
    *,
    count: int,
    size: tuple[int, int],
    mapper: Mapper = map,
) -> Pixels:
    """Dense maps at `size` = (rows, columns), as `cache_images`; texels are picked, never mixed."""

    def prepare(file: EncodedImage) -> Pixels:
        told = pixels.decode(file.read(), name=file.name)
        rows, columns = (
            ((np.arange(n) + 0.5) * whole / n).astype(int)
            for n, whole in zip(size, told.shape, strict=False)
        )
        return np.ascontiguousarray(told[rows[:, None], columns])

    return _write_cache(path, files, partial(mapper, prepare), shape=(count, *size, 3))


def _write_cache(
    path: Path,
    files: Iterable[EncodedImage],
    prepare_all: Callable[[Iterable[EncodedImage]], Iterable[Pixels]],
    *,
    shape: tuple[int, int, int, int],
) -> Pixels:
    count = shape[0]
    if count == 0:
        raise ValueError(f"{path.name}: no images to cache")
    unfinished = path.with_name(path.name + ".partial")
    rows = new_array(unfinished, shape, np.dtype(np.uint8))
    source, found = iter(files), 0
    for found, image in enumerate(prepare_all(islice(source, count)), start=1):
        rows[found - 1] = image
    if found < count:
        raise ValueError(f"{path.name}: {found} images, {count} announced")
    if next(source, None) is not None:
        raise ValueError(f"{path.name}: more than the {count} images announced")
    rows.flush()
    del rows
    os.replace(unfinished, path)  # noqa: PTH105 - the atomic call, under its own name
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def label_map(pids: Iterable[int]) -> dict[int, int]:
    """Class numbers 0 ... C-1 of the sorted distinct person ids."""
    return {pid: label for label, pid in enumerate(sorted(set(pids)))}


def row_indices(
    keys: Sequence[Hashable], among: Sequence[Hashable], *, what: str
) -> NDArray[np.int64]:
    """For every key, the row of `among` that holds it: (len(keys),).

    Used to find each image's texture by name or identity. `what` names a row in error messages.

    Raises:
        ValueError: a key is absent, or a row appears twice.
    """
    rows = {key: row for row, key in enumerate(among)}
    if len(rows) != len(among):
        twice = Counter(among).most_common(1)[0][0]
        raise ValueError(f"{what} {twice!r} appears twice")
    absent = [key for key in keys if key not in rows]
    if absent:
        raise ValueError(f"no {what} {absent[0]!r} ({len(absent)} of {len(keys)} are absent)")
    return np.array([rows[key] for key in keys], np.int64)
