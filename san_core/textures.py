"""SAN-PG at work: pseudo ground-truth textures of person images (paper: SAN-PG), and PSNR.

Legend: N images, H W rows and columns, T texels a side.
"""

import math

import numpy as np
import torch

from san_core.data.augmentation import normalise
from san_core.model.encoder import channels_last
from san_core.model.san import SAN
from san_core.pixels import Pixels


@torch.inference_mode()
def generate(
    model: SAN,
    images: Pixels,
    *,
    device: torch.device | str,
    batch_size: int = 32,
    precision: str = "float32",
) -> Pixels:
    """The textures a generator sees on images (N, H, W, 3): uint8 (N, T, T, 3), RGB.

    Every batch has `batch_size` images, the last one filled up, since libraries choose their
    arithmetic by shape: on one CPU machine, with one batch size and number of threads, an image's
    texture does not depend on what else is asked for. Values outside the range are clipped.

    Args:
        model: a network with a decoder; moved to `device` and put into evaluation mode.
        images: of the size the network was trained on; may be empty.
        device: where to compute.
        batch_size: images at once.
        precision: float32, or on a GPU float16 or bfloat16 (autocast; not tested on a GPU).

    Raises:
        ValueError: the model has no decoder, or the precision is not one for the device.
    """
    half = _half(precision, torch.device(device))
    if model.decoder is None:
        raise ValueError("the model has no decoder: a baseline cannot generate textures")
    channels_last(model.to(device).eval())
    size = model.decoder.texture_size
    textures = np.empty((len(images), size, size, 3), np.uint8)
    for start in range(0, len(images), batch_size):
        rows = np.arange(start, start + batch_size).clip(max=len(images) - 1)
        batch = torch.from_numpy(images[rows]).to(device)
        with torch.autocast(torch.device(device).type, half, enabled=half is not None):
            made = model.decoder(model.encoder(normalise(batch)).maps).texture  # (B, 3, T, T)
        levels = ((made.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        part = levels.permute(0, 2, 3, 1).cpu().numpy()
        textures[start : start + batch_size] = part[: len(images) - start]
    return textures


def _half(precision: str, device: torch.device) -> torch.dtype | None:
    """The type to compute in, None for float32."""
    known = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if precision not in known:
        raise ValueError(f"precision {precision!r} is none of {', '.join(known)}")
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
        raise ValueError(f"PSNR needs two arrays alike, found {images.shape}, {reference.shape}")
    total = sum(
        float(np.square(a.astype(np.float64) - b).sum())
        for a, b in zip(images, reference, strict=True)
    )
    return math.inf if total == 0 else 10 * math.log10(255**2 / (total / images.size))
