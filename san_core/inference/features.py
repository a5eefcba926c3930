"""ReID features of person images: the embedding of the encoder."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from san_core.data.batches.augmentation import normalise_images
from san_core.images.pixels import Pixels
from san_core.inference.network import check_finite
from san_core.model.encoder import to_channels_last
from san_core.model.san import SAN


def embed(
    model: SAN,
    images: Pixels | Iterable[Pixels],
    *,
    mirrored: bool = False,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> NDArray[np.float32]:
    """Embeddings of uint8 RGB images: float32 (N, D), not normalised.

    As `stream_embeddings`, all of them in one array.
    """
    rows = [np.empty((0, model.encoder.dim), np.float32)]
    rows += stream_embeddings(
        model, images, mirrored=mirrored, device=device, batch_size=batch_size
    )
    return np.concatenate(rows)


def stream_embeddings(
    model: SAN,
    images: Pixels | Iterable[Pixels],
    *,
    mirrored: bool = False,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> Iterator[NDArray[np.float32]]:
    """Embeddings of uint8 RGB images, batch by batch: float32 (B, D), not normalised.

    As in the official test, one view is used, unless the mirrored view is asked for too. Compare
    features by the distance that the triplet loss was trained with: `Recipe.metric`. The decoder is
    neither run nor moved to the device. Bytes are repeatable for equal batches, device and thread
    count.

    Args:
        model: any SAN or baseline, as `model.weights.load(path).model`; its encoder is moved to
            `device` and put into evaluation mode.
        images: one array (N, H, W, 3), which may be a memory map, or an iterable of batches
            (B, H, W, 3) in the order of the rows; batches of equal size keep the arithmetic the
            same.
        mirrored: whether each is the mean over an image and its mirror image, at twice the cost.
        device: where to compute.
        batch_size: images per batch, if they come as one array.

    Raises:
        ValueError: images are not uint8 (B, H, W, 3) of the encoder's size, or an embedding is not
            finite; the line names its row.
    """
    encoder = model.encoder
    # Outside of inference mode: weights moved within it could not be trained further.
    to_channels_last(encoder.to(device).eval())
    done = 0
    for batch in _batches(images, batch_size):
        wanted = (*encoder.image_size, 3)
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != wanted:
            raise ValueError(
                f"images are {batch.dtype} of shape {batch.shape}, must be uint8 of shape"
                f" (B, {', '.join(map(str, wanted))}), as the encoder was made for"
            )
        with torch.inference_mode():
            pixels = torch.from_numpy(np.array(batch)).to(device)  # a copy of a read-only map
            views = normalise_images(pixels)
            found = encoder(views).embedding.float()
            if mirrored:
                found = (found + encoder(views.flip(3)).embedding.float()) / 2
            part = found.cpu().numpy()
        check_finite(part, first=done)
        done += len(part)
        yield part


def _batches(images: Pixels | Iterable[Pixels], size: int) -> Iterable[Pixels]:
    if isinstance(images, np.ndarray):
        return (images[start : start + size] for start in range(0, len(images), size))
    return images
