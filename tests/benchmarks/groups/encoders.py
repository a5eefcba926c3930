"""Every encoder that recipes name, run once: what it costs, and that it trains, resumes, exports.

Two epochs are trained on tiny data, without textures and with them, and stopped and resumed in the
middle of the second; the ONNX file's embeddings are compared with the network's.
"""

import dataclasses
import hashlib
import io
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import torch

from san_core.data.batches.training_data import TrainingData
from san_core.inference.features import embed
from san_core.model.onnx import EMBEDDING, PIXELS, export_encoder
from san_core.model.san import SAN
from san_core.recipe import Arch, Recipe, recipe_with_overrides
from san_core.training import loop
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import median_cpu_seconds
from tests.san_core.training.tiny_run import tiny_data, tiny_model, tiny_recipe

TEXTURES = {"baseline": "demo-baseline", "san": "demo"}
BATCHES = 2  # an epoch, of 8 images


def figures() -> Iterator[Figure]:
    """Of each encoder: parameters, time an image, equality of bytes resumed, error of ONNX."""
    torch.set_num_threads(1)
    for arch in get_args(Arch):
        recipe = tiny_recipe_of(arch, "demo-baseline")
        model = tiny_model(recipe)
        count = sum(parameter.numel() for parameter in model.encoder.parameters())
        yield Figure(f"encoders.{arch}.parameters", count / 1e6, "million")
        yield Figure(f"encoders.{arch}.image_cpu_seconds", _seconds_an_image(model), "s")
        for kind, base in TEXTURES.items():
            equal = resumes_with_the_same_bytes(tiny_recipe_of(arch, base))
            yield Figure(f"encoders.{arch}.{kind}_resumed_equal", float(equal), "1 if so")
        with tempfile.TemporaryDirectory() as folder:
            yield Figure(f"encoders.{arch}.onnx_error", onnx_error(recipe, Path(folder)), "of std")


def tiny_recipe_of(arch: str, base: str) -> Recipe:
    """A recipe of two epochs on images of 32x32."""
    stride = "" if arch.startswith(("res", "wide")) else "last_stride=2 drop_path=0.2"
    sizes = "image_width=32 epochs=2 checkpoint_every=2"
    return recipe_with_overrides(tiny_recipe(base), f"arch={arch} {stride} {sizes}")


def few_images() -> TrainingData:
    """Two images a person of the data of tiny runs, twice as wide."""
    data = tiny_data()
    first = np.arange(len(data.images)) % 6 < 2
    return dataclasses.replace(
        data,
        images=data.images[first].repeat(2, axis=2),
        labels=data.labels[first],
        texture_index=data.texture_index[first],
    )


def resumes_with_the_same_bytes(recipe: Recipe) -> bool:
    """Whether a run that is stopped in its second epoch ends as one that nobody stopped."""
    undisturbed = _train(recipe, tiny_model(recipe))
    kept, asked = io.BytesIO(), itertools.count(1)
    options = {"on_state": lambda state: torch.save(state, kept)}
    try:
        _train(recipe, tiny_model(recipe), stop=lambda: next(asked) == BATCHES + 1, **options)
    except loop.TrainingStopped:
        state = torch.load(io.BytesIO(kept.getbuffer()), weights_only=True)
        return _train(recipe, tiny_model(recipe, seed=77), state=state) == undisturbed
    raise RuntimeError("training was not stopped")


def _train(recipe: Recipe, model: SAN, **options: Any) -> dict[str, bytes]:
    for _ in loop.fit(model, few_images(), recipe, seed=5, device="cpu", **options):
        pass
    return {
        name: hashlib.sha256(value.contiguous().numpy()).digest()
        for name, value in model.state_dict().items()
    }


def onnx_error(recipe: Recipe, folder: Path) -> float:
    """How far embeddings of the exported encoder lie from the network's, of their deviation."""
    model, images = tiny_model(recipe), few_images().images
    export_encoder(folder / "encoder.onnx", model, recipe)
    session = onnxruntime.InferenceSession(folder / "encoder.onnx")
    (found,) = session.run([EMBEDDING], {PIXELS: images})
    expected = embed(model, images)
    return float(abs(found - expected).max() / expected.std())


def _seconds_an_image(model: SAN) -> float:
    """Median CPU time of the encoder on an image of 256x128, one thread."""
    image = torch.zeros(1, 3, 256, 128)
    model.eval()
    with torch.inference_mode():
        (seconds,) = median_cpu_seconds(lambda: model.encoder(image), times=5)
    return seconds
