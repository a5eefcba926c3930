"""Networks as ONNX files, for machines without torch and for faster inference on processors.

What a file computes begins with pixels: uint8 RGB (N, H, W, 3), normalised inside, so that nobody
normalises twice or not at all. N is free, H and W are the recipe's. Writing needs the `onnx` extra.
"""

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from san_core.data.batches.augmentation import normalise_by_torch
from san_core.model.san import SAN
from san_core.recipe import Recipe

PIXELS = "pixels"  # input: uint8 (N, H, W, 3) RGB
EMBEDDING = "embedding"  # output of an encoder: float32 (N, D), not normalised
TEXTURE = "texture"  # output of a generator: float32 (N, 3, T, T) RGB, meant in [-1, 1]
_OPSET = 18


def check_onnx_installed() -> None:
    """Raise ModuleNotFoundError unless what writing needs is installed: the `onnx` extra."""
    for package in ("onnx", "onnxscript"):
        importlib.import_module(package)


def export_encoder(path: Path, model: SAN, recipe: Recipe) -> None:
    """Write the ReID encoder of `model` as an ONNX file: pixels to embeddings.

    Args:
        path: the .onnx file; an existing one is replaced.
        model: the network of `recipe`; moved to the CPU and put into evaluation mode.
        recipe: gives the size of the images.

    Raises:
        ModuleNotFoundError: the `onnx` extra is not installed.
    """
    _export(path, _PixelEncoder(model), recipe, output=EMBEDDING)


def export_generator(path: Path, model: SAN, recipe: Recipe) -> None:
    """Write a texture generator as an ONNX file: pixels to textures. As `export_encoder`.

    Raises:
        ValueError: the model has no decoder.
        ModuleNotFoundError: the `onnx` extra is not installed.
    """
    if model.decoder is None:
        raise ValueError("the model has no decoder: a baseline cannot generate textures")
    _export(path, _PixelGenerator(model), recipe, output=TEXTURE)


class _PixelEncoder(nn.Module):
    def __init__(self, model: SAN) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, pixels: Tensor) -> Tensor:
        embedding: Tensor = self.encoder(normalise_by_torch(pixels)).embedding
        return embedding


class _PixelGenerator(nn.Module):
    def __init__(self, model: SAN) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder

    def forward(self, pixels: Tensor) -> Tensor:
        assert self.decoder is not None  # checked before
        images = normalise_by_torch(pixels)
        texture: Tensor = self.decoder(self.encoder.stage_maps(images), images).texture
        return texture


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without what the exporter's optimiser tells of every pass."""
    talkers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)


def _export(path: Path, network: nn.Module, recipe: Recipe, *, output: str) -> None:
    pixels = torch.zeros(2, *recipe.image_size, 3, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings(), _quiet_exporter():
        # torch's exporter calls functions that torch itself deprecates
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.onnx.export(
            network.to("cpu").eval(),
            (pixels,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("images", min=1)},),
            input_names=[PIXELS],
            output_names=[output],
            opset_version=_OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # as always with dynamo
    program.save(path, external_data=False)
