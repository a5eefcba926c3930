"""A trained network that torch runs, on a processor or a GPU."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from san_core.images.pixels import Pixels
from san_core.inference.features import stream_embeddings
from san_core.inference.network import SeenTexture
from san_core.inference.textures import half_dtype, stream_seen_textures
from san_core.model.weights import fingerprint, load_network


class TorchNetwork:
    """The network saved in a folder, as `network.Network`.

    Raises:
        FileNotFoundError: the folder holds no network.
        ValueError: it is damaged.
    """

    is_onnx = False

    def __init__(self, path: Path, device: torch.device) -> None:
        loaded = load_network(path)
        self.model, self.recipe, self.facts = loaded.model, loaded.recipe, loaded.facts
        self.weights_sha256 = fingerprint(path)
        self._device = device

    def stream_embeddings(
        self, images: Iterable[Pixels], *, mirrored: bool
    ) -> Iterator[NDArray[np.float32]]:
        """See `network.Network`."""
        return stream_embeddings(self.model, images, mirrored=mirrored, device=self._device)

    def stream_textures(
        self, images: Iterable[Pixels], *, batch_size: int, precision: str
    ) -> Iterator[SeenTexture]:
        """See `network.Network`."""
        return stream_seen_textures(
            self.model, images, device=self._device, batch_size=batch_size, precision=precision
        )

    def check_precision(self, precision: str) -> None:
        """See `network.Network`."""
        half_dtype(precision, self._device)
