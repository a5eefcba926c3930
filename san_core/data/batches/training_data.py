"""The arrays that training reads, and how they fit together.

Legend: N images, H W rows and columns, M textures, T texels a side.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from san_core.data.batches.cache import enlarged_size
from san_core.images.pixels import Pixels
from san_core.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The data that training reads. Arrays may be memory maps; only the current batch is copied.

    Raises ValueError if the arrays do not fit each other.
    """

    images: Pixels  # (N, H, W, 3) RGB
    # (N, H', W', 3), the files enlarged, for recipes with crop="translate_stored"
    enlarged: Pixels | None = None
    labels: NDArray[np.int64] | None = None  # (N,), classes 0 ... C-1; None: no identities known
    textures: Pixels | None = None  # (M, T, T, 3) RGB, each distinct texture once
    texture_index: NDArray[np.int64] | None = None  # (N,), the row of an image's texture
    mirror: csr_array | None = None  # (T * T, T * T), mirror_matrix of the textures' atlas
    dense: Pixels | None = None  # (N, H, W, 3), which texel every pixel shows, from make_pit
    texel_mirror: NDArray[np.intp] | None = None  # (256 * 256,), mirror_index of that atlas
    pit: "TrainingData | None" = None  # paired data with true textures, for recipes with pit_every

    def __post_init__(self) -> None:
        n = len(self.images)
        if (self.textures is None) != (self.texture_index is None):
            raise ValueError("textures and texture_index come together: one of them is missing")
        if self.dense is not None and self.dense.shape != self.images.shape:
            raise ValueError(f"dense maps are {self.dense.shape}, images {self.images.shape}")
        if self.labels is not None:
            _check_labels(self.labels, n)
        if self.textures is not None and self.texture_index is not None:
            _check_texture_index(self.texture_index, len(self.textures), n)
            texels = self.textures.shape[1] * self.textures.shape[2]
            if self.mirror is not None and self.mirror.shape != (texels, texels):
                raise ValueError(
                    f"the mirror index has {self.mirror.shape[0]} texels, textures have {texels}"
                )

    @property
    def num_classes(self) -> int:
        """Distinct identities; 0 where none are known."""
        return 0 if self.labels is None else int(self.labels.max()) + 1


def check_training_data(data: TrainingData, recipe: Recipe) -> None:
    """Raise ValueError unless `data` have everything that `recipe` needs."""
    _check_images(data, recipe)
    if recipe.needs_decoder:
        _check_textures(data, recipe)
    if recipe.needs_identities:
        if data.labels is None:
            raise ValueError(
                f"the recipe's losses {', '.join(recipe.active_losses)} need labels, and there "
                "are none"
            )
        check_identity_count(recipe, data.num_classes)
    _check_pit(data.pit, recipe)


def check_identity_count(recipe: Recipe, count: int) -> None:
    """Raise ValueError unless `count` identities are enough for a batch of `recipe`."""
    if recipe.forms_triplets and count < recipe.identities_per_batch:
        raise ValueError(
            f"identities_per_batch is {recipe.identities_per_batch}, "
            f"but there are {count} identities"
        )


def _check_images(data: TrainingData, recipe: Recipe) -> None:
    found, wanted = data.images.shape[1:3], recipe.image_size
    if found != wanted:
        raise ValueError(
            f"images are {found[0]}x{found[1]}, but the recipe says {wanted[0]}x{wanted[1]}"
        )
    if (data.enlarged is None) == (recipe.crop == "translate_stored"):
        told = "there are no" if data.enlarged is None else "there are"
        raise ValueError(f"recipe crop is {recipe.crop!r}, but {told} enlarged images")
    shape = (len(data.images), *enlarged_size(wanted), 3)
    if data.enlarged is not None and data.enlarged.shape != shape:
        raise ValueError(f"enlarged images are {data.enlarged.shape}, must be {shape}")


def _check_textures(data: TrainingData, recipe: Recipe) -> None:
    if data.textures is None:
        raise ValueError(
            f"the recipe's losses {', '.join(recipe.active_losses)} need textures, and there are "
            "none"
        )
    size = recipe.texture_size
    if data.textures.shape[1:3] != (size, size):
        rows, columns = data.textures.shape[1:3]
        raise ValueError(f"textures are {rows}x{columns}, the recipe says texture_size {size}")


def _check_pit(pit: TrainingData | None, recipe: Recipe) -> None:
    if (pit is None) == (recipe.pit_every > 0):
        found = "there are none" if pit is None else "PIT data were given"
        raise ValueError(f"recipe pit_every is {recipe.pit_every}, but {found}")
    if pit is None:
        return
    try:
        _check_images(pit, recipe)
        _check_textures(pit, recipe)
    except ValueError as error:
        raise ValueError(f"PIT data: {error}") from error


def _check_labels(labels: NDArray[np.int64], n: int) -> None:
    if len(labels) != n:
        raise ValueError(f"{len(labels)} labels for {n} images")
    classes = np.unique(labels)
    if not np.array_equal(classes, np.arange(len(classes))):
        raise ValueError(f"labels must be 0 ... C-1, found {classes[:10].tolist()}")


def _check_texture_index(rows: NDArray[np.int64], textures: int, n: int) -> None:
    if len(rows) != n:
        raise ValueError(f"{len(rows)} texture rows for {n} images")
    wrong = (rows < 0) | (rows >= textures)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"image {row} has texture row {rows[row]}, but there are {textures} textures"
        )
