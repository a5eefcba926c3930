"""What training and inference reach on a GPU, beside its limit: the convolutions alone.

Steps are those of `fit`, batches and augmentation included, on random pictures in memory. The first
epoch warms up; what is not measured when the time is over is named and left out.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from san_core.data.batches.augmentation import normalise_images
from san_core.inference.features import embed
from san_core.inference.textures import predict_textures
from san_core.model.encoder import to_channels_last
from san_core.model.san import SAN, build_network
from san_core.recipe import Recipe, recipe_with_overrides
from san_core.recipes import get_recipe
from san_core.synthesis.person.atlas import mirror_matrix
from san_core.training.loop import EpochReport, TrainingData, fit
from san_core.training.precision import autocast_type, resolve_precision
from tests.benchmarks.figure import Figure
from tests.benchmarks.gpu.busy import busy_share, synchronise
from tests.benchmarks.gpu.convolutions import (
    ConvolutionCall,
    convolutions_per_second,
    record_convolutions,
    runs_per_second,
)
from tests.benchmarks.measuring import commit, machine_facts

# The last thing begun may be a network to be compiled, which takes a minute or two.
SECONDS = 240.0
PRECISIONS = ("float32", "tf32", "bfloat16")
NETWORKS = {
    "baseline": ("cuhk03-baseline", ""),
    "san": ("cuhk03", ""),
    "light_san": ("cuhk03", "texture_size=64 decoder_plan=light"),
}


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    overrides: str = ""  # of every recipe
    people: int = 128
    images: int = 1024
    inference_images: int = 1024
    epochs: int = 2  # that are measured; the first warms up
    seconds: float = 2.0  # that the convolutions are measured for


@dataclass(frozen=True)
class Deadline:
    """When nothing more is begun."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    def is_over(self, name: str) -> bool:
        """Whether there is no time left for what is to be measured, which is then named."""
        over = time.monotonic() - self.started > self.seconds
        if over:
            print(f"{name} is left out: {self.seconds:.0f} s are over", flush=True)
        return over


class Variant(NamedTuple):
    """A way to train."""

    network: str  # of NETWORKS
    precision: str
    compiled: bool

    @property
    def name(self) -> str:
        """How its figures begin."""
        return f"gpu.{self.network}_{self.precision}" + "_compiled" * self.compiled

    def recipe(self, scale: Scale) -> Recipe:
        """What it trains."""
        base, words = NETWORKS[self.network]
        usual = recipe_with_overrides(get_recipe(base), f"pretrained=none {words}")
        return recipe_with_overrides(usual, scale.overrides)


def figures(
    device: torch.device | None = None, scale: Scale | None = None, seconds: float = SECONDS
) -> Iterator[Figure]:
    """All figures, the quick ones first; those of a GPU unless told otherwise."""
    device, scale = device or torch.device("cuda"), scale or Scale()
    deadline = Deadline(seconds)
    precisions = [name for name in PRECISIONS if _is_computed(name, device)]
    yield from _inference_figures(device, scale)
    for compiled in (False, True):
        for precision in reversed(precisions):
            for network in NETWORKS:
                variant = Variant(network, precision, compiled)
                if not deadline.is_over(variant.name):
                    yield from _if_memory_allows(
                        variant.name, partial(_training_figures, variant, device, scale)
                    )


def circumstances() -> dict[str, Any]:
    """The GPU, and what was computed with."""
    facts = torch.cuda.get_device_properties(0)
    return {
        "machine": {
            **machine_facts(),
            "gpu": facts.name,
            "gpu_mib": facts.total_memory // 2**20,
            "cuda": torch.version.cuda,
            "torch": torch.__version__,
        },
        "commit": commit(),
    }


def _is_computed(precision: str, device: torch.device) -> bool:
    """Whether training computes in it on the device; what it says if not is printed."""
    try:
        resolve_precision(precision, device)
    except ValueError as error:
        print(f"{precision} is left out: {error}", flush=True)
        return False
    return True


def _if_memory_allows(name: str, measure: Callable[[], list[Figure]]) -> list[Figure]:
    """The figures, or none where the device has too little memory for them."""
    try:
        return measure()
    except torch.OutOfMemoryError as error:
        print(f"{name} is left out: {str(error).splitlines()[0]}", flush=True)
        return []


