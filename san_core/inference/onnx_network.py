"""A trained network that onnxruntime runs on a processor, without torch.

Legend: B batch, H W rows and columns, T texels a side.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from san_core.images.pixels import Pixels
from san_core.inference.network import SeenTexture, TextureError, check_finite
from san_core.model.onnx_file import DESCRIPTION, PIXEL_LAYOUT, WEIGHTS_SHA256, OnnxFile, open_onnx
from san_core.model.saved import parse_description


class OnnxNetwork:
    """The network in an ONNX file, as `network.Network`.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        ValueError: the file is damaged, or lacks its metadata.
    """

    is_onnx = True

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        self._file: OnnxFile = open_onnx(path, threads=threads)
        told = self._file.metadata
        self.recipe, self.facts = parse_description(told[DESCRIPTION].encode(), where=str(path))
        self.weights_sha256 = told[WEIGHTS_SHA256]

    def stream_embeddings(
        self, images: Iterable[Pixels], *, mirrored: bool
    ) -> Iterator[NDArray[np.float32]]:
        """See `network.Network`."""
        done = 0
        for batch in images:
            found = self._run(batch)
            if mirrored:
                found = (found + self._run(batch[:, :, ::-1])) * np.float32(0.5)
            check_finite(found, first=done)
            done += len(found)
            yield found

    def stream_textures(
        self, images: Iterable[Pixels], *, batch_size: int, precision: str
    ) -> Iterator[SeenTexture]:
        """See `network.Network`."""
        self.check_precision(precision)
        source, done = iter(images), 0
        while batch := list(islice(source, batch_size)):
            made = self._run(np.stack(batch))  # (B, 3, T, T)
            finite = np.isfinite(made).all(axis=(1, 2, 3))
            if not finite.all():
                raise TextureError(done + int(np.argmin(finite)))
            levels: NDArray[np.uint8] = np.clip(np.rint((made + 1) * 127.5), 0, 255).astype(
                np.uint8
            )
            for texture in levels.transpose(0, 2, 3, 1):
                seen = np.full(texture.shape[:2], 255, np.uint8)
                yield SeenTexture(np.ascontiguousarray(texture), seen)
            done += len(batch)

    def check_precision(self, precision: str) -> None:
        """See `network.Network`."""
        if precision != "float32":
            raise ValueError(
                f"precision {precision} is not available for an ONNX file, which is float32"
            )

    def _run(self, pixels: Pixels) -> NDArray[np.float32]:
        """The output of the file for pixels (B, H, W, 3)."""
        batch: NDArray[Any] = np.ascontiguousarray(pixels)
        if self._file.metadata["layout"] != PIXEL_LAYOUT:
            batch = self._normalised(batch)
        made: NDArray[np.float32] = self._file.run(batch)
        return made

    def _normalised(self, pixels: Pixels) -> NDArray[np.float32]:
        """Pixels (B, H, W, 3) as the file takes them: (B, 3, H, W)."""
        mean, std = (
            np.array(self._file.metadata[name].split(), np.float32) for name in ("mean", "std")
        )
        images = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
