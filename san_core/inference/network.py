"""The interface of a trained network, which gives features or textures: run by torch or from ONNX.

`torch_network` and `onnx_network` implement it; this module needs neither of their packages.

Legend: B batch, H W rows and columns, D embedding, T texels a side.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from san_core.images.pixels import Pixels
from san_core.recipe import Recipe


class TextureError(ValueError):
    """A texture that is not finite; `place` is the number of its image."""

    def __init__(self, place: int) -> None:
        super().__init__(f"the texture of image {place} is not finite")
        self.place = place


class SeenTexture(NamedTuple):
    """A texture, and how far each texel is visible in the picture."""

    texture: Pixels  # (T, T, 3), RGB
    seen: NDArray[np.uint8]  # (T, T), 0 hidden ... 255 visible; 255 if the decoder does not copy


class Network(Protocol):
    """An encoder, or a texture generator, ready to run.

    Attributes:
        recipe: the recipe of its training.
        facts: further facts from recipe.json.
        weights_sha256: the fingerprint of its weights.
        is_onnx: whether it is an ONNX file.
    """

    @property
    def recipe(self) -> Recipe: ...  # noqa: D102

    @property
    def facts(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def weights_sha256(self) -> str: ...  # noqa: D102

    @property
    def is_onnx(self) -> bool: ...  # noqa: D102

    def stream_embeddings(
        self, images: Iterable[Pixels], *, mirrored: bool
    ) -> Iterator[NDArray[np.float32]]:
        """Embeddings of batches (B, H, W, 3): float32 (B, D), not normalised.

        mirrored: whether each is the mean over an image and its mirror image.

        Raises:
            ValueError: an embedding is not finite; the line names its row.
        """
        ...

    def stream_textures(
        self, images: Iterable[Pixels], *, batch_size: int, precision: str
    ) -> Iterator[SeenTexture]:
        """The texture of each image (H, W, 3), in order.

        Raises:
            ValueError: the device does not support the precision.
            TextureError: a texture is not finite.
        """
        ...

    def check_precision(self, precision: str) -> None:
        """Raise ValueError if textures cannot be computed in a precision."""
        ...


def check_finite(embeddings: NDArray[np.float32], *, first: int) -> None:
    """Raise ValueError if an embedding of (B, D), numbered from `first`, is not finite."""
    broken = ~np.isfinite(embeddings).all(axis=1)
    if broken.any():
        raise ValueError(f"the embedding of image {first + int(np.argmax(broken))} is not finite")


def check_encoder(recipe: Recipe, where: object) -> None:
    """Raise ValueError if the network at `where` was not trained to tell people apart."""
    if not recipe.needs_identities:
        raise ValueError(f"{where} has learned no identities: it is a texture generator")
