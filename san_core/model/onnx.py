"""Networks as ONNX files, for machines without torch and for faster inference on processors.

The input of a file is pixels, uint8 RGB (N, H, W, 3), which the file itself normalises; or, as
trackers supply them, normalised images: float32 (N, 3, H, W). N is free, H and W are the recipe's.
Writing needs the `onnx` extra.
"""

import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from san_core.data.batches.augmentation import IMAGENET_MEAN, IMAGENET_STD, normalise_by_torch
from san_core.model.onnx_file import DESCRIPTION, PIXEL_LAYOUT, WEIGHTS_SHA256
from san_core.model.san import SAN
from san_core.model.saved import description_text
from san_core.recipe import Recipe

PIXELS = "pixels"  # input: uint8 (N, H, W, 3) RGB
IMAGES = "images"  # input: float32 (N, 3, H, W) RGB, (pixels / 255 - mean) / std
EMBEDDING = "embedding"  # output of an encoder: float32 (N, D), not normalised
TEXTURE = "texture"  # output of a generator: float32 (N, 3, T, T) RGB, meant in [-1, 1]
_OPSET = 18


def check_onnx_installed() -> None:
    """Raise ModuleNotFoundError unless the `onnx` extra is installed, which writing needs."""
    for package in ("onnx", "onnxscript"):
        importlib.import_module(package)


def model_metadata(recipe: Recipe, facts: Mapping[str, Any], sha256: str) -> dict[str, str]:
    """The metadata of the model in a file, beside its layout and size.

    sha256: of the model's weights.
    """
    return {
        "mean": " ".join(map(str, IMAGENET_MEAN)),
        "std": " ".join(map(str, IMAGENET_STD)),
        "colours": "RGB",
        "metric": recipe.metric,
        "recipe": str(facts.get("recipe", "")),
        WEIGHTS_SHA256: sha256,
        DESCRIPTION: description_text(recipe, facts),
    }


def export_encoder(
    path: Path,
    model: SAN,
    recipe: Recipe,
    *,
    layout: str = PIXEL_LAYOUT,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the ReID encoder of `model` as an ONNX file: pixels to embeddings.

    Args:
        path: the .onnx file; an existing one is replaced.
        model: the network of `recipe`; moved to the CPU and put into evaluation mode.
        recipe: gives the size of the images.
        layout: the kind of input, one of `onnx_file.LAYOUTS`.
        metadata: further metadata to store in the file.

    Raises:
        ModuleNotFoundError: the `onnx` extra is not installed.
    """
    _export(path, _Encoder(model), recipe, EMBEDDING, layout=layout, metadata=metadata or {})


def export_generator(
    path: Path,
    model: SAN,
    recipe: Recipe,
    *,
    layout: str = PIXEL_LAYOUT,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a texture generator as an ONNX file: pixels to textures. As `export_encoder`.

    Raises:
        ValueError: the model has no decoder.
        ModuleNotFoundError: the `onnx` extra is not installed.
    """
    if model.decoder is None:
        raise ValueError("the model has no decoder: a baseline cannot generate textures")
    _export(path, _Generator(model), recipe, TEXTURE, layout=layout, metadata=metadata or {})


class _Encoder(nn.Module):
    def __init__(self, model: SAN) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.encoder(images).embedding
        return embedding


class _Generator(nn.Module):
    def __init__(self, model: SAN) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder

    def forward(self, images: Tensor) -> Tensor:
        assert self.decoder is not None  # checked before
        texture: Tensor = self.decoder(self.encoder.stage_maps(images), images).texture
        return texture


class _FromPixels(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        made: Tensor = self.network(normalise_by_torch(pixels))
        return made


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silences the log of the exporter's optimiser."""
    talkers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)


def _export(
    path: Path,
    network: nn.Module,
    recipe: Recipe,
    output: str,
    *,
    layout: str,
    metadata: Mapping[str, str],
) -> None:
    """Write a network that takes normalised images as a file that takes a layout."""
    size = recipe.image_size
    name, example = IMAGES, torch.zeros(2, 3, *size)
    if layout == PIXEL_LAYOUT:
        network, name = _FromPixels(network), PIXELS
        example = torch.zeros(2, *size, 3, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings(), _quiet_exporter():
        # torch's exporter calls functions that torch itself deprecates
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.onnx.export(
            network.to("cpu").eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("images", min=1)},),
            input_names=[name],
            output_names=[output],
            opset_version=_OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # as always with dynamo
    program.model.metadata_props.update(
        {"layout": layout, "input_size": f"{size[0]}x{size[1]}", **metadata}
    )
    program.save(path, external_data=False)