def _training_figures(variant: Variant, device: torch.device, scale: Scale) -> list[Figure]:
    """Steps a second, how near the limit that is, how busy the device is, and its memory."""
    recipe = variant.recipe(scale)
    reports = _reports(variant, recipe, device, scale)
    next(reports)
    _forget_peak(device)
    rates = [next(reports).images_per_second for _ in range(scale.epochs)]
    steps = statistics.median(rates) / recipe.images_per_batch
    found = [
        Figure(f"{variant.name}_steps_per_second", steps, "1/s"),
        *_peak_figures(variant.name, device),
        Figure(f"{variant.name}_busy_share", busy_share(lambda: next(reports), device), "share"),
    ]
    reports.close()
    if variant.compiled:  # the limit is the same
        return found
    calls = _step_convolutions(variant, recipe, device, scale)
    limit = convolutions_per_second(
        calls, device, seconds=scale.seconds, precision=variant.precision
    )
    return [
        *found,
        Figure(f"{variant.name}_limit_steps_per_second", limit, "1/s"),
        Figure(f"{variant.name}_of_limit", steps / limit, "share"),
    ]


def _reports(
    variant: Variant, recipe: Recipe, device: torch.device, scale: Scale
) -> Generator[EpochReport, None, None]:
    """The epochs of a training, each trained as it is drawn."""
    torch.compiler.reset()
    yield from fit(
        build_network(recipe, num_classes=scale.people, seed=0),
        random_data(recipe, scale),
        recipe,
        seed=0,
        device=device,
        precision=resolve_precision(variant.precision, device),
        compiled=variant.compiled,
    )


def random_data(recipe: Recipe, scale: Scale) -> TrainingData:
    """Pictures of noise, one texture a person, the mirror of the project's atlas."""
    draw = np.random.default_rng(0)
    people = np.arange(scale.images) % scale.people
    images = draw.integers(0, 256, (scale.images, *recipe.image_size, 3), np.uint8)
    if not recipe.needs_decoder:
        return TrainingData(images=images, labels=people)
    texels = recipe.texture_size
    return TrainingData(
        images=images,
        labels=people,
        textures=draw.integers(0, 256, (scale.people, texels, texels, 3), np.uint8),
        texture_index=people,
        mirror=mirror_matrix(texels),
    )


def _step_convolutions(
    variant: Variant, recipe: Recipe, device: torch.device, scale: Scale
) -> Counter[ConvolutionCall]:
    """The convolutions of one step, as the training loop lays its tensors out."""
    model = build_network(recipe, num_classes=scale.people, seed=0).to(device).train()
    to_channels_last(model)
    half = autocast_type(resolve_precision(variant.precision, device), device)
    pixels = np.zeros((recipe.images_per_batch, *recipe.image_size, 3), np.uint8)
    images = normalise_images(torch.from_numpy(pixels).to(device))

    def step() -> None:
        with torch.autocast(device.type, half, enabled=half is not None):
            output = model(images)
        made = [output.logits, output.texture, *output.maps]
        torch.stack([each.float().mean() for each in made if each is not None]).sum().backward()

    return record_convolutions(step)


def _inference_figures(device: torch.device, scale: Scale) -> Iterator[Figure]:
    """Embeddings and textures a second, pixels on the host to results on the host."""
    usual = recipe_with_overrides(get_recipe("pit"), "pretrained=none embedding=fc512")
    recipe = recipe_with_overrides(usual, scale.overrides)
    model = build_network(recipe, num_classes=0, seed=0).eval()
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (scale.inference_images, *recipe.image_size, 3), np.uint8)
    works: dict[str, Callable[[], object]] = {
        "embedding": lambda: embed(model, images, device=device),
        **_texture_works(model, images, device),
    }
    for name, work in works.items():
        _forget_peak(device)
        rate = runs_per_second(work, device, seconds=scale.seconds) * len(images)
        yield Figure(f"gpu.{name}_images_per_second", rate, "1/s")
        yield from _peak_figures(f"gpu.{name}", device)


def _texture_works(
    model: SAN, images: np.ndarray, device: torch.device
) -> dict[str, Callable[[], object]]:
    """Texture generation, in half precision as well where there is a GPU."""
    precisions = ("float32", "bfloat16") if device.type == "cuda" else ("float32",)
    return {
        f"texture_{precision}": lambda precision=precision: predict_textures(
            model, images, device=device, precision=precision
        )
        for precision in precisions
    }


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_figures(name: str, device: torch.device) -> list[Figure]:
    """The most memory that torch had in use on a GPU; of a processor it keeps no account."""
    if device.type != "cuda":
        return []
    synchronise(device)
    return [Figure(f"{name}_peak_mib", torch.cuda.max_memory_allocated(device) / 2**20, "MiB")]
