"""Features of crops in your own program, such as a tracker.

    from san_core.inference.crops import load_encoder

    loaded = load_encoder("work/model")
    features = loaded.embed_crops([frame[y:y2, x:x2] for x, y, x2, y2 in boxes], bgr=True)

Legend: N crops, D embedding, H W rows and columns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from san_core.images.pixels import Pixels, resize
from san_core.inference.features import stream_embeddings
from san_core.inference.network import check_encoder
from san_core.model.san import SAN
from san_core.model.weights import load_network
from san_core.recipe import Recipe

_BATCH = 64  # crops per batch, as in extract_features


@dataclass(frozen=True)
class LoadedEncoder:
    """A trained encoder that is ready for crops.

    Attributes:
        model: the network, in evaluation mode.
        recipe: the recipe of its training.
        device: the device it runs on.
    """

    model: SAN
    recipe: Recipe
    device: torch.device | str

    @property
    def metric(self) -> str:
        """The distance for comparing features: cosine or euclidean."""
        return self.recipe.metric

    @property
    def image_size(self) -> tuple[int, int]:
        """(rows, columns) that crops are resized to."""
        return self.recipe.image_size

    @property
    def dimensions(self) -> int:
        """D, the length of a feature."""
        return self.model.encoder.dim

    def embed_crops(
        self, images: Sequence[NDArray[np.uint8]], *, bgr: bool = False
    ) -> NDArray[np.float32]:
        """Features of crops: float32 (N, D), of length 1 where the metric is cosine.

        They equal those of `extract_features` for the same pixels. Crops are resized as in
        training, bilinear with antialiasing; OpenCV's plain bilinear resizing differs.

        Args:
            images: uint8 (H, W, 3) each, of any size.
            bgr: whether channels are in the order blue, green, red, as in OpenCV; else red, green,
                blue.

        Raises:
            ValueError: an image has another type or shape, or a feature is not finite; the line
                names it.
        """
        batches = self._resized_batches(images, bgr)
        rows = [np.empty((0, self.dimensions), np.float32)]
        rows += stream_embeddings(
            self.model, batches, mirrored=self.recipe.mirrored, device=self.device
        )
        found = np.concatenate(rows)
        if self.metric == "cosine":
            lengths = np.linalg.norm(found, axis=1, keepdims=True)
            found /= np.where(lengths > 0, lengths, 1)  # a feature of zeros stays one
        return found

    def _resized_batches(self, images: Sequence[NDArray[np.uint8]], bgr: bool) -> Iterator[Pixels]:
        for start in range(0, len(images), _BATCH):
            batch = enumerate(images[start : start + _BATCH], start)
            yield np.stack([resize(_as_rgb(i, image, bgr), self.image_size) for i, image in batch])


def load_encoder(path: Path | str, *, device: torch.device | str = "cpu") -> LoadedEncoder:
    """The encoder of a model that train_san wrote into a folder.

    Raises:
        FileNotFoundError: the folder holds no model.
        ValueError: it is damaged, or a texture generator.
    """
    loaded = load_network(Path(path))
    check_encoder(loaded.recipe, path)
    return LoadedEncoder(loaded.model, loaded.recipe, device)


def _as_rgb(number: int, image: NDArray[np.uint8], bgr: bool) -> Pixels:
    """A crop as red, green, blue, row by row in memory.

    Raises:
        ValueError: it is not a colour image.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"crop {number} is {image.dtype} of shape {image.shape}; expected uint8 (H, W, 3)"
        )
    return np.ascontiguousarray(image[:, :, ::-1] if bgr else image)
