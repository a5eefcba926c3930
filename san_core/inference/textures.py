"""SAN-PG at work: pseudo ground-truth textures of person images (paper: SAN-PG), and PSNR.

Legend: N images, H W rows and columns, T texels a side.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from san_core.data.batches.augmentation import normalise_images
from san_core.images.pixels import Pixels
from san_core.inference.network import SeenTexture, TextureError
from san_core.model.decoder import Decoder, DecoderOutput
from san_core.model.encoder import to_channels_last
from san_core.model.san import SAN


def predict_textures(
    model: SAN,
    images: Pixels,
    *,
    device: torch.device | str,
    batch_size: int = 32,
    precision: str = "float32",
) -> Pixels:
    """The textures that a generator makes from images (N, H, W, 3): uint8 (N, T, T, 3), RGB.

    As `stream_textures`, for an array of images; it may be empty.
    """
    made = list(
        stream_textures(model, images, device=device, batch_size=batch_size, precision=precision)
    )
    size = _decoder_of(model).texture_size
    return np.stack(made) if made else np.empty((0, size, size, 3), np.uint8)


def stream_textures(
    model: SAN,
    images: Iterable[Pixels],
    *,
    device: torch.device | str,
    batch_size: int = 32,
    precision: str = "float32",
) -> Iterator[Pixels]:
    """The texture that a generator makes from each image (H, W, 3): uint8 (T, T, 3), RGB, in order.

    Every batch has `batch_size` images; the last one is padded, because libraries choose their
    arithmetic by shape. So on one CPU machine, with one batch size and number of threads, an
    image's texture does not depend on the other images. Values outside the range are clipped. While
    a GPU computes a batch, the next one is read.

    Args:
        model: a network with a decoder; moved to `device` and put into evaluation mode.
        images: of the size the network was trained on; taken a batch at a time.
        device: where to compute.
        batch_size: images at once.
        precision: float32, or on a GPU float16 or bfloat16 (autocast; not tested on a GPU).

    Raises:
        ValueError: the model has no decoder, or the device does not support the precision.
        TextureError: a texture is not finite.
    """
    made = stream_seen_textures(
        model, images, device=device, batch_size=batch_size, precision=precision
    )
    return (one.texture for one in made)


def stream_seen_textures(
    model: SAN,
    images: Iterable[Pixels],
    *,
    device: torch.device | str,
    batch_size: int = 32,
    precision: str = "float32",
) -> Iterator[SeenTexture]:
    """As `stream_textures`, with the visibility that a copying decoder predicts."""
    device = torch.device(device)
    half = half_dtype(precision, device)
    _decoder_of(model)
    to_channels_last(model.to(device).eval())
    computing: _Computed | None = None
    source, done = iter(images), 0
    while batch := list(islice(source, batch_size)):
        filled = batch + [batch[-1]] * (batch_size - len(batch))
        started = _compute_textures(model, np.stack(filled), device=device, half=half)
        if computing:
            yield from _fetch_textures(computing)
        computing = started._replace(first=done, asked=len(batch))
        done += len(batch)
    if computing:
        yield from _fetch_textures(computing)


class _Computed(NamedTuple):
    """A batch that may still be computing: textures, visibility, and which are finite."""

    levels: torch.Tensor  # (B, T, T, 3) uint8
    seen: torch.Tensor  # (B, T, T) uint8
    finite: torch.Tensor  # (B,) bool
    first: int = 0  # number of the first image
    asked: int = 0  # images that were asked for, the first of the batch


@torch.inference_mode()
def _compute_textures(
    model: SAN, batch: Pixels, *, device: torch.device, half: torch.dtype | None
) -> _Computed:
    """The textures of a batch (B, H, W, 3), on the device."""
    images = torch.from_numpy(batch)
    if device.type == "cuda":
        images = images.pin_memory()
    images = images.to(device, non_blocking=True)
    with torch.autocast(device.type, half, enabled=half is not None):
        views = normalise_images(images)
        maps = model.encoder.stage_maps(views)
        decoded = _decoder_of(model)(maps, views)
    made = decoded.texture.float()  # (B, 3, T, T)
    finite = torch.isfinite(made).all(dim=(1, 2, 3))
    levels: torch.Tensor = ((made + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return _Computed(levels.permute(0, 2, 3, 1), _seen_levels(decoded), finite)


def _seen_levels(decoded: DecoderOutput) -> torch.Tensor:
    """The visibility of each texel in its picture, (B, T, T) uint8."""
    batch, _, side, _ = decoded.texture.shape
    if decoded.copied is None:
        return decoded.texture.new_full((batch, side, side), 255, dtype=torch.uint8)
    shares = decoded.copied.seen.float().sigmoid()
    large = functional.interpolate(shares, size=(side, side), mode="bilinear")
    return (large[:, 0] * 255).round().to(torch.uint8)


def _fetch_textures(batch: _Computed) -> Iterator[SeenTexture]:
    """The textures of a batch that were asked for, once they are computed."""
    finite = batch.finite.cpu().numpy()[: batch.asked]
    if not finite.all():
        raise TextureError(batch.first + int(np.argmin(finite)))
    textures, seen = batch.levels.cpu().numpy(), batch.seen.cpu().numpy()
    yield from map(SeenTexture, textures[: batch.asked], seen[: batch.asked])


def _decoder_of(model: SAN) -> Decoder:
    if model.decoder is None:
        raise ValueError("the model has no decoder: a baseline cannot generate textures")
    return model.decoder


def half_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The torch type of a precision on a device; None for float32.

    Raises:
        ValueError: the precision is unknown, or the device does not support it.
    """
    known = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if precision not in known:
        raise ValueError(f"precision {precision!r} is not one of {', '.join(known)}")
    if precision != "float32" and device.type != "cuda":
        raise ValueError(f"precision {precision} needs a GPU; on this machine use float32")
    return known[precision]


def psnr(images: Pixels, reference: Pixels) -> float:
    """Peak signal-to-noise ratio in dB of uint8 arrays of one shape, their squared errors pooled.

    10 log10(255^2 / MSE), the MSE over all images, texels and colours at once; infinite for equal
    arrays.

    Raises:
        ValueError: the shapes differ, or there is nothing to compare.
    """
    if images.shape != reference.shape or images.size == 0:
        raise ValueError(
            f"PSNR needs two arrays of the same shape, found {images.shape}, {reference.shape}"
        )
    total = sum(
        float(np.square(a.astype(np.float64) - b).sum())
        for a, b in zip(images, reference, strict=True)
    )
    return math.inf if total == 0 else 10 * math.log10(255**2 / (total / images.size))
